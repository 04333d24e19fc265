"""The entry as the container runs it, with a temporary root in place of /opt/ml."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contemplative_cai.cloud.entry import command_line
from contemplative_cai.cloud.machines import CloudSettings
from contemplative_cai.command.sagemaker import prepare_job
from contemplative_cai.core.recipe import load_recipe
from contemplative_cai.core.run import Run, open_run
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.make import load_pairs


@pytest.fixture
def container(tmp_path):
    "A container's file system, its packages installed, and what starts the job in it."
    root = tmp_path / "ml"
    code, tree = root / "input" / "data" / "code", root / "code"
    code.mkdir(parents=True)
    tree.mkdir()
    (tree / ".venv").symlink_to(sys.prefix)  # the image has the packages; the code is what was sent
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CCAI_", "AWS_"))}
    environment |= {"CCAI_ML_ROOT": str(root), "PYTHONPATH": str(tree), "HOME": str(tmp_path)}

    def start(step, run, recipe):
        for name, content in prepare_job(step, run, recipe, {}, CloudSettings()).files.items():
            (code / name).write_bytes(content)
        return subprocess.Popen(["bash", str(code / "entry.sh")], cwd=tmp_path, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    return root, start


def wait_for(path: Path, process) -> None:
    "Until a file is there."
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate(timeout=20)[0]
        time.sleep(0.02)


@pytest.mark.slow
def test_a_job_that_was_interrupted_ends_as_one_that_was_not(container):
    root, start = container
    recipe = load_recipe("smoke", {"n_prompts": 6, "batch_size": 1, "answer_tokens": 24, "critique_tokens": 16,
                                   "revision_tokens": 24})
    there = root / "checkpoints" / "runs"
    process = start("generate", "demo", recipe)
    wait_for(there / "demo" / "progress.json", process)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=120)[0]
    assert process.returncode == 1 and "interrupted; what was finished is kept" in told
    assert "interrupted" in (root / "output" / "failure").read_text()
    (root / "output" / "failure").unlink()
    process = start("generate", "demo", recipe)
    told = process.communicate(timeout=300)[0]
    assert process.returncode == 0 and not (root / "output" / "failure").exists(), told
    whole = open_run("whole")
    generate_pairs(whole, recipe)
    ids = [sorted(pair.id for pair in load_pairs(run)) for run in (Run("demo", there / "demo"), whole)]
    assert ids[0] == ids[1] and ids[0]
    assert (root / "model" / "demo" / "run.json").exists() and "./demo/run.json" in (there / "digests.txt").read_text()


@pytest.mark.long
def test_a_job_that_fails_says_why_where_the_service_looks(container):
    root, start = container
    process = start("evaluate", "demo", load_recipe("smoke"))
    (root / "input/data/code/recipe.yaml").write_text("n_promts: 4\n")
    told = process.communicate(timeout=120)[0]
    words = (root / "output" / "failure").read_text()
    assert process.returncode == 2 and "did you mean 'n_prompts'" in words and len(words) <= 1000, told


def test_the_command_is_what_one_would_type_at_home():
    assert command_line("all", "a-run", {"reviewer": "me", "beta": 0.2}) == ["run", "all", "--run", "a-run", "-p",
                                                                             'reviewer="me"']
