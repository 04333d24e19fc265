"""`ccai init`, and an installed wheel: a project from the package's own data, and a clear word where there is none."""
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support import ROOT

from contemplative_cai.command.commands import main
from contemplative_cai.core import project
from contemplative_cai.core.errors import InputError
from contemplative_cai.core.project import NOT_LAID_OUT, PROJECT_PARTS, lay_out

JUNK = shutil.ignore_patterns("__pycache__", "benchmarks", ".ipynb_checkpoints", ".*")


def files(folder: Path) -> set[str]:
    "Every file below a folder, as relative names."
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# laying out


def test_a_project_is_laid_out_whole_and_can_be_used(tmp_path, monkeypatch, capsys):
    assert main(["init", str(tmp_path / "lab" / "mine")]) == 0
    shown = capsys.readouterr().out
    assert "ccai run smoke-test" in shown and "data/benchmarks/ailuminate" in shown
    mine = tmp_path / "lab" / "mine"
    for part in ("configs", "data", "nbs/pipelines"):
        kept = {name for name in files(ROOT / part) if "benchmarks" not in name and "/." not in f"/{name}"}
        assert files(mine / part) == kept
    assert (mine / "runs" / "README.md").read_bytes() == (ROOT / "runs" / "README.md").read_bytes()
    assert not (mine / "data" / "benchmarks").exists()
    monkeypatch.chdir(mine / "data")
    monkeypatch.delenv("CCAI_RUNS")
    assert main(["run", "generate", "--recipe", "smoke", "--dry-run"]) == 0
    assert str(mine / "runs" / "demo") in capsys.readouterr().out
    assert files(mine / "runs") == {"README.md"}
    assert main(["prompts", "ailuminate"]) == 2
    assert "fetch them with: git clone https://" in capsys.readouterr().err, "there is no submodule here"


def test_an_empty_folder_is_filled_and_the_working_folder_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "."]) == 0
    assert (tmp_path / "configs" / "smoke.yaml").is_file()


@pytest.mark.parametrize("name", ["notes.txt", ".git"])
def test_a_folder_that_holds_anything_is_refused_and_left_as_it_was(name, tmp_path, capsys):
    (tmp_path / name).write_text("Keep me.\n")
    assert main(["init", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert f"it holds {name}" in told and "nothing was changed" in told and told.count("\n") == 1
    assert files(tmp_path) == {name} and (tmp_path / name).read_text() == "Keep me.\n"


def test_a_file_is_no_folder(tmp_path, capsys):
    (tmp_path / "mine").write_text("Keep me.\n")
    assert main(["init", str(tmp_path / "mine")]) == 2
    assert "expected a folder, and it is a file" in capsys.readouterr().err


@pytest.mark.parametrize("before", [False, True])
def test_an_interrupted_layout_leaves_nothing_that_looks_like_a_project(before, tmp_path, monkeypatch):
    mine, copied = tmp_path / "mine", shutil.copyfile
    if before: mine.mkdir()
    def interrupted(source, target, **how):
        if "rubrics" in str(target): raise KeyboardInterrupt
        return copied(source, target, **how)
    monkeypatch.setattr(project.shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt): lay_out(mine)
    assert mine.is_dir() == before and not (before and list(mine.iterdir()))


def test_a_package_that_lost_its_data_says_so(tmp_path, monkeypatch):
    (tmp_path / "contemplative_cai" / "project" / "configs").mkdir(parents=True)
    monkeypatch.setattr(project.contemplative_cai, "__file__", str(tmp_path / "contemplative_cai" / "__init__.py"))
    with pytest.raises(InputError, match="data, nbs/pipelines, runs/README.md is missing; .* install"):
        lay_out(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


# the wheel


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    "A copy of what a wheel is built from, with a module in build/ that the tree no longer has."
    copy = tmp_path_factory.mktemp("tree")
    for name in ("contemplative_cai", "configs", "data", "nbs/pipelines"):
        shutil.copytree(ROOT / name, copy / name, ignore=JUNK)
    for name in ("setup.py", "settings.ini", "pyproject.toml", "README.md", "LICENSE", "runs/README.md"):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    (copy / "data" / "benchmarks").mkdir()
    (copy / "data" / "benchmarks" / "prompts.csv").write_text("prompt\nnot ours\n")
    (copy / "build" / "lib" / "contemplative_cai").mkdir(parents=True)
    (copy / "build" / "lib" / "contemplative_cai" / "gone.py").write_text("")
    return copy


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory) -> Path:
    "The wheel, built without a network."
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w",
                    str(place), str(tree)], check=True, capture_output=True)
    return next(place.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    "The bin folder of an environment that holds the wheel, and borrows what it depends on."
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile",
                    "--prefix", str(folder), "--ignore-installed", str(wheel)], check=True, capture_output=True)
    borrowed = [path for path in map(Path, sys.path) if path.name == "site-packages"]
    (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
    script = folder / "bin" / "ccai"
    text = script.read_text().split("\n", 1)[1]
    script.write_text(f"#!{folder / 'bin' / 'python'}\n{text}")
    return folder / "bin"


@pytest.fixture
def ccai(installed, tmp_path):
    "Run the installed `ccai` somewhere outside the checkout."
    def command(*words, cwd=tmp_path):
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("CCAI_", "PYTHON"))}
        clean["CCAI_CACHE"] = str(tmp_path / "cache")
        return subprocess.run([str(installed / "ccai"), *words], cwd=cwd, env=clean, capture_output=True, text=True)
    return command


def test_the_wheel_holds_every_room_and_a_project(tree, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"contemplative_cai/{name}" for name in files(tree / "contemplative_cai")} <= names
    assert {f"contemplative_cai/{room.name}/__init__.py" for room in (ROOT / "contemplative_cai").iterdir()
            if room.is_dir() and room.name != "__pycache__"} <= names
    laid_out = {name.removeprefix("contemplative_cai/project/") for name in names
                if name.startswith("contemplative_cai/project/")}
    assert laid_out == {name for name in files(tree) if name.startswith(PROJECT_PARTS) and "benchmarks" not in name}
    assert not any("gone" in name or any(part in NOT_LAID_OUT for part in name.split("/")) for name in names)


def test_outside_a_project_the_installed_command_says_what_it_needs(ccai, tmp_path):
    shown = ccai("--help")
    assert shown.returncode == 0 and "ccai init" in shown.stdout
    for words in [("recipes",), ("runs",), ("run", "smoke-test"), ("constitution", "lint"), ("status", "mine")]:
        refused = ccai(*words)
        assert refused.returncode == 2 and refused.stdout == ""
        assert refused.stderr == (f"ccai: no contemplative_cai project at {tmp_path} or above it: "
                                  "expected a folder with configs/ and nbs/pipelines/; "
                                  "make one with: ccai init FOLDER, and change into it, or name one in CCAI_ROOT\n")
    assert files(tmp_path) == set()


def test_the_installed_wheel_alone_lays_out_a_project_that_plans_a_run(ccai, tmp_path):
    assert ccai("init", "demo").returncode == 0
    assert "smoke" in ccai("recipes", cwd=tmp_path / "demo").stdout
    planned = ccai("run", "smoke-test", "--dry-run", cwd=tmp_path / "demo" / "data")
    assert planned.returncode == 0 and str(tmp_path / "demo" / "runs") in planned.stdout


@pytest.mark.slow
def test_the_smoke_test_runs_in_a_project_of_the_installed_wheel(ccai, installed, tmp_path):
    assert ccai("init", "demo").returncode == 0
    done = ccai("run", "smoke-test", cwd=tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "demo" / "runs").glob("*/notebooks/01_smoke_test.ipynb"))
