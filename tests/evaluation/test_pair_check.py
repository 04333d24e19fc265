"""What a judge above the bar finds of a run's pairs is told, principle by principle, and drops none."""
import pytest
from support import matter

from contemplative_cai.core.schema import Message, PreferencePair
from contemplative_cai.evaluation.calibration import Calibration
from contemplative_cai.evaluation.judge import Opinion
from contemplative_cai.evaluation.pair_check import check_pairs, check_words
from contemplative_cai.measure.bar import Figure, Measured

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
        "checked by probe, not gated: pairs that mend what falls short, non duality: 3 of 5 (4 answers fall short, 4 "
        "revisions are better). Not checked: emptiness, own; 1 in de, not measured")


@pytest.mark.parametrize("calibrations", [[], [calibration(non_duality=0.5)]])
def test_a_judge_that_is_above_the_bar_nowhere_finds_nothing(calibrations):
    check = check_pairs(Planted(), calibrations, PAIRS)
    assert check.principles == () and list(check.unchecked) == ["non_duality"]
    assert check_words(check).startswith("no principle of the pairs on which probe is above the bar")
