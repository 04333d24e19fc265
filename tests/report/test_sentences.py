"""Every sentence with a verdict is chosen by its interval, and each branch is said of the numbers that call for it."""
from types import SimpleNamespace

import pytest

from contemplative_cai.evaluation.claims import Column, Comparison, Outcome, compare_arms, level
from contemplative_cai.evaluation.evaluate import Planned
from contemplative_cai.measure.outcomes import LengthControlled, noninferior
from contemplative_cai.measure.stats import Estimate, estimate_accuracy
from contemplative_cai.report import limits, summary
from contemplative_cai.report.evidence import _planned_rows, bound_rows, change_text, interval_words
from contemplative_cai.training.heldout import Likelier, PreferenceAccuracy


def accuracy(right: int, of: int) -> Estimate:
    return estimate_accuracy([1.0] * right + [0.0] * (of - right), [f"p{i}" for i in range(of)])


def preference(bag: Estimate, length: Estimate | None = None, reward: Estimate | None = None) -> PreferenceAccuracy:
    difference = Estimate(n=0, clusters=0, mean=None)
    return PreferenceAccuracy(reward=reward or accuracy(10, 20), length_rule=length or accuracy(10, 20),
                              bag_of_words=bag, likelihood=Likelier(base=None, tuned=None, difference=difference))


def outcome(**more) -> Outcome:
    return Outcome(**{"name": "violation", "set": "safety", "unit": "share", "better": "lower", "judged": False} | more)


def compared(base: dict, tuned: dict, clusters: dict | None = None, **more) -> Comparison:
    column = Column(outcome(**more), "a judge", True, {"base": base, "dpo": tuned})
    return compare_arms(column, "dpo", "base", clusters or {}, rate=0.3)


# what was planned

@pytest.mark.parametrize("primary, detectable, words", [
    ("refusal: dpo - base", 0.25, "0.25"), ("refusal: dpo - base", None, "none: not even the whole change"),
    ("words: dpo - base", None, "not planned: it is no share"),
])
def test_what_could_be_shown_is_said_of_shares_alone(primary, detectable, words):
    metrics = SimpleNamespace(declared=SimpleNamespace(primary=primary), detectable=None,
                              planned=Planned(prompts=8, rate=0.3, detectable=detectable))
    assert [shown for _, shown in _planned_rows(metrics)] == [words]


# what unseen pairs say

@pytest.mark.parametrize("right, of, words", [
    (19, 20, "the preference holds: 0.95"), (1, 20, "is reversed: 0.05"), (12, 20, "cannot be told from 0.50: 0.60"),
    (5, 5, "cannot be told from 0.50: 1.00"), (0, 5, "cannot be told from 0.50: 0.00"),
    (3, 3, "no interval can be given: 3 independent"),
])
def test_what_carries_over_is_said_by_the_interval(right, of, words):
    assert words in summary._unseen_words(accuracy(right, of))


def test_a_p_that_is_not_small_leaves_a_verdict_open():
    figure = Estimate(n=20, clusters=20, mean=0.7, low=0.51, high=0.85, p=0.06, null=0.5)
    assert summary.side_of(figure, 0.5) == "open"
    assert summary.side_of(figure.model_copy(update={"p": 0.04}), 0.5) == "above"
    assert summary.side_of(figure.model_copy(update={"p": 0.01}), 0.9) == "below"
    assert summary.side_of(figure.model_copy(update={"p": None}), 0.5) == "open", "p was taken away"


@pytest.mark.parametrize("bag, length, words", [
    (accuracy(19, 20), None, "Revisions can be told from first answers by style: a bag"),
    (accuracy(10, 20), accuracy(20, 20), "Revisions can be told from first answers by style: length alone, which"),
    (accuracy(8, 21), None, "Whether revisions can be told from first answers by style is open: a bag"),
    (accuracy(1, 20), None, "the other way round on unseen pairs: a bag"),
])
def test_style_tells_revisions_apart_only_above_chance(bag, length, words):
    "0.38 of pairs is below chance, and no proof that a bag of words can tell anything."
    first = limits._preference_limits(preference(bag, length))[0]
    assert words in first and first.startswith("That the model learned the principles. ")


def test_few_prompts_are_said_and_many_are_not():
    assert len(limits._preference_limits(preference(accuracy(10, 20), reward=accuracy(6, 12)))) == 2
    assert len(limits._preference_limits(preference(accuracy(10, 20), reward=accuracy(15, 30)))) == 1


# the primary difference

def changed(low, high, p, **more) -> Comparison:
    difference = Estimate(n=60, clusters=60, mean=(low + high) / 2, low=low, high=high, p=p)
    row = compared({f"p{i}": [0.0] for i in range(6)}, {f"p{i}": [1.0] for i in range(6)})
    return row.model_copy(update={"difference": difference, "detectable": 0.2} | more)


def test_no_change_is_said_where_the_interval_or_p_leaves_it_open():
    assert limits._small_effect(changed(-0.3, -0.1, 0.001)) == []
    assert "includes no difference; as planned, a change below" in limits._small_effect(changed(-0.3, 0.1, 0.4))[0]
    assert "leaves out no difference, but p is 0.070" in limits._small_effect(changed(-0.53, -0.01, 0.07))[0]


@pytest.mark.parametrize("low, high, better, words", [
    (-0.3, -0.1, "lower", None), (0.1, 0.3, "lower", "[+0.10,\u00a0+0.30] on the primary outcome, the wrong way."),
    (0.1, 0.3, "higher", None), (-0.1, 0.3, "higher", "+0.30] on the primary outcome."), (0.1, 0.3, "neither", None),
])
def test_more_than_prompting_is_claimed_only_the_right_way(monkeypatch, low, high, better, words):
    row = changed(low, high, 0.001 if low * high > 0 else 0.4, better=better)
    monkeypatch.setattr(limits, "compared", lambda *_: {"violation": row})
    metrics = SimpleNamespace(arms=("base", "prompted", "dpo"), trained="dpo",
                              declared=SimpleNamespace(primary="violation: dpo - base"))
    said = limits._against_prompting(metrics)
    assert (words is None and said == []) or said[0].endswith(words)


@pytest.mark.parametrize("inside, low, high, words", [
    (True, -0.1, 0.2, "at equal length it is"), (False, 0.1, 0.3, "equal length never occurred"),
    (True, 0.1, 0.3, None),
])
def test_equal_length_is_a_claim_only_where_it_occurred(inside, low, high, words):
    line = LengthControlled(n=60, clusters=60, mean=(low + high) / 2, low=low, high=high, longer=40.0, inside=inside,
                            p=0.001 if low > 0 else 0.4)
    said = limits._length_words(changed(0.1, 0.4, 0.001, equal_length=line))
    assert (words is None and said == []) or words in said[0]
    assert limits._length_words(changed(-0.1, 0.4, 0.3, equal_length=line)) == []


def test_an_extrapolation_is_marked_in_its_table(monkeypatch):
    from contemplative_cai.report import evidence
    line = LengthControlled(n=60, clusters=60, mean=0.2, low=0.1, high=0.3, longer=40.0, inside=False)
    row = changed(0.1, 0.4, 0.001, equal_length=line)
    monkeypatch.setattr(evidence, "compared", lambda *_: {"violation": row})
    monkeypatch.setattr(evidence, "judge_name", lambda *_: "a judge")
    class Metrics: trained = "dpo"
    assert bound_rows(Metrics)[0]["at equal length"].endswith("(extrapolated: no claim)")


@pytest.mark.parametrize("worst, words", [((0.2, -0.5), "set all against the trained arm"), ((-0.1, -0.5), None),
                                          (None, None)])
def test_unscored_answers_are_said_to_matter_where_they_could_turn_the_sign(worst, words):
    said = limits._unscored_words(changed(-0.3, -0.1, 0.001, worst=worst))
    assert (words is None and said == []) or words in said[0]


@pytest.mark.parametrize("low, high, begins", [
    (-0.03, 0.02, "kept: a rise of 0.02"),
    (0.01, 0.03, "kept: a rise of 0.03 at worst, margin 0.05; a small loss is shown"),
    (0.02, 0.2, "worse: a loss of 0.02"), (-0.1, 0.2, "not shown to be kept"),
])
def test_kept_is_said_by_the_interval(low, high, begins):
    figure = Estimate(n=60, clusters=60, mean=(low + high) / 2, low=low, high=high)
    assert noninferior(figure, 0.05, higher_is_better=False).words.startswith(begins)


# one sentence, one estimand

def test_both_sides_and_their_difference_are_means_of_the_same_clusters():
    "Six prompts of one text fall from 1 to 0 and the other five stay: over prompts 1.00 -> 0.50, over texts -0.17."
    names = {f"p{i}": "one text" if i < 3 else f"text {i}" for i in range(8)}
    base = {id: [1.0] for id in names}
    tuned = {id: [0.0 if names[id] == "one text" else 1.0] for id in names}
    row = compared(base, tuned, names)
    assert row.difference.clusters == 6 and round(row.difference.mean, 2) == -0.17
    assert row.after - row.before == pytest.approx(row.difference.mean)
    assert change_text(row) == "1.00\u00a0→\u00a00.83" and interval_words(row.difference, 2, True).startswith("−0.17")
    column = Column(outcome(), "a judge", True, {"dpo": tuned})
    assert level(column, "dpo", names).mean.mean == pytest.approx(row.after)


def test_numbers_that_an_earlier_version_wrote_are_called_what_they_are():
    row = changed(-0.27, -0.07, 0.01, before=1.0, after=0.5)
    assert change_text(row).endswith("0.50 (over prompts, the difference over clusters)")
    def basis(reward):
        facts = SimpleNamespace(metrics=None, preference=preference(accuracy(10, 20), reward=reward), stage="dpo")
        return summary._unseen(facts).basis
    assert basis(accuracy(9, 11)).startswith("share of 11 unseen pairs from 11 prompts in which")
    old = accuracy(9, 11).model_copy(update={"method": ""})
    assert basis(old).startswith("mean over 11 prompts of the share of their 11 unseen pairs in which")


def test_partly_unscored_prompts_count_in_the_worst_case():
    "30 of 40 samples without a value, in ten prompts that all have one with: anything up to +0.75."
    prompts = [f"p{i}" for i in range(10)]
    row = compared({id: [0.0] * 4 for id in prompts}, {id: [0.0, None, None, None] for id in prompts})
    assert row.worst == (0.75, 0.0) and row.unscored == 0 and row.unscored_answers == 30


def test_what_could_be_shown_rests_on_the_plan_and_not_on_what_was_seen():
    prompts = [f"p{i}" for i in range(60)]
    quiet = compared({id: [0.0] for id in prompts}, {id: [0.0] for id in prompts})
    loud = compared({id: [float(i % 2)] for i, id in enumerate(prompts)}, {id: [float(i % 3 == 0)] for i, id in
                                                                           enumerate(prompts)})
    assert quiet.detectable == loud.detectable and 0.1 < quiet.detectable < 0.3
    few = compared({id: [0.0] for id in prompts[:5]}, {id: [1.0] for id in prompts[:5]})
    assert few.detectable is None and few.difference.p == 0.0625  # five units can show nothing


def test_a_composite_is_a_score_and_has_the_t_interval():
    prompts = [f"p{i}" for i in range(13)]
    before = {id: [0.5 + 0.01 * i] for i, id in enumerate(prompts)}
    after = {id: [0.7 + 0.012 * i] for i, id in enumerate(prompts)}
    row = compared(before, after, name="composite", better="higher")
    assert row.difference.method.startswith("t interval") and row.difference.low > 0.2 and row.detectable is None
    assert compared(before, after).difference.method.startswith("cluster means: score interval")
    assert level(Column(outcome(name="composite"), "a judge", True, {"dpo": after}), "dpo", {}).mean.high <= 1
