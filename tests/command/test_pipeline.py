"""The pipeline end to end: every notebook, three ways to run them, failures, interruptions and kills."""
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from support import journalled, wait_for

from contemplative_cai.command.pipeline import (
    begin,
    check_parameters,
    make_plan,
    notebook_arguments,
    step_keys,
    with_settings,
)
from contemplative_cai.core.derived import derived_files, stale_words
from contemplative_cai.core.errors import InputError
from contemplative_cai.core.recipe import Recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.pairs.health import health
from contemplative_cai.pairs.make import load_pairs

ROOT = Path(__file__).resolve().parents[2]
CCAI = [str(Path(sys.executable).with_name("ccai"))]


def ccai(*words, **options):
    "The command as a user types it."
    return subprocess.run([*CCAI, *words], cwd=ROOT, capture_output=True, text=True, timeout=900, **options)


def outputs(path):
    return [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]


@pytest.mark.long
def test_setup_generate_review_train_evaluate_by_the_command(runs):
    "The five steps on the random model; the recipe is given once and remembered."
    assert ccai("run", "setup", "--run", "line").returncode == 0
    checks = json.loads((runs / "line" / "setup.json").read_text())
    assert ({"Python", "device", "bfloat16", "disk", "embedded model", "AILuminate"}
            <= {check["what"] for check in checks["checks"]})
    done = ccai("run", "generate", "--run", "line", "--recipe", "smoke", "-p", "n_prompts=8")
    assert done.returncode == 0 and "revise: 32 of 32" in done.stderr, done.stderr
    for step in ("review", "train", "evaluate"):
        done = ccai("run", step, "--run", "line")
        assert done.returncode == 0, done.stderr
    manifest = open_run("line").manifest
    assert manifest["recipe_name"] == "smoke" and manifest["recipe"]["n_prompts"] == 8
    assert ({name: entry["status"] for name, entry in manifest["steps"].items()}
            == dict.fromkeys(["setup", "generate", "review", "train", "evaluate"], "done"))
    assert "report:" in done.stdout and (runs / "line" / "headline.json").exists()
    text = "".join(path.read_text() for path in (runs / "line").glob("*.json"))
    assert str(Path.home()) not in text and "machine" in manifest["surroundings"]
    for words in (["runs"], ["status", "line"], ["report", "line"], ["recipes"]): assert ccai(*words).returncode == 0
    assert (runs / "line" / "dpo" / "adapter" / "README.md").exists() and stale_words(open_run("line")) == []
    again = ccai("run", "all", "--run", "line")
    assert again.returncode == 0 and "all done before" in again.stderr, again.stderr


def words_of(values): return [word for key, value in values.items() for word in ("-p", f"{key}={value}")]


@pytest.mark.slow
def test_the_pure_loop_on_the_real_model(runs):
    """The embedded model with few prompts and the recipe's limits: real texts, real DPO, a report,
    and pairs whose sides end alike, so that no model learns from them where to stop."""
    small = dict(n_prompts=6, test_share=0, epochs=1, n_eval_prompts=0, n_few_shot=1, resamples=200, judge="none",
                 capability="[]", eval_arms="base,dpo", eval_judged="[]", n_safety=0, n_refusal=5,
                 primary_outcome="refusal", secondary_outcomes="[]")
    done = ccai("run", "all", "--recipe", "smollm2-135m", "--run", "pure", *words_of(small))
    assert done.returncode == 0, done.stderr
    assert "Pairs kept:" in done.stdout and "report.html" in done.stdout
    run = open_run("pure")
    manifest, places = run.manifest, derived_files(run)
    assert set(places) == {"data_set", "model_card", "report"} and all(one.place.is_file() for one in places.values())
    assert stale_words(run) == [] and "Nothing has been evaluated" not in places["model_card"].place.read_text()
    assert manifest["model"].startswith("smollm2-135m@") and manifest["steps"]["evaluate"]["status"] == "done"
    pairs = load_pairs(run)
    assert {(pair.chosen_finish_reason, pair.rejected_finish_reason) for pair in pairs} == {("stop", "stop")}
    figures = health(pairs)
    assert figures.ends_apart.low <= 0 <= figures.ends_apart.high, "both sides end alike"
    assert figures.ends_rule.low <= 0.5 <= figures.ends_rule.high, "the end alone is at chance"
    assert "Answers cut at the token limit" in (runs / "pure" / "headline.json").read_text()


@pytest.mark.long
def test_quickstart_on_the_real_model(runs):
    "The loop is looked at, a part of the shipped pairs is trained on, and answers stand beside each other."
    small = dict(n_prompts=1, n_pairs=24, test_share=0.3, max_steps=2, n_eval_prompts=5, n_few_shot=1, resamples=200,
                 capability="[]", eval_arms="base,dpo", eval_judged="[]", n_refusal=0, primary_outcome="words",
                 secondary_outcomes="[]")
    done = ccai("run", "quickstart", *words_of(small))
    assert done.returncode == 0, done.stderr
    run = open_run("quickstart")
    steps, pairs = run.manifest["steps"], load_pairs(run)
    assert {name: entry["status"] for name, entry in steps.items()} == dict.fromkeys(("generate", "train", "evaluate"),
                                                                                     "done")
    assert steps["generate"]["kept"] + steps["generate"]["dropped"] == 4, "one prompt by four principles"
    assert len(pairs) == 24 and run.manifest["given"]["pairs"] == "contemplative-512"
    figures = health(pairs)
    assert figures.ends_apart.low <= 0 <= figures.ends_apart.high and figures.ends_rule.low <= 0.5
    assert stale_words(run) == [] and all((runs / "quickstart" / name / "adapter").is_dir() for name in ("sft", "dpo"))
    text = (runs / "quickstart" / "notebooks" / "02_quickstart.ipynb").read_text()
    assert all(part in text for part in ("first answer (rejected)", "24 drawn of", "Held-out preference"))


@pytest.mark.long
def test_plain_papermill_from_the_root(runs, tmp_path):
    done = subprocess.run(
        [str(Path(sys.executable).with_name("papermill")), "nbs/pipelines/03_generate.ipynb",
         str(tmp_path / "out.ipynb"), "-p", "run", "demo", "-p", "recipe", "smoke", "-p", "n_prompts", "4"],
        cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert open_run("demo").manifest["recipe"]["n_prompts"] == 4


@pytest.mark.long
def test_in_place_as_jupyterlab_runs_it(runs):
    "JupyterLab starts the kernel in the notebook's own folder."
    from nbclient import NotebookClient
    notebook = nbformat.read(ROOT / "nbs" / "pipelines" / "03_generate.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source += '\nrecipe = "smoke"\nn_prompts = 4'
    NotebookClient(notebook, kernel_name="python3", timeout=600,
                   resources={"metadata": {"path": str(ROOT / "nbs" / "pipelines")}}).execute()
    pictures = [next(line for line in cell.source.splitlines() if line.startswith("look.") or "watched(" in line)
                for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert ([line.strip().split("(")[0] for line in pictures]
            == ["look.drawn_figure", "generation = generate_pairs", "look.health_picture"]), "one picture each"
    progress = [o for o in (output for cell in notebook.cells for output in cell.get("outputs", []))
                if "of 16 calls" in str(o.get("data", {}).get("text/plain", ""))]
    assert progress and all("done in" in o["data"]["text/plain"]
                            for o in progress), "the progress lines should end, and stay, with their last value"


@pytest.mark.long
def test_a_failing_cell_is_the_last_line(runs, tmp_path):
    "A notebook that breaks: exit 1, and the last line names notebook, cell, error and copy."
    root = tmp_path / "tree"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".venv*", ".git", "runs", "__pycache__", "benchmarks"))
    path = root / "nbs" / "pipelines" / "03_generate.ipynb"
    call = "generation = generate_pairs(watched(run), recipe, llm, drawn, recipe_checker(recipe))"
    assert path.read_text().count(call) == 1
    path.write_text(path.read_text().replace(call, "raise RuntimeError('the roof fell in')"))
    done = ccai("run", "generate", "--recipe", "smoke", env=os.environ | {"CCAI_ROOT": str(root)})
    last = done.stderr.strip().splitlines()[-1]
    assert (done.returncode == 1 and "03_generate.ipynb, cell" in last
            and "RuntimeError: the roof fell in" in last and str(runs / "demo" / "notebooks") in last)
    assert open_run("demo").manifest["steps"]["generate"]["status"] == "failed"


SLOW = ["-p", "n_prompts=24", "-p", "batch_size=2", "-p", "answer_tokens=48"]


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_leave_a_run_that_goes_on(runs, how):
    process = subprocess.Popen([*CCAI, "run", "generate", "--recipe", "smoke", *SLOW], cwd=ROOT, stderr=subprocess.PIPE,
                               text=True)
    wait_for(lambda: journalled(runs / "demo" / "journal.sqlite") >= 4)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=60)
    done = journalled(runs / "demo" / "journal.sqlite")
    assert (process.returncode == 1 and "run the same command again" in stderr.splitlines()[-1]
            and "Traceback" not in stderr)
    assert open_run("demo").manifest["steps"]["generate"]["status"] == "interrupted"
    again = ccai("run", "generate")
    assert again.returncode == 0 and journalled(runs / "demo" / "journal.sqlite") == 24 + 2 * 96 > done >= 4


GENERATE = ("from contemplative_cai.core.recipe import load_recipe; from contemplative_cai.core.run import open_run; "
            "from contemplative_cai.pairs.generate import generate_pairs; import sys; "
            "generate_pairs(open_run(sys.argv[1]), load_recipe('smoke', {'n_prompts': 24, 'batch_size': "
            "2, 'temperature': 0.9}))")


@pytest.mark.long
def test_kill_9_in_the_middle_of_generation_gives_the_same_pairs(runs):
    "Killed three times at different moments, then finished: the same bytes as without a kill, and nothing done twice."
    def start(name):
        return subprocess.Popen([sys.executable, "-c", GENERATE, name], cwd=ROOT, stderr=subprocess.DEVNULL)
    assert start("whole").wait(300) == 0
    for calls in (6, 60, 130):
        process = start("killed")
        wait_for(lambda calls=calls, process=process: (journalled(runs / "killed" / "journal.sqlite") >= calls
                                                       or process.poll() is not None))
        process.kill()
        process.wait()
        assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
        assert not (runs / "killed" / "pairs.jsonl").exists()
    assert start("killed").wait(300) == 0
    for file in ("pairs.jsonl", "dropped.jsonl", "split.json"):
        assert (runs / "killed" / file).read_bytes() == (runs / "whole" / file).read_bytes()
    rows = [sqlite3.connect(runs / name
                            / "journal.sqlite").execute("SELECT key, completion FROM calls ORDER BY key").fetchall()
            for name in ("whole", "killed")]
    assert rows[0] == rows[1]


def test_all_means_generate_train_evaluate():
    assert make_plan("all", "demo", "smoke").steps == ["generate", "train", "evaluate"]


def test_named_parameters_go_by_name_and_other_keys_as_settings():
    asked = {"recipe": "smoke", "n_prompts": 4, "revision_tokens": 16, "on": "local"}
    assert notebook_arguments("generate", asked) == {"recipe": "smoke", "n_prompts": 4, "on": "local",
                                                     "settings": {"revision_tokens": 16}}
    assert notebook_arguments("train", asked) == {"recipe": "smoke",
                                                  "settings": {"n_prompts": 4, "revision_tokens": 16}}
    assert notebook_arguments("review", {"reviewer": "me", "beta": 0.2}) == {"reviewer": "me"}


def test_all_steps_of_a_line_are_given_the_same_keys_so_that_a_run_records_one_recipe(runs):
    plan = make_plan("all", "line", "smoke", {"n_prompts": 4, "lora_r": 2})
    for step in plan.steps:
        arguments = notebook_arguments(step, plan.parameters)
        _, recipe = begin("line", arguments["recipe"], arguments)
        assert recipe == plan.recipe and recipe.n_prompts == 4 and recipe.lora_r == 2


@pytest.mark.parametrize("settings", [{"beta": 0.2, "lora_r": 2}, "{beta: 0.2, lora_r: 2}"])
def test_settings_reach_the_recipe_as_a_dictionary_and_as_text(runs, settings):
    _, recipe = begin("demo", "smoke", {"settings": settings, "epochs": 2.0, "seed": None})
    assert (recipe.beta, recipe.lora_r, recipe.epochs, recipe.seed) == (0.2, 2, 2.0, 0)
    assert open_run("demo").manifest["recipe"]["lora_r"] == 2


@pytest.mark.parametrize("parameters, message", [
    ({"settings": {"betta": 0.2}}, "settings: unknown key 'betta'; did you mean 'beta'?"),
    ({"settings": {"beta": 0.2}, "beta": 0.1}, "'beta' is given twice, as 0.1 by name and as 0.2 in settings"),
    ({"settings": ["beta"]}, "settings: expected keys of the recipe and their values"),
    ({"settings": {"beta": "hot"}}, "'beta': "),
])
def test_settings_that_cannot_be_are_refused_before_anything_is_written(runs, parameters, message):
    with pytest.raises(InputError) as error: begin("demo", "smoke", parameters)
    assert message in str(error.value) and not (runs / "demo").exists()


def test_a_first_cell_may_be_run_again(runs):
    run, recipe = begin("demo", "smoke", {"settings": {"beta": 0.2}})
    assert begin(run, recipe, {"settings": {"beta": 0.2}}) == (run, recipe)
    assert run.manifest["recipe_name"] == "smoke"


def test_every_key_is_reached_by_a_step_and_none_that_the_pairs_were_made_with_is_changed_later():
    assert step_keys("generate") == step_keys("quickstart") == list(Recipe.model_fields)
    assert {"beta", "eval_arms", "temperature", "model"} <= set(step_keys("train")) & set(step_keys("evaluate"))
    check_parameters(["train"], {"schedule": "cosine", "trackers": "trackio"})
    for name in ("n_prompts", "critic", "filters", "test_share"):
        with pytest.raises(InputError, match=f"parameter '{name}' belongs to generate"):
            check_parameters(["train"], {name: Recipe().model_dump()[name]})
    with pytest.raises(InputError, match="unknown parameter 'bets'; did you mean 'beta'"):
        check_parameters(["generate"], {"bets": 1})


def test_two_keys_contradict_each_other_only_where_both_are_known(tmp_path):
    "A recipe may name what a parameter needs."
    own = tmp_path / "own.yaml"
    own.write_text("model: smollm2-135m\nbalance: principle\n")
    assert make_plan("generate", "new", str(own), {"balance_quota": 5}).recipe.balance_quota == 5
    own.write_text("model: smollm2-135m\npairs: twins-64\n")
    made = make_plan("train", "new", str(own), {"n_pairs": 8, "test_share": 0.4}).recipe
    assert (made.n_pairs, made.test_share) == (8, 0.4), "given pairs are divided by training"
    with pytest.raises(InputError, match="'test_share' belongs to generate"):
        make_plan("train", "new", str(own), {"pairs": None, "test_share": 0.4})
    with pytest.raises(InputError, match="(?s)recipe smoke: balance_quota says.*smoke: n_pairs says"):
        make_plan("generate", "new", "smoke", {"balance_quota": 5, "n_pairs": 8})
    with pytest.raises(InputError, match="parameter 'balance_quota'"):
        check_parameters(["generate"], {"balance_quota": 0})


def test_settings_of_the_command_are_taken_apart():
    assert with_settings({"seed": 1, "settings": {"beta": 0.2}}) == {"seed": 1, "beta": 0.2}
    assert make_plan("generate", "demo", "smoke", {"settings": {"n_prompts": 4}}).recipe.n_prompts == 4


def test_help_teaches():
    shown = ccai("run", "train", "--help").stdout
    assert "learning_rate" in shown and "peak learning rate of DPO" in shown and "exit status" in shown


@pytest.mark.long
def test_executed_copies_are_signed_and_sources_untouched(runs):
    from nbformat.sign import NotebookNotary
    source = (ROOT / "nbs" / "pipelines" / "04_review.ipynb").read_bytes()
    assert (ccai("run", "generate", "--recipe", "smoke", "-p", "n_prompts=4").returncode == 0
            and ccai("run", "review").returncode == 0)
    assert NotebookNotary().check_signature(nbformat.read(runs / "demo" / "notebooks" / "04_review.ipynb",
                                                          as_version=4))
    assert (ROOT / "nbs" / "pipelines" / "04_review.ipynb").read_bytes() == source
