"""Choosing pairs where a vote changes most: the share stays one of all pairs and needs fewer votes; what it brought."""
import math
import random
import statistics
from collections import Counter

import pytest

from contemplative_cai.command.commands import main
from contemplative_cai.core.errors import InputError
from contemplative_cai.core.files import append_row, write_record, write_rows
from contemplative_cai.core.run import Run
from contemplative_cai.core.schema import Message, PreferencePair
from contemplative_cai.inputs.constitution import BENIGN
from contemplative_cai.measure.corrected import corrected_levels
from contemplative_cai.measure.strata import LabelStratum, allotted, stratified_share
from contemplative_cai.review import active
from contemplative_cai.review.active import (
    JUDGED_KINDS,
    active_words,
    choose_active,
    judged_strata,
    last_brought,
    load_active,
    plan_active,
    with_choice,
)
from contemplative_cai.review.plan import ReviewPlan, ReviewPool, plan_reviews, read_review_plan
from contemplative_cai.review.raters import load_raters
from contemplative_cai.review.reviewed import load_reviewed
from contemplative_cai.review.session import open_review
from contemplative_cai.review.votes import Decision, read_decisions

KINDS = [(name, JUDGED_KINDS[name]) for name in list(JUDGED_KINDS)[2:]]


def turn(role, text): return (Message(role=role, content=text),)


def pair(i, margin=None, principle="emptiness"):
    return PreferencePair(prompt=turn("user", f"Question {i}?"), chosen=turn("assistant", f"Revised {i}"),
                          rejected=turn("assistant", f"First {i}"), prompt_id=f"p{i}", principle=principle,
                          locale="en_US", source="demo", critique="x", constitution="c@0", model="m", seed=0,
                          template="t@0", judge="j" if margin else None, fault_margin=margin, mended_margin=margin)


def said(id, yes, who="ada"):
    return Decision(pair_id=id, reviewer=who, decision="accept" if yes else "reject", preferred="A" if yes else "B",
                    shown_as_a="chosen", at="2026-01-01T00:00:00")


class World:
    "Pairs of which the judge is so sure, and which are better as often as that is right."

    def __init__(self, seed, n=400, knows=2.0, level=0.0):
        lot = random.Random(seed)
        margins = [abs(lot.gauss(0, 1.2)) for _ in range(n)]
        self.better = [float(lot.random() < 1 / (1 + math.exp(-knows * margin - level))) for margin in margins]
        third = sorted(margins)[n // 3], sorted(margins)[2 * n // 3]
        self.kind = [sum(margin > edge for edge in third) for margin in margins]
        self.order = lot.sample(range(n), n)
        self.truth = statistics.fmean(self.better)

    def strata(self, asked):
        mine = [[i for i in asked if self.kind[i] == k] for k in range(3)]
        return [LabelStratum(name, self.kind.count(k), tuple(self.better[i] for i in mine[k]), tuple(map(str, mine[k])),
                        len(mine[k]), expected) for k, (name, expected) in enumerate(KINDS)]

    def rounds(self, active, most=220, many=20):
        "Which are labelled after each round, the first by lot."
        asked = self.order[:many]
        while len(asked) <= most:
            yield asked
            left = [i for i in self.order if i not in set(asked)]
            wanted = allotted(self.strata(asked), many) if active else {}
            asked = asked + [i for k, (name, _) in enumerate(KINDS)
                             for i in [i for i in left if self.kind[i] == k][:wanted.get(name, 0)]]
            if not active: asked = asked + left[:many]

    def alone(self, asked):
        "The corrected share without kinds, as the yield has it: a judge that kept them all says yes of all."
        labels = [self.better[i] if i in set(asked) else None for i in range(len(self.better))]
        return corrected_levels([1.0] * len(labels), labels)


def enough(shares, half=0.075):
    "Votes until the interval is so narrow."
    return next(n for n, share in shares if share.low is not None and (share.high - share.low) / 2 <= half)


def test_a_choice_reaches_an_interval_with_fewer_votes_than_a_lot():
    "Of a judge that knows something: a tenth fewer than by lot in the same kinds, a quarter fewer than without kinds."
    votes = {"active": [], "lot": [], "alone": []}
    for seed in range(25):
        world = World(seed)
        for name in ("active", "lot"):
            votes[name].append(enough((len(asked), stratified_share(world.strata(asked)))
                                      for asked in world.rounds(name == "active")))
        votes["alone"].append(enough((len(asked), world.alone(asked)) for asked in world.rounds(False)))
    active, lot, alone = (statistics.fmean(votes[name]) for name in ("active", "lot", "alone"))
    assert active <= 0.95 * lot and active <= 0.8 * alone, (active, lot, alone)


@pytest.mark.parametrize("knows, level", [(2.0, 0.0), (0.0, 0.0), (0.0, 3.0), (-2.0, 2.0)])
def test_the_interval_of_a_choice_holds_the_share_of_all_whatever_the_judge_is_worth(knows, level):
    "A judge that knows something, two that know nothing, and one that has it upside down; 95 % asked for."
    held, off = [], []
    for seed in range(60):
        world = World(seed, 300, knows, level)
        for asked in world.rounds(True, 120):
            share = stratified_share(world.strata(asked))
            held.append(share.low <= world.truth <= share.high)
            off.append(share.mean - world.truth)
    assert statistics.fmean(held) >= 0.92 and abs(statistics.fmean(off)) < 0.015, (knows, level)


def test_a_share_is_the_kinds_by_their_size_and_wilsons_interval_of_one():
    one = LabelStratum("all", 10_000_000, (1.0,) * 30 + (0.0,) * 10, tuple(map(str, range(40))), 40, 0.5)
    share = stratified_share([one])
    assert share.mean == 0.75 and share.low == pytest.approx(0.593, abs=0.01)
    assert share.high == pytest.approx(0.86, abs=0.01)
    half = LabelStratum("rest", 10_000_000, (0.0,) * 40, tuple(map(str, range(40, 80))), 40, 0.5)
    assert stratified_share([one, half]).mean == 0.375
    pairs = LabelStratum("all", 10_000_000, one.labels, tuple(str(i // 4) for i in range(40)), 40, 0.5)
    wide = stratified_share([pairs])
    assert wide.high - wide.low > 1.5 * (share.high - share.low), "four alike of one prompt are no four labels"
    known = LabelStratum("all", 6, (1.0,) * 6, tuple(map(str, range(6))), 6)
    assert (stratified_share([known]).low, stratified_share([known]).high) == (1.0, 1.0), "all of it was labelled"


def test_votes_go_where_they_tell_and_never_beyond_what_there_is():
    unsure, sure = LabelStratum("unsure", 100, expected=0.5), LabelStratum("sure", 100, expected=0.98)
    wanted = allotted([unsure, sure], 40)
    assert wanted["unsure"] > 2 * wanted["sure"] >= 2 and sum(wanted.values()) == 40
    assert allotted([LabelStratum("few", 3), sure], 500) == {"few": 3, "sure": 100}


@pytest.fixture
def run(tmp_path, monkeypatch):
    "Ninety kept pairs of three principles, and a twin; of the later ones the judge is surer."
    monkeypatch.setenv("CCAI_RUNS", str(tmp_path))
    run = Run("demo", tmp_path / "demo")
    run.record(recipe={})
    write_rows(run.path("pairs.jsonl"), [
        *(pair(i, 0.1 + i / 30, ("emptiness", "mindfulness", "non_duality")[i % 3]) for i in range(90)),
        pair(200, principle=BENIGN.id)])
    write_rows(run.path("dropped.jsonl"), [])
    return run


def decide(run, ids, yes=lambda id: True, who="ada"):
    for id in ids: append_row(run.path("reviews", f"{who}.jsonl"), said(id, yes(id), who))


def test_a_choice_grows_the_plan_and_shuffles_nothing(run):
    plan_reviews(run, {"stratified": 10})
    before = read_review_plan(run)
    chosen = choose_active(run, 20)
    plan = read_review_plan(run)
    assert (chosen.pairs, chosen.met) == (20, 0) and plan.rounds[0] == before.rounds[0]
    assert plan.assigned("ada")[:10] == before.assigned("ada")
    added = plan.rounds[1]
    assert {one.why for one in added} == {"active"} and len({one.id for one in added} - set(before.pairs)) == 20
    kinds = Counter(one.stratum for one in added)
    assert kinds["the judge is unsure"] > kinds["the judge is sure of it"] >= 1
    pairs = {one.id: one for one in open_review(run, "ada", sample=10)._pairs.values()}
    assert max(Counter(pairs[one.id].principle for one in added).values()) <= 8, "no principle takes all"
    assert plan_active(run, 20) == plan, "asked again for as many, nothing comes"


def test_what_was_voted_on_is_not_asked_again_and_a_rules_pair_is_met(run):
    decide(run, [pair(5, 0.1 + 5 / 30, "non_duality").id])  # before there is a plan
    plan_reviews(run, {"outliers": 8})
    ruled = {id for id, one in read_review_plan(run).pairs.items() if one.why == "outliers"}
    decide(run, ruled)
    chosen = choose_active(run, 200, "bo")
    plan = read_review_plan(run)
    new = plan.rounds[-1]
    assert chosen.met == len(ruled) and "no others are left" not in str(choose_active(run, 0))
    assert not {one.id for one in new} & set(read_decisions(run)) and {one.readers for one in new} == {("bo",)}
    assert len(new) == 90 - len(ruled) - 1, "neither the twin nor the one that was decided before"
    assert {plan.pairs[id].also for id in ruled} == {"active"}
    assert "no others are left to choose" in str(choose_active(run, 3))
    assert open_review(run, "cy", sample=12).progress().total >= 12, "whom nobody is named for sees a sample by lot"


def test_so_many_more_are_chosen_whatever_else_was_planned_and_whoever_plans_meanwhile(run, monkeypatch):
    choose_active(run, 20)
    write_rows(run.path("pairs.jsonl"), [pair(i, 0.1 + i / 30) for i in range(200, 260)])  # others were generated
    assert choose_active(run, 10).pairs == 10
    began = active.begun_plan

    def meanwhile(*more):
        monkeypatch.setattr(active, "begun_plan", began)
        grown = active.with_choice(began(*more), active.review_pool(run), {}, 5, "ada")
        write_record(run.path("reviews", "plan.json"), grown)
        return began(*more)
    monkeypatch.setattr(active, "begun_plan", meanwhile)
    assert choose_active(run, 8, "bo").pairs == 8
    readers = Counter(one.readers for one in read_review_plan(run).pairs.values())
    assert (readers["ada",], readers["bo",]) == (5, 8)


def test_kinds_stay_where_they_were_when_pairs_come(run):
    plan_active(run, 6)
    edges = read_review_plan(run).edges
    write_rows(run.path("pairs.jsonl"), [pair(i, 0.1 + i / 10) for i in range(300)])
    plan_active(run, 30)
    assert len(edges) == 2 and read_review_plan(run).edges == edges


def test_pairs_without_a_judge_are_one_kind():
    pool = ReviewPool(kept=tuple(pair(i, principle=("emptiness", "mindfulness")[i % 2]) for i in range(40)))
    plan = with_choice(ReviewPlan(), pool, {}, 10)
    assert [one.name for one in judged_strata(pool, plan, {})] == ["the judge was not asked"]
    assert Counter(pool.pairs[id].principle for id in plan.pairs) == {"emptiness": 5, "mindfulness": 5}


def test_shares_of_all_pairs_leave_out_what_was_picked(run):
    "The unsure ones are chosen more often, and all found worse: no share of the pairs looked at may move by them."
    plan_reviews(run, {"stratified": 20})
    lot = set(read_review_plan(run).pairs)
    decide(run, lot)
    before, yield_before = load_reviewed(run), load_raters(run).shares.kept
    plan_reviews(run, {"stratified": 20, "uncertain": 10})
    choose_active(run, 30)
    picked = set(read_review_plan(run).pairs) - lot
    decide(run, picked, lambda id: False)
    assert len(picked) >= 30 and load_reviewed(run) == before and before[0].pairs == 20
    assert load_raters(run).shares.kept == yield_before


def test_what_the_last_choice_brought_is_told(run, capsys):
    assert "what that brings is not known" in active_words(load_active(run))[0]
    assert main(["review", "demo", "--next", "24"]) == 0
    out = capsys.readouterr().out
    assert "24 of 24 pairs chosen" in out and out.count("the judge is unsure") > 8 and "everybody" in out
    plan = read_review_plan(run)
    assert "none is decided yet: what they bring is not known" in active_words(load_active(run))[0]
    decide(run, [one.id for one in plan.rounds[-1]], lambda id: int(id[:4], 16) % 4 > 0)
    told = active_words(load_active(run))
    assert told[0].startswith("The last 24 chosen (24 decided) give a share of all kept pairs, ")
    assert "Of 90 kept pairs" in told[1]
    assert main(["review", "demo", "--next", "20", "--who", "bo"]) == 0
    decide(run, [one.id for one in read_review_plan(run).rounds[-1]], lambda id: int(id[:4], 16) % 4 > 0, "bo")
    assert main(["review", "demo"]) == 0
    told = capsys.readouterr().out
    assert "The last 20 chosen (20 decided): " in told and "points narrower" in told
    one = load_active(run).brought
    assert one.after.high - one.after.low < one.before.high - one.before.low


def test_a_choice_that_widened_is_told_too():
    pool = ReviewPool(kept=tuple(pair(i, 0.5) for i in range(200)))
    plan = with_choice(ReviewPlan(), pool, {}, 20)
    first = {one.id: [said(one.id, True)] for one in plan.rounds[0]}
    plan = with_choice(plan, pool, first, 10)
    second = first | {one.id: [said(one.id, i % 2)] for i, one in enumerate(plan.rounds[1])}
    assert "points wider" in last_brought(pool, plan, second).words


@pytest.mark.parametrize("words, message", [
    (["demo", "--next", "-2"], "--next -2: expected how many pairs"), (["nothing"], "nothing"),
    (["demo", "--next", "2", "--who", "../x"], "reviewer's name")])
def test_a_wrong_choice_is_refused_and_plans_nothing(run, capsys, words, message):
    assert main(["review", *words]) == 2 and message in capsys.readouterr().err
    assert not run.path("reviews", "plan.json").exists()


def test_a_run_without_kept_pairs_is_told_what_to_do(run):
    write_rows(run.path("pairs.jsonl"), [])
    with pytest.raises(InputError, match="has no kept pair to choose from; generate first"): choose_active(run, 5)
