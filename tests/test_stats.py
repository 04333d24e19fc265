"""Statistics against scipy and statsmodels, and silence where there is nothing to say."""
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from contemplative_cai.stats import cluster_means, estimate, paired_difference, share_interval


@given(st.lists(st.floats(-50, 50), min_size=6, max_size=40).filter(lambda v: np.std(v) > 1e-3))
@settings(max_examples=30, deadline=None)
def test_the_t_interval_is_scipys(values):
    found, reference = estimate(values, resamples=200), stats.ttest_1samp(values, 0)
    assert np.allclose([found.low, found.high], reference.confidence_interval())
    assert math.isclose(found.dz, reference.statistic / math.sqrt(len(values)), rel_tol=1e-9)


def test_a_paired_difference_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    before, after = rng.normal(0, 1, 30), rng.normal(0.4, 1, 30)
    found, reference = paired_difference(list(before), list(after)), stats.ttest_rel(after, before)
    assert np.allclose([found.low, found.high], reference.confidence_interval()) and abs(found.p - reference.pvalue) < 0.03
    assert abs(found.boot_low - found.low) < 0.1


def test_small_samples_are_permuted_exactly():
    "Six positive values: of the 64 sign patterns only all-plus and all-minus are as extreme."
    assert math.isclose(estimate([1, 2, 3, 4, 5, 6.5]).p, 2 / 64)


def test_wilson_is_statsmodels():
    from statsmodels.stats.proportion import proportion_confint
    for k, n in [(0, 10), (7, 12), (48, 48)]: assert np.allclose(share_interval(k, n), proportion_confint(k, n, method="wilson"))


def test_clusters_count_once():
    "Ten pairs of one prompt weigh as much as one pair of another."
    assert cluster_means([1.0] * 10 + [0.0], ["a"] * 10 + ["b"]) == [1.0, 0.0]
    found = estimate([1.0] * 10 + [0.0, 0.5, 0.5, 0.5], ["a"] * 10 + list("bcde"))
    assert found.clusters == 5 and found.mean == 0.5


@pytest.mark.parametrize("values, why", [([], "0 independent"), ([0.3], "1 independent"), ([0.1, 0.2, 0.3, 0.4], "4 independent"), ([2.0] * 8, "equal")])
def test_degenerate_input_is_undefined_with_the_reason(values, why):
    found = estimate(values)
    assert why in found.undefined and found.low is None and found.p is None


def test_values_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"): estimate([1.0, float("nan"), 2.0, 3.0, 4.0])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    "400 clustered samples with a known mean: a 95 % interval that holds it in 91-99 % of them."
    rng, hits = np.random.default_rng(1), 0
    for _ in range(400):
        prompts = rng.normal(0.3, 1, 20)
        values = (prompts[:, None] + rng.normal(0, 0.5, (20, 4))).ravel()
        found = estimate(list(values), [str(i // 4) for i in range(80)], resamples=100)
        hits += found.low <= 0.3 <= found.high
    assert 0.91 <= hits / 400 <= 0.99
