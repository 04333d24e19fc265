"""The terminal and what surrounds Jupyter: colours, widths, completion, homes that cannot be written."""
import contextlib
import fcntl
import http.server
import io
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contemplative_cai.command import commands
from contemplative_cai.command.completion import completion_script
from contemplative_cai.command.parser import command_parser
from contemplative_cai.command.pipeline import (
    _absolute_places,
    _environment,
    _literal,
    _patient_manager,
    _sign,
    _somewhere_to_write,
)
from contemplative_cai.core import screen
from contemplative_cai.core.files import write_json
from contemplative_cai.core.project import project_root, runs_root
from contemplative_cai.core.run import open_run
from contemplative_cai.core.screen import coloured, fitted, text_columns, text_table
from contemplative_cai.inputs import hub

ROOT = Path(__file__).resolve().parents[2]


def test_bare_ccai_shows_the_help(capsys):
    assert commands.main([]) == 0 and "usage: ccai" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in commands._COMMANDS if len(name) > 4])
def test_a_typing_error_in_any_command_is_told_with_its_nearest(capsys, name):
    assert commands.main([name[:-2] + name[-1] + name[-2]] if name[-1] != name[-2] else [name + "x"]) == 2
    assert f"did you mean '{name}'" in capsys.readouterr().err


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_tables_fit_the_width_and_break_between_words(width):
    rows = [("run", "steps done", "outcome"), *[(f"run-{i}", "generate, train, evaluate " * 4, "0.62 [0.5, 0.7] " * 6)
                                                for i in range(4)]]
    lines = text_table(rows, width).splitlines()
    assert max(map(len, lines)) <= width
    words = [word for row in rows for cell in row for word in cell.split()]
    assert sorted(word for line in lines for word in line.split()) == sorted(words)
    assert len(text_table(rows).splitlines()) == len(rows), "in a pipe a row is a line"


class Terminal:
    "A stream that says it is a terminal."
    def isatty(self): return True


def test_colour_only_where_it_is_shown(monkeypatch):
    for name in ("NO_COLOR", "TERM"): monkeypatch.delenv(name, raising=False)
    assert coloured("done", "green", Terminal()) == "\x1b[32mdone\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("done", "green", Terminal()) == "done"
    monkeypatch.delenv("NO_COLOR")
    with open(os.devnull) as pipe: assert coloured("done", "green", pipe) == "done"


WORDS = st.text(st.sampled_from("abcdefghij原則한글é\u0301\u0e33🙂-."), min_size=1, max_size=30)
SENTENCES = st.lists(WORDS, max_size=12).map(" ".join)


def squeezed(text): return "".join(text.split())


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(SENTENCES | st.integers(0, 10**9), min_size=4, max_size=4), min_size=1, max_size=5),
       st.integers(20, 200))
def test_any_table_fits_any_terminal_and_loses_nothing(rows, width):
    rows = [("run", "steps done", "outcome", "cost"), *rows]
    shown = text_table(rows, width)
    assert max(map(text_columns, shown.split("\n"))) <= width
    cells = "".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for row in rows[1:] for cell in row)
    assert not set(squeezed(cells)) - set(shown)
    assert len(text_table(rows).split("\n")) == len(rows), "in a pipe a row is a line"


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 6), SENTENCES, st.integers(0, 30), SENTENCES), max_size=6),
       st.integers(20, 200))
def test_any_text_fits_any_terminal_and_loses_nothing(lines, width):
    text = "\n".join(" " * indent + first + " " * gap + second for indent, first, gap, second in lines)
    shown = fitted(text, width)
    assert squeezed(shown) == squeezed(text) and fitted(text, None) == text
    assert max(map(text_columns, shown.split("\n"))) <= width
    wide = [line for line in text.split("\n") if text_columns(line) > width]
    assert wide or shown == text, "what fits is left as it is"


def seen_in_terminal(words, columns, environment=None, cwd=None, typed=b"", ends=None, seconds=60):
    "What a command writes into a terminal of so many columns, and its exit status."
    process, number = pty.fork()
    if process == 0:
        os.chdir(cwd or os.getcwd())
        os.execvpe(words[0], words, os.environ | {"TERM": "xterm"} | (environment or {}))
    fcntl.ioctl(number, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    if typed: os.write(number, typed)
    written, until = b"", time.monotonic() + seconds
    with contextlib.suppress(OSError):  # its end
        while time.monotonic() < until and not (ends and ends(written)):
            if not select.select([number], [], [], 0.2)[0]: continue
            if not (part := os.read(number, 65536)): break
            written += part
    if ends: os.write(number, b"\x03\x04")
    os.close(number)
    return written.decode(errors="replace"), os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


CCAI = str(Path(sys.executable).with_name("ccai"))


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["completion", "basch"], ["stauts"], ["recipes"]])
def test_nothing_is_wider_than_the_terminal(words, columns, monkeypatch):
    for name in ("COLUMNS", "NO_COLOR"): monkeypatch.delenv(name, raising=False)
    written, status = seen_in_terminal([CCAI, *words], columns)
    assert status == (2 if words[-1] in ("basch", "stauts") else 0)
    assert max(map(text_columns, written.split("\r\n"))) <= columns
    assert ("\x1b[" in written) == ("--help" in words or status == 2), "headings, options and errors are in colour"


def test_a_stage_is_one_line_that_changes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    for done in range(1, 9):
        screen.draw_line(f"critique: {done} of 8 calls · 125 tokens/s · about 2 min to go", done == 8)
    *changing, last = stream.getvalue().split("\r\x1b[2K")[1:]
    assert len(changing) == 7 and all(text_columns(text) < 40 and "\n" not in text for text in changing)
    assert squeezed(last) == squeezed("critique: 8 of 8 calls · 125 tokens/s · about 2 min to go")
    monkeypatch.setenv("TERM", "dumb")
    assert not screen.redraws(), "a dumb terminal would show the codes"


STREAMS = {"no output": ">&-", "no errors": "2>&-", "nothing open": "<&- >&- 2>&-", "full": ">/dev/full",
           "all full": ">/dev/full 2>&1", "a reader who is gone": "| true"}


@pytest.mark.parametrize("words, status", [("--help", 0), ("completion bash", 0), ("stauts", 2)])
@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS)
def test_streams_that_are_closed_full_or_gone(streams, words, status):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-o", "pipefail", "-c", f"{CCAI} {words} {streams}"], capture_output=True, text=True,
                          env=environment, timeout=30)
    assert done.returncode == (2 if "full" in streams else status)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr and done.stderr.count("\n") <= 1
    if streams == ">/dev/full" and not status: assert "cannot be written (No space left" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_the_shell_reads_and_knows_every_command(shell, tmp_path):
    script = completion_script(shell, command_parser())
    assert all(name in script for name in (*commands._COMMANDS, "--dry-run", "quickstart"))
    if not shutil.which(shell): pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script)
    assert subprocess.run([shell, "-n", tmp_path / "script"]).returncode == 0


@pytest.mark.parametrize("words, wanted", [("ccai sta", "status"), ("ccai run qui", "quickstart"),
                                           ("ccai completion f", "fish"), ("ccai run --dr", "--dry-run")])
def test_bash_completes(words, wanted):
    typed = words.split()
    ask = (f"COMP_WORDS=({' '.join(typed)}); COMP_CWORD={len(typed) - 1}; _ccai; echo \"${{COMPREPLY[@]}}\"")
    done = subprocess.run(["bash", "-c", completion_script("bash", command_parser()) + ask], capture_output=True,
                          text=True)
    assert done.stdout.split() == [wanted], done.stderr


def test_zsh_completes(tmp_path):
    if not shutil.which("zsh"): pytest.skip("zsh is not installed")
    (tmp_path / "script").write_text(completion_script("zsh", command_parser()))
    wanted = {"ccai sta": "status ", "ccai run qui": "quickstart ", "ccai run --dr": "--dry-run "}
    for words, ending in wanted.items():
        whole = f"{words.rsplit(' ', 1)[0]} {ending}".encode()
        def complete(written, whole=whole): return whole in written
        written, _ = seen_in_terminal(["zsh", "-f", "-i"], 200, {"PS1": "> ", "ZDOTDIR": str(tmp_path), "TERM": "dumb"},
                                      tmp_path, f"source script\n{words}\t".encode(), complete, 10)
        assert complete(written.encode()), written


@pytest.mark.parametrize("words, wanted", [("ccai sta", "status"), ("ccai run qui", "quickstart"),
                                           ("ccai completion f", "fish"), ("ccai run --dr", "--dry-run"),
                                           ("ccai status quick", ""), ("ccai run gen --dr", "--dry-run")])
def test_fish_completes(words, wanted, tmp_path):
    if not shutil.which("fish"): pytest.skip("fish is not installed")
    (tmp_path / "script").write_text(completion_script("fish", command_parser()))
    done = subprocess.run(["fish", "--no-config", "-c", f"source script; complete -C '{words}'"], cwd=tmp_path,
                          env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True)
    assert done.stdout.strip() == wanted, done.stderr


# surroundings


@pytest.fixture
def places(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize("below", ["", "/runs", "/a/b/c"])
@pytest.mark.parametrize("name, why", [("file", "is a file"), ("gone", "leads nowhere"), ("circle", "leads nowhere"),
                                       ("pipe", "is a file"), ("n" * 300, "File name too long"),
                                       ("s3://bucket", "an address"), ("https://host/runs", "an address")])
def test_runs_that_can_be_nowhere_are_told_by_every_command(places, monkeypatch, capsys, name, why, below):
    monkeypatch.setenv("CCAI_RUNS", (name if "://" in name else str(places / name)) + below)
    for words in (["runs"], ["status", "mine"], ["run", "setup", "--dry-run"]):
        assert commands.main(words) == 2
        told = capsys.readouterr().err
        assert why in told and "expected a folder" in told and "set CCAI_RUNS to a folder" in told


def test_a_place_means_the_same_here_in_the_home_and_in_a_kernel(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setenv("HOME", str(tmp_path))
    for text, place in [("~/mine", tmp_path / "mine"), ("mine", tmp_path / "below" / "mine"),
                        ("../it", tmp_path / "it")]:
        monkeypatch.setenv("CCAI_RUNS", text)
        with _environment(_absolute_places()): inside = os.environ["CCAI_RUNS"]
        assert Path(inside) == place and runs_root().absolute().resolve() == place and os.environ["CCAI_RUNS"] == text
    monkeypatch.setenv("CCAI_ROOT", os.path.relpath(ROOT))
    assert _absolute_places()["CCAI_ROOT"] == str(ROOT) and project_root() == ROOT


@pytest.mark.parametrize("folder", ["/p/{run}", "/p/{}", "/p/{x!r:>9}", "/p/100%d {x", "/p/}{", "/p/ü ß/原則"])
def test_papermill_takes_a_path_as_it_is(folder):
    from papermill.parameterize import add_builtin_parameters, parameterize_path
    assert parameterize_path(_literal(Path(folder)), add_builtin_parameters({"run": "mine"})) == folder


def test_a_path_that_is_no_text_is_told_before_anything_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CCAI_RUNS", os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    assert commands.main(["run", "setup"]) == 2 and "give the folder another name" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("variable", ["IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "HOME"])
@pytest.mark.parametrize("place", ["/dev/null", "/dev/null/x", "/proc/nowhere", "/dev/full"])
def test_a_kernel_has_folders_it_can_write(variable, place, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "XDG_RUNTIME_DIR"): monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, place)
    with _somewhere_to_write():
        names = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR") if variable == "HOME" else (variable,)
        folders = [Path(os.environ[name]) for name in names]
        for folder in folders: (folder / "file").write_text("x")
    assert os.environ[variable] == place and not any(folder.exists() for folder in folders)


def test_a_broken_jupyter_configuration_is_not_read(tmp_path, monkeypatch, capfd):
    import nbformat
    (tmp_path / "jupyter_config.json").write_text("{broken")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "copy.ipynb")
    _sign(tmp_path / "copy.ipynb")
    assert capfd.readouterr().err == "" and (tmp_path / "data" / "nbsignatures.db").exists()


# the hub


class Hub(http.server.BaseHTTPRequestHandler):
    "A hub that answers every question alike."
    status, code = 200, ""

    def do_GET(self):
        self.send_response(self.status)
        if self.code: self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_): pass


@pytest.fixture
def hub_that_says(monkeypatch):
    import huggingface_hub.constants
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    def say(status, code=""):
        monkeypatch.setattr(Hub, "status", status)
        monkeypatch.setattr(Hub, "code", code)
    yield say
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status, code, told", [
    (200, "", ""), (404, "", ""), (403, "GatedRepo", "licence must be accepted"), (401, "GatedRepo", "hf auth login"),
    (404, "RepoNotFound", "has none of that name"), (500, "", "does not answer"), (503, "", "does not answer")])
def test_a_model_of_the_hub_is_asked_for_before_anything_begins(hub_that_says, monkeypatch, capsys, status, code, told):
    hub_that_says(status, code)
    assert commands.main(["run", "generate", "--recipe", "qwen2.5-0.5b", "--dry-run"]) == (2 if told else 0)
    error = capsys.readouterr().err
    assert told in error and (not told or "qwen2.5-0.5b: not on this machine" in error and "name a folder" in error)


def unreachable(monkeypatch, how):
    import datasets
    import huggingface_hub.constants
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", how == "offline")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", how == "offline")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    if how == "silent":
        monkeypatch.setattr(hub, "HUB_PATIENCE", 1.0)
        monkeypatch.setattr(hub.hub_fault, "__defaults__", (None, 1.0))
        monkeypatch.setattr("huggingface_hub.HfApi.auth_check", lambda *_, **__: time.sleep(60))
        monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: time.sleep(60))


@pytest.mark.parametrize("how, told", [("refused", "does not answer"), ("silent", "no answer within 1 s"),
                                       ("offline", "unset HF_HUB_OFFLINE")])
@pytest.mark.parametrize("words", [["run", "generate", "--recipe", "qwen2.5-0.5b"],
                                   ["run", "generate", "--recipe", "smoke", "-p", "prompts=hub:nobody/nothing"],
                                   ["prompts", "hub:nobody/nothing"]])
def test_a_hub_that_is_not_there_is_told_in_seconds(words, how, told, monkeypatch, capfd, runs):
    unreachable(monkeypatch, how)
    began = time.monotonic()
    assert commands.main(words) == 2 and time.monotonic() - began < 10
    error = capfd.readouterr().err
    assert told in error and "not on this machine" in error and "Retrying" not in error and error.count("\n") == 1
    assert not runs.exists() or not any(runs.iterdir()), "a refused command leaves no trace"



def test_a_runs_folder_that_is_a_file_is_told(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("CCAI_RUNS", str(tmp_path / "file"))
    for words in (["runs"], ["status", "mine"], ["run", "setup", "--dry-run"], ["compare", "a", "b"]):
        assert commands.main(words) == 2 and "it is a file" in capsys.readouterr().err


def test_repair_makes_no_journal(capsys):
    folder = open_run("mine").folder
    assert commands.main(["repair", "mine"]) == 0 and "nothing to repair" in capsys.readouterr().out
    assert not any(folder.iterdir())


def test_a_figure_is_a_file(capsys, tmp_path):
    for place in (tmp_path, tmp_path / "counts"):
        assert commands.main(["prompts", "practice", "--figure", str(place)]) == 2
        assert "expected a file" in capsys.readouterr().err
    assert not any(tmp_path.glob("*.png")) and not any(tmp_path.parent.glob("*.png"))


def test_status_tells_failed_calls_and_interruptions(capsys):
    run = open_run("mine")
    run.record(steps={"generate": {"status": "done"},
                      "train": {"status": "interrupted", "error": "KeyboardInterrupt: "}})
    write_json(run.path("ledger.json"), {"respond": {"calls": 48, "failed": 16}})
    assert commands.main(["status", "mine"]) == 0
    said = capsys.readouterr().out
    assert "done, but 16 calls failed" in said and "interrupted by Ctrl-C" in said and "\x1b" not in said


def test_the_kernel_is_this_interpreter_whatever_is_called_python3(tmp_path, monkeypatch):
    foreign = tmp_path / "kernels" / "python3"
    foreign.mkdir(parents=True)
    write_json(foreign / "kernel.json", {"argv": ["/bin/false"], "display_name": "foreign", "language": "python"})
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert _patient_manager()(kernel_name="python3").kernel_spec.argv[0] == sys.executable


def test_signing_never_fails_a_step(tmp_path, monkeypatch, capsys):
    import nbformat
    from nbformat.sign import NotebookNotary
    copy = tmp_path / "copy.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), copy)
    def fail(*_): raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(NotebookNotary, "sign", fail)
    _sign(copy)
    said = capsys.readouterr().err
    assert said.startswith("note: copy.ipynb could not be signed") and said.count("\n") == 1


@pytest.mark.long
@pytest.mark.parametrize("home", ["/dev/null", "/proc/nowhere", None])
def test_a_step_is_done_without_a_home(runs, home):
    "A home that is a file, that cannot be made, or none."
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("JUPYTER", "IPYTHON", "HOME", "XDG"))} | ({"HOME": home} if home else {})
    done = subprocess.run([str(Path(sys.executable).with_name("ccai")), "run", "setup"], cwd=ROOT, env=environment,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and (runs / "setup" / "setup.json").exists(), done.stderr[-3000:]
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) < 8, done.stderr
