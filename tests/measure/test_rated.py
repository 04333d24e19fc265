"""Differences over raters and items: variances recovered, alarms as rare as they should be, models beside others."""
import random

import numpy as np
import pytest

from contemplative_cai.core.schema import InputError
from contemplative_cai.measure.ordinal import OrdinalRating, ordinal_effect
from contemplative_cai.measure.rated import RatedParts, rated_difference, round_power, shown_difference


def drawn(seed, sd, raters=6, items=24, readers=3, mean=0.0, steps=False):
    lot = np.random.default_rng(seed)
    taste, kind = lot.normal(0, sd[0], raters), lot.normal(0, sd[1], items)
    values = [(f"r{r}", f"q{q}", float(mean + taste[r] + kind[q] + lot.normal(0, sd[2])))
              for q in range(items) for r in lot.choice(raters, readers, replace=False)]
    return [(r, q, float(round(value))) if steps else (r, q, value) for r, q, value in values]


@pytest.mark.long
@pytest.mark.parametrize("sd, steps", [((0.5, 0.5, 1.0), False), ((1.0, 0.0, 0.5), False), ((0.0, 0.0, 1.0), True),
                                       ((0.3, 0.6, 0.8), True)])
def test_where_nothing_differs_one_study_in_twenty_says_so(sd, steps):
    "Of 300, 15 are expected; 28 and more come once in 700 times."
    alarms = sum(rated_difference(drawn(seed, sd, steps=steps)).p < 0.05 for seed in range(300))
    assert alarms < 28


def test_variances_are_recovered_on_average():
    parts = [rated_difference(drawn(seed, (0.6, 0.4, 1.0), raters=10, items=40)).parts for seed in range(80)]
    means = [np.mean([getattr(part, name) for part in parts]) for name in ("raters", "items", "rest")]
    assert means == pytest.approx([0.36, 0.16, 1.0], abs=0.06)


def test_a_table_without_holes_is_the_textbook_analysis_of_variance():
    lot = np.random.default_rng(3)
    table = lot.normal(0, 1, (5, 1)) + lot.normal(0, 1, (1, 8)) + lot.normal(0, 1, (5, 8))
    one = rated_difference([(f"r{r}", f"q{q}", float(table[r, q])) for r in range(5) for q in range(8)])
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    mse = (rest ** 2).sum() / 28
    raters = (8 * table.mean(1).var(ddof=1) - mse) / 8
    assert (one.parts.rest, one.parts.raters) == pytest.approx((mse, raters))


def test_too_little_to_say_anything_is_said():
    assert "at least 3" in rated_difference([("a", f"q{k}", 1.0 * k) for k in range(9)]).undefined
    assert "at least 5" in rated_difference([(f"r{r}", f"q{q}", 1.0 * r) for r in range(4) for q in range(3)]).undefined
    apart = rated_difference([(f"r{k % 3}", f"q{k}", float(k % 2)) for k in range(9)])
    assert "overlap too little" in apart.undefined
    assert rated_difference([]).mean is None
    with pytest.raises(InputError, match="stand twice"): rated_difference([("a", "q", 1.0), ("a", "q", 2.0)])


def test_power_of_a_next_round_is_what_simulated_rounds_have():
    "Rather less than the share of 150 rounds, and not much; what a round shows with 80 % has a power of 80 %."
    sd, parts = (0.3, 0.4, 1.0), RatedParts(raters=0.09, items=0.16, rest=1.0)
    shown = np.mean([rated_difference(drawn(seed, sd, 8, 40, mean=0.45)).p < 0.05 for seed in range(150)])
    assert shown - 0.15 < round_power(parts, 0.45, 8, 40, 3) < shown + 0.06
    assert round_power(parts, shown_difference(parts, 8, 40, 3), 8, 40, 3) == pytest.approx(0.8)
    with pytest.raises(InputError, match="a round of 2 raters"): round_power(parts, 0.5, 2, 40, 2)


def ordinal_rows(seed, effect, raters=8, items=24):
    lot = np.random.default_rng(seed)
    strict, good = lot.normal(0, 1, raters), lot.normal(0, 1, items)
    own, its = lot.normal(0, 0.4, raters), lot.normal(0, 0.4, items)
    return [OrdinalRating(f"r{r}", f"q{q}", bool(arm), int(np.searchsorted([-2, -0.7, 0.7, 2], strict[r] + good[q]
                          + (arm - 0.5) * (effect + own[r] + its[q]) + lot.logistic())))
            for q in range(items) for r in lot.choice(raters, 3, replace=False) for arm in (0, 1)]


@pytest.mark.long
def test_the_cumulative_link_model_recovers_its_effect():
    "Mean over 12 studies within three of its standard errors, and no more than 3 of 12 intervals miss it."
    found = [ordinal_effect(ordinal_rows(seed, 1.0)) for seed in range(12)]
    values = [one.log_odds for one in found]
    assert np.mean(values) == pytest.approx(1.0, abs=3 * np.std(values, ddof=1) / 12 ** 0.5)
    assert sum(not one.low < 1.0 < one.high for one in found) <= 3


def test_what_no_ordinal_model_can_be_made_of_is_said():
    same = [row._replace(step=3) for row in ordinal_rows(0, 0.0)]
    assert ordinal_effect(same).undefined == "all ratings are the same"
    assert "at least 3" in ordinal_effect([row for row in ordinal_rows(0, 0.0) if row.rater in ("r0", "r1")]).undefined
    assert "one of the arms" in ordinal_effect([row for row in ordinal_rows(0, 0.0) if row.second]).undefined


@pytest.mark.parametrize("grade", [
    lambda r, q, second: 5 if second else 1 + q % 2, lambda r, q, second: 5 if second or r else 4,
    lambda r, q, second: 5 if (r, q, second) == (0, 0, True) else 4])
def test_ratings_that_the_steps_tell_apart_wholly_or_nearly_give_a_reason_and_no_fault(grade):
    rows = [OrdinalRating(f"r{r}", f"q{q}", second, grade(r, q, second))
            for r in range(4) for q in range(6) for second in (False, True)]
    found = ordinal_effect(rows)
    assert found.undefined == "the arms' ratings do not overlap" or found.low < found.log_odds < found.high


def test_few_ratings_of_any_kind_give_an_interval_or_a_reason():
    lot = random.Random(3)
    for _ in range(12):
        shift, most = lot.choice((0, 1, 3)), lot.randint(2, 5)
        rows = [OrdinalRating(f"r{r}", f"q{q}", second, min(5, lot.randint(1, most) + shift * second))
                for r in range(lot.randint(3, 5)) for q in range(6) for second in (False, True) if lot.random() < 0.8]
        found = ordinal_effect(rows)
        assert found.undefined or found.low < found.log_odds < found.high
