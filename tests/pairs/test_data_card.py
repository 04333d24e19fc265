"""What a data set's card says of style follows from the figures that stand above it."""
from types import SimpleNamespace

import pytest

from contemplative_cai.pairs.baselines import Measure
from contemplative_cai.pairs.data_card import known_limits, style_limit
from contemplative_cai.pairs.health import health

TOO_FEW = Measure(n=3, undefined="3 prompts with pairs, at least 5 are needed")


def rule(value, low, high): return Measure(value=value, n=20, low=low, high=high)


OPEN, ABOVE, BELOW = rule(0.56, 0.26, 0.80), rule(0.9, 0.7, 0.98), rule(0.2, 0.05, 0.45)


def measured(**rules):
    "The health of no pairs, with these figures."
    usual = {name: OPEN for name in ("bag_of_words", "length_rule", "ends_rule", "first_words")}
    return health([]).model_copy(update=usual | rules)


@pytest.mark.parametrize("rules, words", [
    ({"length_rule": rule(0.62, 0.31, 0.84)}, "Whether revisions can be told from first answers by style is open: "
                                              "length alone is right on 0.62 [0.31, 0.84] of pairs"),
    ({"length_rule": ABOVE}, "Revisions can be told from first answers by style: length alone is right on 0.90"),
    ({"ends_rule": ABOVE, "bag_of_words": ABOVE, "length_rule": BELOW},
     "told from first answers by style: a bag of words is right on 0.90 [0.70, 0.98], which side ends properly is"),
    ({"bag_of_words": BELOW}, "the other way round in those of others: a bag of words is right on 0.20 [0.05, 0.45]"),
    (dict.fromkeys(("bag_of_words", "length_rule", "ends_rule", "first_words"), TOO_FEW),
     "Whether revisions can be told from first answers by style is not known: 3 prompts with pairs, at least 5"),
])
def test_style_tells_revisions_apart_only_where_an_interval_says_so(rules, words):
    "'Revisions can be told by length and wording alone' stood below 0.62 [0.31, 0.84] and 0.56 [0.26, 0.80]."
    said = style_limit(measured(**rules))
    assert words in said and said.endswith("(length, which side ends properly, a bag of words).")


def test_the_limits_of_a_data_set_take_its_health():
    limits = known_limits([], [], measured(length_rule=ABOVE))
    assert style_limit(measured(length_rule=ABOVE)) in limits
    assert not any("by length and wording alone" in line for line in limits)


@pytest.mark.parametrize("reasons, words", [
    ((), "rules that look at words; no reviewer has dropped any."),
    (("not_mended", "judge_flips", "empty"), "rules that look at words, 2 by a judge; no reviewer has dropped any."),
    (("review", "not_at_fault"), "rules that look at words, 1 by a judge, and 1 by reviewers."),
])
def test_who_dropped_rows_is_said_as_it_was(reasons, words):
    dropped = [SimpleNamespace(reason=reason) for reason in reasons]
    assert any(line.endswith(words) for line in known_limits([], dropped, measured()))
