"""Wins at equal length: a known answer comes back, length's part is taken out, and what cannot be told is not."""
import math
import random

import numpy as np
import pytest
from scipy.optimize import minimize

from contemplative_cai.measure.lengthwin import wins_at_equal_length


def drawn(theta, slope, n=3000, seed=1):
    "Wins by the model itself, over differences of length."
    draw = random.Random(seed)
    longer = [draw.gauss(20, 50) for _ in range(n)]
    odds = theta + slope * np.tanh(np.asarray(longer) / np.std(longer))
    return [float(draw.random() < 1 / (1 + math.exp(-x))) for x in odds], longer, [str(i) for i in range(n)]


@pytest.mark.parametrize("theta, slope", [(0.0, 2.0), (0.8, 0.0), (-0.7, 1.5)])
def test_what_was_put_in_comes_out(theta, slope):
    found = wins_at_equal_length(*drawn(theta, slope))
    assert found.low < 1 / (1 + math.exp(-theta)) < found.high and found.high - found.low < 0.08
    assert found.slope_low < slope < found.slope_high
    assert (found.p < 0.001) == (theta != 0)


def test_the_likelihood_has_its_maximum_there():
    "Against a maximum found without the library, ties included."
    wins, longer, names = drawn(0.3, 1.0, n=300)
    wins = [0.5 if i % 7 == 0 else win for i, win in enumerate(wins)]
    x = np.tanh(np.asarray(longer) / np.std(longer))
    def loss(params):
        odds = params[0] + params[1] * x
        return float(np.sum(np.log1p(np.exp(odds)) - np.asarray(wins) * odds))
    best = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x
    found = wins_at_equal_length(wins, longer, names)
    assert found.mean == pytest.approx(1 / (1 + math.exp(-best[0])), abs=1e-6)
    assert found.slope == pytest.approx(best[1], abs=1e-5) and found.plain == pytest.approx(sum(wins) / 300)


def test_comparisons_turned_round_give_the_rest():
    wins, longer, names = drawn(0.5, 1.0, n=400)
    one = wins_at_equal_length(wins, longer, names)
    other = wins_at_equal_length([1 - win for win in wins], [-more for more in longer], names)
    assert one.mean == pytest.approx(1 - other.mean, abs=1e-9) and one.low == pytest.approx(1 - other.high, abs=1e-9)


def test_answers_to_one_prompt_are_no_independent_ones():
    wins, longer, _ = drawn(0.5, 0.5, n=60)
    alone = wins_at_equal_length(wins, longer, [str(i) for i in range(60)])
    copies = wins_at_equal_length(wins * 8, longer * 8, [str(i) for i in range(60)] * 8)
    assert copies.clusters == 60 and copies.high - copies.low == pytest.approx(alone.high - alone.low, rel=0.02)


@pytest.mark.parametrize("wins, longer, words", [
    ([1.0] * 9, range(9), "all comparisons came out alike"),
    ([0.0, 1.0] * 4, [7] * 8, "length and preference cannot be told apart"),
    ([0.0] * 4 + [1.0] * 4, [-4, -3, -2, -1, 1, 2, 3, 4], "length alone tells who won"),
    ([1.0, 0.0, 1.0], [1, 2, 3], "at least 5 are needed"), ([], [], "at least 5 are needed"),
])
def test_what_cannot_be_told_is_not(wins, longer, words):
    found = wins_at_equal_length(wins, list(longer), [str(i) for i in range(len(wins))])
    assert found.mean is None and found.low is None and words in found.undefined
