"""A search goes on after any end, never looks at the test pairs, and leaves a recipe."""
import json
import os
import signal
import subprocess
import sys

import pytest
import yaml
from support import wait_for

from contemplative_cai.command.commands import main
from contemplative_cai.core.recipe import build_recipe, load_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.make import load_split
from contemplative_cai.training.search import open_study, read_space, search

pytestmark = pytest.mark.long  # whole trainings
RECIPE = {"model": "random-tiny", "dtype": "float32", "device": "cpu", "n_prompts": 14, "validation_share": 0.3,
          "filters": "empty,identical", "epochs": 2, "max_length": 256, "train_batch_size": 4, "accumulation": 1,
          "eval_steps": 2, "learning_rate": 0.01}
SPACE = {"learning_rate": [0.00001, 0.02], "beta": {"low": 0.05, "high": 0.5, "log": True}}


@pytest.fixture
def generated(scripted):
    run = open_run("demo")
    generate_pairs(run, build_recipe(RECIPE), scripted)
    return run


def test_a_killed_search_goes_on_and_leaves_a_recipe_that_loads(generated, tmp_path):
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    command = ["search", str(tmp_path / "recipe.yaml"), "--run", "demo", "--space", str(tmp_path / "space.yaml"),
               "--trials", "2"]
    process = subprocess.Popen([
        sys.executable, "-c",
        "import sys; from contemplative_cai.command.commands import main; sys.exit(main(sys.argv[1:]))", *command
    ], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: generated.path("search", "trial-0001").exists())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert main(command) == 0
    rows = json.loads(generated.path("search", "trials.json").read_text())
    assert (len(rows) == 2 and all(row["how"] in ("done", "pruned") for row in rows)
            and rows[0]["score"] == max(row["score"] for row in rows if row["how"] == "done"))
    best = load_recipe(str(generated.path("search", "best.yaml")))
    assert (best.learning_rate, best.beta) == (rows[0]["learning_rate"], rows[0]["beta"]) and best.n_prompts == 14
    assert generated.path("search", "search.png").read_bytes().startswith(b"\x89PNG")
    test = set(load_split(generated).test)
    assert not list(generated.path("search").rglob("preferences.jsonl")), "test pairs were scored"
    trained = "".join(path.read_text() for path in generated.path("search").rglob("rows/*.jsonl"))
    pairs = [json.loads(line) for line in generated.path("pairs.jsonl").read_text().splitlines()]
    assert not any(json.dumps(pair["rejected"][0]["content"])[1:-1] in trained
                   for pair in pairs if pair["prompt_id"] in test)
    assert not generated.path("dpo").exists(), "a search leaves the run's own training alone"


def test_a_failed_trial_is_a_row_not_the_end(generated, monkeypatch):
    rows = search(generated, build_recipe(RECIPE), {"lora_targets": ["nothing_proj"]}, 1, say=lambda _: None)
    assert (len(rows) == 1 and "no module 'nothing_proj'" in rows[0]["how"]
            and not generated.path("search", "best.yaml").exists())


def test_trials_that_fall_behind_are_pruned(generated):
    study = open_study(generated.path("search"), "a", 0)
    for score in (0.9, 0.9, 0.9):
        trial = study.ask()
        for step in (2, 4): trial.report(score, step)
        study.tell(trial, score)
    trial = study.ask()
    trial.report(0.2, 2)
    assert trial.should_prune()


@pytest.mark.parametrize("space,message", [
    ("learning_rate: {low: 1, high: 0.1}", "is not below high"),
    ("beta: {low: 0, high: 1, log: true}", "begins above 0"),
    ("n_prompts: [1, 2]", "cannot be searched"),
    ("beta: 0.1", "expected a list of values"),
    ("beta: {low: 0.1, high: 1, lg: true}", "unknown 'lg'"),
    ("loss: [sigmoid, sigmod]", "unknown los"),
    ("{}", "an empty space"),
    ("beta: [0.1", "not valid YAML"),
])
def test_a_space_that_cannot_be_searched_is_refused(tmp_path, space, message):
    path = tmp_path / "space.yaml"
    path.write_text(space)
    with pytest.raises(InputError, match=message): read_space(path, build_recipe({}))


def test_searching_sft_alone_is_refused(generated):
    with pytest.raises(InputError, match="follows the validation accuracy of DPO"):
        search(generated, build_recipe(RECIPE | {"training": "sft", "eval_steps": None}), SPACE, 1)
    assert main(["search", "smoke", "--run", "demo", "--space", "nowhere.yaml"]) == 2
