"""A mean over prompts and repetitions: as statsmodels has it, right as often as it says, and honest about holes."""
import warnings

import numpy as np
import pytest

from contemplative_cai.measure.crossed import crossed_estimate


def study(rng, effect=0.0, of_training=0.1, of_data=0.0, runs=3, datas=1, prompts=60, of_prompt=0.3, rest=0.3):
    prompt, data = rng.normal(0, of_prompt, prompts), rng.normal(0, of_data, datas)
    values = {}
    for d in range(datas):
        for t in range(runs):
            row = effect + prompt + data[d] + rng.normal(0, of_training) + rng.normal(0, rest, prompts)
            values[d, t] = {f"p{i}": float(value) for i, value in enumerate(row)}
    return values


@pytest.mark.long
def test_it_is_the_mixed_model_of_statsmodels():
    import pandas as pd
    from statsmodels.regression.mixed_linear_model import MixedLM
    values = study(np.random.default_rng(4), effect=0.2, of_training=0.25, runs=4, prompts=25)
    rows = [(run[1], prompt, value) for run, by_prompt in values.items() for prompt, value in by_prompt.items()]
    table = pd.DataFrame(rows, columns=["run", "prompt", "y"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = MixedLM.from_formula("y ~ 1", table, groups=np.ones(len(table)),
                                      vc_formula={"run": "0 + C(run)", "prompt": "0 + C(prompt)"}).fit(reml=True)
    ours = crossed_estimate(values)
    parts = {part.source: part.variance for part in ours.parts}
    found = dict(zip(fitted.model.exog_vc.names, fitted.vcomp))
    assert parts["training"] == pytest.approx(found["run"], rel=0.02)
    assert parts["prompts"] == pytest.approx(found["prompt"], rel=0.02)
    assert parts["rest"] == pytest.approx(fitted.scale, rel=0.02)
    from scipy import stats
    error = (ours.high - ours.low) / 2 / stats.t.ppf(0.975, ours.df)
    assert ours.mean == pytest.approx(fitted.params["Intercept"], abs=1e-6)
    assert error == pytest.approx(fitted.bse["Intercept"], rel=0.02)


@pytest.mark.parametrize("of_training,least,most", [(0.0, 0.015, 0.07), (0.1, 0.025, 0.09), (0.3, 0.025, 0.11)])
def test_a_true_null_is_rejected_about_as_often_as_said(of_training, least, most):
    rng, n = np.random.default_rng(11), 400
    rejected = sum(crossed_estimate(study(rng, of_training=of_training, runs=4, prompts=40)).p < 0.05 for _ in range(n))
    assert least < rejected / n < most


def test_pooled_prompts_would_reject_far_too_often():
    from scipy import stats
    rng, n = np.random.default_rng(12), 200
    studies = [study(rng, of_training=0.3, runs=4, prompts=40) for _ in range(n)]
    values = [[value for row in one.values() for value in row.values()] for one in studies]
    pooled = sum(stats.ttest_1samp(some, 0).pvalue < 0.05 for some in values)
    assert pooled / n > 0.5 > 0.15 > sum(crossed_estimate(one).p < 0.05 for one in studies) / n


def test_a_planted_effect_is_found_and_a_shuffled_one_is_not():
    rng = np.random.default_rng(13)
    found, shuffled = 0, 0
    for _ in range(60):
        values = study(rng, effect=0.25, of_training=0.05)
        found += crossed_estimate(values).p < 0.05
        signs = dict(zip(values[0, 0], rng.choice([-1, 1], 60)))
        shuffled += crossed_estimate({run: {p: v * signs[p] for p, v in row.items()}
                                      for run, row in values.items()}).p < 0.05
    assert found > 54 and shuffled < 9


def test_the_spread_is_told_by_its_source():
    rng = np.random.default_rng(14)
    kinds = {"training": dict(of_training=0.5, of_prompt=0.1, rest=0.1, runs=6),
             "prompts": dict(of_training=0.02, of_prompt=0.6, rest=0.1),
             "data": dict(of_data=0.8, of_training=0.05, of_prompt=0.1, rest=0.1, datas=6)}
    for source, sizes in kinds.items():
        parts = {part.source: part.share for part in crossed_estimate(study(rng, **sizes)).parts if part.share}
        assert max(parts, key=parts.get) == source


def test_of_several_draws_of_data_the_draw_is_what_is_repeated():
    estimate = crossed_estimate(study(np.random.default_rng(15), datas=3, of_data=0.3))
    assert (estimate.repeats, estimate.runs) == (3, 9) and estimate.df < 6


def test_holes_near_duplicates_and_too_little_are_told():
    values = study(np.random.default_rng(16), prompts=30)
    del values[0, 1]["p3"]
    together = {f"p{i}": f"p{i // 2 * 2}" for i in range(30)}
    estimate = crossed_estimate(values)
    assert (estimate.prompts, estimate.left_out) == (29, 1)
    assert crossed_estimate(values, together).prompts == 15
    assert "at least 5" in crossed_estimate(study(np.random.default_rng(1), prompts=4)).undefined
    assert crossed_estimate({}).undefined and crossed_estimate({(None, 1): {f"p{i}": 0.0 for i in range(9)}}).p is None
    one = crossed_estimate({(None, 1): values[0, 0]})
    assert one.repeats == 1 and "prompts alone" in one.method and one.p is not None


def test_differences_of_shares_stay_on_their_scale():
    shares = {(None, run): {f"p{i}": -1.0 if i % 8 else 0.0 for i in range(8)} for run in range(3)}
    shares[None, 1]["p1"] = 0.0
    for values in (shares, {(None, 0): shares[None, 0]}):
        free, bound = crossed_estimate(values), crossed_estimate(values, scale=(-1.0, 1.0))
        assert free.low < -1 <= bound.low < bound.mean < bound.high and bound.mean == free.mean
