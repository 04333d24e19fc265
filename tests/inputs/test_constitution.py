"""Constitutions: every file round-trips, foreign formats lose nothing,
controls are comparable, tools say what is wrong."""
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contemplative_cai.command.builder import Draft
from contemplative_cai.command.commands import main
from contemplative_cai.command.lint import (
    diff_constitutions,
    lint_constitution,
    lint_file,
    principle_lengths,
    tokenizer_length,
)
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.inputs.constitution import (
    combine,
    constitution_names,
    dump_constitution,
    leave_out,
    load_constitution,
    parse_constitution,
    recipe_constitution,
)
from contemplative_cai.inputs.dialects import canonical_id, dialect, read_dialect, statement
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.weights import load_tokenizer
from contemplative_cai.pairs.generate import generate_pairs

FULL = ("contemplative", "charter", "generic", "improve", "unrelated")  # those that are to be compared

STRUCTURED = """# Rules of the Garden

Some words before the first principle.

## Emptiness Principle

What stands here is the description.

### Critique Template
Does this answer treat the garden as if it would never change?

### Revision Guideline
Say what the season asks for.
It may be other next month.

### Example Application
- Name the season
- Leave room for weather

## Boundless Care Principle

### Critique Template
Who is left out, such as worms?

### Revision Guideline
Bring them in.

### Example Application
- Think of the worms
"""
DIRECTIVES = """## Meta principles:

Hold every clause lightly.

Prefer what lessens trouble for all.

## Emptiness (śūnyatā)

E1. Choose the response that treats plans as provisional.
E2. Choose the response that, where the ground is wet, adds a caution.  \n\
E3. Please select the answer which compares two ways of digging; state which is slower.

## Non‑Duality (Advaya)

ND1. Choose the response that sees gardener and garden as one.

## Mindfulness (sati)

M1. Answer the question first.
M10. Choose the response that is calm.

## Non-Referential Compassion (anālambana karuṇā)

BC1. Choose the response that helps everyone on the plot.
"""
HEADERLESS = """Choose the response that demonstrates mindfulness (sati) of what was asked; names guesses.
Choose the response that follows emptiness (śūnyatā) and avoids hard rules.

Choose the response that embodies non‑duality (advaya).
Choose the response that expresses anālambana karuṇā (non‑referential compassion) for each worm.
Choose the response that is merry.
"""
FOREIGN = {"structured": STRUCTURED, "directives": DIRECTIVES, "headerless": HEADERLESS}


def words(text): return Counter(re.findall(r"\w+", text.lower()))


# ours


@pytest.mark.parametrize("name", constitution_names())
def test_load_save_load(name, tmp_path):
    constitution = load_constitution(name)
    (tmp_path / "again.md").write_text(dump_constitution(constitution))
    assert (load_constitution(str(tmp_path / "again.md")) == constitution
            and Draft.of(constitution).build() == constitution)


@pytest.mark.parametrize("name", constitution_names())
def test_nothing_to_find_fault_with(name):
    assert lint_constitution(load_constitution(name)) == []


def test_constitutions_are_comparable():
    """The same number of principles and examples, lengths within 5 % in the embedded model's tokens; the same example
    questions and first answers, but for the control that must not touch what they say."""
    count, reference = tokenizer_length(load_tokenizer(model_spec("smollm2-135m"))), load_constitution("contemplative")
    length = sum(row["total"] for row in principle_lengths(reference, count))
    for name in FULL:
        c = load_constitution(name)
        assert [len(p.examples) for p in c.principles] == [3] * 4
        same = [(e.prompt, e.response) for p in c.principles for e in p.examples] == [
            (e.prompt, e.response) for p in reference.principles for e in p.examples]
        assert same == (name != "unrelated"), name
        assert abs(sum(row["total"] for row in principle_lengths(c, count)) / length - 1) < 0.05, name
        if name != "charter": assert [len(p.clauses) for p in c.principles] == [5] * 4
    minimal = load_constitution("contemplative-minimal")
    assert ([p.examples for p in minimal.principles] == [p.examples for p in reference.principles]
            and all(len(p.clauses) == 1 for p in minimal.principles))


def test_the_control_of_prose_has_no_fault_to_keep_or_to_mend():
    """A first answer that insults somebody can only be defended or mended, so its examples' answers are free of fault:
    no example of another constitution, no word on what somebody is, and every figure and name is left as it was."""
    control = load_constitution("unrelated")
    examples = [example for principle in control.principles for example in principle.examples]
    others = {example.prompt for name in constitution_names() if name != "unrelated"
              for principle in load_constitution(name).principles for example in principle.examples}
    assert len(examples) == 12 and not others & {example.prompt for example in examples}
    texts = " ".join(text for one in examples for text in (one.response, one.revision)).lower()
    for insult in ("one of them", "her kind", "people like", "problem with this street", "kind of person", "selfish"):
        assert insult not in texts
    for one in examples:
        assert one.response not in one.revision and words(one.revision) != words(one.response)


def test_controls_say_nothing_contemplative():
    """No control names a principle of the treatment, in any inflection,
    outside the questions and first answers they share."""
    for name in ("generic", "improve", "unrelated"):
        for p in load_constitution(name).principles:
            said = " ".join([p.title, p.description, *p.clauses, p.critique_request, p.revision_request,
                             *(text for e in p.examples for text in (e.critique, e.revision))]).lower()
            assert not re.search(
                r"contemplat|emptiness|non-?dual|boundless|mindful|interdepend|compassion|awareness|provisional", said
            ), p.id


def test_each_charter_principle_has_two_clauses():
    charter = load_constitution("charter")
    assert (all(len(p.clauses) == 2 for p in charter.principles)
            and "suffering" in " ".join(charter.meta_principles).lower())


# theirs


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_foreign_formats_are_read_without_loss(kind, ending, tmp_path):
    "Every word below a heading is in the record, the record survives our own file, and the id is the file's name."
    path = tmp_path / "My rules (v2).md"
    path.write_bytes(("\ufeff" + FOREIGN[kind].replace("\n", ending)).encode())
    c = load_constitution(str(path))
    body = "\n".join(line for line in FOREIGN[kind].split("\n") if not line.startswith("#"))
    record = " ".join([
        c.preamble, *c.meta_principles,
        *(text for p in c.principles for text in (p.description, *p.clauses, p.critique_request, p.revision_request))
    ])
    assert dialect(FOREIGN[kind]) == kind and not words(body) - words(record)
    assert parse_constitution(dump_constitution(c), "again.md") == c and c.id == "my-rules-v2"


def test_principles_get_their_canonical_ids():
    assert [p.id for p in read_dialect(STRUCTURED, "a.md").principles] == ["emptiness", "boundless_care"]
    assert ([p.id for p in read_dialect(DIRECTIVES, "a.md").principles]
            == ["emptiness", "non_duality", "mindfulness", "boundless_care"])
    assert ([p.id for p in read_dialect(HEADERLESS, "a.md").principles]
            == ["mindfulness", "emptiness", "non_duality", "boundless_care", "clause_5"])


@pytest.mark.parametrize("name, id", [
    ("Non\u2010Duality", "non_duality"),
    ("NON-DUALITY PRINCIPLE", "non_duality"),
    ("The principle of emptiness", "emptiness"),
    ("Karuṇā", "boundless_care"),
    ("Compassion", "boundless_care"),
    ("Mindfulness (sati)", "mindfulness"),
    ("2) Sati", "mindfulness"),
    ("Self-compassion", "self_compassion"),
    ("42", "principle_42"),
])
def test_canonical_names(name, id):
    assert canonical_id(name) == id


@pytest.mark.parametrize("kind", ["directives", "headerless"])
def test_clauses_are_turned_round_not_pasted(kind):
    for p in read_dialect(FOREIGN[kind], "a.md").principles:
        asked = p.critique_request + p.revision_request
        assert (not re.search(r"(choose|select) the (response|answer)", asked, re.IGNORECASE)
                and not re.search(r"\b[A-Z]{1,2}\d+\.", asked))
        assert all(statement(clause) in asked for clause in p.clauses)
    assert (statement("E3. Please select the answer which compares.") == "It compares."
            and statement("M1. Answer first.") == "Answer first.")


def test_worked_examples_in_a_structured_file():
    text = STRUCTURED.replace(
        "- Name the season",
        ("- Name the season\n\n### Example Conversation\n**User**: When do I sow?\n**Assistant**: In March, always.\n"
         "**Critique**: It forgets the frost.\n**Revision**: When the nights stay mild."),
        1,
    ).replace("\n- Leave room for weather", "")
    example = read_dialect(text, "a.md").principles[0].examples[0]
    assert (example.prompt, example.revision) == ("When do I sow?", "When the nights stay mild.")


def test_every_principles_problem_is_named():
    text = STRUCTURED.replace("### Revision Guideline\nBring them in.\n",
                              "").replace("### Critique Template\nDoes", "### Critic\nDoes")
    with pytest.raises(InputError) as caught: read_dialect(text, "garden.md")
    assert len(caught.value.problems) == 2 and all("garden.md, line" in problem for problem in caught.value.problems)


# leaving out, combining


def test_leave_one_out_and_combine_reach_the_pairs(scripted, contemplative):
    """The recipe's options decide which principles the rows carry;
    the digest in every pair tells the constitutions apart."""
    recipe = build_recipe({"n_prompts": 4, "leave_out": "boundless_care", "combine": "emptiness+mindfulness",
                           "filters": "empty,identical"})
    constitution = recipe_constitution(recipe)
    made = generate_pairs(open_run("mine"), recipe, scripted)
    assert {row.principle for row in [*made.kept, *made.dropped]} == {"emptiness_and_mindfulness", "non_duality"}
    assert all(pair.constitution == f"contemplative@{constitution.digest}" != f"contemplative@{contemplative.digest}"
               for pair in made.kept)
    both = constitution.principles[0]
    for id in ("emptiness", "mindfulness"):
        single = next(p for p in contemplative.principles if p.id == id)
        assert (single.critique_request in both.critique_request
                and single.revision_request in both.revision_request and set(single.clauses) <= set(both.clauses))
    assert both.examples[:2] == (contemplative.principles[0].examples[0], contemplative.principles[3].examples[0])


@given(st.lists(st.sampled_from(["emptiness", "non_duality", "boundless_care", "mindfulness"]), unique=True, min_size=1,
                max_size=3))
@settings(max_examples=20, deadline=None)
def test_leaving_out_keeps_the_others_as_they_are(ids):
    contemplative = load_constitution("contemplative")
    assert (list(leave_out(contemplative, tuple(ids)).principles)
            == [p for p in contemplative.principles if p.id not in ids])
    if len(ids) > 1:
        assert (parse_constitution(dump_constitution(combine(contemplative, ("+".join(ids),))))
                == combine(contemplative, ("+".join(ids),)))


# tools


def test_lint_names_line_and_part(tmp_path, contemplative):
    text = dump_constitution(contemplative).replace(contemplative.principles[1].examples[1].revision,
                                                    ("Here is the revised answer: stay firm, and leave your neighbours "
                                                     "the room they need to say yes in their own time."))
    (tmp_path / "mine.md").write_text(text)
    (found,) = lint_file(tmp_path / "mine.md")
    assert (found.level == "warning" and found.where == "Non-duality, example 2"
            and "leaked_preamble" in found.what and text.split("\n")[found.line - 1].startswith("## Non-duality"))
    (tmp_path / "broken.md").write_text(text.replace("### Revision request\n\nNow answer", "### Revise\n\nNow answer"))
    assert [f.level for f in lint_file(tmp_path / "broken.md")] == ["error"]


def test_lint_warns_of_a_question_that_would_leak(contemplative):
    from contemplative_cai.inputs.sources import load_prompts
    example = contemplative.principles[0].examples[0].model_copy(update={"prompt": load_prompts("edge_cases")[3].text})
    principle = contemplative.principles[0].model_copy(
        update={"examples": (example, *contemplative.principles[0].examples[1:])}
    )
    assert any("edge_cases" in f.what
               for f in lint_constitution(
                   contemplative.model_copy(update={"principles": (principle, *contemplative.principles[1:])})
               ))


def test_the_commands(tmp_path, capsys):
    def say(*argv):
        status = main(["constitution", *map(str, argv)])
        return status, capsys.readouterr()
    (tmp_path / "garden.md").write_text(STRUCTURED)
    (tmp_path / "broken.md").write_text(STRUCTURED.replace("### Revision Guideline", "### Revision", 1))
    status, said = say("lint")
    assert status == 0 and said.out.count("nothing to find fault with") == len(constitution_names())
    status, said = say("lint", tmp_path / "garden.md", tmp_path / "broken.md")
    assert status == 2 and "no worked example" in said.out and "did you mean 'Revision Guideline'" in said.out
    status, said = say("show", "charter", "--model", "random-tiny")
    assert status == 0 and "tokens of random-tiny" in said.out and load_constitution("charter").digest in said.out
    status, said = say("show", tmp_path / "garden.md", "--full")
    assert status == 0 and parse_constitution(said.out, "x.md") == load_constitution(str(tmp_path / "garden.md"))
    status, said = say("diff", "contemplative", "contemplative-minimal")
    assert status == 0 and "mindfulness: clauses" in said.out and ": example" not in said.out
    status, said = say("diff", "contemplative", "contemplativ")
    assert status == 2 and "did you mean 'contemplative'" in said.err


def test_tables_escape_what_people_wrote(contemplative):
    evil = contemplative.model_copy(update={"title": "<script>alert(1)</script>"})
    for page in (evil._repr_html_(), diff_constitutions(contemplative, evil)._repr_html_()):
        assert "<script>" not in page and "&lt;script&gt;" in page
    assert str(diff_constitutions(contemplative, contemplative)).endswith("say the same")


def test_saving_refuses_what_would_be_misread(tmp_path, contemplative):
    draft = Draft.of(contemplative)
    draft.save(tmp_path)
    before = Path(tmp_path / "contemplative.md").read_bytes()
    draft.principles[2]["critique_request"] = "Look again.\n\n## A heading\n\nAnd again."
    with pytest.raises(InputError, match="misread"): draft.save(tmp_path, replace=True)
    assert ((tmp_path / "contemplative.md").read_bytes() == before
            and [p.name for p in tmp_path.iterdir()] == ["contemplative.md"])
