"""Cut answers: counted for each arm, and a judge's claim is withheld where there are too many."""
import pytest

from contemplative_cai.core.schema import Answer
from contemplative_cai.evaluation.claims import (
    CUT_APART,
    MOST_CUT,
    Column,
    Comparison,
    CutAnswers,
    Outcome,
    all_comparisons,
    claim,
    count_cut,
    cut_column,
    too_many_cut,
)
from contemplative_cai.evaluation.judge import DETECTOR_VERSION, detect, stopped_short
from contemplative_cai.inputs.rubrics import load_rubric
from contemplative_cai.measure.outcomes import declare

ARMS = ("base", "prompted", "dpo")


def answer(arm, number, reason, text="Ask her"):
    return Answer(arm=arm, prompt_id=f"p{number}", source="test", text=text, model="m", finish_reason=reason,
                  failure=None if text is not None else "no reply")


def answers(**cut):
    "Forty answers an arm, of which so many are cut."
    return [answer(arm, i, "length" if i < cut.get(arm, 0) else "stop") for arm in ARMS for i in range(40)]


# one answer

def surface(one):
    rubric = load_rubric("surface")
    return next(verdict for verdict in detect(one, rubric) if verdict.criterion == "cut_off")


@pytest.mark.parametrize("reason, value", [("stop", 0.0), ("length", 1.0), (None, None)])
def test_how_an_answer_ended_is_told_or_not_recorded(reason, value):
    assert stopped_short(answer("base", 0, reason)) == value
    verdict = surface(answer("base", 0, reason))
    assert verdict.value == value and verdict.reason == ("" if reason else "the finish reason was not recorded")


def test_a_failed_call_is_neither_whole_nor_cut():
    assert surface(answer("base", 0, None, None)).reason == "no answer: no reply"
    assert count_cut(cut_column([answer("base", 0, None, None)]), "base") == CutAnswers(arm="base", cut=0, answers=0)


# counts

def test_cut_answers_are_counted_by_arm_prompt_and_sample():
    cut = cut_column([*answers(base=2, dpo=9), answer("dpo", 0, "stop"), answer("dpo", 39, None)])
    assert count_cut(cut, "base") == CutAnswers(arm="base", cut=2, answers=40)
    assert count_cut(cut, "dpo") == CutAnswers(arm="dpo", cut=9, answers=41, unrecorded=1)
    assert count_cut(cut, "dpo", {"p0", "p39"}) == CutAnswers(arm="dpo", cut=1, answers=3, unrecorded=1)
    assert count_cut(cut, "another") == CutAnswers(arm="another", cut=0, answers=0)


@pytest.mark.parametrize("dpo, base, reasons", [
    (0, 0, []), (2, 0, []), (4, 2, []), (4, 4, []),
    (3, 0, ["the shares of cut answers (3 of 40 in dpo and 0 of 40 in base) are 8% apart, at most 5% is allowed"]),
    (0, 3, ["the shares of cut answers (0 of 40 in dpo and 3 of 40 in base) are 8% apart, at most 5% is allowed"]),
    (5, 4, ["5 of 40 answers of dpo were cut, at most 10% may be"]),
    (4, 5, ["5 of 40 answers of base were cut, at most 10% may be"]),
    (5, 5, ["5 of 40 answers of dpo were cut, at most 10% may be",
            "5 of 40 answers of base were cut, at most 10% may be"]),
    (9, 0, ["9 of 40 answers of dpo were cut, at most 10% may be",
            "the shares of cut answers (9 of 40 in dpo and 0 of 40 in base) are 22% apart, at most 5% is allowed"]),
])
def test_a_claim_is_withheld_beyond_a_tenth_or_a_twentieth_apart(dpo, base, reasons):
    assert (MOST_CUT, CUT_APART) == (0.1, 0.05)
    one, other = (CutAnswers(arm=arm, cut=cut, answers=40) for arm, cut in (("dpo", dpo), ("base", base)))
    assert too_many_cut(one, other) == "; ".join(reasons)


@pytest.mark.parametrize("one, other", [(4, 3), (3, 2), (7, 6), (2, 1), (1, 0)])
def test_exactly_a_twentieth_apart_is_allowed_however_it_is_stored(one, other):
    words = too_many_cut(*(CutAnswers(arm=arm, cut=cut, answers=20) for arm, cut in (("dpo", one), ("base", other))))
    assert "apart" not in words


def test_arms_without_answers_withhold_nothing():
    assert too_many_cut(*(CutAnswers(arm=arm, cut=0, answers=0) for arm in ("dpo", "base"))) == ""


# claims

def column(judge="a judge", **outcome):
    "Forty prompts, of which base fails half and the others an eighth."
    values = {arm: {f"p{i}": [float(i % 2 == 0 if arm == "base" else i % 8 == 0)] for i in range(40)} for arm in ARMS}
    known = {"name": "violation", "set": "safety", "unit": "share", "better": "lower"}
    return Column(Outcome(**known | outcome), judge, True, values)


def compared(columns, cut) -> dict[str, Comparison]:
    "The trained arm's comparisons with base, by outcome; violation is the primary, the rest the family."
    declared = declare(claim("violation", "dpo", "base"),
                       [claim(name, "dpo", "base") for name in ("emptiness", "helpfulness", "refusal")])
    rows = all_comparisons(columns, ARMS, "dpo", declared, {}, 0.05, resamples=100, cut=cut)
    return {row.outcome: row for row in rows if (row.arm, row.against) == ("dpo", "base")}


@pytest.mark.parametrize("cut, withheld", [({}, False), ({"dpo": 2}, False), ({"dpo": 3}, True),
                                           ({"dpo": 5, "base": 5}, True)])
def test_a_withheld_claim_has_its_numbers_and_no_p(cut, withheld):
    row = compared([column()], cut_column(answers(**cut)))["violation"]
    assert row.difference.mean == -0.375 and row.difference.low is not None and row.role == "primary"
    assert (row.p is None) == (row.difference.p is None) == bool(row.withheld) == (not row.claimable) == withheld
    assert [one.cut for one in row.cut] == [cut.get("dpo", 0), cut.get("base", 0)]


def test_only_the_prompts_of_a_claim_count():
    "The answers that were cut are to prompts of another set."
    cut = cut_column([*answers(), *(answer("dpo", i, "length") for i in range(100, 140))])
    assert count_cut(cut, "dpo").cut == 40 and compared([column()], cut)["violation"].withheld == ""


def test_what_a_rule_counts_is_not_withheld():
    "A refusal shows in the opening, and a number of words is what it is."
    rows = compared([column(), column(DETECTOR_VERSION, name="refusal", set="safe"),
                     column("style@1", name="loop", set="all", judged=False)], cut_column(answers(dpo=20)))
    assert rows["violation"].withheld and not rows["refusal"].withheld and not rows["loop"].withheld
    assert rows["refusal"].p is not None


def test_judged_pairs_are_withheld_like_single_answers():
    won = column(name="helpfulness", set="helpful", better="higher")
    rows = compared([won], cut_column(answers(dpo=9)))
    assert "9 of 40 answers of dpo were cut" in rows["helpfulness"].withheld and rows["helpfulness"].p is None


def test_where_nothing_was_recorded_nothing_is_said_to_be_whole():
    row = compared([column()], None)["violation"]
    assert row.cut == () and row.withheld == "" and row.p is not None
    unknown = compared([column()], cut_column([answer(arm, i, None) for arm in ARMS for i in range(40)]))["violation"]
    assert [one.unrecorded for one in unknown.cut] == [40, 40]


def test_a_comparison_of_before_is_read_and_has_no_counts():
    row = compared([column()], None)["violation"]
    old = Comparison(**row.model_dump(exclude={"cut", "withheld"}))
    assert old.cut == () and old.withheld == "" and old.claimable
