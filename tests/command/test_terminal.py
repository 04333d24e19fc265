"""The terminal and what surrounds Jupyter: colours, widths, completion, homes that cannot be written."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contemplative_cai.command import commands
from contemplative_cai.command.completion import completion_script
from contemplative_cai.command.parser import command_parser
from contemplative_cai.command.pipeline import _patient_manager, _sign
from contemplative_cai.core.files import write_json
from contemplative_cai.core.run import open_run
from contemplative_cai.core.terminal import text_table

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
    assert max(map(len, lines)) <= width and set("".join(lines).split()) == set("".join(lines).split())
    words = [word for row in rows for cell in row for word in cell.split()]
    assert sorted(word for line in lines for word in line.split()) == sorted(words)
    assert len(text_table(rows).splitlines()) == len(rows), "in a pipe a row is a line"


class Terminal:
    "A stream that says it is a terminal."
    def isatty(self): return True


def test_colour_only_where_it_is_shown(monkeypatch):
    from contemplative_cai.core.terminal import coloured
    for name in ("NO_COLOR", "TERM"): monkeypatch.delenv(name, raising=False)
    assert coloured("done", "green", Terminal()) == "\x1b[32mdone\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("done", "green", Terminal()) == "done"
    monkeypatch.delenv("NO_COLOR")
    with open(os.devnull) as pipe: assert coloured("done", "green", pipe) == "done"


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


# surroundings


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
