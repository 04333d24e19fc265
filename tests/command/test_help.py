"""Help costs next to nothing: nothing is imported to build it, and every command has its own."""
import os
import re
import resource
import subprocess
import sys

import pytest

from contemplative_cai.command.commands import _COMMANDS, main
from contemplative_cai.command.parser import command_parser

HEAVY = ("torch", "transformers", "pandas", "numpy", "pydantic", "scipy", "sklearn", "matplotlib", "papermill",
         "nbformat", "jinja2")
CCAI = "import sys; from contemplative_cai.command.commands import main; sys.exit(main(sys.argv[1:]))"
LIGHT = [("--help",), ("run", "--help"), ("constitution", "lint", "--help"), ("init", "--help")]


def python(code, *words):
    "A Python of its own; what it printed and the CPU seconds it took."
    def spent(): return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    before = spent()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return done.stdout, spent() - before


def best_of_three(code, *words): return min(python(code, *words)[1] for _ in range(3))


@pytest.mark.parametrize("code, words", [("import contemplative_cai", ()), *((CCAI, words) for words in LIGHT)])
def test_help_and_import_take_less_than_three_tenths_of_a_cpu_second(code, words):
    assert best_of_three(code, *words) < 0.3


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_help_imports_nothing_heavy(words):
    looked = ("import atexit, sys\n"
              f"def heavy(): return [name for name in {HEAVY!r} if name in sys.modules]\n"
              "def own(): return sorted(name for name in sys.modules if name.startswith('contemplative_cai.'))\n"
              f"atexit.register(lambda: print('loaded:', heavy(), own()))\n{CCAI}")
    shown, _ = python(looked, *words)
    heavy, own = re.search(r"loaded: (\[.*?\]) (\[.*?\])", shown).groups()
    assert heavy == "[]"
    assert own == repr(["contemplative_cai.command", "contemplative_cai.command.commands",
                        "contemplative_cai.command.parser", "contemplative_cai.core", "contemplative_cai.core.errors",
                        "contemplative_cai.core.foreign", "contemplative_cai.core.project",
                        "contemplative_cai.core.screen"])


def test_every_command_that_can_be_said_is_known():
    commands = next(action for action in command_parser()._actions if action.dest == "command")
    assert sorted(commands.choices) == sorted(_COMMANDS)


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_every_command_says_what_it_is_for_within_120_columns(name, capsys, monkeypatch):
    monkeypatch.setitem(os.environ, "COLUMNS", "120")
    try: status = main([name, "--help"])
    except SystemExit as end: status = end.code
    shown = capsys.readouterr().out
    assert status == 0 and shown.startswith(f"usage: ccai {name} ") and len(shown.splitlines()) > 4
    assert max(map(len, shown.splitlines())) <= 120
