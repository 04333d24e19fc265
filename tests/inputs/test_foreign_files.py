"""Constitutions, tables and templates as others write them:
read, or refused with file, line and remedy; never endless."""
import csv
import io
import json
import time
from itertools import product

import pytest

from contemplative_cai.core.recipe import Source
from contemplative_cai.core.schema import InputError
from contemplative_cai.inputs.constitution import load_constitution, parse_constitution
from contemplative_cai.inputs.dialects import LONGEST_CONSTITUTION, MOST_PRINCIPLES
from contemplative_cai.inputs.sources import as_sources, describe_pool, pool_prompts
from contemplative_cai.inputs.tables import LONGEST_PROMPT, ignored_parts, read_prompts
from contemplative_cai.revision.templates import TEMPLATES, Template, load_template

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
