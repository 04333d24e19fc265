"""How far reviewers agree: simulated ones of known agreement, intervals by hand, and what a sample says of the rest."""
import random

import pytest

from contemplative_cai.core.files import write_rows
from contemplative_cai.core.run import Run
from contemplative_cai.core.schema import Dropped, Message, PreferencePair
from contemplative_cai.inputs.constitution import BENIGN
from contemplative_cai.report import look
from contemplative_cai.review.plan import plan_reviews, read_review_plan
from contemplative_cai.review.raters import (
    BETTER,
    FALLS_SHORT,
    _newcombe,
    asked_of_raters,
    dispute_rows,
    disputes,
    drift,
    judges_said,
    load_raters,
    open_disputes,
    rater_agreement,
    together_rows,
    two_by_two,
    two_rows,
    yield_words,
)
from contemplative_cai.review.session import open_review
from contemplative_cai.review.votes import Decision


def turn(role, text): return (Message(role=role, content=text),)


def pair(i, margin=None, principle="emptiness"):
    return PreferencePair(prompt=turn("user", f"Question {i}?"), chosen=turn("assistant", f"Revised {i}"),
                          rejected=turn("assistant", f"First {i}"), prompt_id=f"p{i}", principle=principle,
                          locale="en_US", source="demo", critique="x", constitution="c@0", model="m", seed=0,
                          template="t@0", judge="j" if margin else None, fault_margin=margin, mended_margin=margin)


def said(id, reviewer, yes, at=0, **more):
    a = more.pop("shown_as_a", "chosen")
    return Decision(pair_id=id, reviewer=reviewer, decision="accept" if yes else "reject", shown_as_a=a,
                    preferred="A" if yes == (a == "chosen") else "B", at=f"2026-01-01T{at // 60:02d}:{at % 60:02d}",
                    **more)


def simulated(seed, right, n=60, prevalence=0.6):
    "What reviewers say who each see the truth with a probability of their own."
    lot = random.Random(seed)
    truth = [lot.random() < prevalence for _ in range(n)]
    return {f"r{k}": {str(i): said(str(i), f"r{k}", yes == (lot.random() < share), i) for i, yes in enumerate(truth)}
            for k, share in enumerate(right)}


def test_alpha_of_three_simulated_reviewers_lies_in_its_interval():
    "Of a known truth and a known share of right votes alpha follows; 95 % intervals hold it in nearly all of 20 draws."
    share, prevalence = 0.85, 0.6
    same, yes = share ** 2 + (1 - share) ** 2, prevalence * share + (1 - prevalence) * (1 - share)
    alpha = 1 - (1 - same) / (2 * yes * (1 - yes))
    held = 0
    for seed in range(20):
        better = next(one for one in asked_of_raters(simulated(seed, [share] * 3)) if one.name == BETTER)
        found = rater_agreement(better, {}, resamples=150).alpha
        held += found.low <= alpha <= found.high
    assert alpha == pytest.approx(0.478, abs=0.005) and held >= 17, held


def test_what_is_the_same_is_one_and_what_is_independent_is_none():
    same = simulated(1, [1.0, 1.0, 1.0])
    lone = simulated(2, [0.5, 0.5, 0.5], n=300)
    for decided, low, high in ((same, 1, 1), (lone, -0.15, 0.15)):
        one = rater_agreement(asked_of_raters(decided)[0], {}, resamples=50)
        assert low <= one.alpha.value <= high and low <= one.ac1.value <= 1
    assert disputes(same) == [] and len(disputes(lone)) > 100


def test_sides_are_turned_back_before_anything_is_compared():
    "Two who mean the same see the sides the other way round."
    left = {str(i): said(str(i), "ada", i % 3 > 0, shown_as_a="chosen", a_falls_short=False, b_falls_short=i % 2 == 0,
                         ratings_a={"kind": 4}, ratings_b={"kind": 1 + i % 5}, flags_b=("cut_off",) * (i % 4 == 0))
            for i in range(20)}
    right = {str(i): said(str(i), "bo", i % 3 > 0, shown_as_a="rejected", b_falls_short=False, a_falls_short=i % 2 == 0,
                          ratings_b={"kind": 4}, ratings_a={"kind": 1 + i % 5}, flags_a=("cut_off",) * (i % 4 == 0))
             for i in range(20)}
    asked = asked_of_raters({"ada": left, "bo": right})
    assert {one.name for one in asked} == {BETTER, FALLS_SHORT, "rating: kind", "flag: cut_off"}
    assert all(rater_agreement(one, {}, resamples=20).alpha.value == 1 for one in asked)
    flags = next(one for one in asked if one.name == "flag: cut_off")
    assert len(flags.units) == 40 and sum(sum(values.values()) for values in flags.units.values()) == 10


def test_a_judge_of_the_pairs_is_a_rater():
    pairs = [pair(i, 1.0 if i % 3 else -1.0) for i in range(30)]
    ada = {one.id: said(one.id, "ada", i % 3 > 0, a_falls_short=False, b_falls_short=i % 3 == 0)
           for i, one in enumerate(pairs)}
    found = {one.criterion: one for one in two_by_two(asked_of_raters({"ada": ada}), judges_said(pairs), {}, 50)}
    assert found[BETTER].kappa.value == 1.0 and found[FALLS_SHORT].kappa.value < 0
    assert found[FALLS_SHORT].second == "judge j"
    assert found[FALLS_SHORT].kappa.units == 30, "of the first answers alone"


def test_the_interval_of_a_drift_is_newcombes():
    "His example: 56 of 70 and 48 of 80 differ by 0.20 [0.0524, 0.3339]."
    def half(yes, n, at): return [said(str(at + i), "ada", i < yes, at + i) for i in range(n)]
    rows = [*half(48, 80, 0), *half(56, 70, 80)]
    early, late = ([row.decision == "accept" for row in part] for part in (rows[:80], rows[80:]))
    low, high = _newcombe(early, late)
    assert (low, high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))
    tired = [said(str(i), "ada", i < 30, i, seconds=90.0 if i < 30 else 20.0) for i in range(60)]
    found = {one.what: one for one in drift("ada", tired)}
    assert found["prefers the revision"].high < 0 and found["seconds a pair (median)"].late == 20.0


@pytest.fixture
def run(tmp_path):
    "Forty kept pairs and six dropped ones, no judge."
    run = Run("demo", tmp_path / "demo")
    write_rows(run.path("pairs.jsonl"), [pair(i) for i in range(40)])
    write_rows(run.path("dropped.jsonl"), [
        Dropped(prompt_id=f"p{i}", principle="emptiness", reason="refusal_again", detail="", pair=pair(i))
        for i in range(50, 56)])
    return run


def review(run, name, revision, sample=30):
    "Decide everything; `revision` says of a pair whether the revision is better."
    session = open_review(run, name, sample=sample)
    while (shown := session.current):
        a_is_revision = shown.a.startswith("Revised")
        session.decide("A" if revision(shown) == a_is_revision else "B", seconds=10)
    return session


def test_the_yield_rests_on_pairs_drawn_by_lot_and_counts_what_filters_cost(run):
    plan_reviews(run, {"stratified": 30, "outliers": 10, "dropped": 6})
    lot = {one.id for one in read_review_plan(run).pairs.values() if one.why == "stratified"}
    bad = set(sorted(lot)[:6])
    review(run, "ada", lambda shown: shown.pair_id in lot - bad or int(shown.question.split()[1][:-1]) in (50, 51))
    found = load_raters(run)
    kept, dropped = found.shares.kept, found.shares.dropped
    assert (kept.labels, kept.answers, kept.mean) == (30, 40, pytest.approx(24 / 30)), "outliers were all worse"
    assert kept.low < 0.8 < kept.high and (dropped.n, dropped.value) == (6, pytest.approx(2 / 6))
    first, second = yield_words(found)
    assert first.startswith("Of 40 pairs kept, 80% [") and "6 looked at" in second
    assert found.together == () and two_rows(found) == [], "one reviewer agrees with nobody"


def test_below_the_page_nothing_tells_sides_before_all_is_decided(run):
    "Nor does what others think; afterwards, or when asked, all of it stands there."
    plan_reviews(run, {"stratified": 12})
    review(run, "bo", lambda shown: True, 12)
    session = open_review(run, "ada", sample=12)
    for _ in range(5): session.decide("A", note="so it seems")
    def told(held):
        raters = look.raters(run, held)
        return [look.decisions(run, held), look.reviewed(run, held), look.corrected_yield(raters),
                look.disputed(raters), look.raters_together(raters), look.two_raters(raters), look.drifts(raters),
                look.next_reviewed(run, held), look.last_choice(run, held)]
    held = look.untold(session)
    decisions, *others = map(str, told(held))
    assert "7 left" in held and all(one.strip() == held for one in others)
    assert "so it seems" in decisions and "accept" not in decisions and "prefer" not in decisions
    shown = list(map(str, told(look.untold(session, reveal=True))))
    assert "accept" in shown[0] and held not in "".join(shown) and "12 looked at" in shown[2]
    while session.current: session.decide("B")
    assert look.untold(session) == "" and "kappa" in str(told("")[5])


def test_disputes_are_settled_by_somebody_else(run):
    def number(shown): return int(shown.question.split()[1][:-1])
    review(run, "ada", lambda shown: True)
    review(run, "bo", lambda shown: number(shown) % 5 > 0)
    before = load_raters(run)
    open_ones = [one for one in before.disputes if not one.settled]
    session = open_disputes(run, "eve")
    assert {one.pair_id for one in open_ones} == set(session.order) and 0 < len(session.order) < 30
    while session.current: session.decide("A")
    after = load_raters(run)
    assert len(after.disputes) == len(before.disputes) and all(one.settled for one in after.disputes)
    assert together_rows(before)[0]["units"] == 30 and dispute_rows(before)[0][""] == "open"


def test_who_settles_disputes_makes_nobody_agree_more(run):
    "A third vote on the disputed pairs alone would lift the agreement of the two that differ there."
    def number(shown): return int(shown.question.split()[1][:-1])
    review(run, "ada", lambda shown: number(shown) % 2 == 0)
    review(run, "bo", lambda shown: (number(shown) % 2 == 0) != (number(shown) % 5 == 0))
    before = load_raters(run)
    session = open_disputes(run, "eve")
    while session.current: session.decide("A")
    after = load_raters(run)
    assert (after.together, after.two, after.drifts) == (before.together, before.two, before.drifts)
    assert all(row.settles for row in session.decisions.values()) and after.shares.reviewers == 3


def test_a_benign_twin_is_no_revision_that_is_better(run):
    "Twins come last in a draw by lot, so that the others cannot speak for them."
    twins = [pair(100 + i, principle=BENIGN.id) for i in range(40)]
    write_rows(run.path("pairs.jsonl"), [*(pair(i) for i in range(40)), *twins])
    review(run, "ada", lambda shown: True, sample=45)
    found = load_raters(run)
    assert (found.shares.kept.answers, found.shares.kept.labels, found.shares.twins) == (40, 40, 40)
    assert yield_words(found)[0].startswith("Of 40 pairs kept, benign twins apart, 100%")


def test_a_run_without_reviews_has_nothing_to_say(run):
    assert load_raters(run).shares is None and yield_words(load_raters(run)) == []
