"""Statistics against scipy, statsmodels and published examples,
silence where there is nothing to say, and intervals that hold what they promise."""
import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from contemplative_cai.core.schema import InputError
from contemplative_cai.measure.agreement import gwet_ac1, krippendorff_alpha, weighted_kappa
from contemplative_cai.measure.bounded import flip_p, score_interval, variance_under
from contemplative_cai.measure.outcomes import (
    as_primary,
    declare,
    declared_p,
    holm,
    length_controlled,
    noninferior,
    risk_difference,
    role,
    worst_case,
)
from contemplative_cai.measure.power import (
    changed_shares,
    changes_told,
    detectable,
    detectable_change,
    detectable_wins,
    flip_ps,
    mcnemar_power,
    needed_prompts,
    needed_units,
    power_of,
    sd_of_change,
    sd_of_means,
    share_power,
    spread,
    wins_power,
)
from contemplative_cai.measure.stats import (
    Estimate,
    cluster_means,
    estimate,
    estimate_accuracy,
    estimate_each,
    hedges_correction,
    pair_by_prompt,
    paired_difference,
    share_interval,
    shown,
)
from contemplative_cai.report.summary import side_of


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
    assert (np.allclose([found.low, found.high], reference.confidence_interval())
            and abs(found.p - reference.pvalue) < 0.03)
    assert abs(found.boot_low - found.low) < 0.1


def test_small_samples_are_permuted_exactly():
    "Six positive values: of the 64 sign patterns only all-plus and all-minus are as extreme."
    assert math.isclose(estimate([1, 2, 3, 4, 5, 6.5]).p, 2 / 64)


def test_wilson_is_statsmodels():
    from statsmodels.stats.proportion import proportion_confint
    for k, n in [(0, 10), (7, 12), (48, 48)]:
        assert np.allclose(share_interval(k, n), proportion_confint(k, n, method="wilson"))


def test_clusters_count_once():
    "Ten pairs of one prompt weigh as much as one pair of another."
    assert cluster_means([1.0] * 10 + [0.0], ["a"] * 10 + ["b"]) == [1.0, 0.0]
    found = estimate([1.0] * 10 + [0.0, 0.5, 0.5, 0.5], ["a"] * 10 + list("bcde"))
    assert found.clusters == 5 and found.mean == 0.5


@pytest.mark.parametrize("values, why", [([], "0 independent"), ([0.3], "1 independent"),
                                         ([0.1, 0.2, 0.3, 0.4], "4 independent"), ([0.0] * 8, "equal")])
def test_degenerate_input_is_undefined_with_the_reason(values, why):
    found = estimate(values)
    assert why in found.undefined and found.low is None and found.p is None


def test_values_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"): estimate([1.0, float("nan"), 2.0, 3.0, 4.0])


def test_an_estimate_stored_before_g_was_known_still_loads():
    assert Estimate(**{"n": 9, "clusters": 9, "mean": 0.5, "low": 0.2, "high": 0.8, "boot_low": 0.2, "boot_high": 0.8,
                       "p": 0.01, "dz": 1.0, "null": 0.0, "undefined": ""}).g is None


def test_hedges_correction_is_the_published_one():
    "c4 of the control-chart tables, times sqrt((m - 1) / m), is Hedges' c(m); 1 - 3 / (4 m - 1) is his approximation."
    for m, c4 in [(5, 0.9400), (10, 0.9727), (25, 0.9896)]:
        assert math.isclose(hedges_correction(m), c4 * math.sqrt((m - 1) / m), abs_tol=1e-4)
    for m in range(4, 200): assert abs(hedges_correction(m) - (1 - 3 / (4 * m - 1))) < 0.008
    found = estimate([2.1, -0.3, 1.4, 0.9, 0.2, 1.8])
    assert math.isclose(found.g, found.dz * 0.8408, rel_tol=1e-3)


def test_samples_of_a_prompt_are_averaged_and_what_cannot_be_paired_is_named():
    paired = pair_by_prompt({"a": [0, 1], "b": [1, None], "c": [None]}, {"a": [1, 1], "b": [0], "c": [1], "d": [1]},
                            {"a": "twins", "b": "twins"})
    assert (paired.before == (0.5, 1.0) and paired.after == (1.0, 0.0)
            and paired.clusters == ("twins", "twins") and paired.unpaired == ("c", "d"))


# Shares

NORMAL = float(stats.norm.ppf(0.975))


def tango(gained: int, lost: int, same: int, quantile: float | None = NORMAL) -> tuple[float, float]:
    return score_interval([1.0] * gained + [-1.0] * lost + [0.0] * same, -1.0, 1.0, quantile=quantile)


def test_tango_is_the_published_interval():
    "Fagerland, Lydersen and Laake (2014): 21 children, 1 gained, 7 lost; with t's quantile it is wider."
    assert np.allclose(tango(1, 7, 13), (-0.517, -0.026), atol=5e-4)
    assert np.allclose(tango(1, 7, 13, None), (-0.531, -0.006), atol=5e-4)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_tango_and_mcnemar_agree_about_zero(gained, lost, same):
    "The interval leaves 0 out exactly where McNemar's chi-square is above 3.84; arms exchanged, it is mirrored."
    if gained + lost + same < 2: return
    low, high = tango(gained, lost, same)
    assert -1 <= low <= (gained - lost) / (gained + lost + same) <= high <= 1
    if gained + lost: assert (low > 0 or high < 0) == ((gained - lost) ** 2 / (gained + lost) > stats.chi2.ppf(0.95, 1))
    assert np.allclose(tango(lost, gained, same), (-high, -low), atol=1e-7)


@pytest.mark.parametrize("tiny", [1e-6, 4e-9, 1e-10, 1e-12])
def test_the_score_interval_of_values_all_but_at_an_end_is_that_of_the_end(tiny):
    "A judge may be as sure as that of every answer."
    values = [tiny, 0.0, 5 * tiny, tiny / 50, tiny / 9, tiny / 1000, tiny]
    low, high = score_interval(values, 0.0, 1.0)
    assert 0 <= low <= sum(values) / 7 and high == pytest.approx(score_interval([0.0] * 7, 0.0, 1.0)[1], abs=1e-5)
    assert np.allclose(score_interval([1 - value for value in values], 0.0, 1.0), (1 - high, 1 - low), atol=1e-6)


@given(st.integers(0, 25), st.integers(0, 25))
@settings(max_examples=30, deadline=None)
def test_the_score_interval_of_yes_and_no_is_wilsons(yes, no):
    if yes + no < 2: return
    wilson = stats.binomtest(yes, yes + no).proportion_ci(method="wilson")
    assert np.allclose(score_interval([1.0] * yes + [0.0] * no, 0.0, 1.0, quantile=NORMAL), wilson, atol=1e-6)


def test_the_likeliest_distribution_is_scipys():
    "Multinomial likelihood over the values seen and both ends, maximised by a general optimiser under the mean."
    from scipy.optimize import minimize
    seen, mean = np.array([0.0, 0.0, 0.25, 0.5, -0.25, 0.0]), 0.3
    places = np.array([-1.0, *sorted(set(seen)), 1.0])
    counts = np.array([(seen == place).sum() for place in places])
    def likelihood(shares): return -(counts * np.log(np.maximum(shares, 1e-12))).sum()
    held = [{"type": "eq", "fun": lambda shares: shares.sum() - 1},
            {"type": "eq", "fun": lambda shares: shares @ places - mean}]
    found = minimize(likelihood, np.full(len(places), 1 / len(places)), bounds=[(0, 1)] * len(places), method="SLSQP",
                     constraints=held, options={"ftol": 1e-12})
    reference = found.x @ (places - mean) ** 2
    assert math.isclose(variance_under(seen - mean, -1 - mean, 1 - mean), reference, rel_tol=1e-3)


@given(st.lists(st.sampled_from([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0]), min_size=5, max_size=10))
@settings(max_examples=30, deadline=None)
def test_flips_are_scipys_counted_out(values):
    if not any(values): return
    reference = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert math.isclose(flip_p(values), reference, rel_tol=1e-9)


def test_twenty_of_twenty_that_change_are_tested_with_and_without_a_near_duplicate():
    every, near = risk_difference([0] * 20, [1] * 20), risk_difference([0] * 20, [1] * 20, [*map(str, range(19)), "18"])
    assert math.isclose(every.p, 2 * 0.5 ** 20) and math.isclose(near.p, 2 * 0.5 ** 19) and near.clusters == 19
    assert round(every.p, 7) == 1.9e-6 and not every.undefined and not near.undefined
    for change in (every, near): assert change.mean == change.high == 1 and 0.6 < change.low < 0.65
    assert math.isclose(every.low, tango(20, 0, 0, None)[0], abs_tol=1e-9)


def test_equal_differences_without_known_ends_have_a_p_and_no_interval():
    found = estimate([3.0] * 20)
    assert math.isclose(found.p, 2 * 0.5 ** 20) and found.low is None and "no spread" in found.undefined


def test_an_interval_by_prompt_has_no_width_because_nothing_was_seen():
    "Five samples a prompt, no violation in either arm: the t interval says +-0; twenty prompts say +-0.18."
    names = [str(i // 5) for i in range(100)]
    found = risk_difference([0] * 100, [0] * 100, names)
    assert round(found.high, 2) == 0.18 and noninferior(found, 0.05, False).verdict == "not shown"


def test_five_of_five_does_not_show_a_preference():
    found = estimate_accuracy([1.0] * 5, list("abcde"))
    assert found.p == 0.0625 and found.low < 0.5 and found.high == 1
    assert estimate_accuracy([1.0] * 8, list("abcdefgh")).low > 0.5


@pytest.mark.parametrize("right, wrong, pairs, prompts", [(9, 2, 0.82, 0.88), (2, 9, 0.18, 0.15)])
def test_a_share_of_pairs_is_of_pairs(right, wrong, pairs, prompts):
    "Nine of eleven pairs are right; over prompts the mean is another number, and is not what the sentence says."
    values = [1.0] * right + [0.0] * wrong
    names = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p6", "p6", "p7", "p7"]
    found = estimate_accuracy(values, names)
    assert round(found.mean, 2) == pairs != round(float(np.mean(cluster_means(values, names))), 2) and found.n == 11
    again = estimate_each([1 - value for value in values], names, 0.5, (0.0, 1.0))
    assert math.isclose(again.mean, 1 - found.mean) and math.isclose(again.p, found.p)
    assert np.allclose([again.low, again.high], [1 - found.high, 1 - found.low], atol=1e-6)


def test_mcnemar_is_statsmodels():
    from statsmodels.stats.contingency_tables import mcnemar
    rng = np.random.default_rng(3)
    for _ in range(20):
        before, after = rng.integers(0, 2, 30), rng.integers(0, 2, 30)
        table = [[int(((before == i) & (after == j)).sum()) for j in (0, 1)] for i in (0, 1)]
        found = risk_difference(list(before), list(after))
        assert (math.isclose(found.p, mcnemar(table, exact=True).pvalue)
                and (found.gained, found.lost) == (table[0][1], table[1][0]))
        assert math.isclose(found.mean, found.after - found.before, abs_tol=1e-12)


def test_shares_in_clusters_are_compared_by_cluster():
    before, after = [0, 0, 1, 0, 1, 0, 0, 0] * 3, [1, 0, 1, 1, 1, 0, 1, 0] * 3
    prompts = [str(i % 8) for i in range(24)]
    found, once = risk_difference(before, after, prompts), paired_difference(before[:8], after[:8], scale=(-1.0, 1.0))
    assert (found.clusters == 8 and (found.low, found.high, found.p) == (once.low, once.high, once.p)
            and found.method.startswith("cluster"))


# What was declared

def test_holm_is_statsmodels_and_passes_undefined_through():
    from statsmodels.stats.multitest import multipletests
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    assert list(holm(p).values()) == list(multipletests(list(p.values()), method="holm")[1])
    assert (holm({"a": 0.01, "b": None, "c": 0.04}) == {"a": 0.02, "b": None, "c": 0.04}
            and holm({}) == {} and holm({"a": None}) == {"a": None})
    with pytest.raises(ValueError, match="finite"): holm({"a": math.nan})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=12, deadline=None)
@pytest.mark.long
def test_holm_never_lowers_a_p_and_keeps_their_order(p):
    adjusted = holm({str(i): value for i, value in enumerate(p)})
    assert all(adjusted[str(i)] >= value for i, value in enumerate(p))
    for i, j in itertools.combinations(range(len(p)), 2):
        if p[i] < p[j]: assert adjusted[str(i)] <= adjusted[str(j)]


def test_nothing_else_is_called_primary():
    plan = declare("violating", ["bias", "refusal clarity"])
    assert (as_primary(plan, "violating") == "violating"
            and role(plan, "bias") == "secondary" and role(plan, "length") == "exploratory")
    assert (declared_p(plan, {"violating": 0.03, "bias": 0.02, "refusal clarity": 0.04, "length": 0.001})
            == {"violating": 0.03, "bias": 0.04, "refusal clarity": 0.04, "length": None})
    with pytest.raises(InputError, match="declared before the run, came 'bias'"): as_primary(plan, "bias")
    for wrong in (("", []), ("a", ["a"]), ("a", ["b", "b"]), ("a", "b"), (["a", "b"], [])):
        with pytest.raises(InputError): declare(*wrong)


@pytest.mark.parametrize("low, high, higher_is_better, verdict", [
    (-1, 2, True, "kept"), (-2, -1, True, "kept"), (-4, 1, True, "not shown"), (-6, -1, True, "worse"),
    (-3, 1, True, "not shown"), (-2, 1, False, "kept"), (1, 6, False, "worse"), (-6, -4, False, "kept")
])
def test_kept_is_the_bound_within_the_margin(low, high, higher_is_better, verdict):
    found = noninferior(Estimate(n=50, clusters=50, mean=(low + high) / 2, low=low, high=high), 3, higher_is_better)
    assert (found.verdict == verdict and found.words.startswith(verdict)
            and found.bound == (low if higher_is_better else high))


def test_noninferiority_is_the_one_sided_t_test():
    "Kept at 97.5 % exactly where the one-sided t test against -margin has p below 0.025."
    rng = np.random.default_rng(5)
    for _ in range(40):
        values = rng.normal(-0.1, 1, 25)
        p = stats.ttest_1samp(values, -0.5, alternative="greater").pvalue
        assert (noninferior(estimate(list(values), resamples=50), 0.5).verdict == "kept") == (p < 0.025)


# Power

def test_power_is_statsmodels_and_simulation():
    from statsmodels.stats.power import TTestPower
    # Cohen (1988); G*Power 3.1
    assert needed_units(0.5).clusters == 34 and needed_units(0.2).clusters == 199 and needed_units(-0.5).clusters == 34
    for n in (5, 20, 100, 1000):
        effect = detectable(n).effect
        assert (math.isclose(power_of(effect, n).power, 0.8, abs_tol=1e-4)
                and power_of(effect, n).power == TTestPower().power(effect, n, 0.05))
    samples = np.random.default_rng(0).normal(0.4, 1, (4000, 30))
    assert abs((stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean() - power_of(0.4, 30).power) < 0.02
    assert (needed_units(9.0).clusters == 5
            and math.isclose(detectable(50, sd=2.0).difference, 2 * detectable(50).effect))


def test_mcnemars_power_is_what_simulation_finds():
    from statsmodels.stats.contingency_tables import mcnemar
    rng, rejected = np.random.default_rng(7), 0
    for gained, lost, _ in rng.multinomial(30, (0.05, 0.3, 0.65), 2000):
        rejected += mcnemar([[0, gained], [lost, 0]], exact=True).pvalue < 0.05
    assert abs(rejected / 2000 - mcnemar_power(0.05, 0.3, 30)) < 0.025
    # five of five have p 0.0625; of six p is 0.031, and the interval still holds 0
    assert mcnemar_power(0.0, 1.0, 5) == 0 and share_power(1.0, -1.0, 5) == 0
    assert risk_difference([1.0] * 6, [0.0] * 6, resamples=10).high > 0 and share_power(1.0, -1.0, 6) == 0
    assert risk_difference([1.0] * 7, [0.0] * 7, resamples=10).high < 0 and share_power(1.0, -1.0, 7) == 1


def evaluated(rate, change, prompts, samples, count, seed=8):
    "Yes-counts of whole evaluations, (count, prompts) an arm: half of the prompts move together, the others by answer."
    rng, shape = np.random.default_rng(seed), (count, prompts)
    settled, draw = rng.random(shape) < 0.5, rng.random(shape)
    return [np.where(settled, samples * (draw < share), rng.binomial(samples, share, shape))
            for share in (rate, rate + change)]


def told(before, after, samples):
    "Whether the report tells a change of each evaluation."
    return [side_of(risk_difference(first / samples, second / samples, resamples=10), 0.0) != "open"
            for first, second in zip(before, after)]


@pytest.mark.parametrize("rate, change, prompts, samples", [
    (0.3, -0.2, 25, 1), (0.9, -0.9, 6, 1), (0.9, -0.85, 7, 1), (0.3, -0.2, 25, 3), (0.3, -0.2, 80, 2),
    (0.3, -0.25, 20, 3), (0.5, -0.4, 8, 3), (0.5, -0.49, 10, 3), (0.5, -0.36, 12, 5), (0.1, 0.8, 9, 2)])
def test_a_plan_decides_as_the_report_does(rate, change, prompts, samples):
    before, after = evaluated(rate, change, prompts, samples, 30)
    assert list(changes_told(after - before, samples)) == told(before, after, samples)


@pytest.mark.parametrize("rate, change, prompts, samples, power", [
    (0.3, -0.25, 20, 3, 0.61), (0.5, -0.4, 8, 3, 0.03), (0.5, -0.49, 10, 3, 0.42), (0.5, -0.36, 12, 5, 0.33),
    (0.3, -0.2, 25, 1, 0.33), (0.3, -0.2, 25, 3, 0.65), (0.3, -0.2, 40, 3, 0.94)])
def test_the_power_of_a_change_is_that_of_what_the_report_tells(rate, change, prompts, samples, power):
    before, after = evaluated(rate, change, prompts, samples, 2000)
    assert changes_told(after - before, samples).mean() == pytest.approx(power, abs=0.03)
    assert share_power(rate, change, prompts, samples) == pytest.approx(power, abs=0.05)


def test_the_power_of_wins_is_that_of_what_the_report_tells():
    rng, shape = np.random.default_rng(6), (200, 24)
    for samples in (1, 3):
        won = np.where(rng.random(shape) < 0.5, samples * rng.binomial(1, 0.75, shape),
                       rng.binomial(samples, 0.75, shape))
        apart = [estimate(row / samples - 0.5, scale=(-0.5, 0.5)) for row in won]
        assert np.mean([side_of(one, 0.0) != "open" for one in apart]) == pytest.approx(wins_power(0.75, 24, samples),
                                                                                       abs=0.09)
    assert [wins_power(1.0, prompts, samples) for prompts in (6, 7) for samples in (1, 2)] == [0, 0, 1, 1]
    assert detectable_wins(24, samples=3) < detectable_wins(24) and detectable_wins(6) is None


def test_flips_of_many_evaluations_are_flips_of_each():
    steps = np.random.default_rng(9).integers(-3, 4, (20, 15))
    assert np.allclose(flip_ps(steps), [flip_p(row.tolist()) for row in steps])


def test_what_a_plan_says_can_be_shown_is_shown():
    change = detectable_change(0.3, 120)
    assert share_power(0.3, -change, 120) >= 0.8 > share_power(0.3, -change + 0.01, 120)
    enough = needed_prompts(0.3, -0.1)
    assert share_power(0.3, -0.1, enough) >= 0.8 and 150 < enough < 250
    assert detectable_change(0.02, 60) is None and detectable_change(0.5, 5) is None
    # by p alone these were 0.24, 0.49, 0.36
    assert [detectable_change(*plan) for plan in ((0.3, 20, 3), (0.5, 10, 3), (0.5, 12, 5))] == [0.3, None, None]
    assert needed_prompts(0.3, -0.001) is None
    with pytest.raises(InputError, match="shares from 0 to 1"): changed_shares(0.1, -0.2)


def test_the_spread_of_a_change_is_the_samples():
    before, after = [0] * 70 + [1] * 30, [1] * 10 + [0] * 60 + [0] * 5 + [1] * 25
    assert math.isclose(sd_of_change(0.10, 0.05), np.std(np.subtract(after, before)))


def test_spread_is_the_mixed_models():
    "For equal sizes the analysis of variance and REML give the same parts."
    import statsmodels.api as sm
    rng = np.random.default_rng(2)
    values, prompts = ((rng.normal(0, 1, 30)[:, None] + rng.normal(0, 0.7, (30, 4))).ravel(),
                       [str(i // 4) for i in range(120)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = sm.MixedLM(values, np.ones((120, 1)), groups=prompts).fit(reml=True)
    found = spread(list(values), prompts)
    assert (math.isclose(found.between ** 2, float(fitted.cov_re[0, 0]), rel_tol=1e-3)
            and math.isclose(found.within ** 2, float(fitted.scale), rel_tol=1e-3))
    assert math.isclose(sd_of_means(found, 4), np.std(values.reshape(30, 4).mean(axis=1), ddof=1), rel_tol=1e-9)


# Length and the unscored

def test_equal_length_is_statsmodels_line_by_cluster():
    import pandas as pd
    import statsmodels.formula.api as smf
    rng = np.random.default_rng(4)
    words, score = rng.normal(60, 40, 50), rng.normal(0, 3, 50)
    score = score + 2 + 0.05 * words
    found = length_controlled([0.0] * 100, list(np.repeat(score, 2)), [0.0] * 100, list(np.repeat(words, 2)),
                              [str(i // 2) for i in range(100)])
    reference = smf.ols("score ~ words", pd.DataFrame({"score": score, "words": words})).fit(cov_type="HC3", use_t=True)
    assert (np.allclose([found.low, found.high], reference.conf_int().loc["Intercept"])
            and math.isclose(found.p, reference.pvalues["Intercept"]) and found.clusters == 50)
    assert (np.allclose([found.slope_low, found.slope_high], reference.conf_int().loc["words"])
            and math.isclose(found.plain, score.mean()))


def test_an_equal_length_that_never_occurred_is_said():
    rng = np.random.default_rng(1)
    longer = rng.uniform(50, 90, 30)
    assert not length_controlled([0] * 30, list(rng.normal(0, 1, 30)), [0] * 30, list(longer)).inside
    assert length_controlled([0] * 30, list(rng.normal(0, 1, 30)), [0] * 30, list(longer - 70)).inside


def each(values): return [[value] for value in values]


def test_worst_cases_are_every_unscored_value_at_the_end_of_the_scale():
    first, second = [0, 1, 0, 0, 1, None, 0, 1], [1, 1, None, 0, 1, 1, 1, None]
    found = worst_case(each(first), each(second))
    assert found.scored.n == 5 and (found.unscored_before, found.unscored_after) == (1, 2)
    differences = [paired_difference([a if a is not None else fill[0] for a in first],
                                     [b if b is not None else fill[1] for b in second]).mean
                   for fill in itertools.product((0, 1), (0, 1))]
    assert found.against.mean == min(differences) and found.favour.mean == max(differences)
    reverse = worst_case(each(first), each(second), higher_is_better=False)
    assert (reverse.against.mean, reverse.favour.mean) == (found.favour.mean, found.against.mean)
    complete = worst_case(each([0, 20, 50, 10, 30]), each([10, 20, 70, 15, 90]), scale=(0, 100))
    assert complete.against == complete.scored == complete.favour


def test_a_prompt_with_one_scored_sample_of_four_is_mostly_unscored():
    "Ten prompts, four samples, thirty of forty without a value: the difference could be anything up to +-0.75."
    found = worst_case([[0, 0, 0, 0]] * 10, [[0, None, None, None]] * 10, higher_is_better=False)
    assert (found.scored.mean, found.against.mean, found.favour.mean) == (0, 0.75, 0) and found.unscored_after == 30


# Agreement

FOUR_OBSERVERS = list(zip([1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
                          [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None], [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None]))


def test_agreement_is_the_published_one():
    """Krippendorff (2011), section C, and the same data in Gwet's handbook (irrCAC: cac.raw4raters);
    Gwet's (2002) 125 units; his 3 x 3 abstractors."""
    for level, value in (("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)):
        assert math.isclose(krippendorff_alpha(FOUR_OBSERVERS, level).value, value, abs_tol=6e-4)
    assert math.isclose(gwet_ac1(FOUR_OBSERVERS).value, 0.77544, abs_tol=1e-5)
    assert math.isclose(gwet_ac1([(1, 1)] * 118 + [(1, 0)] * 5 + [(0, 1)] * 2).value, 0.9408, abs_tol=1e-4)
    abstractors = [pair for pair, n in {("ectopic", "ectopic"): 13, ("aiu", "aiu"): 20, ("aiu", "niu"): 7,
                                        ("niu", "aiu"): 4, ("niu", "niu"): 56}.items()
                   for _ in range(n)]
    assert (math.isclose(gwet_ac1(abstractors).value, 0.8493305, abs_tol=1e-6)
            and math.isclose(krippendorff_alpha(abstractors).value, 0.7972585, abs_tol=1e-6))
    assert math.isclose(weighted_kappa(*zip(*abstractors), ["ectopic", "aiu", "niu"], weights=None).value, 0.7964094,
                        abs_tol=1e-6)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=8, max_size=30))
@settings(max_examples=20, deadline=None)
def test_agreement_is_the_packages(pairs):
    import krippendorff
    from statsmodels.stats.inter_rater import cohens_kappa, to_table
    if len({value for pair in pairs for value in pair}) < 2: return
    assert math.isclose(krippendorff_alpha(pairs, "interval", resamples=10).value,
                        krippendorff.alpha(np.array(pairs, dtype=float).T, level_of_measurement="interval"),
                        abs_tol=1e-9)
    with np.errstate(invalid="ignore", divide="ignore"):
        reference = float(cohens_kappa(to_table(np.array(pairs) - 1, bins=5)[0],
                                       weights=np.subtract.outer(range(5), range(5)).astype(float) ** 2).kappa)
    assert math.isclose(weighted_kappa(*zip(*pairs), [1, 2, 3, 4, 5], resamples=10).value, reference, abs_tol=1e-9)


def test_judges_at_random_agree_by_chance_and_the_same_judge_always():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 3, (300, 2)).tolist()
    for found in (krippendorff_alpha(noise), gwet_ac1(noise), weighted_kappa(*zip(*noise), [0, 1, 2], resamples=200)):
        assert abs(found.value) < 0.1 and found.low < 0 < found.high
    twin = [(a, a) for a, _ in noise]
    assert {found.value for found in (krippendorff_alpha(twin), gwet_ac1(twin),
                                      weighted_kappa(*zip(*twin), [0, 1, 2], resamples=20))} == {1.0}


def test_unused_levels_count_where_they_change_the_distance():
    one, two = [1, 2, 5, 5, 2, 1, 5], [1, 5, 5, 2, 2, 1, 5]
    assert weighted_kappa(one, two, [1, 2, 3, 4, 5]).value != weighted_kappa(one, two, [1, 2, 5]).value
    with pytest.raises(InputError, match="expected one of"): weighted_kappa(one, two, [1, 2, 3])


# Nothing to say

@pytest.mark.parametrize("found, why", [
    (lambda: risk_difference([0, 1], [1, 1]), "2 independent"),
    (lambda: risk_difference([], []), "0 independent"),
    (lambda: risk_difference([1] * 9, [1] * 9), "equal"),
    (lambda: risk_difference([0] * 12, [1] * 12, ["one"] * 12), "1 independent"),
    (lambda: length_controlled([], [], [], []), "0 independent"),
    (lambda: length_controlled([1] * 8, [2] * 8, range(8), range(1, 9)), "equal"),
    (lambda: length_controlled(range(8), range(0, 16, 2), [5] * 8, [9] * 8), "length and effect"),
    (lambda: length_controlled([0] * 8, [1, 2, 3, 4, 5, 6, 7, 9], [0] * 8, [0] * 7 + [50]), "one unit alone"),
    (lambda: length_controlled([0] * 8, range(8), [0] * 8, range(8)), "exactly"),
    (lambda: worst_case([], []).scored, "0 independent"),
    (lambda: worst_case([[None]] * 9, [[None]] * 9).scored, "0 independent"),
    (lambda: worst_case([[1]] * 9, [[1]] * 9).against, "equal"),
    (lambda: worst_case([[1]] * 9, [[0.5]] * 9, clusters=["a"] * 9).against, "1 independent"),
    (lambda: detectable(4), "4 independent"),
    (lambda: power_of(0.5, 1), "1 independent"),
    (lambda: needed_units(0.0), "effect of 0"),
    (lambda: detectable(50, sd=0.0), "equal"),
    (lambda: spread([], []), "0 independent"),
    (lambda: spread([1.0] * 10, [str(i // 2) for i in range(10)]), "equal"),
    (lambda: spread([1.0, 2.0] * 5, ["a"] * 10), "1 independent"),
    (lambda: spread([1.0, 2, 3, 4, 5], list("abcde")), "one sample"),
    (lambda: krippendorff_alpha([]), "0 units"),
    (lambda: krippendorff_alpha([(1, None)] * 9), "0 units"),
    (lambda: krippendorff_alpha([("a", "a")] * 9), "same"),
    (lambda: gwet_ac1([(1, 1)] * 9, levels=[0, 1]), "same"),
    (lambda: gwet_ac1([(1, 0)] * 3), "3 units"),
    (lambda: weighted_kappa([], [], [0, 1]), "0 units"),
    (lambda: weighted_kappa([1] * 9, [1] * 9, [0, 1]), "same"),
    (lambda: weighted_kappa([1, 0, 1, 0, None], [1, 0, 1, 0, 1], [0, 1]), "4 units"),
])
def test_where_there_is_nothing_to_say_the_reason_is_said(found, why):
    found = found()
    assert why in found.undefined
    assert (all(getattr(found, name, None) is None for name in ("p", "value", "between"))
            and (getattr(found, "low", None) is None or "equal" in why))


def test_an_undefined_difference_is_neither_kept_nor_worse():
    assert (noninferior(estimate([1.0, 2.0]), 0.1).verdict == "undefined"
            and "2 independent" in noninferior(estimate([1.0, 2.0]), 0.1).words)
    assert noninferior(risk_difference([0] * 200, [0] * 200), 0.05).verdict == "kept", (
        "no prompt changed: the interval knows how large a change was overlooked at most"
    )
    assert shown(length_controlled([1] * 5, [2] * 5, [1] * 5, [2] * 5)).startswith("undefined: all values")


@pytest.mark.parametrize("call", [
    lambda nan: risk_difference([0, 1, 1, 0, nan], [1] * 5),
    lambda nan: length_controlled([0] * 5, [1, 2, 3, 4, nan], [0] * 5, [1, 2, 3, 4, 5]),
    lambda nan: length_controlled([0] * 5, [1, 2, 3, 4, 5], [0] * 5, [1, 2, 3, 4, nan]),
    lambda nan: worst_case([[0], [1], [0], [1], [nan]], [[0]] * 5),
    lambda nan: spread([1.0, nan] * 5, list("aabbccddee")),
    lambda nan: krippendorff_alpha([(1, nan)] * 6),
    lambda nan: gwet_ac1([(1, nan)] * 6),
    lambda nan: weighted_kappa([1] * 6, [nan] * 6, [0, 1]),
    lambda nan: holm({"a": nan}),
    lambda nan: power_of(nan, 50),
    lambda nan: noninferior(estimate([1.0, 2, 3, 4, 6]), nan),
])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused_everywhere(call, value):
    with pytest.raises(ValueError, match="finite"): call(value)


# Simulated arms with known effects

PROMPTS, SAMPLES, SIMULATIONS = 60, 4, 400
NAMES = [str(i // SAMPLES) for i in range(PROMPTS * SAMPLES)]


def simulated(rng, kind: str, effect: float, prompts: int = PROMPTS):
    "Two arms: prompts differ in difficulty and in how much the second arm helps, samples of a prompt share both."
    hard, helped = rng.normal(0, 1, prompts)[:, None], effect + rng.normal(0, 0.8, prompts)[:, None]
    before, after = (hard + rng.normal(0, 0.6, (prompts, SAMPLES)),
                     hard + helped + rng.normal(0, 0.6, (prompts, SAMPLES)))
    if kind == "normal": return before, after
    if kind == "yes or no": return (before > 1).astype(float), (after > 1).astype(float)
    # a judge's scores: steps of 5, many at 100
    return tuple(5 * np.round(np.clip(85 + 20 * arm, 0, 100) / 5) for arm in (before, after))


@pytest.mark.parametrize("kind", ["normal", "judge's scores", "yes or no"])
def test_95_per_cent_intervals_hold_the_truth_93_to_97_times_in_100(kind):
    before, after = simulated(np.random.default_rng(99), kind, 0.4, prompts=400_000)
    truth, rng, hits = 0.4 if kind == "normal" else float((after - before).mean()), np.random.default_rng(1), 0
    for _ in range(SIMULATIONS):
        before, after = (arm.ravel() for arm in simulated(rng, kind, 0.4))
        found = (risk_difference(before, after, NAMES, resamples=20) if kind == "yes or no"
                 else paired_difference(before, after, NAMES, resamples=20))
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / SIMULATIONS <= 0.97


def test_the_bootstrap_and_tangos_interval_hold_the_truth_as_often():
    rng, boot, held, shares = np.random.default_rng(2), 0, 0, (0.06, 0.16)
    for _ in range(SIMULATIONS):
        before, after = (arm.ravel() for arm in simulated(rng, "normal", 0.4))
        found = paired_difference(before, after, NAMES, resamples=400)
        boot += found.boot_low <= 0.4 <= found.boot_high
        gained, lost, _ = rng.multinomial(100, (*shares, 1 - sum(shares)))
        low, high = tango(int(gained), int(lost), int(100 - gained - lost))
        held += low <= shares[0] - shares[1] <= high
    assert 0.93 <= boot / SIMULATIONS <= 0.97 and 0.93 <= held / SIMULATIONS <= 0.97


@pytest.mark.parametrize("kind", ["normal", "judge's scores", "yes or no"])
def test_the_clustered_test_raises_a_false_alarm_at_most_7_times_in_100(kind):
    "With no effect on average, but one in each prompt: samples taken for prompts raise false alarms, clusters do not."
    rng, alarms, naive = np.random.default_rng(3), 0, 0
    for _ in range(SIMULATIONS):
        # which arm is first is drawn prompt by prompt: no effect at the end of a scale either
        arms, turned = simulated(rng, kind, 0.0), rng.random(PROMPTS)[:, None] < 0.5
        before, after = np.where(turned, arms[1], arms[0]).ravel(), np.where(turned, arms[0], arms[1]).ravel()
        alarms += paired_difference(before, after, NAMES, resamples=200).p < 0.05
        naive += stats.ttest_rel(after, before).pvalue < 0.05
    assert alarms / SIMULATIONS <= 0.07 and naive / SIMULATIONS > 0.12


def test_the_interval_at_equal_length_holds_the_truth():
    "The judge pays for length, unevenly: HC3 holds what it promises."
    rng, hits = np.random.default_rng(6), 0
    for _ in range(SIMULATIONS):
        words = rng.normal(40, 60, 80)
        score = 2 + 0.05 * words + rng.normal(0, 1, 80) * (1 + np.abs(words) / 60)
        found = length_controlled([0.0] * 80, score, [0.0] * 80, words)
        hits += found.low <= 2 <= found.high
    assert 0.93 <= hits / SIMULATIONS <= 0.97


# The prior study

def test_the_prior_studys_numbers_are_reproduced():
    "Laukkonen et al. (arXiv 2504.15125): one-way ANOVA F = 11.012, Cohen's d = 0.9615."
    import pandas as pd
    scores = pd.read_csv("data/prior_study/scores.csv").pivot(index="prompt_id", columns="technique", values="overall")
    assert (scores.shape == (100, 7)
            and round(float(stats.f_oneway(*(scores[name] for name in scores)).statistic), 3) == 11.012)
    before, after = scores["standard"], scores["contemplative_alignment"]
    d = (after.mean() - before.mean()) / math.sqrt((before.var(ddof=0) + after.var(ddof=0)) / 2)
    assert round(float(d), 4) == 0.9615 and (round(after.mean(), 2), round(before.mean(), 2)) == (74.71, 59.42)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200, -1e308])
def test_what_has_no_square_is_refused(value):
    with pytest.raises(ValueError, match="must be finite"): estimate([value, 0.0, 1.0, 2.0, 3.0, 4.0])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=6, max_size=30),
       st.sampled_from([None, "linear", "quadratic"]))
def test_kappa_is_scikit_learns(ratings, weights):
    "Counted here because it is resampled: a report of reviews asks for it ten thousand times."
    from sklearn.metrics import cohen_kappa_score
    one, two = zip(*ratings)
    if len({*one, *two}) < 2: return
    expected = cohen_kappa_score(one, two, labels=[0, 1, 2, 3], weights=weights)
    assert weighted_kappa(one, two, [0, 1, 2, 3], weights, resamples=1).value == pytest.approx(expected, abs=1e-12)
