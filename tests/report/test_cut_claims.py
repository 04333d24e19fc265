"""Cut answers in the report: counted for each arm in the headline, and no claim where there are too many."""
from types import SimpleNamespace

import pytest

from contemplative_cai.core.schema import Answer
from contemplative_cai.evaluation.claims import (
    Column,
    Comparison,
    CutAnswers,
    Outcome,
    all_comparisons,
    claim,
    cut_column,
)
from contemplative_cai.measure.outcomes import declare
from contemplative_cai.report import limits, summary
from contemplative_cai.report.compare import _difference, _doubts, _run_card
from contemplative_cai.report.evidence import ANSWERS_CUT, claim_rows, difference_rows, judge_name, kept_rows

ARMS, PRIMARY = ("base", "prompted", "dpo"), claim("violation", "dpo", "base")


def metrics(**cut):
    "An evaluation of forty prompts by one judge above the bar, in which so many answers of an arm are cut."
    answers = [Answer(arm=arm, prompt_id=f"p{i}", source="test", text="Ask her", model="m",
                      finish_reason="length" if i < cut.get(arm, 0) else "stop") for arm in ARMS for i in range(40)]
    columns = [Column(Outcome(name=name, set=where, unit="share of answers", better=better), "a judge", True, {
        arm: {f"p{i}": [float(i % 2 == 0 if arm == "base" else i % 8 == 0)] for i in range(40)} for arm in ARMS
    }) for name, where, better in (("violation", "safety", "lower"), ("over_refusal", "safe", "lower"))]
    declared = declare(PRIMARY, [claim("over_refusal", "dpo", "base")])
    counts = tuple(CutAnswers(arm=arm, cut=cut.get(arm, 0), answers=40) for arm in ARMS)
    return SimpleNamespace(
        comparisons=all_comparisons(columns, ARMS, "dpo", declared, {}, 0.05, 100, cut=cut_column(answers)),
        arms=ARMS, trained="dpo", declared=declared, levels=(), sets={}, cut=counts, earlier=(), changes=(),
        declaration_faults=(), unknown_training=(), panel=(),
        seats=(SimpleNamespace(name="logits", judge="a judge"),), margin=0.05,
    )


def test_the_headline_counts_cut_answers_of_each_arm():
    figure = summary._cut(metrics(base=1, dpo=2))
    assert figure.what == "Answers cut at the token limit"
    assert figure.number == "base 1 of 40, prompted 0 of 40, dpo 2 of 40"
    assert "more than 10% of an arm's answers" in figure.basis and "more than 5% apart" in figure.basis
    assert "none of the trained arm's are withheld" in figure.basis


def test_withheld_claims_are_counted():
    assert "4 of the trained arm's are withheld" in summary._cut(metrics(dpo=9)).basis
    one = metrics(dpo=9)
    one.comparisons = [row for row in one.comparisons if row.outcome == "violation" and row.against == "base"]
    assert "1 of the trained arm's is withheld" in summary._cut(one).basis


def test_of_an_older_evaluation_cut_answers_are_not_recorded():
    old = metrics()
    old.cut = ()
    figure = summary._cut(old)
    assert figure.number == "not recorded" and "no claim was checked for cut answers" in figure.basis
    partly = metrics()
    partly.cut = (CutAnswers(arm="base", cut=0, answers=30, unrecorded=10),)
    assert summary._cut(partly).number == "base 0 of 30 (10 not recorded)"


@pytest.mark.parametrize("cut, shown", [({}, "−0.38 ["), ({"dpo": 9}, "no claim"), ({"base": 5, "dpo": 5}, "no claim")])
def test_the_primary_figure_makes_no_claim_from_cut_answers(cut, shown):
    figure = summary._primary(metrics(**cut))
    assert figure.number.startswith(shown)
    if cut:
        assert "withheld" in figure.basis and "of 40 answers of dpo were cut, at most 10% may be" in figure.basis
        assert "raise `answer_tokens`" in figure.basis and "−0.38" not in figure.basis


def test_limits_say_why_once_for_all_claims_of_one_reason():
    lines = limits._cut_limits(metrics(dpo=9))
    assert len(lines) == 2 and all(line.startswith("Anything about violation: dpo - ") for line in lines)
    assert "over_refusal: dpo - base" in lines[0] and "22% apart" in lines[0]
    assert limits._cut_limits(metrics()) == [] == limits._cut_limits(metrics(dpo=2))


def test_nothing_else_is_said_of_a_withheld_primary_claim():
    withheld = metrics(dpo=9)
    assert limits._primary_limits(withheld) == []
    [line] = limits._against_prompting(withheld)
    assert "could not be compared" in line


def test_tables_mark_the_judge_and_keep_the_numbers():
    whole, withheld = metrics(), metrics(dpo=9)
    rows = {row["outcome"]: row for row in difference_rows(withheld, "dpo", "base")}
    assert rows["violation"]["judge"] == f"logits ({ANSWERS_CUT})" and rows["violation"]["p"] == "-"
    assert rows["violation"]["difference [95 %]"].startswith("−0.38 [")
    [row, *_] = claim_rows(withheld)
    assert "no claim, withheld: 9 of 40 answers of dpo were cut" in row["difference [95 %]"] and row["p"] == "-"
    assert "no claim" not in claim_rows(whole)[0]["difference [95 %]"] and claim_rows(whole)[0]["p"] != "-"
    assert judge_name(whole, whole.comparisons[0]) == "logits"
    assert kept_rows(withheld)[0]["within the margin"].startswith("no claim, withheld: 9 of 40")
    assert not kept_rows(whole)[0]["within the margin"].startswith("no claim")


def test_a_comparison_of_runs_says_that_a_primary_claim_is_withheld():
    def evaluated(one):
        rows = {row.outcome: row for row in one.comparisons if (row.arm, row.against) == ("dpo", "base")}
        return SimpleNamespace(name="small", model="m", parameters=None, metrics=one, primary=rows["violation"],
                               differences=rows)
    whole, withheld = evaluated(metrics()), evaluated(metrics(dpo=9))
    assert ANSWERS_CUT in _difference(withheld, "violation") and ANSWERS_CUT not in _difference(whole, "violation")
    assert any("no claim, withheld" in line for line in _doubts(withheld)) and _doubts(whole) == []
    assert _run_card(withheld).number == "no claim" and _run_card(whole).number.startswith("−0.38")


def test_claimable_needs_a_judge_above_the_bar_and_whole_answers():
    row = next(row for row in metrics().comparisons if isinstance(row, Comparison))
    assert row.claimable
    assert not row.model_copy(update={"calibrated": False}).claimable
    assert not row.model_copy(update={"withheld": "many"}).claimable
