"""Fixtures: a runs folder of one's own, the scripted model, and the shared data where it lies."""
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings
from support import ROOT, play

from contemplative_cai.core.journal import Journal
from contemplative_cai.inputs.constitution import load_constitution

settings.register_profile("repeatable", derandomize=True)  # a red test is red again on the next run, here and in CI
settings.load_profile("repeatable")

# a shell starts what runs in the background deaf to Ctrl-C, and so would be what the tests start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)


# files whose long tests take minutes: begun first, so that two workers end together
LONGEST = ("test_pipeline", "test_trainer", "test_journal", "test_damage", "test_notebooks", "test_secrets",
           "test_evaluate", "test_cluster", "test_declarations", "test_alone", "test_docs", "test_search")


def pytest_collection_modifyitems(items):
    "The longest files first; within a file the order is kept, and so it is where files are not given out whole."
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    "Every test has its own runs folder and works from the project's root."
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CCAI_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def contemplative():
    return load_constitution("contemplative")


@pytest.fixture
def scripted(contemplative): return play(contemplative)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    "The real data sets beside the checkout, or where CCAI_SHARED_DATA points; absent on a user's machine."
    folder = Path(os.environ.get("CCAI_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir(): pytest.skip(f"no shared data in {folder}; set CCAI_SHARED_DATA to run this")
    return folder


@pytest.fixture
def journal(tmp_path):
    "A journal of the test's own."
    with Journal(tmp_path / "journal.sqlite") as opened: yield opened


@pytest.fixture
def write(tmp_path):
    "Write an input file; returns its path."
    def file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path
    return file
