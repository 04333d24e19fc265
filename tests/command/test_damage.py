"""A finished run, one file of it damaged at a time in the ways of a disk, an editor and another version:
each command in turn ends with a line a problem or with what can still be read, and changes nothing it only reads."""
import json
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT, clean, within

from contemplative_cai.command import commands, pipeline

pytestmark = pytest.mark.long

COMMANDS = [("status", "mine"), ("runs",), ("report", "mine"), ("diff", "mine", "other"), ("compare", "mine", "other"),
            ("push", "mine", "--repo", "a/b"),
            *(("run", step, "--run", "mine", "--dry-run") for step in ("generate", "review", "train", "evaluate"))]
WRITES = ("report", "push", "compare")  # commands that rebuild files from others
WHOLE = {"empty": b"", "null": b"null\n", "list": b"[]\n", "object": b"{}\n", "number": b"3\n", "zeros": b"\0" * 300,
         "latin": b"\xff\xfe\xe9", "deep": b"[" * 100_000, "words": b"These are only words.\n"}
OTHER = {"text": "words", "control": "\x1b[2J\u202e", "none": None, "list": [1], "map": {"a": 1}, "negative": -1,
         "truth": True}
# values of the right type that nobody writes; half a character is one of them
NUMBERS = [-1, 10**30, 10**400, 1e308, float("nan"), float("inf"), 2**63]
TEXTS = ["", "\ud800", "x" * 300_000, "../../../etc/passwd", "a\nccai: forged", "\x1b[2J\u202e", "/dev/zero", "\0"]
DRAWN = 6  # damages inside a file that are tried, of all there are
FILES = ["run.json", "journal.sqlite", "ledger.json", "progress.json", "split.json", "leakage.json", "pairs.jsonl",
         "dropped.jsonl", "metrics.json", "calibration.json", "arms.json", "items.jsonl", "answers.jsonl",
         "verdicts.jsonl", "headline.json", "health.json", "dpo/metrics.jsonl", "dpo/preference.json",
         "dpo/training.json"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    "The folder of runs with two finished ones."
    runs = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "nbs" / "09_report"))
        patch.chdir(ROOT)
        patch.setenv("CCAI_RUNS", str(runs))
        from made_up import evaluated_run, questions, verdicts

        from contemplative_cai.core.files import write_rows
        from contemplative_cai.report.report import write_report
        for name in ("mine", "other"):
            run = evaluated_run(name, {"model": "random-tiny"})
            write_rows(run.path("verdicts.jsonl"), verdicts(questions()))
            write_report(run)
            shutil.copytree(run.folder, runs / name)
        sys.modules.pop("made_up", None)
    assert {str(path.relative_to(runs / "mine")) for path in (runs / "mine").rglob("*")} >= set(FILES)
    return runs


def leaves(value, place: tuple = ()) -> Iterator[tuple[tuple, object]]:
    "Numbers and texts of a JSON value with where they stand; of a list, those of its first items."
    parts = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for name, part in parts: yield from leaves(part, (*place, name))
    if type(value) in (int, float, str): yield place, value


def changed(value, place: tuple, other):
    "The JSON value with another leaf."
    if not place: return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = changed(value[place[0]], place[1:], other)
    return copy


def inside(text: str) -> Iterator[tuple[str, str]]:
    "A JSON object damaged: each key retyped and taken away, each leaf made what nobody writes."
    value = json.loads(text)
    if not isinstance(value, dict): return
    for place, leaf in leaves(value):
        for i, other in enumerate(TEXTS if isinstance(leaf, str) else NUMBERS):
            yield f"{place} wild {i}", json.dumps(changed(value, place, other))
    yield "future", json.dumps(value | {"schema_version": 99})
    for key in value:
        yield f"{key} gone", json.dumps({name: part for name, part in value.items() if name != key})
        for kind, other in OTHER.items(): yield f"{key} = {kind}", json.dumps(value | {key: other})


def rows_inside(text: str) -> Iterator[tuple[str, str]]:
    "JSONL damaged: its first row like an object, its last torn, glued or twice."
    rows = text.splitlines()
    for kind, row in inside(rows[0]): yield kind, "\n".join([row, *rows[1:]]) + "\n"
    yield "torn", text[:len(text) - len(rows[-1]) // 2]
    yield "glued", "\n".join([*rows[:-1], rows[-1][:len(rows[-1]) // 2] + rows[-1]]) + "\n"
    yield "twice", text + text


def damages(path: Path) -> Iterator[tuple[str, bytes]]:
    "Every way in which this file is damaged here."
    content, lot = path.read_bytes(), random.Random(path.name)
    yield from WHOLE.items()
    yield "half", content[:len(content) // 2]
    yield "swapped", next(other for other in path.parent.iterdir() if other.suffix != path.suffix).read_bytes()
    if path.suffix == ".sqlite":
        yield "page", content[:8192] + b"\xa5" * 4096 + content[12288:]
        return
    ways = list((rows_inside if path.suffix == ".jsonl" else inside)(content.decode()))
    for kind, text in lot.sample(ways, min(DRAWN, len(ways))): yield kind, text.encode()


def pictures(folder: Path) -> dict[str, bytes]:
    "The files of a folder by name, but SQLite's own."
    return {str(path): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and not path.name.endswith(("-wal", "-shm", ".lock"))}


def ends_badly(command: tuple, status: int, printed: str, told: str) -> str:
    "What is wrong with the way in which a command ended; nothing, mostly."
    if status not in (0, 2): return f"status {status}"
    if "Traceback" in told + printed: return "a traceback"
    if len(told) >= 16_000: return f"{len(told)} characters on stderr"
    if status == 2 and not (told and all(line.startswith("ccai: ") for line in told.splitlines())): return "no message"
    return "" if clean(printed) and clean(told) else "something that moves a terminal's cursor"


@pytest.mark.parametrize("file", FILES)
def test_no_damage_ends_a_command_badly(finished, runs, monkeypatch, capfd, file):
    monkeypatch.setattr(pipeline, "execute", lambda step, *_: pytest.fail(f"a dry run started step {step}"))
    bad, first = [], FILES.index(file)
    for number, (kind, content) in enumerate(damages(finished / "mine" / file)):
        shutil.rmtree(runs, ignore_errors=True)
        shutil.copytree(finished, runs)
        (runs / "mine" / file).write_bytes(content)
        command, before = COMMANDS[(first + number) % len(COMMANDS)], pictures(runs)
        with within(60): status = commands.main(list(command))
        printed, told = capfd.readouterr()
        wrong = ends_badly(command, status, printed, told)
        if command[0] not in WRITES and pictures(runs) != before: wrong = "a file was changed"
        if wrong: bad.append(f"{kind}, ccai {' '.join(command)}: {wrong}; {told[:300]}")
    assert not bad, "\n".join(bad[:20])
