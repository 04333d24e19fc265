"""Plans that grow and are never reshuffled, and sessions whose files lose nothing."""
import errno
import json
import os
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contemplative_cai.core.files import append_row, write_rows
from contemplative_cai.core.run import Run
from contemplative_cai.core.schema import Dropped, InputError, Message, PreferencePair
from contemplative_cai.review import votes
from contemplative_cai.review.plan import (
    BY_LOT,
    ReviewPlan,
    ReviewPool,
    grown_plan,
    kept_stratum,
    plan_reviews,
    read_review_plan,
    review_pool,
)
from contemplative_cai.review.session import ReviewSession, open_review
from contemplative_cai.review.votes import Decision, apply_reviews, read_decisions, reviewable_pairs

PRINCIPLES = ("emptiness", "non_duality", "boundless_care", "mindfulness")


def turn(role, text): return (Message(role=role, content=text),)


def pair(i, margin=None, **more):
    known = dict(principle=PRINCIPLES[i % 4], hazard=("vcr", None, "hte")[i % 3], judge="j" if margin else None,
                 fault_margin=margin, mended_margin=margin)
    return PreferencePair(prompt=turn("user", f"Question {i}?"), chosen=turn("assistant", f"Revised {i}"),
                          rejected=turn("assistant", f"First {i}"), prompt_id=f"p{i}", locale="en_US", source="demo",
                          critique="x", constitution="c@0", model="m", seed=0, template="t@0", **known | more)


def drop(i, reason, **more):
    one = pair(i, **more)
    return Dropped(prompt_id=one.prompt_id, principle=one.principle, reason=reason, detail="", pair=one)


@pytest.fixture
def run(tmp_path):
    "Sixty kept pairs, a judge unsure of the middle ones, and nine dropped ones."
    run = Run("demo", tmp_path / "demo")
    write_rows(run.path("pairs.jsonl"), [pair(i, (i - 29.5) / 10) for i in range(60)])
    write_rows(run.path("dropped.jsonl"), [*(drop(100 + i, "refusal_again", margin=1.0 + i) for i in range(6)),
                                           *(drop(200 + i, "not_mended") for i in range(3))])
    return run


# the plan

def test_a_plan_outlives_decisions_applying_and_dropping(run):
    plan = plan_reviews(run, {"stratified": 20, "dropped": 4})
    session = open_review(run, "ada", sample=20)
    assert set(session.order) == set(plan.pairs) and len(session.order) == 24
    for _ in range(8): session.decide("neither")
    apply_reviews(run)
    assert len(review_pool(run).kept) == 60, "what reviewers took out was kept before any review"
    assert read_review_plan(run) == plan == plan_reviews(run, {"stratified": 20, "dropped": 4})
    again, other = open_review(run, "ada", sample=20), open_review(run, "bo", sample=20)
    assert again.order == session.order and set(other.order) == set(session.order) and len(again.queue) == 16
    assert other.order != again.order, "each in an order of his own"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["stratified", "uncertain", "outliers", "dropped", "disagree"]),
                                st.integers(0, 9)), max_size=5),
       st.integers(0, 5), st.integers(1, 3))
def test_a_grown_plan_begins_as_it_was_and_has_nothing_twice(rounds, overlap, readers):
    pool = ReviewPool(kept=[pair(i, i - 11.5) for i in range(24)],
                      dropped=[drop(50 + i, "refusal_again") for i in range(5)])
    names, plan = ["ada", "bo", "eve"], ReviewPlan(seed=3)
    for wanted in rounds:
        grown = grown_plan(plan, pool, wanted, names, overlap, readers)
        for name in (*names, "late"): assert grown.assigned(name)[:len(plan.assigned(name))] == plan.assigned(name)
        plan = grown
    planned = [one.id for round in plan.rounds for one in round]
    assert len(planned) == len(set(planned)) and set(planned) <= set(pool.pairs)
    seen = Counter(id for name in names for id in plan.assigned(name))
    for round in plan.rounds:
        shared = [one for one in round if not one.readers]
        assert len(shared) == min(overlap, len(round))
        assert all(seen[one.id] == (readers if one.readers else 3) for one in round)
    assert set(plan.assigned("late")) == {one.id for round in plan.rounds for one in round if not one.readers}


@pytest.mark.parametrize("many", [6, 12, 30])
def test_every_beginning_of_a_draw_by_lot_has_each_stratum_in_its_share(run, many):
    plan = plan_reviews(run, {"stratified": many})
    counts = Counter(one.stratum for one in plan.pairs.values())
    sizes = Counter(kept_stratum(one) for one in review_pool(run).kept)
    assert len(sizes) == 12 and all(abs(counts[name] - many * size / 60) <= 1 for name, size in sizes.items())


def test_strategies_look_where_it_is_worth_looking(run):
    plan = plan_reviews(run, {"uncertain": 4, "disagree": 40, "dropped": 9})
    pairs, by_why = review_pool(run).pairs, {}
    for one in plan.pairs.values(): by_why.setdefault(one.why, []).append(pairs[one.id])
    assert {one.prompt_id for one in by_why["uncertain"]} == {"p28", "p29", "p30", "p31"}
    # the judge is against 30 kept ones, two of which are planned; of dropped ones it is for the six that a rule took
    assert sorted(one.fault_margin > 0 for one in by_why["disagree"]) == [False] * 28 + [True] * 6
    assert len(by_why["dropped"]) == 3 and {one.stratum for one in plan.pairs.values() if one.why in BY_LOT} == {
        "not_mended"}


def test_two_who_begin_at_once_make_one_plan(run):
    plans = []
    threads = [threading.Thread(target=lambda many=many: plans.append(plan_reviews(run, {"stratified": many})))
               for many in (5, 10, 15, 20)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    last = read_review_plan(run)
    assert len(last.pairs) == 20 and all(plan.rounds == last.rounds[:len(plan.rounds)] for plan in plans)


def test_what_was_decided_before_there_were_plans_is_in_the_plan(run):
    for i in range(3):
        append_row(run.path("reviews", "ada.jsonl"), Decision(
            pair_id=pair(i, (i - 29.5) / 10).id, reviewer="ada", decision="accept", preferred="A", shown_as_a="chosen",
            at="2026-01-01T00:00:00+00:00"))
    session = open_review(run, "ada", sample=10)
    assert len(session.decisions) == 3 and len(session.order) == 10
    assert len(open_review(run, "bo", sample=10).queue) == 10


def test_a_draw_by_lot_counts_what_a_rule_chose_before(run):
    "Else a sample drawn after the outliers would speak for all pairs without the odd ones."
    first = plan_reviews(run, {"outliers": 30})
    grown = plan_reviews(run, {"outliers": 30, "stratified": 40})
    alone = grown_plan(ReviewPlan(), review_pool(run), {"stratified": 40})
    assert {id for id, one in grown.pairs.items() if one.by_lot} == set(alone.pairs)
    assert list(grown.pairs)[:30] == list(first.pairs) and 40 < len(grown.pairs) < 70
    assert plan_reviews(run, {"stratified": 40, "outliers": 30}) == grown == read_review_plan(run)


def test_a_run_that_generates_others_is_reviewed_again(run, capsys):
    old = open_review(run, "ada", sample=8)
    old.decide("A")
    write_rows(run.path("pairs.jsonl"), [pair(1000 + i) for i in range(60)])
    new = open_review(run, "ada", sample=8)
    assert len(new.order) == 8 == len(new.queue) and not set(new.order) & set(old.order)
    assert "8 of 16 planned pairs are not in the run any more" in capsys.readouterr().err
    assert open_review(run, "ada", sample=8).order == new.order and len(read_review_plan(run).rounds) == 2


# applying

@pytest.mark.parametrize("at", [1, 2, 3])
def test_applying_that_is_broken_off_loses_no_pair_and_doubles_none(run, monkeypatch, at):
    "One pair goes and another comes back; the disk is full at one of the files."
    session, ids = open_review(run, "ada"), {one.id for one in reviewable_pairs(run)}
    session.decide("neither")
    apply_reviews(run)
    session.undo()
    session.decide("A" if session.current.a.startswith("Revised") else "B")
    session.decide("neither")
    write, count = votes.write_rows, iter(range(1, 9))

    def full(path, rows):
        if next(count) == at: raise OSError(errno.ENOSPC, "No space left")
        write(path, rows)

    monkeypatch.setattr(votes, "write_rows", full)
    with pytest.raises(OSError, match="No space"): apply_reviews(run)
    monkeypatch.undo()
    assert {one.id for one in reviewable_pairs(run)} == ids == {one.id for one in review_pool(run).kept}
    kept, dropped = apply_reviews(run)
    assert len(kept) == 59 == len({one.id for one in kept}) and [one.reason for one in dropped].count("review") == 1


def test_windows_that_apply_at_once_lose_nothing(run):
    session = open_review(run, "ada")
    for _ in range(5): session.decide("neither")
    threads = [threading.Thread(target=apply_reviews, args=(run,)) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(reviewable_pairs(run)) == 60 and len(apply_reviews(run)[0]) == 55


@pytest.mark.parametrize("wanted, more, said", [
    ({"random": 3}, {}, "no strategy 'random'"), ({"stratified": -1}, {}, "0 or more"),
    ({"stratified": 3}, {"reviewers": ["a/b"]}, "reviewer's name"),
    ({"stratified": 3}, {"reviewers": ["ada", "ada"], "readers": 2}, "readers 2, expected 1 to 1")])
def test_no_plan_is_made_of_what_makes_none(run, wanted, more, said):
    with pytest.raises(InputError, match=said): plan_reviews(run, wanted, **more)
    assert not run.path("reviews", "plan.json").exists()


def test_a_plan_that_is_none_is_named(run):
    run.path("reviews").mkdir(parents=True)
    run.path("reviews", "plan.json").write_text('{"rounds": [[{"id": 3}]]}')
    with pytest.raises(InputError, match="plan.json"): open_review(run, "ada")


# the session

def session_of(tmp_path, n=6): return ReviewSession([pair(i) for i in range(n)], tmp_path / "ada.jsonl", "ada")


def test_drafts_skips_and_what_is_taken_back_survive_the_window(tmp_path):
    one = session_of(tmp_path)
    first, second, third, *_ = one.order
    one.draft(note="half a thought", ratings_a={"stakes_kept": 2})
    one.skip(note="later", flags_b=("cut_off",))
    one.decide("A", seconds=20)
    one.decide("tie", critique_seen=True)
    assert one.undo() == third
    two = session_of(tmp_path)
    assert two.decisions == one.decisions and list(two.decisions) == [second]
    assert two.queue[0] == third and two.queue[-1] == first and two.said(first).flags_b == ("cut_off",)
    two.go_to(1)
    assert two.current_id == first and two.said(first).note == "later"
    two.decide("B", edit="As it should read.")
    assert two.current_id == third and two.said(third).preferred == "tie" and two.decisions[first].edit
    assert two.progress().decided == 2 and two.progress().skipped == 0 and two.progress().pace == 20
    with pytest.raises(InputError, match="no pair 7"): two.go_to(7)


def test_a_change_that_is_taken_back_leaves_what_was_decided_before(tmp_path):
    "Then that is shown and counts; taken back in its turn, the pair is open; the one before is next."
    one = session_of(tmp_path)
    first, second, *_ = one.order
    one.decide("A", note="the first word")
    one.decide("B")
    one.go_to(1)
    one.decide("tie", note="a second thought")
    assert list(one.decisions) == [second, first] and one.undo() == first
    again = session_of(tmp_path)
    assert again.decisions == one.decisions and list(one.decisions) == [first, second]
    assert one.said(first).note == "the first word" == one.decisions[first].note and first not in one.queue
    one.draft(note="a third")
    assert one.said(first).note == "a third" and one.decisions[first].preferred == "A"
    one.go_on()
    assert one.undo() == second and one.undo() == first and one.decisions == {} and one.queue[0] == first
    with pytest.raises(InputError, match="nothing is decided yet"): one.undo()


def test_what_cannot_be_said_is_not_written(tmp_path):
    session = session_of(tmp_path)
    for preferred, more in (("C", {}), ("A", {"ratings_a": {"x": 6}}), ("A", {"flags_a": ["rude"]}),
                            ("neither", {"edit": "better"}), ("A", {"seconds": -1})):
        with pytest.raises(InputError): session.decide(preferred, **more)
    with pytest.raises(InputError, match="nothing is decided yet"): session.undo()
    assert not session.path.exists()


def test_a_disk_that_fills_up_leaves_whole_lines(tmp_path, monkeypatch):
    session, write = session_of(tmp_path), os.write
    session.decide("A")

    def full(number, content):
        monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        return write(number, content[:len(content) // 2])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"): session.decide("B")
    monkeypatch.undo()
    assert [json.loads(line)["preferred"] for line in session.path.read_text().splitlines()] == ["A"]
    session.decide("B")
    assert len(session_of(tmp_path).decisions) == 2 and not session.damage


def test_nobody_speaks_for_another(run, capsys):
    "A line in bo's file under ada's name changes nothing of ada's, and is told."
    session = open_review(run, "ada", sample=5)
    said = session.decide("neither")
    append_row(run.path("reviews", "bo.jsonl"), said.model_copy(update={"decision": "accept", "at": "2099-01-01"}))
    append_row(session.path, said.model_copy(update={"reviewer": "eve"}))
    assert [row.decision for rows in read_decisions(run).values() for row in rows] == ["reject"]
    assert "bo.jsonl: holds lines of 'ada'" in capsys.readouterr().err and session.catch_up() == []
    assert session.damage and "lines of 'eve'" in session.damage[0]


def test_a_second_window_is_noticed(tmp_path):
    one, two = session_of(tmp_path), session_of(tmp_path)
    two.decide("A")
    assert (one.elsewhere, two.elsewhere) == (0, 0)
    with pytest.raises(InputError, match="another window of ada"): one.decide("A")
    assert one.elsewhere == 1 and one.current_id == two.current_id
    one.decide("A")
    assert one.elsewhere == 1 and len(one.path.read_text().splitlines()) == 2


def test_what_was_said_before_stands_under_the_letter_it_was_said_of(tmp_path):
    "Sides were once drawn by another seed: words, ratings and an edit are not turned round by opening the file again."
    pairs, path = [pair(i) for i in range(12)], tmp_path / "ada.jsonl"
    old = ReviewSession(pairs, path, "ada", seed=7)
    while old.current: old.decide("A", a_falls_short=False, b_falls_short=True)
    before, new = dict(old.decisions), ReviewSession(pairs, path, "ada", seed=0)
    for number, id in enumerate(new.order, 1):
        new.go_to(number)
        assert new.current.a == (pairs[number - 1].chosen if before[id].shown_as_a == "chosen"
                                 else pairs[number - 1].rejected)[0].content
        again = new.decide("A", a_falls_short=False, b_falls_short=True)
        assert (again.decision, again.shown_as_a) == (before[id].decision, before[id].shown_as_a)


def test_a_file_of_the_first_days_is_read(tmp_path):
    line = ('{"pair_id":"%s","reviewer":"ada","decision":"accept","preferred":"A","shown_as_a":"chosen","note":"",'
            '"at":"2026-01-01T00:00:00+00:00"}')
    path = tmp_path / "ada.jsonl"
    path.write_text(line % pair(0).id + "\n" + (line % pair(1).id).replace('"A"', "null"))
    session = session_of(tmp_path, 3)
    assert len(session.decisions) == 2 and not session.damage
    session.decide("B")
    assert len(session_of(tmp_path, 3).decisions) == 3, "a last line without an end costs nobody"
