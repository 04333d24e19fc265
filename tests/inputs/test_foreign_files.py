"""Constitutions, tables and templates as others write them:
read, or refused with file, line and remedy; never endless."""
import csv
import io
import itertools
import json
import time

import pytest

from contemplative_cai.core.recipe import Source
from contemplative_cai.core.schema import InputError
from contemplative_cai.inputs.constitution import load_constitution, parse_constitution
from contemplative_cai.inputs.dialects import LONGEST_CONSTITUTION, MOST_PRINCIPLES
from contemplative_cai.inputs.sources import as_sources, describe_pool, pool_prompts
from contemplative_cai.inputs.tables import LONGEST_PROMPT, ignored_parts, read_prompts
from contemplative_cai.revision.templates import TEMPLATES, Template, load_template


def product(*ways) -> list: return list(itertools.product(*ways))


HEAD = ("## {name} Principle\n{description}\n\n### Critique Template\nWhere is it hasty?\n\n"
        "### Revision Guideline\n{guide}\n")
LABELS = [("**User**:", "**Assistant**:", "**Critique**:", "**Revision**:"),
          ("User:", "Assistant:", "Critique:", "Revision:"),
          ("**User:**", "**Assistant:**", "**Critique:**", "**Revision:**"),
          ("- **User**:", "- **Assistant**:", "- **Critique**:", "- **Revision**:"),
          ("**Human**:", "**Response**:", "**Critique**:", "**Revised response**:")]
TEXTS = ("Is he rude?\nHe did not greet me.", "Yes.", "It takes a guess for a fact.", "Perhaps he did not see you.")


@pytest.mark.parametrize("labels, examples, described, blank", product(LABELS, (1, 3), (True, False), ("\n", "\n\n")))
def test_a_conversation_for_an_example_is_read(labels, examples, described, blank):
    "Whether a description is there or not: the clauses are what the file says of a good answer."
    said = blank.join(f"{label} {text}" for _ in range(examples) for label, text in zip(labels, TEXTS))
    description = "- It waits.\n- It asks first." if described else ""
    text = HEAD.format(name="Patience", description=description, guide="Rewrite it slowly. Keep what helps.")
    principle, = parse_constitution(f"{text}\n### Example Conversation\n{said}\n", "theirs.md").principles
    assert len(principle.examples) == examples and principle.examples[-1].prompt == TEXTS[0]
    assert principle.clauses == (("It waits.", "It asks first.") if described
                                 else ("Rewrite it slowly.", "Keep what helps."))


@pytest.mark.parametrize("left_out", range(4))
def test_an_example_without_a_part_names_it(left_out):
    said = "\n".join(f"{label} {text}" for i, (label, text) in enumerate(zip(LABELS[0], TEXTS)) if i != left_out)
    text = HEAD.format(name="Patience", description="Wait.", guide="Wait.")
    with pytest.raises(InputError,
                       match="theirs.md, line .*has no " + ("prompt", "response", "critique", "revision")[left_out]):
        parse_constitution(f"{text}\n### Example Conversation\n{said}\n", "theirs.md")


@pytest.mark.parametrize("name, meaning",
                         product(("trait", "principle", "rule"), ("clarification", "description", None)))
def test_a_trait_a_line(name, meaning, tmp_path):
    "Its questions are prompts, and read as such from the same file."
    rows = [{name: f"I say what I do not know, number {i}.", "questions": ["Who wins?", f"Will it rain on day {i}?"]}
            | ({meaning: "No guesses."} if meaning else {}) for i in range(5)]
    path = tmp_path / "traits.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    constitution = load_constitution(str(path))
    assert [principle.clauses for principle in constitution.principles] == [(row[name],) for row in rows]
    assert len({principle.id for principle in constitution.principles}) == 5 and constitution.id == "traits"
    assert constitution.principles[0].description == ("No guesses." if meaning else "")
    assert len(read_prompts(path)) == 10


@pytest.mark.parametrize("line", ["[]", "{}", '{"trait": ""}', '{"trait": 3}', "{", "3", '{"traits": "x"}'])
def test_a_line_without_a_trait_is_named(line):
    with pytest.raises(InputError, match="t.jsonl, line 2"):
        parse_constitution(f'{{"trait": "Kind."}}\n{line}', "t.jsonl")


ENDLESS = {"own": ("---\nid: a\ntitle: a\nlanguage: en\nversion: 1\n---\n",
                   "## P{i} {{#p{i}}}\n### Clauses\n- a\n### Critique request\nx\n### Revision request\ny\n"),
           "directives": ("", "## P{i}\nE1. Be kind.\n"), "headerless": ("", "Be kind {i} times.\n"),
           "jsonl": ("", '{{"trait": "Be kind {i} times."}}\n')}


@pytest.mark.long
@pytest.mark.parametrize("kind, count", product(ENDLESS, (MOST_PRINCIPLES + 1, 20_000, 2_000_000)))
def test_a_constitution_has_bounds(kind, count):
    head, part = ENDLESS[kind]
    parts = (part.format(i=i) for i in range(min(count, 2 * LONGEST_CONSTITUTION // len(part))))
    started = time.monotonic()
    with pytest.raises(InputError, match="expected at most|expected a constitution of at most"):
        parse_constitution(head + "".join(parts), "c.jsonl" if kind == "jsonl" else "c.md")
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("critique, revision, named", product(("critique_request", "critique", "critic"),
                                                              ("revision_request", "revision"), (True, False)))
def test_two_requests_a_line(critique, revision, named, tmp_path):
    "As other projects list their principles: how to find fault, how to mend."
    rows = [{critique: f"Where is answer {i} hasty?", revision: f"Write answer {i} slowly. Keep what helps."}
            | ({"name": f"Patience {i}"} if named else {}) for i in range(3)]
    path = tmp_path / "theirs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    principles = load_constitution(str(path)).principles
    assert [(p.critique_request, p.revision_request) for p in principles] == [(r[critique], r[revision]) for r in rows]
    assert principles[1].clauses == ("Write answer 1 slowly.", "Keep what helps.")
    assert principles[1].title == ("Patience 1" if named else "Write answer 1 slowly. Keep what helps")
    path.write_text(json.dumps({critique: "Where?"}))
    with pytest.raises(InputError, match="critique_request"): load_constitution(str(path))


@pytest.mark.parametrize("line, what", [
    ('{"trait": "Kind.", "trait": "Cruel."}', "appears twice"), ('{"trait": "Be kind."}', "stands there twice"),
    ('{"trait": "..."}', "expected an object"), ('{"trait": "a\\ud800"}', "half a character")])
def test_a_line_that_would_say_something_else_is_refused(line, what):
    with pytest.raises(InputError, match=f"t.jsonl, line 2: .*{what}"):
        parse_constitution(f'{{"trait": "Be kind."}}\n{line}', "t.jsonl")


@pytest.mark.parametrize("text, kind", [
    ('[{"critic": "x", "revision": "y"}]', "JSON"), ('{"principles": ["Be kind."]}', "JSON"),
    ("| principle | clause |\n|---|---|\n| care | Be kind |", "a table"), ("<ul>\n<li>Be kind.</li>\n</ul>", "HTML"),
    ("<!DOCTYPE html>\nBe kind.", "HTML"), ("principles:\n  - Be kind.\n  - Wait.", "YAML"),
    ("principles:\n- Be kind.", "YAML"), ("care:\n  text: Be kind.", "YAML"), ("care: |\n  Be kind.", "YAML")])
def test_lines_of_another_format_are_no_clauses(text, kind):
    with pytest.raises(InputError, match=f"theirs.md: it is written as {kind}"): parse_constitution(text, "theirs.md")
    assert (
        len(parse_constitution("Be kind: it helps.\nSay [this] {often}, 3 < 4 | 5.\n- Wait.", "m.md").principles) == 3
    )


OWN = ("---\nid: a\ntitle: A\nlanguage: en\nversion: 1\n---\n## Patience {#patience}\n### Clauses\n- It waits.\n"
       "### Critique request\nWhere?\n### Revision request\nSlow it down.\n")


@pytest.mark.parametrize("part", ["Clauses", "Critique request", "Revision request"])
@pytest.mark.parametrize("written", ["{}:", "**{}**", "{}\u200b", "\u2060{}", "{} ###", "*{}:*", "{}  "])
def test_a_heading_is_known_by_what_can_be_seen(part, written):
    assert (parse_constitution(OWN.replace(f"### {part}", f"### {written.format(part)}"), "m.md")
            == parse_constitution(OWN, "m.md"))


@pytest.mark.parametrize("part", ["Clauses", "Critique request", "Revision request"])
@pytest.mark.parametrize("written", ["###{}", "**{}**", "###\u00a0{}", "{}:"])
def test_what_is_no_heading_is_pointed_at(part, written):
    text = OWN.replace(f"### {part}", written.format(part))
    line = next(number for number, line in enumerate(text.split("\n"), 1) if line == written.format(part))
    with pytest.raises(InputError, match=f"has no {part.lower()}.*near line {line} it is written otherwise"):
        parse_constitution(text, "m.md")


@pytest.mark.parametrize("ending", [".md", ".MD", ".markdown", ".json", ".yaml", ".txt", ".md.gz", ""])
def test_the_ending_says_what_a_file_is(ending, tmp_path):
    path = tmp_path / f"mine{ending}"
    path.write_text(OWN)
    if ending.lower() in (".md", ".markdown"): assert load_constitution(str(path)).id == "a"
    else:
        with pytest.raises(InputError, match="expected a .md or .jsonl file, found one that ends in"):
            load_constitution(str(path))


# tables

def table(rows, sign=","):
    file = io.StringIO()
    csv.writer(file, delimiter=sign).writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize("columns, rows", product((0, 1, 5), (0, 1, 7)))
def test_what_is_empty_is_left_out_and_counted(columns, rows, tmp_path):
    path = tmp_path / "mine.csv"
    beside = [""] * columns
    path.write_text(table([["text", "topic", *beside], ["Is tea good?", "food", *beside], *[["", " ", *beside]] * rows,
                           ["And rice?", "", *beside]]))
    assert [prompt.text for prompt in read_prompts(path)] == ["Is tea good?", "And rice?"]
    counts = {"empty rows": rows, "columns without a name": columns}
    assert ignored_parts(path) == {name: count for name, count in counts.items() if count}
    assert describe_pool(pool_prompts(str(path)))["ignored"] == ignored_parts(path)


def test_a_value_in_a_column_without_a_name_is_not_lost(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("text,,topic\nIs tea good?,mine,food\n")
    with pytest.raises(InputError, match="mine.csv, line 2: a value in a column without a name"): read_prompts(path)


@pytest.mark.parametrize("sign, name", [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_a_wrong_separator_is_named(sign, name, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(table([["text", "topic"], ["Is tea good?", "food"]], sign))
    with pytest.raises(InputError, match=f"mine.csv: column 'text' is missing.*divided by {name}"): read_prompts(path)
    path.write_text(f"sep={sign}\n" + path.read_text())
    with pytest.raises(InputError, match="line 1: 'sep=.*take the line out"): read_prompts(path)


@pytest.mark.parametrize("hidden, ending", product("\u200b\u2060\u00ad\u200e\u00a0\u202f", (".csv", ".jsonl")))
def test_a_header_with_what_cannot_be_seen_is_named(hidden, ending, tmp_path):
    path = tmp_path / f"mine{ending}"
    name = f"release{hidden}_prompt_id" if hidden not in "\u00a0\u202f" else f"my{hidden}text"
    path.write_text(json.dumps({name: "Is tea good?"}) if ending == ".jsonl" else f"{name}\nIs tea good?\n")
    wanted = name.replace(hidden, "" if hidden not in "\u00a0\u202f" else " ")
    with pytest.raises(InputError, match="a character in its name that cannot be seen"):
        read_prompts(path, source=Source(source="file", columns={"text": wanted}))


@pytest.mark.parametrize("column, history", product(("messages", "prompt"), (True, False)))
def test_rows_in_chat_form(column, history, tmp_path):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is tea good?"},
             {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And late?"},
             {"role": "assistant", "content": "No."}]
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({column: turns}))
    prompt, = read_prompts(path, source=Source(source="file", history=history))
    assert (prompt.text, len(prompt.history)) == (("And late?", 3) if history else ("Is tea good?", 0))
    for broken in ([], [{"role": "tool", "content": "x"}], [{"content": "x"}], [{"role": "user", "content": 3}],
                   [{"role": "assistant", "content": "x"}], "text", 3, [3, {}]):
        path.write_text(json.dumps({column: broken}))
        with pytest.raises(InputError, match="chat.jsonl, line 1"): read_prompts(path)


ROLES = {"role": ("user", "assistant", "system", "developer"), "from": ("human", "gpt", "system", "system")}


@pytest.mark.parametrize("column, role, history",
                         product(("messages", "prompt", "conversations"), ROLES, (True, False)))
@pytest.mark.parametrize("parts", [False, True])
def test_a_conversation_in_other_words(column, role, history, parts, tmp_path):
    "Roles as other tools name them, and contents in parts."
    text = "value" if role == "from" else "content"
    user, assistant, *systems = ROLES[role]
    def said(words): return [{"type": "text", "text": words}] if parts else words
    for system in systems:
        turns = [{role: system, text: said("Be brief.")}, {role: user, text: said("Is tea good?")},
                 {role: assistant, text: said("Yes.")}, {role: user, text: said("And late?")}]
        path = tmp_path / "chat.jsonl"
        path.write_text(json.dumps({column: turns}))
        prompt, = read_prompts(path, source=Source(source="file", history=history))
        assert [prompt.text, *(turn.role for turn in prompt.history)] == (
            ["And late?", "system", "user", "assistant"] if history else ["Is tea good?"])
    for broken in ([{"type": "image"}], [{"type": "text", "text": "x", "image": "y"}], [], None):
        path.write_text(json.dumps({column: [{role: user, text: broken}]}))
        with pytest.raises(InputError, match="chat.jsonl, line 1"): read_prompts(path)


@pytest.mark.parametrize("content, what", [
    (b"<!DOCTYPE html>\n<html></html>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\nsize 1", "Git LFS"),
    (b"PK\x03\x04\x14", "Excel"),
    (b"PAR1\x15\x04", "Parquet"),
    (b"SQLite format 3\0", "database"),
    (b"%PDF-1.7\n", "PDF"),
    ("text\nIs tea good?".encode("utf-16-le"), "UTF-16"),
])
def test_what_is_no_table_is_named(content, what, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"It looks like (?:an? )?{what}") as refused: read_prompts(path)
    assert "Rename the column" not in str(refused.value)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_header_between_the_rows_is_no_prompt(rows, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(table([["text", "topic"], *[["Is tea good?", "food"]] * rows]) * 2)
    with pytest.raises(InputError, match=f"mine.csv, line {rows + 2}: the header stands there again"):
        read_prompts(path)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_prompt_has_a_bound(ending, tmp_path):
    path, started = tmp_path / f"mine{ending}", time.monotonic()
    text = "x" * 50_000_000
    path.write_text(f"text\n{text}\n" if ending == ".csv" else json.dumps({"text": text}))
    with pytest.raises(InputError, match=f"50,000,000 characters; expected a prompt of at most {LONGEST_PROMPT:,}"):
        read_prompts(path)
    assert time.monotonic() - started < 20


# templates

@pytest.mark.parametrize("field", ["{prompt:>9999999999}", "{prompt!r}", "{prompt!s:>99}", "{prompt:{request}}",
                                   "{prompt.__class__}", "{prompt[0]}", "{prompt:}}", "{0}", "{}", "{prompt", "}"])
@pytest.mark.parametrize("part", ["critique", "revision"])
def test_a_variable_is_a_plain_name(field, part, tmp_path):
    values = TEMPLATES["conversation"].model_dump() | {part: f"{{request}} {{prompt}} {field}"}
    with pytest.raises(ValueError): Template(**values)
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match="mine.yaml"): load_template(str(path))


def test_sources_are_still_what_they_were(): assert as_sources("practice")[0].source == "practice"
