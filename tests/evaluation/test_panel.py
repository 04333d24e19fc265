"""Several judges: their range and under how many the sign holds, never their mean; and how far they agree."""
import pytest

from contemplative_cai.evaluation.claims import Column, Comparison, Outcome, all_comparisons
from contemplative_cai.evaluation.panel import judge_panel, panel_alpha, panel_difference
from contemplative_cai.measure.agreement import krippendorff_alpha
from contemplative_cai.measure.outcomes import declare
from contemplative_cai.measure.stats import Estimate

OUTCOME = Outcome(name="violation", set="safety", unit="share", better="lower")
ARMS = ("base", "prompted", "dpo")


def seen_by(judge, mean, low=None, high=None, calibrated=True, withheld=""):
    difference = Estimate(mean=mean, low=low, high=high, n=40, clusters=40,
                          undefined="" if low is not None else "none")
    return Comparison(outcome="violation", set="safety", unit="share", better="lower", arm="dpo", against="base",
                      before=0.4, after=0.2, difference=difference, judge=judge, calibrated=calibrated,
                      withheld=withheld)


def test_the_sign_holds_under_three_of_five_judges():
    "Those above the bar by themselves, an interval with 0, a rise, and one who scored nothing."
    five = [seen_by("a", -0.2, -0.3, -0.1), seen_by("b", -0.12, -0.2, -0.04, False), seen_by("c", -0.02, -0.1, 0.06),
            seen_by("d", 0.05, -0.1, 0.2, False), seen_by("e", None)]
    one = panel_difference(five)
    assert (one.first, one.sign, one.judges, one.hold, one.clear, one.silent) == ("a", "lower", 5, 3, 2, 1)
    assert (one.above, one.above_hold) == (3, 2) and (one.lowest, one.highest) == (-0.2, 0.05)
    assert one.words == "the sign holds under 3 of 5 judges (2 of the 3 above the bar)"
    assert not {"mean", "average", "pooled"} & set(type(one).model_fields), "nothing is averaged over judges"


@pytest.mark.parametrize("rows, words", [
    ([seen_by("a", -0.2, -0.3, -0.1, False), seen_by("b", -0.1, -0.2, 0.0, False)],
     "the sign holds under 2 of 2 judges (none is above the bar)"),
    ([seen_by("a", 0.0, -0.1, 0.1), seen_by("b", -0.1, -0.2, 0.0)],
     "no sign to hold: the first judge finds no difference"),
    ([seen_by("a", None), seen_by("b", -0.1, -0.2, 0.0)], "no sign to hold: the first judge finds no difference"),
    ([seen_by("a", -0.2, -0.3, -0.1), seen_by("b", -0.2, -0.3, -0.1, withheld="cut")],
     "the sign holds under 2 of 2 judges (1 of the 1 above the bar)"),
    ([seen_by("a", -0.2, -0.3, -0.1), seen_by("b", 0.0, -0.1, 0.1)],
     "the sign holds under 1 of 2 judges (1 of the 2 above the bar)")])
def test_what_a_panel_says_follows_its_judges(rows, words):
    assert panel_difference(rows).words == words


def column(judge, says, calibrated=True, outcome=OUTCOME):
    return Column(outcome, judge, calibrated, {arm: {f"p{i}": [says(arm, i)] for i in range(40)} for arm in ARMS})


def strict(arm, i): return float(i % 2 == 0 if arm == "base" else i % 8 == 0)
def turned(arm, i): return 1 - strict(arm, i)
def half_blind(arm, i): return None if i > 20 else strict(arm, i)


def test_agreement_is_of_all_judges_on_the_same_answers():
    same, mixed = [column("a", strict), column("b", strict)], [column("a", strict), column("b", half_blind)]
    assert panel_alpha(same, 50).value == 1 and panel_alpha(same, 50).units == 120
    partly = panel_alpha([*mixed, column("c", turned)], 200)
    assert partly.units == 120 and partly.value < 0 and partly.low <= partly.value <= partly.high
    by_hand = krippendorff_alpha([[strict(arm, i), half_blind(arm, i), turned(arm, i)] for arm in ARMS
                                  for i in range(40)], "ordinal", (0.0, 0.5, 1.0), resamples=1)
    assert partly.value == pytest.approx(by_hand.value)
    assert panel_alpha(mixed, 50).units == 63 and panel_alpha(mixed, 50).unpaired == 57


def test_a_panel_has_every_outcome_that_two_judges_looked_at_and_every_contrast():
    counted = Outcome(name="words", set="all", unit="words", better="neither", share=False, judged=False)
    alone = Outcome(name="evasion", set="safe", unit="share", better="lower")
    seen = [column("a", strict), column("b", strict), column("c", turned, False), column("r", strict, outcome=counted),
            column("s", strict, outcome=counted), column("a", strict, outcome=alone)]
    rows = all_comparisons(seen, ARMS, "dpo", declare("violation: dpo - base", []), {}, 0.05, 100)
    [one] = judge_panel(seen, rows, 50)
    assert (one.outcome, one.judges, one.above) == ("violation", ("a", "b", "c"), ("a", "b"))
    assert one.alpha_above.value == 1 and one.alpha.value < one.alpha_above.value
    assert [(d.arm, d.against) for d in one.differences] == [("dpo", "base"), ("dpo", "prompted"), ("prompted", "base")]
    first = one.differences[0]
    assert (first.words, first.clear) == ("the sign holds under 2 of 3 judges (2 of the 2 above the bar)", 2)
    assert first.lowest == pytest.approx(-0.375) and first.highest == pytest.approx(0.375)
    assert one.differences[1].sign is None, "dpo and prompted answer alike"
    [silent] = judge_panel([column("a", strict), column("m", lambda arm, i: None)], [], 50)
    assert silent.alpha.value is None and "0 units" in silent.alpha.undefined and silent.differences == ()
