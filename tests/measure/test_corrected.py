"""Levels and differences corrected by people's labels: against the numbers of ppi-python, what must not change them,
right values under judges whose errors are known, and the audit by arm."""
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contemplative_cai.core.schema import InputError
from contemplative_cai.measure.corrected import (
    JudgedArm,
    audit_transfer,
    corrected_difference,
    corrected_levels,
    corrected_sentence,
    judge_errors,
    labels_sentence,
    rogan_gladen,
    transfer_withheld,
)


def spread_out(total, cut):
    "Values between 0 and 1 and labels that go with them, without a draw."
    i = np.arange(1, total + 1)
    values = np.round((i * 0.6180339887) % 1, 4)
    return values, ((i * 0.4142135624) % 1 < cut * values).astype(float)


def first_labelled(labels, n):
    return [label if i < n else None for i, label in enumerate(labels)]


def clustered(labels, values, answers=1, name=""):
    "One arm whose answers go to prompts in groups."
    return JudgedArm(name=name, values=tuple(values), labels=tuple(labels),
                     clusters=tuple(str(i // answers) for i in range(len(values))))


def judged(rng, difficulty, rate, labelled, errors, name=""):
    "One answer a prompt, the first so many labelled; the judge errs on these shares of no and of yes."
    fault = difficulty < rate
    values = fault ^ (rng.random(len(fault)) < np.where(fault, errors[1], errors[0]))
    return clustered(first_labelled(fault.astype(float).tolist(), labelled), values.astype(float).tolist(), name=name)


# ppi_mean_pointestimate and ppi_mean_ci (alpha 0.05) of ppi-python 0.2.3 on `spread_out`: labelled, all, cut, lambda
PPI = {
    (100, 400, 0.8, 0.0): (0.44, 0.34270994637584823, 0.5372900536241517),
    (100, 400, 0.8, 0.5): (0.4400656666666666, 0.35360194794339556, 0.5265293853899375),
    (100, 400, 0.8, 1.0): (0.4401313333333332, 0.35291545863726614, 0.5273472080294003),
    (200, 1000, 0.3, 0.5): (0.14349725000000002, 0.09384028409897, 0.19315421590103005),
    (200, 1000, 0.3, 1.0): (0.14199450000000008, 0.08243598267578447, 0.20155301732421568),
    (50, 150, 1.2, 0.5): (0.581275, 0.4593207059230965, 0.7032292940769035),
    (50, 150, 1.2, 1.0): (0.5825500000000001, 0.45688073284664144, 0.7082192671533588),
}
PPI_TUNED = {(100, 400, 0.8): (0.44009383006816216, 0.7144421433669113),
             (200, 1000, 0.3): (0.14437887773837735, 0.20666187377229958),
             (50, 150, 1.2): (0.5816522363251321, 0.647935813777295)}


@pytest.mark.parametrize(("labelled", "total", "cut", "lam"), list(PPI))
def test_level_is_that_of_ppi_python_for_a_given_lambda(labelled, total, cut, lam):
    values, labels = spread_out(total, cut)
    mean, low, high = PPI[labelled, total, cut, lam]
    # its judge's mean is of the answers without labels alone, ours of all: the same estimate by another lambda
    level = corrected_levels(values, first_labelled(labels, labelled), slope=lam * total / (total - labelled))
    assert math.isclose(level.mean, mean, abs_tol=1e-12)
    assert math.isclose(level.high - level.low, high - low, rel_tol=0.06)  # Student's t, and labels added
    assert abs((level.low + level.high - low - high) / 2) < 0.015


@pytest.mark.parametrize(("labelled", "total", "cut"), list(PPI_TUNED))
def test_tuned_lambda_is_near_that_of_ppi_python(labelled, total, cut):
    values, labels = spread_out(total, cut)
    mean, lam = PPI_TUNED[labelled, total, cut]
    level = corrected_levels(values, first_labelled(labels, labelled))
    assert abs(level.mean - mean) < 0.002  # it takes the variance of all values, we of the labelled ones
    assert math.isclose(level.slope * (total - labelled) / total, lam, rel_tol=0.05)


def test_slope_is_that_of_a_regression_of_labels_on_values():
    values, labels = spread_out(90, 0.7)
    level = corrected_levels(values, first_labelled(labels, 30))
    slope, intercept = np.polyfit(values[:30], labels[:30], 1)
    assert math.isclose(level.slope, slope) and math.isclose(level.mean, intercept + slope * values.mean())


def test_interval_of_labels_alone_is_agresti_and_coulls_for_a_share():
    labels = [1.0] * 7 + [0.0] * 53
    level = corrected_levels([0.5] * 60, labels)
    centre = 9 / 64
    half = 2.000995 * math.sqrt(centre * (1 - centre) / 63)  # t of 59 degrees, one less than all that are seen
    assert level.slope == 0 and level.mean == 7 / 60
    assert np.allclose([level.low, level.high], [centre - half, centre + half], rtol=0.01)


shares = st.lists(st.sampled_from([0.0, 1.0]), min_size=12, max_size=60).filter(
    lambda labels: len(set(labels[:8])) == 2)


@settings(max_examples=40, deadline=None)
@given(shares, st.integers(8, 12))
def test_perfect_judge_changes_nothing(labels, labelled):
    level = corrected_levels(labels, first_labelled(labels, labelled))
    assert math.isclose(level.mean, np.mean(labels), abs_tol=1e-9) and math.isclose(level.slope, 1)
    assert math.isclose(level.uncorrected, level.mean, abs_tol=1e-9)


@settings(max_examples=40, deadline=None)
@given(shares, st.floats(0, 1), st.integers(8, 12))
def test_constant_judge_leaves_the_labels_alone(labels, constant, labelled):
    level = corrected_levels([constant] * len(labels), first_labelled(labels, labelled))
    assert math.isclose(level.mean, np.mean(labels[:labelled])) and level.slope == 0 and level.shrink == 0
    nothing = corrected_levels([None] * len(labels), first_labelled(labels, labelled))
    assert (nothing.mean, nothing.low, nothing.high) == (level.mean, level.low, level.high)
    assert nothing.uncorrected is None and nothing.unscored == len(labels)


@settings(max_examples=40, deadline=None)
@given(shares, st.integers(8, 12), st.randoms(use_true_random=False))
def test_yes_and_no_exchanged_turn_everything_round(labels, labelled, random):
    values = [min(max(label + random.uniform(-0.7, 0.7), 0.0), 1.0) for label in labels]
    level = corrected_levels(values, first_labelled(labels, labelled))
    turned = corrected_levels([1 - value for value in values],
                              first_labelled([1 - label for label in labels], labelled))
    assert np.allclose([turned.mean, turned.low, turned.high], [1 - level.mean, 1 - level.high, 1 - level.low])
    assert 0 <= level.low <= level.mean <= level.high <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_arms_exchanged_turn_the_difference_round(seed):
    rng = np.random.default_rng(seed)
    arms = [judged(rng, rng.random(40), rate, 20, (0.2, 0.3)) for rate in (0.5, 0.3)]
    one, other = corrected_difference(*arms), corrected_difference(*arms[::-1])
    assert np.allclose([one.mean, one.low, one.high], [-other.mean, -other.high, -other.low])
    assert math.isclose(one.p, other.p) and one.labels_needed == other.labels_needed
    assert one.low <= one.mean <= one.high and math.isclose(one.uncorrected, -other.uncorrected)
    assert (one.p < 0.05) == (not one.low <= 0 <= one.high) == (one.labels_needed == 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 1.0), st.floats(0, 0.5))
def test_scale_of_the_judge_is_of_no_matter(seed, factor, shift):
    rng = np.random.default_rng(seed)
    arm = judged(rng, rng.random(40), 0.4, 20, (0.2, 0.3))
    squeezed = [shift + (1 - shift) * factor * value for value in arm.values]
    level, other = (corrected_levels(values, arm.labels, arm.clusters) for values in (arm.values, squeezed))
    assert np.allclose([level.mean, level.low, level.high], [other.mean, other.low, other.high])


def test_order_of_answers_is_of_no_matter():
    rng = np.random.default_rng(0)
    arm = judged(rng, rng.random(60), 0.4, 30, (0.1, 0.3))
    order = rng.permutation(60)
    turned = [tuple(column[i] for i in order) for column in (arm.values, arm.labels, arm.clusters)]
    one, other = corrected_levels(arm.values, arm.labels, arm.clusters), corrected_levels(*turned)
    assert np.allclose([one.mean, one.low, one.high], [other.mean, other.low, other.high])


def test_answers_said_twice_are_no_more_prompts():
    rng = np.random.default_rng(1)
    arm = judged(rng, rng.random(60), 0.4, 30, (0.1, 0.3))
    doubled = JudgedArm(values=arm.values * 2, labels=arm.labels * 2, clusters=arm.clusters * 2)
    once, twice = (corrected_levels(one.values, one.labels, one.clusters) for one in (arm, doubled))
    assert math.isclose(once.mean, twice.mean) and twice.prompts == 60 and twice.labels == 60
    assert twice.high - twice.low > 0.9 * (once.high - once.low)


def test_level_of_few_labelled_prompts_is_undefined():
    level = corrected_levels([0.2] * 40, first_labelled([1.0] * 40, 20), [str(i // 5) for i in range(40)])
    assert level.mean is None and "labels on 4 independent units" in level.undefined
    arm = clustered(first_labelled([1.0, 0.0] * 20, 4), [0.2] * 40)
    difference = corrected_difference(arm, arm)
    assert difference.mean is None and labels_sentence(difference).startswith("no correction: labels on 4")
    assert corrected_levels([], []).undefined


def test_labels_that_are_all_no_still_allow_for_some():
    level = corrected_levels([0.3, 0.6] * 50, first_labelled([0.0] * 100, 25))
    assert level.mean == level.low == 0 and 0.1 < level.high < 0.25  # exact (Clopper and Pearson): 0.137


def test_unscored_answers_are_put_right_by_labels():
    rng = np.random.default_rng(2)
    fault = rng.random(4000) < 0.3
    values = [None if hit and i % 2 else float(hit) for i, hit in enumerate(fault)]
    level = corrected_levels(values, first_labelled(fault.astype(float).tolist(), 1000))
    assert level.uncorrected < 0.2 and level.low <= 0.3 <= level.high and level.unscored == values.count(None) > 500


def test_weak_judge_is_corrected():
    "AUC .70, cut so that it errs on 35.5 % of either kind: 3 % look like 36 %, a difference like 0.29 of itself."
    rng, errors = np.random.default_rng(3), (0.355, 0.355)
    rare = judged(rng, rng.random(20_000), 0.03, 4000, errors)
    level = corrected_levels(rare.values, rare.labels, rare.clusters)
    assert abs(level.uncorrected - 0.364) < 0.01 and level.low <= 0.03 <= level.high < 0.04
    difficulty = rng.random(40_000)
    difference = corrected_difference(*(judged(rng, difficulty, rate, 4000, errors) for rate in (0.5, 0.3)))
    assert abs(difference.uncorrected + 0.29 * 0.2) < 0.012 and difference.low <= -0.2 <= difference.high < -0.15
    assert math.isclose(difference.mean, difference.second.mean - difference.first.mean)


def test_better_judge_narrows_more():
    shrinks = []
    for wrong in (0.4, 0.2, 0.05):
        rng = np.random.default_rng(4)
        arm = judged(rng, rng.random(2000), 0.4, 200, (wrong, wrong))
        shrinks.append(corrected_levels(arm.values, arm.labels, arm.clusters).shrink)
    assert -0.02 < shrinks[0] < shrinks[1] < shrinks[2] and shrinks[2] > 0.4


def test_labels_needed_counts_what_is_missing():
    rng = np.random.default_rng(5)
    difficulty = rng.random(1000)
    arms = [judged(rng, difficulty, rate, 1000, (0.2, 0.2)) for rate in (0.4, 0.3)]
    def with_labels(n, null=0.0):
        return corrected_difference(*(clustered(first_labelled(arm.labels, n), arm.values) for arm in arms), null=null)
    few, many = with_labels(25), with_labels(1000)
    assert few.labels_needed > 0 and few.low < 0 < few.high
    assert f"{few.labels_needed} more labels per arm would decide this" in labels_sentence(few)
    assert many.labels_needed == 0 and "the interval excludes 0" in labels_sentence(many)
    assert corrected_sentence(few).startswith("corrected by 25 labels per arm −0")
    at_its_mean = with_labels(100, null=with_labels(100).mean)
    assert at_its_mean.labels_needed is None and "takes more prompts" in labels_sentence(at_its_mean)
    near, far = (with_labels(50, null=with_labels(50).mean + gap).labels_needed for gap in (0.06, 0.1))
    assert near > far >= 0
    assert "the margin +0.3" in labels_sentence(with_labels(1000, null=0.3))


def test_labels_on_every_answer_leave_nothing_to_ask():
    arms = [clustered(labels, [0.5] * 20) for labels in ([1.0, 0.0] * 10, [1.0, 0.0] * 9 + [0.0, 0.0])]
    difference = corrected_difference(*arms)
    assert difference.p > 0.05 and difference.labels_needed is None


@pytest.mark.parametrize("labelled, p, needed", [(5, 0.0625, 1), (6, 0.03125, 0)])
def test_five_labelled_prompts_that_all_changed_decide_nothing_and_six_do(labelled, p, needed):
    "p of flipped signs: 2 of 32, and 2 of 64."
    arms = [clustered(first_labelled([label] * 40, labelled), [0.5] * 40) for label in (1.0, 0.0)]
    difference = corrected_difference(*arms)
    assert (difference.mean, difference.low, difference.labels_needed) == (-1, -1, needed) and difference.high < 0
    assert math.isclose(difference.p, p)
    words = "1 more label per arm would decide this" if needed else "the labels decide this"
    assert words in labels_sentence(difference)
    only = corrected_difference(*(clustered([label] * 5, [0.5] * 5) for label in (1.0, 0.0)))
    assert only.labels_needed is None and "it takes more prompts" in labels_sentence(only)


@pytest.mark.parametrize("labels", [(1.0, 0.0), (0.0, 1.0)])
def test_a_difference_lies_between_the_ends_of_its_scale(labels):
    "Labels on ten prompts of each arm, on others in the second, where the interval would go on beyond."
    first = clustered([labels[0]] * 10 + [None] * 30, [0.5] * 40)
    second = clustered([None] * 10 + [labels[1]] * 10 + [None] * 20, [0.5] * 40)
    difference = corrected_difference(first, second)
    assert -1 <= difference.low <= difference.mean <= difference.high <= 1
    assert difference.mean == labels[1] - labels[0] in (difference.low, difference.high)


def test_only_prompts_of_both_arms_are_compared():
    rng = np.random.default_rng(6)
    difficulty = rng.random(50)
    first, second = (judged(rng, difficulty, rate, 25, (0.1, 0.1)) for rate in (0.5, 0.3))
    more = JudgedArm(values=(*second.values, 1.0, 1.0), labels=(*second.labels, 1.0, 1.0),
                     clusters=(*second.clusters, "x", "y"))
    whole, apart = corrected_difference(first, second), corrected_difference(first, more)
    assert apart.unpaired == 2 and apart.model_copy(update={"unpaired": 0}) == whole
    other = first.model_copy(update={"clusters": tuple("z" + name for name in first.clusters)})
    nothing = corrected_difference(first, other)
    assert nothing.unpaired == 100 and nothing.undefined and nothing.uncorrected is None


def test_judge_that_is_fooled_by_one_arm_is_told_and_withheld():
    rng = np.random.default_rng(7)
    difficulty = rng.random(400)
    base = judged(rng, difficulty, 0.3, 200, (0.1, 0.1), "base")
    alike = judged(rng, difficulty, 0.3, 200, (0.1, 0.1), "sft")
    fooled = judged(rng, difficulty, 0.3, 200, (0.1, 0.6), "dpo")
    assert transfer_withheld(audit_transfer(base, alike)) == ""
    audit = audit_transfer(base, fooled)
    reason = transfer_withheld(audit)
    assert audit.p_false_no < 0.001 < audit.p_false_yes and "false no" in reason and "of dpo" in reason
    assert "false yes" not in reason and "withheld" in reason
    difference = corrected_difference(base, fooled)
    assert difference.uncorrected < -0.1 and difference.low <= 0 <= difference.high
    assert transfer_withheld(audit_transfer(fooled, base)).replace("base", "dpo") != ""


def test_error_rates_are_counted_by_kind():
    arm = clustered([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0.5, None, 1],
                    [0.9, 0.1, 0.1, 0.2, 0.3, 0.5, 0.9, 0.9, 0.4, 0.6, 1, 0.9, 0.9, None])
    errors = judge_errors(arm)
    assert (errors.false_yes.errors, errors.false_yes.of) == (1, 6)
    assert (errors.false_no.errors, errors.false_no.of) == (1, 5)
    assert errors.false_yes.low < 1 / 6 < errors.false_yes.high and errors.false_yes.smoothed == 2 / 8


def test_audit_without_enough_labels_says_what_it_could_not_compare():
    rng = np.random.default_rng(8)
    arms = [judged(rng, rng.random(40), 0.0, 20, (0.2, 0.2)) for _ in range(2)]
    audit = audit_transfer(*arms)
    assert audit.p_false_no is None and audit.p == audit.p_false_yes and "false no" in audit.undefined
    empty = clustered([None] * 6, [0.5] * 6)
    assert audit_transfer(empty, empty).p is None and transfer_withheld(audit_transfer(empty, empty)) == ""


def test_rogan_and_gladens_share():
    labels, values = [0.0] * 100 + [1.0] * 100, [1.0] * 20 + [0.0] * 80 + [0.0] * 10 + [1.0] * 90
    errors = judge_errors(clustered(labels, values))
    share = rogan_gladen([1.0] * 34 + [0.0] * 66 + [None] * 3, [str(i) for i in range(103)], errors)
    assert math.isclose(share.mean, (0.34 - 0.2) / (0.9 - 0.2)) and share.low < share.mean < share.high
    guessing = judge_errors(clustered(labels, [1.0, 0.0] * 100))
    refused = rogan_gladen([1.0] * 34 + [0.0] * 66, [str(i) for i in range(100)], guessing)
    assert refused.mean is None and "one that guesses: it errs on 50% of no and 50% of yes" in refused.undefined


@pytest.mark.parametrize(("call", "words"), [
    (lambda: corrected_levels([1.2], [1]), "values: expected numbers between 0 and 1, or None, came 1.2"),
    (lambda: corrected_levels([0.2], [math.nan]), "labels: expected numbers between 0 and 1"),
    (lambda: corrected_levels([0.2], [1, 1]), "as many values, labels and clusters as answers, came 1, 2 and 1")])
def test_what_is_no_judgement_is_refused(call, words):
    with pytest.raises(ValueError, match=words): call()


def test_a_lambda_below_0_is_refused():
    with pytest.raises(InputError, match="slope: expected a number of 0 or more"):
        corrected_levels([0.2], [1], slope=-1)


@pytest.mark.long
def test_intervals_hold_what_they_promise():
    "The study has the grid; a few of its settings, other draws."
    for n, rate, wrong in itertools.product((25, 100), (0.1, 0.4), (0.35, 0.1)):
        rng, held, alarms, draws = np.random.default_rng(n), [], [], 400
        for _ in range(draws):
            difficulty = rng.random(200)
            arms = [judged(rng, difficulty if i else rng.random(200), rate, n, (wrong, wrong)) for i in range(2)]
            difference = corrected_difference(*arms)
            held.append(difference.first.low <= rate <= difference.first.high)
            alarms.append(difference.p < 0.05)
        assert np.mean(held) > 0.925 and np.mean(alarms) < 0.08
