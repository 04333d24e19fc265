"""The demo: answers that grow in turns, edits, critiques, votes, and a page that only its owner opens."""
import asyncio
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import scripted_demo, user

from contemplative_cai.command.commands import main
from contemplative_cai.command.demo import DemoWindow, covers, open_demo, stream_answers
from contemplative_cai.command.demo_page import LoopbackGate
from contemplative_cai.command.demo_shown import FALLS, KEEPS, VotingPage, answer_html, votes_html
from contemplative_cai.command.pipeline import begin
from contemplative_cai.core.files import write_rows
from contemplative_cai.core.run import Run
from contemplative_cai.core.schema import InputError, Message, PreferencePair
from contemplative_cai.evaluation.arms import OpenArm
from contemplative_cai.models.llm import Completion, ModelCallError, Sampling
from contemplative_cai.review.demo_votes import demo_votes
from contemplative_cai.review.review_labels import review_labels


def told(conversation):
    "One thing to the arm that is told something, another to the others."
    return "Ask her first, and listen." if conversation[0].role == "system" else "Of course you may."


@pytest.mark.long
def test_arms_of_one_model_grow_in_turns_as_each_would_alone():
    run, recipe = begin("asked", "smoke", {"settings": {"constitution": "contemplative-minimal"}})
    with open_demo(run) as demo:
        assert list(demo.arms) == ["base", "prompted"] and "no probe of random-tiny" in demo.notes[0]
        *rounds, last = stream_answers(demo.arms, "Is it late?", demo.methods.answer)
        for name, (arm, llm) in demo.arms.items():
            alone = llm.chat([arm.shown(user("Is it late?"))], demo.methods.answer)[0]
            assert (last[name].text, last[name].tokens) == (alone.text, alone.completion_tokens)
        assert {answer.tokens for answer in rounds[2].values()} == {3}
    assert not run.path("journal.sqlite").exists()


def test_a_failed_arm_says_why_and_the_others_go_on():
    demo = scripted_demo(lambda c: ModelCallError("out of memory") if c[0].role == "system" else "Yes, of course.")
    *_, last = DemoWindow(demo).ask("May I?")
    assert [(answer.state, answer.failure) for answer in last.values()] == [
        ("ended", ""), ("failed", "out of memory"), ("ended", "")]


def test_a_reading_that_fails_leaves_the_scores_of_before():
    def scorer(question, answer):
        if len(answer.split()) > 2: raise ModelCallError("too long")
        return {"care": 0.5}
    *_, last = stream_answers(scripted_demo(told).arms, "May I?", Sampling(max_tokens=9), scorer, every=2)
    assert {(answer.scored, answer.scores["care"]) for answer in last.values()} == {(2, 0.5)}


def test_an_edit_while_all_are_writing_restarts_the_told_arm_alone():
    window = DemoWindow(scripted_demo(lambda c: "word " * 40))
    growing = window.ask("May I?")
    for _ in range(5): next(growing)
    assert window.amend(window.text.replace("## Emptiness", "## Openness"))
    *_, anew = window.again()
    assert anew["prompted"].done and anew["base"].tokens == 5
    *_, last = growing
    assert last["prompted"] == anew["prompted"] and all(answer.state == "ended" for answer in last.values())
    assert "Openness" in [c for c in window.demo.base.calls if c[0].role == "system"][-1][0].content


def test_what_is_stopped_says_so_and_nobody_can_vote_on_it():
    window = DemoWindow(scripted_demo(lambda c: "word " * 40))
    growing = window.ask("May I?")
    next(growing)
    window.stop()
    assert not list(growing) or {answer.state for answer in window.answers.values()} == {"stopped"}
    with pytest.raises(InputError, match="expected a whole answer"): window.vote("ann", preferred="base")


def test_blind_means_without_names_scores_and_counts_until_it_is_revealed():
    window = DemoWindow(scripted_demo(told))
    for _ in window.ask("May I read her diary?", blind=True): pass
    page = "".join(answer_html(window, arm) for arm in window.columns) + votes_html(window)
    assert not any(name in page for name in ("base", "prompted", "dpo"))
    principle = window.constitution.principles[0]
    assert window.vote("ann", "tie", principle.id, dict.fromkeys(window.columns, False)).blind
    window.reveal()
    assert "prompted" in "".join(answer_html(window, arm) for arm in window.columns)
    assert not window.vote("ann", "base").blind


def test_an_edit_in_the_middle_of_a_blind_question_ends_its_blindness():
    window = DemoWindow(scripted_demo(told))
    for _ in window.ask("May I?", blind=True): pass
    window.amend(window.text.replace("## Emptiness", "## Openness"))
    assert not window.vote("ann", "tie").blind


def test_blind_votes_join_the_labels_of_the_reviews_and_the_others_are_counted():
    demo = scripted_demo(told)
    page, principle = VotingPage(demo), demo.constitution.principles[2]
    for blind in (True, False):
        for _ in page.ask("w", f"May I read her diary, {blind}?", blind): pass
        short = [FALLS if arm != "prompted" else KEEPS for arm in page.window("w").columns]
        assert "Kept" in page.vote("w", " ann ", "neither", principle.id, *short)
    own = review_labels(demo.run)
    assert {(row.answer, row.labels[principle.id]) for row in own.rows} == {
        ("Ask her first, and listen.", 1.0), ("Of course you may.", 0.0)}
    assert list(own.left_out.values()) == [1]
    rows = [json.loads(line) for line in demo.run.path("reviews/demo/ann.jsonl").read_text().splitlines()]
    assert [row["blind"] for row in rows] == [True, False] and not list(demo.run.path("reviews").glob("*.jsonl"))


def drained(states): return list(states)[-1]


def asked_page(blind=True):
    "A page on which all have answered, with a principle and what is said of the columns."
    page = VotingPage(scripted_demo(told))
    drained(page.ask("w", "May I read her diary?", blind))
    said = [FALLS if arm != "prompted" else KEEPS for arm in page.window("w").columns]
    return page, page.demo.constitution.principles[2].id, said


def test_what_was_said_blind_stays_a_label_when_the_same_is_said_again_in_the_open():
    page, principle, said = asked_page()
    page.vote("w", "ann", "neither", principle, *said)
    before = review_labels(page.demo.run)
    page.reveal("w")
    page.vote("w", "ann", 0, principle, *reversed(said))
    assert len(before.rows) == 2 and review_labels(page.demo.run) == before
    [last] = demo_votes(page.demo.run)[0]
    assert not last.blind and last.preferred in page.demo.arms, "the last word counts for what is preferred"


def test_who_has_seen_the_names_is_not_blind_to_the_same_answers():
    page, principle, said = asked_page(blind=False)
    drained(page.ask("w", " May I read her diary?", True))
    assert page.window("w").hidden and "not blind" in page.vote("w", "ann", "tie", principle, *said)
    page.demo.run.path("reviews/demo/ann.jsonl").unlink()
    page.reveal("w")
    page.vote("w", "ann", "tie", principle, *said)
    page.leave("w")  # and comes back
    drained(page.ask("w", "May I read her diary?", True))
    assert "Kept, blind" in page.vote("w", "ann", "tie", principle, *said)
    assert not review_labels(page.demo.run).rows


def test_a_vote_on_the_same_answers_replaces_the_first_in_whatever_order_they_stand():
    page, principle, said = asked_page()
    for _ in range(2):
        page.vote("w", "ann", "tie", principle, *said)
        page.window("w").columns.reverse()
    assert len(demo_votes(page.demo.run)[0]) == 1


def test_lines_that_cannot_be_read_are_counted_beside_the_labels_and_do_not_hide_a_kept_vote():
    page, principle, said = asked_page()
    page.vote("w", "ann", "neither", principle, *said)
    with page.demo.run.path("reviews/demo/ann.jsonl").open("a") as file: file.write("{")
    own = review_labels(page.demo.run)
    assert len(own.rows) == 2 and own.left_out == {"lines of the demo's votes that cannot be read": 1}
    page.demo.run.path("reviews/demo/bob.jsonl").mkdir()
    assert "Kept" in page.vote("w", "ann", "tie", principle, *said)


class AtOnce:
    "A model that gives no tokens, and fails when it is asked more often."
    key, batch_size = "at once", 4

    def __init__(self, most): self.left = most

    def chat(self, conversations, sampling):
        self.left -= 1
        if self.left < 0: raise ModelCallError("the server is down")
        return [Completion(text="Of course.", finish_reason="stop", prompt_tokens=2, completion_tokens=2)]


def test_a_critique_that_fails_at_once_says_why():
    demo, llm = scripted_demo(told), AtOnce(3)
    page = VotingPage(replace(demo, arms={name: OpenArm(one.arm, llm) for name, one in demo.arms.items()}))
    drained(page.ask("w", "May I?", False))
    assert "the server is down" in drained(page.criticise("w", 0, demo.constitution.principles[0].id))


def test_a_critique_ends_with_its_answer_and_stays_where_it_was_stopped():
    page, principle, _ = asked_page()
    window = page.window("w")
    for ends, text in ((window.stop, "Ask"), (lambda: drained(window.ask("Another?")), "")):
        critique = window.criticise(window.columns[0], principle)
        next(critique)
        ends()
        stopped = drained(critique)
        assert stopped.state == "stopped" and stopped.text == text


@pytest.mark.parametrize("given, said", [({"preferred": "nobody"}, "came 'nobody'"),
                                         ({"falls_short": {"base": True}}, "no principle was named")])
def test_what_cannot_be_voted_is_told_as_input(given, said):
    window = DemoWindow(scripted_demo(told))
    drained(window.ask("May I?"))
    with pytest.raises(InputError, match=said): window.vote("ann", **given)
    assert not window.demo.run.path("reviews").exists()


@pytest.mark.parametrize("cookie, status", [
    ("ccai_demo_7=key", 200), ('settings={"a": 1}; ccai_demo_7=key', 200), ("theme=dark mode; ccai_demo_7=key", 200),
    ("ccai_demo_7=other", 403), ("ccai_demo_8=key", 403), ("", 403)])
def test_the_gate_finds_its_cookie_among_those_of_other_pages(cookie, status):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
    sent = []
    async def send(message): sent.append(message)
    scope = {"type": "http", "path": "/", "headers": [(b"host", b"127.0.0.1:7"), (b"cookie", cookie.encode())]}
    asyncio.run(LoopbackGate(app, "key", 7)(scope, None, send))
    assert sent[0]["status"] == status


@pytest.mark.parametrize("name", ["", "../ann", "a b", "x" * 300])
def test_a_name_that_names_no_file_is_told_and_nothing_is_written(name):
    demo = scripted_demo(told)
    page = VotingPage(demo)
    for _ in page.ask("w", "May I?", False): pass
    assert "name" in page.vote("w", name, 0, demo.constitution.principles[0].id, None, None, None)
    assert not demo.run.path("reviews").exists()


def test_texts_of_a_sensitive_run_are_covered_and_the_page_says_so():
    demo = scripted_demo(told, covered=True)
    for show, cover in ((False, 1), (True, 0)):
        page = VotingPage(demo, show)
        *_, last = page.ask("w", "May I?", False)
        assert [column.count("<details>") for column in last[:-1]] == [cover] * 3
        *_, critique = page.criticise("w", 0, demo.constitution.principles[0].id)
        assert critique.count("<details>") == cover


def test_a_run_is_sensitive_by_prompts_of_others_with_a_hazard(runs):
    run = Run("pairs", runs / "pairs")
    def pair(**more):
        def turn(role, text): return (Message(role=role, content=text),)
        return PreferencePair(prompt=turn("user", "Q?"), chosen=turn("assistant", "A"), rejected=turn("assistant", "B"),
                              prompt_id="p", principle="x", source="s", critique="c", model="m", seed=0,
                              template="t@0", constitution="c@0", locale="en_US", **more)
    assert not covers(run)
    for hazard, sensitive in ((None, False), ("vcr", True)):
        write_rows(run.path("pairs.jsonl"), [pair(hazard=hazard)])
        assert covers(run) is sensitive


def test_what_cannot_be_shown_is_said_before_a_model_is_read(capsys, monkeypatch, runs):
    begin("asked", "smoke", {})
    monkeypatch.setitem(sys.modules, "gradio", None)
    for words, said in ((["demo", "nobody"], "no run 'nobody'"), (["demo", "asked"], "contemplative_cai[demo]")):
        assert main(words) == 2 and said in capsys.readouterr().err


@pytest.mark.long
def test_the_command_tells_an_address_of_this_machine_and_ends_by_ctrl_c(capsys, monkeypatch):
    import uvicorn
    def interrupted(server, sockets):
        assert [one.getsockname()[0] for one in sockets] == ["127.0.0.1"]
        raise KeyboardInterrupt
    begin("asked", "smoke", {})
    monkeypatch.setattr(uvicorn.Server, "run", interrupted)
    assert main(["demo", "asked"]) == 0
    assert re.search(r"^http://127\.0\.0\.1:\d+/\?token=[\w-]{32}$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.long
def test_the_notebook_runs_without_anybody_looking(tmp_path):
    import nbformat
    import papermill
    begin("asked", "smoke", {})
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(Path("nbs/demo.ipynb"), out, {"run": "asked"}, progress_bar=False)
    data = nbformat.read(out, 4).cells[-1].outputs[-1].data
    assert "asleep" in data["text/plain"] and "application/vnd.jupyter.widget-view+json" in data
