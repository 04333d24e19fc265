"""Records, constitutions, pairs and reviews: round trips, and every filter made to speak."""
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contemplative_cai.core.files import read_rows
from contemplative_cai.core.recipe import FILTERS, Recipe, build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import (
    Constitution,
    Critique,
    Dropped,
    InputError,
    PreferencePair,
    Principle,
    Prompt,
    Response,
    Revision,
    Triple,
    WorkedExample,
)
from contemplative_cai.inputs.constitution import dump_constitution, parse_constitution
from contemplative_cai.pairs.filters import ALWAYS, FILTER_FUNCTIONS, Thresholds
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.make import filter_triples, load_pairs
from contemplative_cai.pairs.waterfall import waterfall, yields
from contemplative_cai.review.session import open_review
from contemplative_cai.review.votes import apply_reviews
from contemplative_cai.revision.templates import CONVERSATION, critique_conversation, revision_conversation, shots

words = st.text("abcdefg ,.'", min_size=1, max_size=60).map(str.strip).filter(lambda t: t and t[0] not in "-#")
examples = st.builds(WorkedExample, prompt=words, response=words, critique=words, revision=words)
principles = st.builds(Principle, id=st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
                       title=st.from_regex(r"[A-Z][a-z]{1,9}", fullmatch=True).filter(lambda t: t != "Meta-principles"),
                       description=words, clauses=st.lists(words, min_size=1, max_size=3).map(tuple),
                       critique_request=words, revision_request=words,
                       examples=st.lists(examples, max_size=3).map(tuple))


@given(st.lists(principles, min_size=1, max_size=4, unique_by=lambda p: p.id), st.lists(words, max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_constitution_survives_its_file(found, meta):
    constitution = Constitution(id="mine", title="Mine", language="en", version="1", meta_principles=tuple(meta),
                                principles=tuple(found))
    assert parse_constitution(dump_constitution(constitution)) == constitution


def test_headings_inside_code_are_not_headings(contemplative):
    text = dump_constitution(contemplative).replace("### Clauses", "```\n## not a principle\n```\n\n### Clauses", 1)
    assert [p.id for p in parse_constitution(text).principles] == [p.id for p in contemplative.principles]


def test_the_first_constitution_is_whole(contemplative):
    assert [p.id for p in contemplative.principles] == ["emptiness", "non_duality", "boundless_care", "mindfulness"]
    assert all(len(p.examples) >= 3 and len(p.clauses) >= 3 for p in contemplative.principles)


@pytest.mark.parametrize("index", range(4))
def test_worked_examples_pass_the_filters_they_teach(contemplative, index):
    "An example's own revision must not be one a filter would drop (it is, of course, a copy of itself)."
    principle = contemplative.principles[index]
    for example in principle.examples:
        triple = make_triple(example.prompt, example.response, example.critique, example.revision, principle.id)
        for name in set(FILTER_FUNCTIONS) - {"copied_example"}:
            assert FILTER_FUNCTIONS[name](triple, principle, Thresholds()) is None, (name, example.prompt)


def make_triple(question, answer, critique, revision, principle="emptiness", reason="stop"):
    prompt = Prompt(text=question, source="test")
    common = dict(prompt_id=prompt.id, model="m", seed=0)
    response = Response(text=answer, finish_reason="stop", **common)
    written = Critique(text=critique, response_id=response.id, principle=principle, finish_reason="stop", **common)
    return Triple(prompt=prompt, principle=principle, response=response, critique=written, revision=Revision(
        text=revision, critique_id=written.id, principle=principle, finish_reason=reason, **common
    ))


def test_the_question_is_in_every_turn_and_goes_through_the_chat_template(contemplative):
    "Trap: the closest public project's critiques never saw the question."
    from contemplative_cai.models.catalog import model_spec
    from contemplative_cai.models.local import load_llm
    triple, principle = (make_triple("Is my neighbour simply rude?", "Yes.", "It labels her.", "Ask her."),
                         contemplative.principles[0])
    tiny = load_llm(model_spec("random-tiny"), "float32", "cpu")
    shown = shots(contemplative, principle, 2)
    for conversation in (
        critique_conversation(CONVERSATION, principle, triple.prompt, triple.response, shown),
        revision_conversation(CONVERSATION, principle, triple.prompt, triple.response, triple.critique, shown),
    ):
        own = conversation[12:]  # after two worked examples of six turns
        assert all(triple.prompt.text in message.content for message in own if message.role == "user")
        rendered = tiny.tokenizer.decode(tiny._encode(conversation))
        assert (rendered.count(triple.prompt.text) == sum(message.role == "user" for message in own)
                and rendered.endswith("<|im_start|>assistant\n"))


CLEAN = ("She may be tired, or shy with new people. "
         "Say hello tomorrow and see what comes back before you decide what she is like.")
LEAKS = [
    "Here's the revised answer: call her.",
    "My previous response was too hard on her. Call her.",
    "The answer should leave the door open, so call her.",
    "Revision: call her.",
    "In light of the critique, call her.",
    "<|im_start|>assistant Call her.",
    "My question was: is she rude?",
    "An updated version of this: call her tonight and ask.",
]
HARD_NEGATIVES = ["I would revise the essay once more before you hand it in tomorrow morning.",
                  "Answer her letter when you are calm, and keep it short.",
                  "The question is not whether she is rude but what you want."]


@pytest.mark.parametrize("text", LEAKS)
def test_leaks_are_found(contemplative, text):
    assert FILTER_FUNCTIONS["leaked_preamble"](make_triple("Is she rude?", "Yes.", "It labels.", text),
                                               contemplative.principles[0], Thresholds())


@pytest.mark.parametrize("text", [CLEAN, *HARD_NEGATIVES])
def test_clean_answers_are_not_leaks(contemplative, text):
    assert not FILTER_FUNCTIONS["leaked_preamble"](make_triple("Is she rude?", "Yes.", "It labels.", text),
                                                   contemplative.principles[0], Thresholds())


ANSWER = ("Yes, she is simply rude, and rude people stay that way, "
          "so there is no use in trying anything with her at all.")
MARRED = {
    "empty": ("...", "stop"),
    "cut_off": (CLEAN, "length"),
    "identical": (ANSWER.upper(), "stop"),
    "near_identical": (ANSWER.replace("trying", "testing"), "stop"),
    "leaked_preamble": ("Here is the revised answer. " + CLEAN, "stop"),
    "copied_example": ("an example", "stop"),
    "repetition_loop": ("Say hello and then wait. " * 6, "stop"),
    "length_ratio": ("Say hello.", "stop"),
    "language_switch": (("Vielleicht ist sie müde oder bei neuen Leuten schüchtern. "
                         "Grüß sie morgen und sieh, was zurückkommt, bevor du urteilst."),
                        "stop"),
    "principle_vocabulary": (
        "Be mindful of her, with compassion and equanimity, and say hello tomorrow to see what comes back.", "stop"
    ),
}


@pytest.mark.parametrize("name", FILTER_FUNCTIONS)
def test_a_filter_that_is_switched_off_is_silent(contemplative, name):
    "Each marred row is dropped by its own filter, and for no such reason without it."
    answer, (text, reason) = ((ANSWER, MARRED[name]) if name in MARRED
                              else ("I'm sorry, but I can't help with that.",
                                    ("I am not able to help with that, but I hope you find a way.", "stop")))
    triple = make_triple("Is she rude?", answer, "It labels her.",
                         contemplative.principles[0].examples[0].revision if name == "copied_example" else text,
                         reason=reason)
    assert filter_triples([triple], contemplative)[1][0].reason == name
    kept, dropped = filter_triples([triple], contemplative, tuple(other for other in FILTERS if other != name))
    assert (any(row.reason == name for row in dropped)
            == (name in ALWAYS)), "only the two that make a pair a pair cannot be switched off"


def test_generation_accounts_for_every_row_and_trl_reads_the_pairs(scripted, contemplative):
    from datasets import load_dataset
    run, recipe = open_run("demo"), build_recipe({"n_prompts": 6, "filters": "empty,identical"})
    made = generate_pairs(run, recipe, scripted)
    assert len(made.kept) + len(made.dropped) == 24 == waterfall(made.kept, made.dropped)[0]["left"]
    assert sum(asked for _, asked in yields(made.kept, made.dropped).values()) == 24
    rows = load_dataset("json", data_files=str(run.path("pairs.jsonl")), split="train",
                        cache_dir=str(run.path("cache")))
    assert ({"prompt", "chosen", "rejected", "id", "prompt_id", "principle", "hazard", "persona", "locale", "source",
             "critique", "constitution", "model", "seed", "template", "chosen_finish_reason",
             "rejected_finish_reason", "judge", "fault_margin", "mended_margin"}
            == set(rows.column_names))
    calls = len(scripted.calls)
    assert generate_pairs(run, recipe, scripted) == made and len(scripted.calls) == calls


def test_extending_a_run_makes_only_the_new_calls(scripted):
    run = open_run("demo")
    generate_pairs(run, build_recipe({"n_prompts": 4, "filters": "empty"}), scripted)
    before = len(scripted.calls)
    generate_pairs(run, build_recipe({"n_prompts": 6, "filters": "empty"}), scripted)
    assert len(scripted.calls) - before == 2 + 2 * 4 * 2


def test_a_row_edited_by_hand_is_noticed(scripted):
    run = open_run("demo")
    generate_pairs(run, build_recipe({"n_prompts": 4, "filters": "empty"}), scripted)
    lines = run.path("pairs.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    row["chosen"][0]["content"] += " (edited)"
    run.path("pairs.jsonl").write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n")
    with pytest.raises(InputError, match="line 1: not a PreferencePair"): load_pairs(run)


def test_reviews_are_blinded_resumable_and_reversible(scripted):
    run = open_run("demo")
    made = generate_pairs(run, build_recipe({"n_prompts": 8, "filters": "empty"}), scripted)
    session = open_review(run, "ada")
    sides = [session._side_a(pair.id) for pair in made.kept]
    assert {"chosen", "rejected"} == set(sides)
    decided = [session.decide("neither").pair_id for _ in range(3)]
    assert open_review(run, "ada").queue == session.queue
    kept, dropped = apply_reviews(run)
    assert ({row.pair.id for row in dropped if row.reason == "review"} == set(decided)
            and len(kept) == len(made.kept) - 3)
    other = open_review(run, "ben")
    for _ in range(len(other.queue)): other.decide("A" if other._side_a(other.current.pair_id) == "chosen" else "B")
    assert apply_reviews(run)[0] == kept, "one against one: the pair stays out"
    assert read_rows(run.path("dropped.jsonl"), Dropped) and read_rows(run.path("pairs.jsonl"), PreferencePair) == kept


def test_a_decision_can_be_taken_up_again(scripted):
    run = open_run("demo")
    generate_pairs(run, build_recipe({"n_prompts": 4, "filters": "empty"}), scripted)
    session = open_review(run, "ada")
    session.decide("neither")
    first = session.decide("neither").pair_id
    assert session.undo() == first == session.current.pair_id and len(session.decisions) == 1
    session.decide("A" if session._side_a(first) == "chosen" else "B")
    assert session.decisions[first].decision == "accept" and open_review(run, "ada").decisions == session.decisions
    assert len(run.path("reviews", "ada.jsonl").read_text().splitlines()) == 4, "the earlier decision stays in the file"
    assert first in {pair.id for pair in apply_reviews(run)[0]}


def test_a_recipe_round_trips():
    recipe = build_recipe({"hazards": "vcr,hte", "n_prompts": 3})
    assert Recipe(**json.loads(recipe.model_dump_json())) == recipe
