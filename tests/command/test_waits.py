"""What somebody waits for has a name and its seconds, from the first second on; what stops a run loses little."""
import os
import pty
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from support import ROOT

from contemplative_cai.command import pipeline
from contemplative_cai.core import screen
from contemplative_cai.core.files import write_record
from contemplative_cai.core.journal import Journal
from contemplative_cai.core.project import STEPS
from contemplative_cai.core.run import open_run
from contemplative_cai.core.screen import Waits, waiting
from contemplative_cai.core.terminal import Progress, Standing
from contemplative_cai.models.told import busy_with, listening

CCAI = [str(Path(sys.executable).with_name("ccai"))]
SMOKE = ["run", "generate", "--recipe", "smoke", "-p", "n_prompts=2", "-p", "answer_tokens=8"]


@pytest.fixture
def clock(monkeypatch):
    "A clock that stands until it is moved."
    now = {"time": 50.0}
    monkeypatch.setattr(screen.time, "monotonic", lambda: now["time"])
    return now


def test_a_log_gets_a_line_for_what_took_a_second(clock, capsys):
    waits = Waits()
    for what, seconds in (("looking", 0.4), ("starting the kernel", 2.2), ("importing modules", 0.9)):
        waits.begin(what)
        clock["time"] += seconds
        waits.show()
    waits.end()
    waits.end()
    assert capsys.readouterr().err == "starting the kernel: 2 s\n"


def test_a_terminal_sees_the_seconds_and_no_leftovers(clock, capsys, monkeypatch):
    monkeypatch.setattr(screen, "redraws", lambda: True)
    waits = Waits()
    waits.begin("starting the kernel")
    for _ in range(3):
        waits.show()
        clock["time"] += 0.5
    waits.begin("importing modules")
    clock["time"] += 0.3
    waits.end()
    drawn = [line for line in re.split(r"\r\x1b\[2K", capsys.readouterr().err) if line]
    assert drawn == ["starting the kernel, 0 s", "starting the kernel, 1 s", "starting the kernel: 2 s\n",
                     "importing modules, 0 s"], "and the last one is wiped"


def test_an_error_leaves_nothing_of_the_waiting(clock, capsys):
    with pytest.raises(KeyError), waiting("looking"):
        clock["time"] += 9
        raise KeyError
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("step", STEPS)
def test_every_cell_of_a_notebook_has_a_name(step):
    names = pipeline._headings(step)
    assert names and all(names.values()) and "importing modules" in names.values()


def test_weights_are_named_between_progress_lines(runs, clock, capsys):
    "The model tells, the progress file holds it, and whoever watches waits for it by name."
    run = open_run("demo")
    line = pipeline._ProgressLine(run.path("progress.json"))
    progress = Progress(run, "respond", total=2)
    with listening(progress.hear, progress.busy):
        with busy_with("reading the weights of small"):
            assert "respond: 0 of 2 calls · reading the weights of small" in progress._text
            line.look(0.1)
            clock["time"] += 3
        line.look(0.1)
    assert "reading the weights of small: 3 s\nrespond: 0 of 2 calls" in capsys.readouterr().err
    write_record(run.path("progress.json"), Standing(stage="respond", unit="calls", done=2, total=2))
    line.enter("What goes in")
    assert "respond: 2 of 2 calls" in capsys.readouterr().err, "the end of a stage is told before what comes next"


@pytest.mark.parametrize("loaded", [False, True])
def test_jsonschema_is_left_as_it_was_found(loaded, monkeypatch):
    "Without its slow grammar while papermill is imported, and with it afterwards; one that is there already stays."
    monkeypatch.delitem(sys.modules, "rfc3987_syntax", raising=False)
    if loaded: import_module("rfc3987_syntax")
    with pipeline._light_formats():
        if not loaded:
            with pytest.raises(ImportError): import_module("rfc3987_syntax")
    assert sys.modules.get("rfc3987_syntax", True) is not None


def in_terminal(words):
    "What a command writes in a terminal, and the seconds until the first of it."
    started, first, text = time.monotonic(), None, b""
    process, terminal = pty.fork()
    if not process: os.execvpe(CCAI[0], [*CCAI, *words], os.environ | {"COLUMNS": "100", "TERM": "xterm"})
    while True:
        try: part = os.read(terminal, 65536)
        except OSError: break
        if not part: break
        first = first or time.monotonic() - started
        text += part
    os.waitpid(process, 0)
    return text.decode(), first


@pytest.mark.long
def test_a_terminal_shows_what_is_waited_for_from_the_first_second(runs):
    text, first = in_terminal(SMOKE)
    before = ["looking at recipe, inputs and machine", "starting the kernel", "importing modules"]
    calls = ["reading the weights of random-tiny", "respond: "]  # a slow look may see the stage before its weights
    after = ["revise: 8 of 8 calls", "Pairs kept"]
    for middle in calls:
        places = [text.find(name) for name in (*before, middle, *after)]
        assert -1 not in places and places == sorted(places), text
    assert first < 2, f"{first:.1f} s, on a machine that may be busy"


@pytest.mark.long
def test_a_log_has_whole_lines_and_a_dry_run_no_word_of_it(runs):
    done = subprocess.run([*CCAI, *SMOKE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "\r" not in done.stderr and "\x1b" not in done.stderr
    waits = re.findall(r"(?m)^[^:·\n]+: \d+ s$", done.stderr)
    assert len(set(waits)) == len(waits), waits
    dry = subprocess.run([*CCAI, *SMOKE, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert dry.returncode == 0 and dry.stderr == ""


def test_ctrl_c_waits_for_the_commit_of_a_batch(tmp_path):
    "A real signal in the middle of it: the batch is in the journal, and the interruption comes afterwards."
    def rows():
        yield "k1", {"text": "one"}
        os.kill(os.getpid(), signal.SIGINT)
        yield "k2", {"text": "two"}

    class Batch(dict):
        def items(self): return rows()
    with Journal(tmp_path / "journal.sqlite") as journal:
        with pytest.raises(KeyboardInterrupt): journal.save("respond", Batch(k1=1, k2=2), 1.0)
        assert set(journal.get(["k1", "k2"])) == {"k1", "k2"}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
