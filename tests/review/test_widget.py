"""What the page is told, and what comes of what it says; the drawing itself is in test_browser.py."""
import json
import os

import pytest

from contemplative_cai.core.files import read_rows, write_rows
from contemplative_cai.core.run import Run
from contemplative_cai.core.schema import Message, PreferencePair
from contemplative_cai.inputs.constitution import load_constitution
from contemplative_cai.review.session import ReviewSession, open_review
from contemplative_cai.review.widget import act, review_widget, shown_state, wake_review

PRINCIPLE = load_constitution("contemplative").principles[0]


def turn(role, text): return (Message(role=role, content=text),)


def pair(i, **more):
    return PreferencePair(prompt=turn("user", f"Question {i}?"), chosen=turn("assistant", f"Revised {i}"),
                          rejected=turn("assistant", f"First {i}"), prompt_id=f"p{i}", principle="emptiness",
                          locale="en_US", source="demo", critique="It closes a door.", constitution="c@0", model="m",
                          seed=0, template="t@0", **more)


@pytest.fixture
def session(tmp_path): return ReviewSession([pair(i) for i in range(4)], tmp_path / "ada.jsonl", "ada")


def say(session, do, said=None, **more):
    return act(session, {"do": do, "pair": session.current_id, "said": said or {}, **more})


def test_what_was_typed_is_kept_wherever_the_reviewer_goes(session):
    first, second, *_ = session.order
    assert say(session, "go", {"note": "half", "ratings_a": {"kind": 3}}, number=2, dirty=True) == ""
    assert session.current_id == second and session.said(first).note == "half"
    assert say(session, "go", {"note": ""}, number=1, dirty=False) == ""
    assert len(session.path.read_text().splitlines()) == 1
    assert shown_state(session)["said"]["note"] == "half" and shown_state(session)["counts"] is False
    assert say(session, "decide", {"note": "whole"}, preferred="tie") == ""
    assert say(session, "on", dirty=False) == "" and say(session, "undo", {"note": "typed"}, dirty=True) == ""
    assert session.current_id == first and session.said(second).note == "typed"
    assert shown_state(session)["said"]["preferred"] == "tie"


@pytest.mark.parametrize("message", [
    {}, {"do": "rm"}, {"do": "decide"}, {"do": "decide", "said": []}, {"do": ["decide"], "said": {}}, {"do": None}])
def test_what_is_not_understood_does_nothing(session, message):
    assert "Not understood" in act(session, {"pair": session.current_id, **message}) and not session.path.exists()


@pytest.mark.parametrize("message", [
    {"preferred": "C"}, {"preferred": "A", "said": {"reviewer": "bo"}}, {"preferred": "A", "said": {"seconds": "long"}},
    {"preferred": "A", "said": {"flags_a": "cut_off"}}, {"preferred": ["A"]},
    {"do": "go", "number": "2"}, {"do": "go", "number": 9}])
def test_what_no_page_would_send_is_not_written(session, message):
    told = act(session, {"do": "decide", "pair": session.current_id, "said": {}} | message)
    assert told.startswith("Not written") and not session.path.exists()


def test_a_key_that_was_meant_for_another_pair_decides_nothing(session):
    before = session.current_id
    ReviewSession([pair(i) for i in range(4)], session.path, "ada").decide("A")
    shown_state(session)  # the page is told of the other window's line
    told = act(session, {"do": "decide", "pair": before, "said": {}, "preferred": "B"})
    assert "another window of ada" in told and len(session.path.read_text().splitlines()) == 1
    assert "has written 1 lines" in shown_state(session)["notes"][0]


def test_a_full_disk_is_told_and_nothing_is_lost(session, monkeypatch):
    def full(*_): raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "write", full)
    told = say(session, "decide", {"note": "kept on the page"}, preferred="A")
    assert "No space left" in told and "Nothing before it is lost" in told and len(session.queue) == 4
    widget = review_widget(session)
    widget._answer(widget, {"do": "decide", "pair": session.current_id, "said": {}, "preferred": "A"}, [])
    assert widget.state["shown"] == 0 and "No space" in widget.state["problem"], "the page keeps what was typed"


def test_the_page_is_told_neither_side_of_a_pair(session):
    "Not in what is sent to it either: the vote that was taken back says which answer was preferred, not whose it was."
    for vote in ("A", "B", "neither"): say(session, "decide", preferred=vote)
    sent = []
    for number in (1, 2, 3):
        session.go_to(number)
        state = shown_state(session)
        sent.append((state["said"]["decision"], state["said"]["preferred"]))
        telling = {key: value for key, value in state["pair"].items() if key not in ("a", "b")}
        assert not {"accept", "reject", "chosen", "rejected", "shown_as_a"} & {*telling, *state, *state["said"],
                                                                              state["said"]["decision"]}
    assert sent == [("decided", "A"), ("decided", "B"), ("decided", "neither")]


def test_a_hidden_principle_is_told_after_the_vote(tmp_path):
    session = ReviewSession([pair(0), pair(1)], tmp_path / "ada.jsonl", "ada", principles={"emptiness": PRINCIPLE},
                            show_principle=False)
    assert shown_state(session)["pair"]["principle"] == "" and not session.asks_fault
    assert say(session, "decide", preferred="A") == f"The last pair was held against: {PRINCIPLE.title}."


def test_sensitive_text_is_covered_until_asked(tmp_path):
    run = Run("demo", tmp_path / "demo")
    write_rows(run.path("pairs.jsonl"), [pair(0, hazard="vcr"), pair(1)])
    session = open_review(run, "ada")
    hazards = []
    for number in (1, 2):
        session.go_to(number)
        hazards.append((shown_state(session)["pair"]["hazard"], shown_state(session, show_text=True)["pair"]["hazard"]))
    assert sorted(hazards) == [("", ""), ("vcr", "")]


def test_applying_is_a_button_and_a_restart_goes_on(tmp_path):
    run = Run("demo", tmp_path / "demo")
    write_rows(run.path("pairs.jsonl"), [pair(i) for i in range(4)])
    session = open_review(run, "ada", sample=4)
    assert say(session, "decide", preferred="neither") == ""
    told = say(session, "apply")
    assert told.startswith("Applied") and not any(sign.isdigit() for sign in told), "counts would tell the sides"
    assert len(read_rows(run.path("pairs.jsonl"), PreferencePair)) == 3
    opened = shown_state(session)["opened"]
    woken = wake_review(json.dumps({**opened, "model_id": "0" * 32}))
    assert woken.model_id == "0" * 32 and woken.state["decided"] == 1 and woken.state["number"] == 2
    while session.current: say(session, "decide", preferred="neither")
    assert "0 pairs stay, 4 were reviewed out" in say(session, "apply")
