"""One entry checks what another checks: names, kinds and paths, in a notebook as on the command line."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from contemplative_cai.command import commands, pipeline
from contemplative_cai.command.pipeline import begin, make_plan, notebook_parameters, refuse_parameters
from contemplative_cai.core.project import STEPS, project_root
from contemplative_cai.core.recipe import Recipe, build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.inputs.places import ONE_PLACE, placed, placed_value

ROOT = Path(__file__).resolve().parents[2]
OWN = [(step, name) for step in STEPS for name in notebook_parameters(step)
       if name not in Recipe.model_fields and name not in ("run", "recipe", "settings")]
WRONG = {"str": [3, True, ["a"]], "int": ["4", 4.5, True], "bool": ["false", "true", 0, 1, None, "yes"]}


def namespace(step: str, injected: str = "") -> dict:
    "What a kernel knows after a step's parameters cell, and what papermill wrote below it."
    cells = json.loads((ROOT / "nbs" / "pipelines" / f"{STEPS[step]}.ipynb").read_text())["cells"]
    source = next("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    names: dict = {"In": ["", source, f"# Parameters\n{injected}", "run, recipe = begin(run, recipe, globals())"]}
    exec(f"{source}\n{injected}", names)
    return names


@pytest.mark.parametrize("step, name", OWN)
def test_a_parameter_of_another_kind_is_refused_by_name_in_the_notebook_and_on_the_command_line(runs, step, name):
    for value in WRONG[notebook_parameters(step)[name].kind.split(" | ")[0]]:
        if value is None and "None" in notebook_parameters(step)[name].kind: continue
        names = namespace(step, f"{name} = {value!r}")
        with pytest.raises(InputError, match=f"parameter '{name}': expected"):
            begin(names["run"], names["recipe"], names)
        with pytest.raises(InputError, match=f"parameter '{name}': expected"):
            make_plan(step, overrides={name: value})
    assert not runs.exists()


@pytest.mark.parametrize("step", STEPS)
def test_a_typing_error_in_any_parameter_is_said(runs, step):
    for name in notebook_parameters(step):
        typed = name[:-1] + name[-2:] + "x"
        names = namespace(step, f"{typed} = 3")
        with pytest.raises(InputError, match=f"unknown parameter '{typed}'"):
            begin(names["run"], names["recipe"], names)
    assert not runs.exists()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("value", [2024, None, True, 2.5, ["a"]])
def test_a_run_or_recipe_that_is_no_text_is_refused(runs, step, value):
    for name in ("run", "recipe"):
        if value is None and "None" in notebook_parameters(step)[name].kind: continue
        names = namespace(step, f"{name} = {value!r}")
        with pytest.raises(InputError, match=f"parameter '{name}': expected str"):
            begin(names["run"], names["recipe"], names)


@pytest.mark.parametrize("step", STEPS)
def test_every_notebook_begins_as_it_stands(runs, step):
    if step == "review": begin("demo", "smoke", {})
    names = namespace(step)
    run, recipe = begin(names["run"], names["recipe"], names)
    again = names | {"run": run, "recipe": recipe, "calls": 3}
    again["In"] = [*names["In"], "calls = 3"]
    assert begin(run, recipe, again) == (run, recipe), "the first cell may be run again, with other names about"


def test_reviewing_a_run_that_is_not_there_makes_none(runs):
    names = namespace("review", "run = 'dmeo'")
    with pytest.raises(InputError, match="no run 'dmeo'"): begin(names["run"], names["recipe"], names)
    assert not runs.exists()


def test_the_seed_of_a_review_is_not_the_recipes(runs):
    begin("demo", "smoke", {"seed": 5})
    names = namespace("review", "seed = 9")
    assert begin("demo", None, names)[1].seed == 5 and open_run("demo").manifest["recipe"]["seed"] == 5


@pytest.mark.parametrize("text, number", [("012", 12), ("0", 0), ("1_000", 1000), ("-07", -7), ("+3", 3)])
def test_numbers_are_read_as_people_write_them(text, number):
    from contemplative_cai.core.recipe import parse_override
    assert parse_override(f"seed={text}") == ("seed", number)


# paths


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    "A folder outside the project, in which the user stands, with one file a kind."
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    constitution = (ROOT / "data" / "constitutions" / "contemplative-minimal.md").read_text()
    (tmp_path / "mine" / "c.md").write_text(constitution)
    (tmp_path / "mine" / "p.csv").write_text("text\nHow do I begin again?\nWhat is left when all is said?\n")
    (tmp_path / "mine" / "t.yaml").write_text(yaml.safe_dump(
        {"name": "t", "form": "structured", "critique": "{request} {prompt} {answer}",
         "revision": "{request} {prompt} {answer} {critique}"}))
    return tmp_path


@pytest.mark.parametrize("key", ONE_PLACE)
@pytest.mark.parametrize("typed", ["mine/c.md", "./mine/c.md", "mine/../mine/c.md"])
def test_a_path_means_the_same_from_every_folder(elsewhere, key, typed):
    value = placed_value(key, typed, elsewhere, project_root())
    assert os.path.isabs(value) and Path(value).samefile(elsewhere / "mine" / "c.md")
    assert placed_value(key, value, ROOT) == value


def test_names_and_other_values_stay_what_they_are(elsewhere):
    (elsewhere / "contemplative").mkdir()
    for value in ("contemplative", "smollm2-135m", "hub:owner/name", "", "a\0b", "a\ud800", "x" * 100_000, None, 3, []):
        assert placed(value, elsewhere) == value


def test_home_is_expanded(monkeypatch, elsewhere):
    monkeypatch.setenv("HOME", str(elsewhere))
    assert placed("~/mine/c.md", ROOT) == str(elsewhere / "mine" / "c.md")
    assert placed_value("eval_arms", "base, x=~/mine", ROOT) == f"base,x={elsewhere}/mine"
    assert placed_value("prompts", "practice,~/mine/p.csv", ROOT) == ["practice", f"{elsewhere}/mine/p.csv"]


CASES = {"constitution": "mine/c.md", "prompts": "mine/p.csv", "template": "mine/t.yaml", "recipe": "mine/r.yaml"}


@pytest.mark.parametrize("way", CASES)
def test_what_the_dry_run_read_the_notebook_reads(elsewhere, runs, way):
    "Whatever was typed elsewhere, by name, in settings or in a recipe's file: the notebook's recipe is the plan's."
    if way == "recipe":
        (elsewhere / "mine" / "r.yaml").write_text(yaml.safe_dump(
            {"model": "random-tiny", "n_prompts": 2} | {key: path for key, path in CASES.items() if key != way}))
        plan = make_plan("generate", "mine", CASES[way])
    else: plan = make_plan("generate", "mine", "smoke", {way: CASES[way]})
    arguments = pipeline.notebook_arguments("generate", plan.parameters)
    os.chdir(ROOT)
    _, recipe = begin("mine", arguments["recipe"], arguments)
    assert recipe == plan.recipe
    os.chdir(elsewhere)
    _, later = begin("mine", None, {})
    assert later == recipe


def test_a_path_that_a_run_recorded_is_found_from_the_notebooks_folder(runs, monkeypatch):
    "Runs keep the spelling they were begun with in the project's root; JupyterLab stands elsewhere."
    path = "data/constitutions/contemplative-minimal.md"
    monkeypatch.chdir(ROOT)
    run, recipe = begin("mine", "smoke", {"constitution": path})
    assert recipe.constitution == path
    monkeypatch.chdir(ROOT / "nbs" / "pipelines")
    _, later = begin("mine", None, {})
    assert (ROOT / path).samefile(later.constitution) or later.constitution == path


def test_a_refusal_is_the_same_for_papermill_and_for_python(runs):
    with pytest.raises(InputError, match="did you mean 'n_prompts'"): refuse_parameters({"n_promts": 3})
    with pytest.raises(InputError, match="expected bool, got 'false'; write True or False"):
        refuse_parameters({"show_text": "false"})


@pytest.mark.long
def test_plain_papermill_refuses_a_typing_error_and_a_text_for_show_text(runs, tmp_path):
    for words, wrong in [(["-p", "n_promts", "4"], "n_promts"), (["-p", "show_text", "false"], "show_text"),
                         (["-p", "run", "2024"], "'run'")]:
        done = subprocess.run([str(Path(sys.executable).with_name("papermill")), "nbs/pipelines/03_generate.ipynb",
                               str(tmp_path / "out.ipynb"), "-p", "recipe", "smoke", *words],
                              cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode != 0 and "InputError" in done.stderr and wrong in done.stderr, done.stderr[-2000:]
    assert not runs.exists()



# what later steps need


@pytest.mark.parametrize("arms", ["base,dpo,x=no/such/folder", "base,dpo,x=", "base,dpo,../../evil=x", "base,base,dpo",
                                  "base,dpo,dpo", "base,dpo,base=smollm2-135m", "base,dpo,x=~/no-such-folder",
                                  "base,dpo,x=smollm2-135m,x=random-tiny"])
@pytest.mark.parametrize("step", ["all", "quickstart"])
def test_arms_are_looked_at_before_anything_is_generated(runs, capsys, arms, step):
    assert commands.main(["run", step, "--recipe", "smoke", "-p", f"eval_arms={arms}", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "arm" in said and all(line.startswith("ccai: ") for line in said.splitlines()) and not runs.exists()


@pytest.mark.parametrize("key", ["judge_url", "base_url"])
def test_a_server_that_is_not_there_is_told_before_anything_is_generated(runs, capsys, key):
    values = ["-p", f"{key}=http://127.0.0.1:9/v1", "-p", "eval_judges=logits=some-judge"]
    step = "all" if key == "judge_url" else "generate"
    assert commands.main(["run", step, "--recipe", "smoke", *values, "--dry-run"]) == 2
    assert "127.0.0.1:9" in capsys.readouterr().err and not runs.exists()


@pytest.mark.parametrize("name, words", [
    ("openai", ["generate", "-p", "base_url=http://127.0.0.1:9/v1"]), ("ray", ["generate", "--on", "ray"]),
    ("deepspeed", ["train", "-p", "launch=zero2"]), ("openai", ["all", "-p", "judge_url=http://127.0.0.1:9/v1", "-p",
                                                                 "eval_judges=logits=some-judge"]),
])
def test_a_package_that_a_later_step_needs_is_asked_for_now(runs, capsys, monkeypatch, name, words):
    find = pipeline.find_spec
    monkeypatch.setattr(pipeline, "find_spec", lambda asked: None if asked == name else find(asked))
    assert commands.main(["run", *words, "--recipe", "smoke", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert f"{name} is needed and not installed; install it with:" in said


def test_a_model_of_the_hub_that_cannot_be_fetched_is_told_now(runs, capsys, monkeypatch):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert commands.main(["run", "all", "--recipe", "smoke", "-p", "model=qwen2.5-7b", "--dry-run"]) == 2
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err


# what is said twice, or taken back


@pytest.mark.parametrize("key, values", [("n_prompts", ("4", "5")), ("seed", ("1", "1")),
                                         ("show_text", ("true", "false")), ("prompts", ("practice", "edge_cases")),
                                         ("settings", ("{beta: .2}", "{seed: 1}"))])
@pytest.mark.parametrize("form", ["{key}={value}", " {key}={value}", "{key} ={value}"])
def test_a_key_that_is_given_twice_is_refused(runs, capsys, key, values, form):
    words = [word for value, typed in zip(values, ("{key}={value}", form))
             for word in ("-p", typed.format(key=key, value=value))]
    for command in (["run", "generate", "--recipe", "smoke", "--dry-run"], ["plan", "smoke"]):
        assert commands.main([*command, *words]) == 2
        assert f"-p {key}=... is given twice" in capsys.readouterr().err
    assert not runs.exists()


EMPTIED = [name for name, field in Recipe.model_fields.items() if field.default is None]


@pytest.mark.parametrize("name", EMPTIED)
def test_a_value_can_be_taken_back(runs, name):
    """null takes a recipe's or a run's value away, on the command line,
    in settings and in the notebook that is given it."""
    value = {"base_url": "http://127.0.0.1:9/v1", "judge_url": "http://127.0.0.1:9/v1",
             "balance": "principle"}.get(name)
    if value is None:
        try: value = build_recipe({name: "3"}).model_dump(mode="json")[name]
        except InputError: value = None
    if value is None: pytest.skip("needs another key beside it")
    others = {"eval_judges": "logits=random-tiny"} if name == "judge_url" else {}
    run, recipe = begin("mine", "smoke", {"settings": {name: value} | others})
    assert getattr(recipe, name) is not None
    plan = make_plan("generate", "mine", None, {name: None})
    assert getattr(plan.recipe, name) is None
    arguments = pipeline.notebook_arguments("generate", plan.parameters)
    _, emptied = begin("mine", None, {"n_prompts": None} | arguments)
    assert emptied == plan.recipe and run.manifest["recipe"].get(name) is None


def test_none_as_a_parameter_means_as_the_recipe_says(runs):
    begin("mine", "smoke", {"n_prompts": 5, "prompts": "practice"})
    assert begin("mine", None, {"n_prompts": None, "prompts": None, "settings": {}})[1].n_prompts == 5


@pytest.mark.parametrize("words", [
    ["run", "generate", "--recipe=~/mine/r.yaml", "--dry-run"],
    ["plan", "~/mine/r.yaml"],
    ["prompts", "~/mine/p.csv"],
    ["constitution", "show", "~/mine/c.md"],
    ["prompts", "practice", "--constitution=~/mine/c.md"],
    ["constitution", "diff", "~/mine/c.md", "contemplative"],
    ["plan", "smollm2-135m", "-p", "constitution=~/mine/c.md"],
    ["run", "generate", "--recipe", "smoke", "--dry-run", "-p", "prompts=practice,~/mine/p.csv", "-p", "n_prompts=3"],
])
def test_home_is_found_by_every_command(elsewhere, runs, monkeypatch, capsys, words):
    "A shell leaves ~ alone in quotes and behind an equals sign."
    monkeypatch.setenv("HOME", str(elsewhere))
    (elsewhere / "mine" / "r.yaml").write_text(yaml.safe_dump({"model": "smollm2-135m", "n_prompts": 2}))
    assert commands.main(words) == 0, capsys.readouterr().err


@pytest.mark.parametrize("words, wrong", [
    (["-p", "actors=2"], "actors belongs to on: ray"),
    (["-p", "on=moon"], "on: 'moon' is no place"),
    (["--on", "ray", "-p", "actors=0"], "actors: expected how many"),
    (["--on", "ray", "-p", "judge=logits"], "judge=logits"),
    (["--on", "ray", "-p", "critic=smollm2-135m"], "critic=smollm2-135m"),
    (["--on", "ray", "-p", "on=local"], "take one"),
])
def test_what_a_cluster_cannot_do_is_said_before_a_kernel_starts(runs, capsys, words, wrong):
    for step in ("generate", "all"):
        assert commands.main(["run", step, "--recipe", "smoke", *words, "--dry-run"]) == 2
        assert wrong in capsys.readouterr().err
    assert not runs.exists()


@pytest.mark.parametrize("words, wrong", [
    (["all", "-p", "eval_arms=base,dpo,x=no/such/folder"], "arm 'x'"),
    (["all", "-p", "eval_arms=base,base,dpo"], "twice"),
    (["generate", "-p", "actors=2"], "actors belongs"),
    (["review", "-p", "reviewer=../me"], "reviewer"),
    (["all", "-p", "helpful=/no/such.jsonl"], "no such file"),
    (["train", "-p", "helpful=data/README.md"], "helpful"),
])
def test_a_job_elsewhere_is_checked_as_one_here(runs, capsys, words, wrong):
    for place in ("local", "sagemaker"):
        assert commands.main(["run", words[0], "--recipe", "smoke", *words[1:], "--on", place, "--dry-run"]) == 2
        assert wrong in capsys.readouterr().err, place
