"What people's reviews do to the pairs that are trained on, by the recipe's `use_reviews`."
import pytest

from contemplative_cai.core.files import append_row
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.make import load_pairs
from contemplative_cai.review.votes import Decision, apply_reviews, edited_pair
from contemplative_cai.training.rows import training_pairs

ASKED = {"n_prompts": 16, "filters": "empty,identical"}


@pytest.fixture
def run(scripted):
    "A run that has generated, and nobody has reviewed."
    run = open_run("used")
    generate_pairs(run, build_recipe(ASKED), scripted)
    return run


def say(run, pair, decision, reviewer="ada", at="2026-01-01", **more):
    preferred = {"accept": "A", "reject": "B"}[decision]
    append_row(run.path("reviews", f"{reviewer}.jsonl"), Decision(
        pair_id=pair.id, reviewer=reviewer, decision=decision, preferred=preferred, shown_as_a="chosen", at=at, **more))


def used(run, use=None):
    return training_pairs(run, build_recipe(ASKED | ({"use_reviews": use} if use else {})), record=False)


@pytest.mark.parametrize("applied", [False, True])
def test_what_reviews_do_is_the_recipes_to_say(run, applied):
    "The same before and after applying; without a word, what is rejected leaves and all else stays."
    train, held_out = used(run)
    accepted, edited, rejected, also = train[:4]
    say(run, accepted, "accept")
    say(run, edited, "accept", edit="As people would have it.")
    say(run, rejected, "reject", edit="Of the answer that was written first.")
    say(run, also, "accept", edit="Of one whom two outvote.")
    for name in ("bo", "eve"): say(run, also, "reject", name)
    say(run, held_out[0], "reject")
    if applied: apply_reviews(run)
    ids = {use: {pair.id for pair in used(run, use)[0]} for use in (None, "none", "drop_rejected", "only_accepted")}
    everything = {pair.id for pair in train}
    assert ids["none"] == everything and ids[None] == ids["drop_rejected"] == everything - {rejected.id, also.id}
    assert ids["only_accepted"] == {accepted.id, edited.id}
    texts = {pair.prompt_id + pair.principle: pair.chosen[0].content for pair in used(run, "edits")[0]}
    before = {pair.prompt_id + pair.principle: pair.chosen[0].content for pair in used(run)[0]}
    assert {name for name in texts if texts[name] != before[name]} == {edited.prompt_id + edited.principle}
    assert "As people would have it." in texts.values() and texts.keys() == before.keys()
    for use, less in (("none", 0), ("drop_rejected", 1), ("only_accepted", 1), ("edits", 1)):
        assert len(used(run, use)[1]) == len(held_out) - less, "held-out pairs need not have been reviewed"


def test_an_edit_is_the_last_of_those_who_accept(run):
    pair = load_pairs(run)[0]
    def row(edit, at, decision="accept"):
        return Decision(pair_id=pair.id, reviewer="ada", decision=decision, shown_as_a="chosen", at=at, edit=edit)
    rows = [row("late", "2026-01-03"), row("early", "2026-01-02"), row("no", "2026-01-04", "reject")]
    later = edited_pair(pair, rows)
    assert later.chosen[0].content == "late" and later.id != pair.id and later.mended_margin is None
    for edit in ("", "  \n", pair.chosen[0].content, pair.rejected[0].content):
        assert edited_pair(pair, [row(edit, "2026-01-02")]) == pair


def test_too_few_accepted_pairs_are_told_before_anything_is_trained(run):
    with pytest.raises(InputError, match="0 pairs to train on.*review more pairs, or set use_reviews to drop_rejected"):
        used(run, "only_accepted")
