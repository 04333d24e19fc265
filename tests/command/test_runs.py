"""`ccai runs`: a damaged run is a row that says so, and the others are listed."""
import os

import pytest

from contemplative_cai.command.commands import main
from contemplative_cai.core.files import write_json
from contemplative_cai.core.journal import write_ledger
from contemplative_cai.core.run import open_run, run_folders, step


def listed(capsys) -> tuple[dict[str, str], list[str]]:
    "The rows by run, and the lines on damage."
    assert main(["runs"]) == 0
    table, damage = [], []
    for line in capsys.readouterr().out.splitlines(): (damage if line.startswith("!") else table).append(line)
    return {line.split()[0]: line for line in table[1:]}, damage


@pytest.fixture
def whole(runs):
    "Two runs that can be read, one before and one after 'mine' in the list."
    for name in ("early", "whole"):
        run = open_run(name)
        with step(run, "generate"): run.record(recipe_name="smoke", recipe={"seed": 0})
        write_json(run.path("headline.json"), [["Pairs kept", "7 of 9", "basis", "source"]])
        write_ledger(run, generate={"seconds": 3.0})
    return runs


GARBAGE = {
    "cut": b'{"run": "mine",\n "recipe": {', "empty": b"", "utf-16": b"\xff\xfe{\0}\0", "zeros": b"\0" * 300,
    "list": b"[]\n", "null": b"null\n", "steps": b'{"steps": []}', "entry": b'{"steps": {"train": "done"}}',
    "no status": b'{"steps": {"train": {"started": "now"}}}', "recipe": b'{"recipe": [1]}',
    "name": b'{"recipe_name": 3}', "no keys": b"{}",
    "twice": b'{"run": "a", "run": "b"}', "newer": b'{"schema_version": 2}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=list(GARBAGE))
def test_a_manifest_that_cannot_be_read(whole, capsys, content):
    manifest = open_run("mine").path("run.json")
    manifest.write_bytes(content)
    rows, damage = listed(capsys)
    assert list(rows) == ["early", "mine", "whole"] and "damaged" in rows["mine"]
    assert all("7 of 9" in rows[name] and "generate" in rows[name] for name in ("early", "whole"))
    assert damage and all(line.startswith(f"! mine: {manifest}") for line in damage)
    assert manifest.read_bytes() == content, "nothing is changed"


@pytest.mark.parametrize("file, content", [
    ("headline.json", '["Pairs kept"]'), ("headline.json", "{}"), ("headline.json", "[3]"), ("headline.json", "{"),
    ("ledger.json", "[]"), ("ledger.json", '{"train": {"seconds": "long"}}'), ("ledger.json", "{"),
])
def test_a_run_with_another_file_that_cannot_be_read(whole, capsys, file, content):
    "What can be read is shown."
    run = open_run("whole")
    run.path(file).write_text(content)
    rows, damage = listed(capsys)
    assert "smoke" in rows["whole"] and "generate (damaged, see below)" in rows["whole"]
    assert ("7 of 9" in rows["whole"]) == (file != "headline.json")
    assert ("3 s" in rows["whole"]) == (file != "ledger.json")
    assert len(damage) == 1 and str(run.path(file)) in damage[0] and "damaged" not in rows["early"]


@pytest.mark.parametrize("trace", [None, "pairs.jsonl", ".lock"])
def test_a_folder_without_a_manifest(whole, capsys, trace):
    folder = open_run("mine").folder
    if trace: (folder / trace).touch()
    rows, damage = listed(capsys)
    assert "damaged" in rows["mine"] and damage == [
        f"! mine: {folder}: no run.json; restore it from a copy, or move the folder away"]


def test_a_manifest_that_is_a_folder(whole, capsys):
    open_run("mine").path("run.json").mkdir()
    rows, damage = listed(capsys)
    assert "damaged" in rows["mine"] and "cannot be read" in damage[0] and len(rows) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_manifest_that_may_not_be_read(whole, capsys):
    open_run("mine").record(recipe_name="smoke")
    open_run("mine").path("run.json").chmod(0)
    rows, damage = listed(capsys)
    assert "damaged" in rows["mine"] and "cannot be read" in damage[0]


def test_a_name_no_run_can_have(whole, capsys):
    (whole / "my run").mkdir()
    (whole / "my run" / "run.json").write_text("{}")
    rows, damage = listed(capsys)
    assert set(rows) == {"early", "my", "whole"} and "! my run: run name 'my run'" in damage[0]


def test_folders_that_are_no_runs_are_not_listed(whole, capsys):
    for name in ("bench", ".cache"):
        (whole / name).mkdir()
        (whole / name / "bench.json").write_text("{}")
    (whole / "README.md").write_text("# Runs")
    assert run_folders() == ["early", "whole"] and list(listed(capsys)[0]) == ["early", "whole"]


def test_no_runs(runs, capsys):
    assert main(["runs"]) == 0 and "no runs in" in capsys.readouterr().out


def test_status_of_a_damaged_run_is_refused(whole, capsys):
    open_run("whole").path("progress.json").write_text('{"stage": "respond"}')
    assert main(["status", "whole"]) == 2
    said = capsys.readouterr().err
    assert "progress.json: 'unit' is missing" in said and "Traceback" not in said
