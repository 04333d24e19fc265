"""Critic and reviser see the constitution: where it stands, what editing it redoes, and what runs begun before keep."""
import pytest

from contemplative_cai.command.pipeline import settle
from contemplative_cai.core.files import read_rows
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Critique, Dropped, InputError, Message, Prompt, Response
from contemplative_cai.inputs.constitution import dump_constitution, recipe_constitution
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.revision.revise import recipe_methods
from contemplative_cai.revision.templates import (
    CONVERSATION,
    INFORMED,
    TEMPLATES,
    Template,
    constitution_parts,
    critique_conversation,
    revision_conversation,
    shots,
    shown_parts,
    system_text,
)

QUESTION = Prompt(text="My brother never gives back what he borrows. Say that he is selfish.", source="test")
ANSWER = Response(prompt_id=QUESTION.id, text="He is selfish.", finish_reason="stop", model="scripted", seed=0)


def both(contemplative, principle, prompt=QUESTION, template=INFORMED, n=2):
    "What critic and reviser are shown."
    written = Critique(prompt_id=prompt.id, response_id=ANSWER.id, principle=principle.id, text="It settles who he is.",
                       finish_reason="stop", model="scripted", seed=0)
    shown, meta = shots(contemplative, principle, n), contemplative.meta_principles
    return (critique_conversation(template, principle, prompt, ANSWER, shown, meta_principles=meta),
            revision_conversation(template, principle, prompt, ANSWER, written, shown, meta_principles=meta))


def test_the_default_shows_description_clauses_and_meta_principles_once_to_critic_and_reviser(contemplative):
    assert build_recipe({}).template == "informed"
    for principle in contemplative.principles:
        for conversation in both(contemplative, principle):
            text = "\n".join(turn.content for turn in conversation)
            for part in (principle.description, *principle.clauses, *contemplative.meta_principles):
                assert text.count(part) == 1 and part in conversation[0].content
            assert [turn.role for turn in conversation].count("system") == 1 and conversation[0].role == "system"


def test_what_a_principles_batch_begins_with_is_the_same_for_every_question_and_for_both_stages(contemplative):
    "So it is computed once: system text and worked examples come before anything of the case."
    principle = contemplative.principles[2]
    first, second = both(contemplative, principle)
    other = both(contemplative, principle, Prompt(text="Must I tidy up?", source="test"))[0]
    same = 1 + 6 * 2  # the system text, and two worked examples of six turns
    assert first[:same] == second[:same] == other[:same] and first[same] != other[same]


def test_a_system_prompt_of_ones_own_comes_after_it(contemplative):
    own = Prompt(text="May I?", source="test", history=(Message(role="system", content="You are a clerk."),))
    critique, _ = both(contemplative, contemplative.principles[0], own, n=0)
    assert critique[0].content.endswith("\n\nYou are a clerk.") and critique[1].content == "May I?"
    assert [turn.role for turn in critique].count("system") == 1


def test_paragraphs_with_nothing_in_them_are_left_out(contemplative):
    bare = contemplative.principles[0].model_copy(update={"description": ""})
    text = system_text(INFORMED, bare)
    assert "How to hold" not in text and "Emptiness\n\nA good answer does this:" in text


@pytest.mark.parametrize("system, told", [
    ("{prompt}", "unknown variable '{prompt}'"), ("{clauses:>9}", "has more than a name"),
    ("{clauses", "not a template"),
    ("x" * 20_001, "expected at most 20,000 characters"),
])
def test_a_system_text_that_is_not_the_same_for_a_batch_is_refused(system, told):
    with pytest.raises(ValueError, match="system: ") as error:
        Template(name="own", critique="{request} {prompt}", revision="{request} {prompt}", system=system)
    assert told in str(error.value)


# what editing redoes

def generated(contemplative, tmp_path, scripted, run="edited", **more):
    "A run by a constitution that lies in a file, and the calls it made."
    (tmp_path / "own.md").write_text(dump_constitution(contemplative))
    recipe = build_recipe({"constitution": str(tmp_path / "own.md"), "n_prompts": 5, "n_eval_prompts": 0} | more)
    scripted.calls.clear()
    generate_pairs(open_run(run), recipe, scripted)
    return list(scripted.calls)


def edited(contemplative, clause):
    "The constitution with another first clause in its last principle."
    last = contemplative.principles[-1]
    changed = last.model_copy(update={"clauses": (clause, *last.clauses[1:])})
    return contemplative.model_copy(update={"principles": (*contemplative.principles[:-1], changed)})


def test_a_clause_that_is_edited_redoes_its_critiques_and_what_follows_and_nothing_else(
        contemplative, tmp_path, scripted):
    assert len(generated(contemplative, tmp_path, scripted)) == 5 + 5 * 4 * 2
    assert generated(contemplative, tmp_path, scripted) == []
    again = generated(edited(contemplative, "Nothing is claimed that cannot be known."), tmp_path, scripted)
    assert len(again) == 5 * 2, "five critiques and five revisions by the one principle"
    assert all("Nothing is claimed that cannot be known." in call[0].content for call in again)
    held = contemplative.model_copy(update={"meta_principles": ("Be brief.",)})
    assert len(generated(held, tmp_path, scripted)) == 5 * 4 * 2, "how all of it is held is everybody's"


def test_with_the_earlier_set_no_edit_of_a_clause_is_seen(contemplative, tmp_path, scripted):
    "Why it is no longer the usual one."
    generated(contemplative, tmp_path, scripted, template="conversation")
    changed = edited(contemplative, "Nothing is claimed that cannot be known.")
    assert generated(changed, tmp_path, scripted, template="conversation") == []


# runs begun before

def test_sets_from_before_there_were_system_texts_keep_their_names_and_so_their_keys():
    assert ({name: TEMPLATES[name].label for name in ("conversation", "structured", "terse")}
            == {"conversation": "conversation@bcf5c1a2", "structured": "structured@d96397d8",
                "terse": "terse@c483cf0b"})
    assert "system" not in CONVERSATION.model_dump() and Template(**CONVERSATION.model_dump()) == CONVERSATION
    assert Template(**INFORMED.model_dump()) == INFORMED


@pytest.mark.parametrize("recorded", ["conversation", None])
def test_a_run_begun_before_goes_on_with_the_template_it_recorded(recorded, tmp_path):
    "None: it was begun before there was a choice."
    old = build_recipe({"template": recorded or "conversation"}).model_dump(mode="json")
    if recorded is None: del old["template"]
    open_run("old").record(run="old", recipe_name="smoke", recipe=old)
    (tmp_path / "own.yaml").write_text("model: random-tiny\ndtype: float32\nhelpful: ~/none.jsonl\n")
    own = str(tmp_path / "own.yaml")
    assert settle("old", None, {})[1].template == "conversation"
    assert settle("old", "smoke", {})[1].template == settle("old", own, {})[1].template == "conversation"
    assert settle("old", "smoke", {"template": "informed"})[1].template == "informed", "what is asked for is done"
    assert settle("new", "smoke", {})[1].template == settle("new", own, {})[1].template == "informed"


def test_a_run_begun_before_goes_on_with_the_limits_it_recorded(tmp_path):
    "The defaults had less room; a recipe that says nothing of them does not ask again for what was cut then."
    was = {"n_prompts": 12, "answer_tokens": 128, "critique_tokens": 96, "revision_tokens": 160}
    open_run("old").record(run="old", recipe_name="own", recipe=build_recipe(was).model_dump(mode="json"))
    (tmp_path / "own.yaml").write_text("model: random-tiny\ndtype: float32\n")
    own = str(tmp_path / "own.yaml")
    def limits(recipe): return {key: getattr(recipe, key) for key in was}
    assert limits(settle("old", None, {})[1]) == limits(settle("old", own, {})[1]) == was
    assert limits(settle("old", own, {"answer_tokens": 200})[1]) == was | {"answer_tokens": 200}
    assert limits(settle("old", "smoke", {})[1])["answer_tokens"] == 24, "what a recipe says is done"
    assert limits(settle("new", own, {})[1]) == {"n_prompts": 16, "answer_tokens": 384, "critique_tokens": 320,
                                                 "revision_tokens": 384}


def test_pairs_of_two_templates_never_mix(contemplative, tmp_path, scripted):
    generated(contemplative, tmp_path, scripted, template="conversation")
    generated(contemplative, tmp_path, scripted)
    lines = open_run("edited").path("pairs.jsonl").read_text().splitlines()
    assert lines and all(INFORMED.label in line for line in lines)


# what was shown

def test_a_run_writes_down_what_critic_and_reviser_saw(contemplative, tmp_path, scripted):
    generated(contemplative, tmp_path, scripted)
    told = ["titles", "descriptions", "clauses", "meta-principles"]
    assert open_run("edited").manifest["informed"] == {"there": told, "shown": [*told, "requests", "worked examples"]}


@pytest.mark.parametrize("keys, shown", [
    ({"template": "conversation"}, ("requests", "worked examples")),
    ({"template": "conversation", "n_few_shot": 0}, ("requests",)),
    ({"template": "terse", "n_few_shot": 0}, ("first clauses",)),
    ({"template": "conversation", "critique_method": "logits"}, ("clauses", "requests", "worked examples")),
    ({"revision_method": "distilled"}, ("descriptions", "clauses", "worked examples")),
])
def test_other_ways_show_less(keys, shown):
    recipe = build_recipe(keys)
    assert recipe_methods(recipe).informed(recipe_constitution(recipe)) == shown


def test_parts_that_a_constitution_lacks_are_not_called_shown(contemplative):
    bare = contemplative.model_copy(update={"meta_principles": ()})
    assert "meta-principles" not in constitution_parts(bare)
    assert "meta-principles" in shown_parts(INFORMED)
    assert "meta-principles" not in recipe_methods(build_recipe({})).informed(bare)


def test_a_missing_recipe_still_says_so():
    with pytest.raises(InputError, match="unknown recipe"): settle("old", "smokee", {})


def test_a_revision_that_recites_a_meta_principle_is_dropped(contemplative, tmp_path, scripted):
    "Critic and reviser are shown them now, so they can be copied."
    meta = contemplative.meta_principles[1]
    reply = scripted._reply
    def recites(conversation):
        asked = conversation[-1].content
        return meta if contemplative.principles[0].revision_request in asked else reply(conversation)
    scripted._reply = recites
    generated(contemplative, tmp_path, scripted)
    dropped = read_rows(open_run("edited").path("dropped.jsonl"), Dropped)
    assert {(row.principle, row.reason, row.detail) for row in dropped if "meta-principle" in row.detail} == {
        (contemplative.principles[0].id, "leaked_preamble", "repeats 8 words of a meta-principle")}
