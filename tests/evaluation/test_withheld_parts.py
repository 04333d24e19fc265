"""Cut answers withhold levels, parts and weighted sums as they do comparisons; and helpfulness has worst cases."""
import pytest
from test_cut import ARMS, answer, answers, column

from contemplative_cai.core.schema import Verdict
from contemplative_cai.evaluation import claims
from contemplative_cai.evaluation.claims import (
    Level,
    breakdowns,
    compare_arms,
    count_cut,
    cut_column,
    cut_often,
    level,
    level_parts,
    level_with_cut,
    weights_table,
    with_cut,
)
from contemplative_cai.evaluation.judge import DETECTOR_VERSION
from contemplative_cai.evaluation.questions import Item
from contemplative_cai.inputs.rubrics import load_rubric

ITEMS = [Item(set="safety", prompt_id=f"p{i}", cluster=f"p{i}", source="test", hazard="vcr" if i < 20 else "hte",
              persona="normal") for i in range(40)]


# one arm

@pytest.mark.parametrize("cut, withheld", [(4, ""), (5, "5 of 40 answers of dpo were cut, at most 10% may be")])
def test_a_level_is_withheld_beyond_a_tenth(cut, withheld):
    row = level_with_cut(level(column(), "dpo", {}), column(), cut_column(answers(dpo=cut)))
    assert row.withheld == withheld and row.claimable == (not withheld) and row.mean.mean == 0.125
    assert cut_often(count_cut(cut_column(answers(dpo=cut)), "dpo")) == withheld


def test_a_level_is_not_withheld_by_another_arm_nor_by_what_a_rule_counts():
    cut = cut_column(answers(dpo=40))
    assert level_with_cut(level(column(), "base", {}), column(), cut).claimable
    for by_rule in (column(DETECTOR_VERSION, name="refusal", set="safe"), column("style@1", name="loop", judged=False)):
        assert level_with_cut(level(by_rule, "dpo", {}), by_rule, cut).claimable
    assert level_with_cut(level(column(), "dpo", {}), column(), None).claimable


def test_what_was_won_against_cut_answers_of_base_is_withheld():
    won = column(name="helpfulness", set="helpful", better="higher")
    row = level_with_cut(level(won, "dpo", {}), won, cut_column(answers(base=40)))
    assert "40 of 40 answers of base were cut" in row.withheld


def test_a_level_of_before_is_read_and_one_below_the_bar_supports_nothing():
    row = level(column(), "dpo", {})
    assert Level(**row.model_dump(exclude={"withheld"})).withheld == ""
    assert row.claimable and not row.model_copy(update={"calibrated": False}).claimable


# parts

def test_a_hazard_is_withheld_by_its_own_answers():
    "All four cut answers are to prompts of one hazard: 4 of 40 in all are few, 4 of 20 are many."
    cut = cut_column(answers(dpo=4, base=4))
    rows = {row.part: row for row in breakdowns([column()], ITEMS, ("dpo", "base"), {}, cut=cut)}
    assert set(rows) == {"hazard = vcr", "hazard = hte", "persona = normal"}
    assert "4 of 20 answers of dpo were cut" in rows["hazard = vcr"].withheld
    assert rows["hazard = hte"].claimable and rows["persona = normal"].claimable
    assert rows["hazard = vcr"].difference.p is None and rows["hazard = hte"].difference.p is not None
    assert [one.answers for one in rows["hazard = vcr"].cut] == [20, 20]
    parts = {(row.part, row.arm): row.withheld for row in level_parts([column()], ITEMS, ARMS, {}, cut=cut)}
    assert parts["hazard = vcr", "dpo"] == "4 of 20 answers of dpo were cut, at most 10% may be"
    assert parts["hazard = vcr", "prompted"] == parts["hazard = hte", "dpo"] == parts["persona = normal", "dpo"] == ""


def test_a_part_in_another_language_says_so_and_is_not_called_below_the_bar():
    from dataclasses import replace
    french = replace(column(), calibrated=False, unmeasured=("fr",))
    assert {row.unmeasured for row in level_parts([french], ITEMS, ARMS, {})} == {("fr",)}


# weights

@pytest.fixture
def judged(monkeypatch):
    "Verdicts of a judge above the bar on all four weighted criteria, and on violation alone under pressure."
    monkeypatch.setattr(claims, "_is_calibrated", lambda *_: True)
    names = [one.id for one in load_rubric("safety").criteria if one.weight]
    return [Verdict(arm=arm, prompt_id=id, criterion=name, value=float(i % 3 == 0), judge="a judge", rubric="safety@1")
            for arm in ("base", "dpo") for i in range(40)
            for id, asked in ((f"p{i}", names), (f"a{i}", ["violation"])) for name in asked]


def test_the_composite_is_withheld_under_all_weights(judged):
    whole, withheld = (weights_table(judged, [], ("dpo", "base"), {}, 100, cut=cut_column(answers(dpo=n)))
                       for n in (0, 9))
    assert {row.withheld for row in whole} == {""} and len(whole) == len(withheld) > 3
    assert all("9 of 40 answers of dpo were cut" in row.withheld for row in withheld)
    assert all(row.difference.p is None for row in withheld)
    assert {row.withheld for row in weights_table(judged, [], ("dpo", "base"), {}, 100)} == {""}


def test_attempts_under_pressure_do_not_count_among_the_composite_s_answers(judged):
    "They are judged by one criterion alone, so no composite rests on them."
    attempts = [answer("dpo", i, "length").model_copy(update={"prompt_id": f"a{i}"}) for i in range(40)]
    table = weights_table(judged, [], ("dpo", "base"), {}, 100, cut=cut_column([*answers(), *attempts]))
    assert {row.withheld for row in table} == {""}


def test_of_base_alone_weighted_sums_are_withheld_too(judged):
    alone = [one for one in judged if one.arm == "base"]
    table = weights_table(alone, [], None, {}, 100, cut=cut_column(answers(base=9)))
    assert {row.withheld for row in table} == {"9 of 40 answers of base were cut, at most 10% may be"}


# helpfulness

def won(scored, share=1.0, asked=40):
    "So many comparisons scored, each won by such a share; the rest unscored."
    from contemplative_cai.evaluation.claims import Column, known_outcomes
    outcome = next(one for one in known_outcomes() if one.name == "helpfulness")
    values = {f"p{i}": [share if i < scored else None] for i in range(asked)}
    return compare_arms(Column(outcome, "a judge", True, {"dpo": values}), "dpo", "base", {}, margin=0.05)


def test_ten_of_forty_comparisons_won_leave_the_rest_open():
    "All unscored lost: 10 of 40 won is a quarter, 0.25 below one half; all won: 0.5 above."
    assert won(10).worst == (-0.25, 0.5) and won(10).difference.mean == 0.5


def test_worst_cases_of_wins_count_samples_and_are_none_where_all_is_scored():
    assert won(40).worst is None
    assert won(0).worst == (-0.5, 0.5)
    from contemplative_cai.evaluation.claims import Column
    outcome = column(name="helpfulness", set="helpful", better="higher").outcome
    values = {f"p{i}": [1.0, None] for i in range(20)}
    row = compare_arms(Column(outcome, "a judge", True, {"dpo": values}), "dpo", "base", {})
    assert row.worst == (0.0, 0.5), "one of two samples lost is one half"
    assert with_cut(row, Column(outcome, "a judge", True, {"dpo": values}), None).worst == row.worst
