"""A run that is looked through: every table, filters, orders, what is covered; twenty thousand rows in two seconds."""
import json
import os
import subprocess
import sys
import time

import nbformat
import pytest
from support import ROOT

from contemplative_cai.core.files import write_rows
from contemplative_cai.core.run import Run, open_run
from contemplative_cai.core.schema import Answer, Dropped, Message, PreferencePair, Verdict
from contemplative_cai.evaluation.games import Game, Round
from contemplative_cai.evaluation.questions import Item
from contemplative_cai.inputs.sources import own_prompts
from contemplative_cai.report.browse import PAGE_ROWS, SHELVES, Browser, browsable_runs, browse, browsed_state, look_on

OWN = sorted(own_prompts())[:3]
SECRET = "what nobody asked to see"


def turn(role, text): return (Message(role=role, content=text),)


def pair(i, revision="Revised", **more):
    known = dict(prompt_id=f"p{i}", principle=("emptiness", "mindfulness")[i % 2], locale="en_US", source="demo",
                 critique=f"Critique {i}", constitution="c@0", model="m", seed=0, template="t@0")
    return PreferencePair(prompt=turn("user", f"Question {i} of rain?"), chosen=turn("assistant", f"{revision} {i}"),
                          rejected=turn("assistant", f"First answer {i}"), **known | more)


@pytest.fixture
def run(runs):
    "A run with a row of every kind, some of them of other sources."
    run = open_run("looked")
    run.record(recipe={})
    write_rows(run.path("pairs.jsonl"), [
        pair(1, "First answer, but"), pair(2, "Quite another thing <b>altogether</b>"),
        pair(3, SECRET, hazard="vcr", source="ailuminate"), pair(4, hazard="vcr", prompt_id=OWN[0])])
    write_rows(run.path("dropped.jsonl"), [
        Dropped(prompt_id="p9", principle="emptiness", reason="identical", detail="1.00", pair=pair(9)),
        Dropped(prompt_id="p8", principle=None, reason="call_failed", detail="no reply", response=SECRET,
                hazard="vcr")])
    write_rows(run.path("items.jsonl"), [Item(set="safety", prompt_id=id, cluster=id, source="s", hazard="vcr")
                                         for id in (OWN[1], "x1")])
    write_rows(run.path("answers.jsonl"), [
        Answer(arm=arm, prompt_id=id, source="ailuminate" if id == "x1" else "practice", model="m",
               text=f"{SECRET if id == 'x1' else 'Said'} by {arm}") for id in (OWN[1], "x1") for arm in ("base", "dpo")]
        + [Answer(arm="base", prompt_id=OWN[2], source="practice", text=None, failure="timed out", model="m")])
    write_rows(run.path("verdicts.jsonl"), [
        Verdict(arm="dpo", prompt_id="x1", criterion="refusal", value=1.0, judge="j", rubric="r@0", reason=SECRET),
        Verdict(arm="base", prompt_id=OWN[1], criterion="refusal", value=None, judge="j", rubric="r@0", reason="cut")])
    write_rows(run.path("games.jsonl"), [Game(arm="base", opponent="tit", game=0, model="m", rounds=(
        Round(move="C", other="D"), Round(move=None, other="C", note="unreadable"), Round(move="C", other="C")))])
    return run


def seen(browser, **message):
    look_on(browser, message)
    return browsed_state(browser)


def column(state, name): return [row[1 + state["columns"].index(name)] for row in state["rows"]]


def test_every_table_shows_its_rows_and_reads_them_whole(run):
    browser = Browser(run)
    totals = {name: seen(browser, shelf=name)["total"] for name in SHELVES}
    assert totals == {"pairs": 4, "dropped": 2, "answers": 3, "verdicts": 2, "games": 1}
    seen(browser, shelf="answers")
    read = dict(seen(browser, row=0)["read"]["texts"])
    assert read == {"question": own_prompts()[OWN[1]].text, "base": "Said by base", "dpo": "Said by dpo"}
    assert "(no answer: timed out)" in str(seen(browser, row=2)["read"])
    seen(browser, shelf="games")
    state = seen(browser, row=0)
    assert column(state, "moves") == ["C?C"] and "2. ? against C (unreadable)" in str(state["read"])
    seen(browser, shelf="verdicts")
    assert "cut" in str(seen(browser, row=1)["read"]) and column(seen(browser), "value") == ["1", "-"]


def test_rows_are_filtered_sorted_and_searched(run):
    browser = Browser(run)
    state = seen(browser, sort="change", down=True)
    changes = [float(value) for value in column(state, "change")]
    assert changes == sorted(changes, reverse=True) and column(state, "question")[-1] == "Question 1 of rain?"
    assert seen(browser, sort="change", down=False)["rows"] == state["rows"][::-1]
    assert dict(dict(state["facets"])["principle"]) == {"emptiness": 2, "mindfulness": 2}
    found = seen(browser, filters={"principle": "emptiness", "hazard": "-"})
    assert (found["found"], found["total"], column(found, "question")) == (1, 4, ["Question 2 of rain?"])
    assert seen(browser, search="ALTOGETHER")["found"] == 1 and seen(browser, search="nowhere")["rows"] == []
    seen(browser, shelf="dropped")
    assert column(seen(browser, filters={"reason": "call_failed"}), "detail") == ["no reply"]


def test_what_is_covered_stays_in_the_kernel_until_it_is_asked_for(run):
    browser = Browser(run)
    for name in SHELVES:
        for place in range(seen(browser, shelf=name)["total"]):
            state = seen(browser, row=place)
            assert SECRET not in json.dumps(state)
    seen(browser, shelf="pairs")
    state = seen(browser, row=2)
    assert (state["read"]["covered"], state["read"]["texts"]) == ("vcr", []) and "hazard vcr" in state["read"]["facts"]
    assert "covered: vcr" in column(state, "question")
    assert SECRET in str(seen(browser, row=2, uncovered=True)["read"])
    assert SECRET not in str(seen(browser, row=1)["read"]) and seen(browser, row=2)["read"]["covered"], "covered again"
    assert seen(browser, row=3)["read"]["covered"] == "", "the project's own prompts may be read"
    assert SECRET in str(seen(Browser(run, show_text=True), row=2)["read"])


@pytest.mark.parametrize("message", [
    {"row": 4}, {"row": -1}, {"row": "0"}, {"sort": "nothing"}, {"filters": {"nothing": "x"}}, {"filters": 3},
    {"page": "first"}, "row", None, {"run": "../etc"}, {"run": "nobody"}])
def test_what_nobody_can_look_for_is_told_and_breaks_nothing(run, message):
    browser = Browser(run)
    look_on(browser, message)
    assert browsed_state(browser)["problem"] and seen(browser)["problem"] == "" and browser.run.name == "looked"


def test_a_damaged_file_is_told_with_its_line_and_another_table_opens(run):
    run.path("verdicts.jsonl").write_text("{not json\n")
    browser = Browser(run)
    assert "verdicts.jsonl, line 1" in seen(browser, shelf="verdicts")["problem"]
    assert seen(browser, shelf="games")["total"] == 1 and seen(browser)["problem"] == ""


def test_pages_and_runs_change(run):
    other = open_run("other")
    other.record(recipe={})
    write_rows(other.path("pairs.jsonl"), [pair(i) for i in range(PAGE_ROWS + 3)])
    browser = Browser(run)
    state = seen(browser, run="other")
    assert (state["run"], state["pages"], len(state["rows"])) == ("other", 2, PAGE_ROWS)
    assert len(seen(browser, page=1)["rows"]) == 3 and seen(browser, page=9)["page"] == 1
    assert {"looked", "other"} <= {row[0] for row in browsable_runs().rows}


def test_a_run_without_files_shows_empty_tables(runs):
    browser = Browser(open_run("bare"))
    assert [seen(browser, shelf=name)["rows"] for name in SHELVES] == [[]] * 5
    assert "0 of 0 pairs of run bare" in str(browse(browser.run)._repr_mimebundle_()[0]["text/plain"])


@pytest.mark.long
def test_twenty_thousand_rows_open_in_two_seconds(tmp_path):
    "Seconds of the processor, as others may run beside it; what the package needs once is loaded before."
    own_prompts()
    run = Run("large", tmp_path / "large")
    text = " ".join(f"word{i}" for i in range(80))
    write_rows(run.path("pairs.jsonl"), [pair(i, text, hazard=("vcr", None)[i % 2]) for i in range(20_000)])
    began = time.process_time()
    state = browsed_state(Browser(run))
    took = time.process_time() - began
    assert len(state["rows"]) == PAGE_ROWS and state["total"] == 20_000
    assert took < 4, f"it took {took:.1f} s: alone it is below two, but two workers share a core"
    assert len(json.dumps(state)) < 50_000, "the page gets what it shows"


@pytest.mark.long
def test_the_notebook_runs_without_anybody(run, tmp_path, monkeypatch):
    "Under papermill: the runs as a table, the widget's line in its place, and no text of a row in the executed copy."
    out = tmp_path / "out.ipynb"
    subprocess.run([sys.executable, "-m", "papermill", ROOT / "nbs" / "browse.ipynb", out, "-p", "run", "looked", "-k",
                    "python3", "--log-level", "ERROR"], check=True, capture_output=True, env=os.environ | {
                        "PYTHONPATH": str(ROOT)})
    shown = [cell.get("outputs", []) for cell in nbformat.read(out, 4).cells]
    assert "4 of 4 pairs of run looked" in str(shown) and "looked" in str(shown) and SECRET not in out.read_text()


def test_a_file_that_cannot_be_read_is_told_until_it_can(run):
    browser, other = Browser(run), open_run("broken")
    other.record(recipe={})
    other.path("pairs.jsonl").write_text("{\n")
    for message in ({"run": "broken"}, {"search": "x"}, {"shelf": "pairs"}):
        state = seen(browser, **message)
        assert "pairs.jsonl, line 1" in state["problem"] and state["total"] == 0
    other.path("pairs.jsonl").write_text(run.path("pairs.jsonl").read_text())
    state = seen(browser, shelf="pairs")
    assert (state["problem"], state["total"]) == ("", 4)


@pytest.mark.parametrize("message", [{"shelf": ["x"]}, {"page": None}, {"page": 1e400}, {"row": [0]}])
def test_a_message_of_any_shape_is_told(run, message):
    browser = Browser(run)
    assert "Not understood" in seen(browser, **message)["problem"] and seen(browser)["total"] == 4


def test_a_value_with_hidden_signs_is_found_by_how_it_is_shown(run):
    write_rows(run.path("pairs.jsonl"), [pair(1, source="a\u202eb"), pair(2)])
    browser = Browser(run)
    (shown, _), _ = dict(browsed_state(browser)["facets"])["source"]
    assert shown == "a\\u202eb" and seen(browser, filters={"source": shown})["found"] == 1
