"""What a step has cost is added up over sessions, those that were killed too."""
import json
import signal
import subprocess
import sys
import time

import pytest
from support import ROOT, play, wait_for

from contemplative_cai.core.files import write_json
from contemplative_cai.core.journal import Ledger, clocked, on_the_clock, read_ledger, write_ledger
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.core.sessions import note_session, pause_between, session_seconds
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.report.compare import costs

WORKING = """
import sys, time
from contemplative_cai.core.journal import clocked
from contemplative_cai.core.run import open_run
with clocked(open_run("mine"), sys.argv[1]): time.sleep(600)
"""


def seconds_of(stage): return read_ledger(open_run("mine")).stages[stage].seconds


@pytest.mark.long
@pytest.mark.parametrize("stage", ["generate", "train", "evaluate"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_seconds_of_a_session_that_ended_by_force_count(stage, end):
    "A process is ended while it works; the next session's seconds come on top of its own."
    run = open_run("mine")
    process = subprocess.Popen([sys.executable, "-c", WORKING, stage], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_for(lambda: session_seconds(run).get(stage, 0) >= 1, 60)
    process.send_signal(end)
    process.wait()
    ended = seconds_of(stage)
    assert 1 <= ended < 60
    with clocked(run, stage): time.sleep(0.3)
    assert ended + 0.2 <= seconds_of(stage) < ended + 30
    assert read_ledger(run) == Ledger(**json.loads(run.path("ledger.json").read_text()))
    assert costs(read_ledger(run))[stage].seconds == seconds_of(stage)


def test_a_kill_costs_a_twentieth_and_a_minute_at_most():
    assert [pause_between(elapsed) for elapsed in (0, 10, 200, 1200, 10**6)] == [1, 1, 10, 60, 60]


def test_the_longest_line_of_a_session_counts_and_a_torn_line_costs_itself():
    run = open_run("mine")
    for session, seconds in (("a", 60), ("a", 540), ("b", 318)): note_session(run, "evaluate", session, seconds)
    with open(run.path("clock.jsonl"), "a") as file: file.write('{"stage": "evaluate", "sess')
    assert session_seconds(run) == {"evaluate": 858.0}
    note_session(run, "train", "c", 2)
    assert session_seconds(run) == {"evaluate": 858.0, "train": 2.0}


def test_an_evaluation_of_before_there_was_a_clock_shows_what_its_calls_took():
    "The figures that were seen: 5 min 18 s for the last session, 14 min of answers."
    run = open_run("mine")
    write_json(run.path("ledger.json"), {"answer base": {"seconds": 500.0, "tokens_out": 9},
                                         "answer dpo": {"seconds": 340.0}, "evaluate": {"seconds": 318.0}})
    assert costs(read_ledger(run))["evaluate"].seconds == 840.0
    with clocked(run, "evaluate"): pass
    assert seconds_of("evaluate") == 318.0, "what was counted before there was a clock stays"
    note_session(run, "evaluate", "later", 600.0)
    assert costs(read_ledger(run))["evaluate"].seconds == 918.0


def test_a_refusal_writes_nothing():
    @on_the_clock("evaluate")
    def refused(run): raise InputError("run 'mine' has no trained adapter yet")
    with pytest.raises(InputError): refused(open_run("mine"))
    assert not list(open_run("mine").folder.iterdir())


def test_a_damaged_ledger_is_told_before_the_work_begins():
    run = open_run("mine")
    run.path("ledger.json").write_text("{")
    with pytest.raises(InputError, match="ledger.json"), clocked(run, "train"): raise AssertionError("it began")


def test_generation_is_clocked_and_keeps_its_calls(scripted, contemplative):
    run, recipe = open_run("mine"), build_recipe({"n_prompts": 2, "filters": "empty"})
    generate_pairs(run, recipe, scripted)
    once = read_ledger(run)
    generate_pairs(run, recipe, play(contemplative))
    twice = write_ledger(run)
    assert once.stages["generate"].seconds is not None
    assert twice.stages["generate"].seconds >= once.stages["generate"].seconds
    assert twice.stages["generate"].kept_pairs == 8 and twice.stages["critique"] == once.stages["critique"]
    assert costs(twice)["generate"].tokens_out == costs(once)["generate"].tokens_out
