"""What a judge above the bar finds of a run's pairs is told, principle by principle, and drops none."""
from types import SimpleNamespace

import pytest
from support import matter

from contemplative_cai.core.schema import Message, PreferencePair
from contemplative_cai.evaluation.calibration import Calibration
from contemplative_cai.evaluation.judge import Opinion
from contemplative_cai.evaluation.pair_check import check_pairs, check_words, mending_words
from contemplative_cai.measure.bar import Figure, Measured
from contemplative_cai.pairs.health import stated
from contemplative_cai.report.limits import _unmended_limits
from contemplative_cai.report.summary import pairs_checked

NAME = "probe planted@1 0a"


class Planted:
    "Each question of a principle has the support that the answer names."
    name = NAME

    def opinions(self, claims, run=None):
        return [self._opinion(claim) for claim in claims]

    def _opinion(self, claim):
        if "silent" in claim.answer: return Opinion(reason="nothing can be read")
        support = float(claim.answer.split()[-1])
        return Opinion(direct=support, turned=support)


def measured(name, value):
    figure = Figure(value=value, low=value, high=value)
    return Measured(criterion=name, n=40, yes=20, no=20, prompts=20, auc_direct=figure, auc_turned=figure, kappa=figure,
                    flip_rate=Figure(value=0.0), unscored=Figure(value=0.0), unread=0.0, auc_length=0.5)


def calibration(**values):
    return Calibration(judge=NAME, rubric="contemplative@1", answers="labels",
                       criteria=tuple(measured(name, value) for name, value in values.items()))


def pair(i, rejected, chosen, principle="non_duality", locale="en_US"):
    def turn(role, text): return (Message(role=role, content=text),)
    return PreferencePair(prompt=turn("user", f"What do I tell him of {matter(i)}?"), chosen=turn("assistant", chosen),
                          rejected=turn("assistant", rejected), prompt_id=f"p{i}", principle=principle, locale=locale,
                          source="demo", critique="", constitution="c@0", model="m", seed=0, template="t@0")


PAIRS = [pair(0, "It is 0.1", "It is 0.9"), pair(1, "It is 0.4", "Now it is 0.2"), pair(2, "It is 0.8", "It is 0.9"),
         pair(3, "It is 0.2", "Now it is 0.3"), pair(4, "It is 0.1", "A silent one"), pair(5, "It is 0.3", "It is 0.6")]


def test_a_pair_mends_where_the_answer_falls_short_and_the_revision_has_more_support():
    check = check_pairs(Planted(), [calibration(non_duality=0.9)], PAIRS)
    (one,) = check.principles
    assert (one.principle, one.short, one.better, one.mending.n, one.mending.value) == ("non_duality", 4, 4, 5, 0.6)
    assert check.unscored == 1 and check.unchecked == {} and one.mending.low < 0.6 < one.mending.high


def test_principles_below_the_bar_and_languages_without_labels_are_not_looked_at():
    others = [pair(6, "It is 0.1", "It is 0.9", "emptiness"), pair(7, "It is 0.1", "It is 0.9", "own"),
              pair(8, "Es ist 0.1", "Es ist 0.9", locale="de_DE")]
    check = check_pairs(Planted(), [calibration(non_duality=0.9, emptiness=0.5)], [*PAIRS, *others])
    assert check.principles[0].mending.n == 5 and check.unmeasured == {"de": 1}
    assert check.unchecked == {"emptiness": "below the bar", "own": "not measured: not among what is judged"}
    assert check_words(check) == (
        "checked by probe, which took none: pairs that mend what falls short, non duality: 3 of 5 (4 answers fall "
        "short, 4 revisions are better). Not checked: emptiness (below the bar); own (not measured: not among what is "
        "judged); 1 pair in de, where it is not above the bar; 1 pair without a verdict on both sides")


def test_all_principles_together_are_one_share_by_prompt():
    more = [pair(i, "It is 0.1", "It is 0.9", "emptiness") for i in range(5)]
    check = check_pairs(Planted(), [calibration(non_duality=0.9, emptiness=0.9)], [*PAIRS, *more])
    assert (check.mending.n, check.mending.value) == (10, 0.8) and mending_words(check).startswith("0.80 [0.")
    before = check.model_copy(update={"mending": None})
    assert mending_words(before).startswith("emptiness 1.00 [") and ", non duality 0.60 [" in mending_words(before)


@pytest.mark.parametrize("calibrations", [[], [calibration(non_duality=0.5)]])
def test_a_judge_that_is_above_the_bar_nowhere_finds_nothing(calibrations):
    check = check_pairs(Planted(), calibrations, PAIRS)
    assert check.principles == () and list(check.unchecked) == ["non_duality"]
    why = "below the bar" if calibrations else "not measured: not among what is judged"
    assert check_words(check) == f"probe checked none: non duality ({why})"


def german(i): return pair(i, "Es ist 0.1", "Es ist 0.9", locale="de_DE")


def silent(i): return pair(i, "It is 0.1", "A silent one")


@pytest.mark.parametrize("pairs, words", [
    ([german(0), german(1)],
     "probe checked none: non duality (not above the bar in de); 2 pairs in de, where it is not above the bar"),
    ([silent(0), silent(1)],
     "probe checked none: non duality (no verdict on both sides of any pair); 2 pairs without a verdict on both sides"),
    ([pair(0, "It is 0.1", "It is 0.9", None)], "probe checked none: no principle (nothing says what they mean)"),
    ([pair(0, "It is 0.1", "It is 0.9", "benign_twin")], "probe checked none: no pair means a principle"),
])
def test_pairs_of_which_nothing_is_known_have_the_right_reason(pairs, words):
    "'No principle of the pairs on which probe is above the bar ()', and '0 of 0', stood there."
    check = check_pairs(Planted(), [calibration(non_duality=0.9)], pairs)
    assert check.principles == () and check.mending.value is None and check_words(check) == words


def test_benign_twins_mean_no_principle():
    check = check_pairs(Planted(), [calibration(non_duality=0.9)], [*PAIRS, pair(9, "It is 0.1", "No.", "benign_twin")])
    assert check.unchecked == {} and check.principles[0].mending.n == 5


# what a report says of it

def facts(check, given=None, gate=None):
    manifest = SimpleNamespace(gate=gate or {"asked": "auto", "judge": "critic@1", "principles": {
        name: {"passed": False, "why": "AUC 0.5"} for name in ("emptiness", "non_duality")}}, recipe={})
    return SimpleNamespace(given=given, split=1, kept=[], dropped=[], reviewed=[], run="demo", manifest=manifest,
                           metrics=SimpleNamespace(pair_check=check))


FEW = [pair(i, "It is 0.1", f"It is {'0.9' if i == 0 else '0.0'}") for i in range(12)]
OTHERS = [pair(20, "It is 0.1", "It is 0.9", "emptiness")]


@pytest.mark.parametrize("given, why", [(None, "no judge above the bar (critic@1; "),
                                        ("mine.jsonl", "they were given.")])
def test_headline_and_limits_say_the_same_of_pairs_that_a_probe_saw(given, why):
    "'Checked, not gated, 1 of 12' and 'was not checked; no judge above the bar' stood in one report."
    check = check_pairs(Planted(), [calibration(non_duality=0.9, emptiness=0.5)], [*FEW, *OTHERS])
    figure, share = pairs_checked(facts(check, given)), stated(check.mending)
    assert share.startswith("0.08 [0.01, ") and figure.number == f"{share} by probe, not gated"
    assert "Not checked: emptiness (below the bar). No pair was gated: " + why in figure.basis
    assert "no judge here looked" not in figure.basis
    assert _unmended_limits(facts(check, given)) == [
        "That the pairs teach what they mean: by probe, pairs that mend what falls short of non duality are fewer than "
        f"half, {share}; not checked: emptiness (below the bar)."]


def test_what_the_gate_checked_is_not_called_unchecked_for_a_probe_that_is_below_the_bar():
    check = check_pairs(Planted(), [calibration(emptiness=0.5)], OTHERS)
    gate = {"asked": "auto", "judge": "critic@1", "principles": {"emptiness": {"passed": True, "why": "AUC 0.9"}}}
    assert _unmended_limits(facts(check, gate=gate)) == []
    assert _unmended_limits(facts(check)) == ["That the pairs teach what they mean: by probe, not checked: "
                                              "emptiness (below the bar)."]
    assert "probe checked none: emptiness (below the bar)" in pairs_checked(facts(check)).basis
