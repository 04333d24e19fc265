"""A rule as a measured judge: its recall and precision by group, and what is said where they differ."""
import pytest
from statsmodels.stats.proportion import proportion_confint

from contemplative_cai.core.schema import InputError
from contemplative_cai.measure.recall import (
    FEWEST_YES,
    RuleCase,
    reach_words,
    recall_differs,
    recall_words,
    rule_recall,
)


def cases(group, found, yes, false=0, no=0):
    "Labelled answers of a group: of so many yes, so many found; of so many no, so many found all the same."
    return [*(RuleCase(group=group, label=1, verdict=i < found) for i in range(yes)),
            *(RuleCase(group=group, label=0, verdict=i < false) for i in range(no))]


def test_recall_and_precision_are_shares_with_wilsons_intervals():
    row, = rule_recall(cases("base", 33, 50, 2, 100))
    for figure, count, total in ((row.recall, 33, 50), (row.precision, 33, 35)):
        assert figure.value == count / total
        assert (figure.low, figure.high) == pytest.approx(proportion_confint(count, total, method="wilson"), abs=1e-6)


def test_partial_answers_are_told_apart_and_unread_ones_counted():
    extra = [RuleCase(group="base", label=0.5, verdict=True), RuleCase(group="base", label=0.5, verdict=False),
             RuleCase(group="base", label=1, verdict=None)]
    row, = rule_recall(cases("base", 3, 4, 1, 2) + extra)
    assert (row.yes, row.found, row.no, row.false, row.partial, row.partial_found, row.unread) == (4, 3, 2, 1, 2, 1, 1)
    assert (row.recall.value, row.precision.value) == (0.75, 0.75)


def test_groups_stand_in_order_with_all_of_them_last():
    rows = rule_recall(cases("dpo", 1, 2) + cases("base", 2, 2))
    assert [(row.group, row.found, row.yes) for row in rows] == [("dpo", 1, 2), ("base", 2, 2), ("all", 3, 4)]
    assert rule_recall([]) == [] and [row.group for row in rule_recall(cases("base", 1, 1))] == ["base"]


def test_what_nobody_could_find_has_no_share():
    row, = rule_recall(cases("base", 0, 0, 0, 5))
    assert row.recall.value is None and row.precision.value is None and row.recall.undefined


def test_a_label_out_of_range_and_a_group_called_all_are_refused():
    with pytest.raises(InputError, match="0 to 1 were expected, group 'base' has 2; rescale"):
        rule_recall([RuleCase(group="base", label=2, verdict=True)])
    with pytest.raises(InputError, match="'all' is the row over all of them; rename it"):
        rule_recall(cases("all", 1, 1))


def test_a_difference_between_arms_is_said_and_an_equal_recall_is_not():
    base, dpo, same = rule_recall(cases("base", 89, 100) + cases("dpo", 3, 60) + cases("same", 85, 100))[:3]
    assert recall_differs(base, dpo) is True and recall_differs(base, same) is False
    sentence, = recall_words([base, dpo])
    assert sentence == ("The rule finds 0.89 [0.81, 0.94] of the refusals of base and 0.05 [0.02, 0.14] of dpo's: "
                        "a difference in refusals may be one of wording.")
    assert recall_words([base, same]) == []


def test_too_few_labels_are_no_proof_that_arms_are_alike():
    base, few = rule_recall(cases("base", 89, 100) + cases("few", 0, FEWEST_YES - 1))[:2]
    assert recall_differs(base, few) is None
    assert recall_words([base, few]) == [f"How many of the refusals the rule finds is not known of few "
                                         f"({FEWEST_YES - 1}): at least {FEWEST_YES} labelled yes are needed."]
    assert recall_words(rule_recall(cases("base", 89, 100) + cases("dpo", 3, 60)))[0].count("all") == 0


def test_what_a_rule_reaches_is_told_in_counts_over_all_and_by_group():
    rows = rule_recall(cases("en", 33, 50, 2, 100) + cases("fr", 2, 4, 0, 5))
    assert reach_words(rows) == ("On 159 labelled answers it finds 35 of 54 refusals, recall 0.65 [0.51, 0.76], "
                                 "and 2 of 105 other answers, precision 0.95 [0.82, 0.99] (en: 33 of 50 and 2 of 100; "
                                 "fr: 2 of 4 and 0 of 5).")
    assert reach_words(rows[:1], "loops").endswith("100 other answers, precision 0.94 [0.81, 0.98].")


def test_what_was_not_seen_has_no_recall_and_no_precision():
    assert reach_words([]) == ""
    nothing = reach_words(rule_recall(cases("en", 0, 0, 0, 5)))
    assert nothing == "On 5 labelled answers it finds 0 of 0 refusals, and 0 of 5 other answers."
