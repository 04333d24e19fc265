"""`--on sagemaker`: the plan is pure, checked as a run here is, and shown;
the request is accepted by a moto server on loopback."""
import gzip
import io
import json
import os
import re
import sqlite3
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path

import boto3
import pytest
import yaml

from contemplative_cai.cloud.entry import Needs, command_line, entry_script, job_needs
from contemplative_cai.cloud.machines import cloud_settings, known_instances, machine_of
from contemplative_cai.cloud.request import job_faults, plan, request_faults
from contemplative_cai.cloud.travel import run_archive
from contemplative_cai.command.commands import main
from contemplative_cai.command.sagemaker import prepare_job
from contemplative_cai.core.recipe import Recipe, build_recipe, load_recipe
from contemplative_cai.core.run import Run, open_run
from contemplative_cai.core.schema import InputError

JOB = ["run", "generate", "--run", "cloud", "--recipe", "smoke", "-p", "n_prompts=4", "--on", "sagemaker"]
GOLDEN = Path(__file__).with_name("golden")
WHERE = {
    "plain": {},
    "private": {"subnets": ("subnet-0a1b",), "security_groups": ("sg-0a1b",), "kms_key": "alias/lab", "spot": False,
                "network_isolation": True, "environment": {"HF_HUB_OFFLINE": "1"}, "instance": "ml.g6e.2xlarge"},
}


@pytest.fixture
def local(monkeypatch):
    "A recipe that a run here refuses is refused before a kernel starts."
    from contemplative_cai.command import pipeline
    monkeypatch.setattr(pipeline, "execute", lambda step, *_: pytest.fail(f"step {step} was started"))


# the request


@pytest.mark.parametrize("name", WHERE)
def test_a_request_is_what_it_was(where, name):
    "To write them anew: CCAI_GOLDEN=1."
    request = plan("train", "demo", Recipe(model="smollm2-135m"), {}, where.model_copy(update=WHERE[name]), "c0de")
    assert request_faults(request) == []
    path = GOLDEN / f"{name}.json"
    if os.environ.get("CCAI_GOLDEN"): path.write_text(json.dumps(request, indent=2) + "\n")
    assert json.loads(path.read_text()) == request


def test_the_same_job_has_the_same_name_and_another_another(where):
    recipe = load_recipe("smoke")
    names = [plan(step, run, recipe, overrides, where, code)["TrainingJobName"] for step, run, overrides, code in
             [("all", "demo", {}, "a"), ("all", "demo", {}, "a"), ("all", "demo", {}, "b"),
              ("all", "demo", {"x": 1}, "a"), ("train", "demo", {}, "a"), ("all", "de.mo", {}, "a")]]
    assert names[0] == names[1] and len(set(names)) == 5
    assert all(request_faults(plan("all", run, recipe, {}, where, "c")) == [] for run in ("a" * 100, "a._-", "1"))


@pytest.mark.parametrize("wrong, words", [
    ({"TrainingJobName": "a b"}, "does not have the form"), ({"TrainingJobName": "a" * 70}, "more than 63"),
    ({"ResourceConfig": {"InstanceType": "ml.g5.huge", "InstanceCount": 1, "VolumeSizeInGB": 5}}, "the service's list"),
    ({"StoppingCondition": {"MaxRuntimeInSeconds": "1"}}, "valid type"), ({"Spot": True}, "Unknown parameter"),
    ({"RoleArn": "arn:aws:iam::123456789012:user/somebody"}, "RoleArn"),
    ({"Environment": {"A B": "1"}}, "Environment.A B"), ({"Tags": [{"Key": "a", "Value": "\u0007"}]}, "Tags[0].Value"),
])
def test_the_services_own_model_finds_what_is_wrong(where, wrong, words):
    assert any(words in fault for fault in request_faults(plan("all", "demo", Recipe(), {}, where, "c") | wrong))


def test_every_known_instance_is_on_the_services_list(where):
    for name in known_instances():
        assert request_faults(plan("all", "demo", Recipe(), {}, where.model_copy(update={"instance": name}), "c")) == []
    with pytest.raises(InputError, match="did you mean 'ml.g5.xlarge'.*describe it there"): machine_of("ml.g5.xlrge")


@pytest.mark.parametrize("more, words", [
    ({"instnace": "a"}, "did you mean 'instance'"), ({"volume_gb": "big"}, "volume_gb"),
    ({"subnets": ["a"]}, "together"),
    ({"environment": {"A-B": "1"}}, "no name of an environment variable"), ({"max_hours": 0}, "max_hours"),
    ({"environment": {"HF_TOKEN": "hf_" + "a1B2c3D4" * 5}}, "Secrets Manager"),
])
def test_a_wrong_setting_is_named(more, words):
    with pytest.raises(InputError, match=words): cloud_settings(more)


# what a run here refuses


@pytest.mark.parametrize("step, key, value", [
    ("generate", "constitution", "no/such.md"), ("generate", "prompts", "no/such.csv"),
    ("generate", "template", "no-such-set"), ("all", "eval_arms", "base,dpo,x=no/such/folder"),
    ("all", "eval_judges", "guard=nobody"), ("train", "pairs", "no/such.jsonl"), ("train", "helpful", "no/such.jsonl"),
    ("all", "split", "no/such.json"), ("all", "calibration", "no/such.jsonl"), ("all", "n_refusal", 3),
    ("all", "template", "data/README.md"), ("evaluate", "eval_arms", "base,base"),
])
def test_what_is_refused_here_is_refused_there_in_the_same_words(local, capsys, step, key, value):
    words = ["run", step, "--run", "cloud", "--recipe", "smoke", "-p", f"{key}={value}"]
    assert main(words) == 2
    here = capsys.readouterr().err
    assert main([*words, "--on", "sagemaker"]) == 2
    assert capsys.readouterr().err.split("\n")[0] == here.split("\n")[0]


@pytest.mark.parametrize("values, steps, more, words", [
    ({"base_url": "http://127.0.0.1:8000/v1", "engine": "endpoint", "model": "m"}, "generate", {}, "is this computer"),
    ({"judge_url": "http://localhost:1/v1", "eval_judges": "logits=m"}, "evaluate", {}, "judge_url"),
    ({"model": "llama-3.1-8b"}, "generate", {}, "the job has no token"),
    ({"eval_judges": "guard=llama-guard-3-8b"}, "evaluate", {}, "the job has no token"),
    ({"model": "qwen2.5-0.5b"}, "generate", {"network_isolation": True}, "network_isolation"),
    ({"model": "qwen2.5-7b", "adapter": "none"}, "train", {}, "does not fit on ml.g5.2xlarge"),
    ({"model": "qwen2.5-7b", "max_length": 2048}, "train", {"instance": "ml.g5.xlarge"}, "does not fit"),
    ({"model": "qwen2.5-14b"}, "generate", {}, "its weights have"),
    ({"device": "cuda"}, "generate", {"instance": "ml.m5.xlarge"}, "not what ml.m5.xlarge has"),
    ({"train_quantization": "int4"}, "train", {"instance": "ml.m5.xlarge"}, "needs a GPU"),
    ({"dtype": "float16"}, "train", {"instance": "ml.m5.xlarge"}, "float16 cannot be trained"),
    ({"device": "mps"}, "generate", {}, "device: mps"), ({}, "evaluate", {"count": 2}, "under steps"),
    ({"engine": "vllm"}, "generate", {"network_isolation": True}, "engine: vllm .*reach nothing"),
    ({}, "generate", {"network_isolation": True, "secrets": {"HF_TOKEN": "lab/hub"}}, "secrets: .*reach nothing"),
    ({}, "generate", {"instance": "ml.g5.huge"}, "machines.yaml"), ({}, "review", {}, "people review"),
])
def test_what_the_jobs_machine_cannot_do_is_refused(where, values, steps, more, words):
    recipe = build_recipe({"pairs": "contemplative-512"} | values if steps == "train" else values)
    with pytest.raises(InputError, match=words):
        prepare_job(steps, "demo", recipe, {}, where.model_copy(update=more))


@pytest.mark.parametrize("values, steps, needs", [
    ({"trackers": "wandb,trackio", "train_quantization": "int4"}, {"train"}, Needs(("quantize", "track"))),
    ({"trackers": "wandb", "train_quantization": "int4"}, {"generate"}, Needs()),
    ({"quantization": "int8"}, {"generate"}, Needs(("quantize",))),
    ({"engine": "vllm"}, {"evaluate"}, Needs(("vllm",), (), True)),
    ({"launch": "zero2"}, {"train"}, Needs((), ("deepspeed",))),
    ({"base_url": "http://server:1/v1", "engine": "endpoint"}, {"generate"}, Needs(("vllm",))),
])
def test_what_is_not_installed_here_is_installed_there(values, steps, needs):
    assert job_needs(build_recipe(values), steps) == needs


def test_a_servers_key_that_only_this_computer_has_is_refused(where, monkeypatch):
    recipe = build_recipe({"base_url": "http://server:1/v1", "engine": "endpoint", "model": "m"})
    assert job_faults(recipe, {"generate"}, where) == []
    monkeypatch.setenv("CCAI_API_KEY", "here-alone")
    assert "CCAI_API_KEY" in (told := job_faults(recipe, {"generate"}, where)[0]) and "here-alone" not in told
    there = where.model_copy(update={"secrets": {"CCAI_API_KEY": "lab/key"}})
    assert job_faults(recipe, {"generate"}, there) == []


# what is shown, what is sent


def test_dry_run_is_the_default_and_lists_what_is_missing(capsys, runs):
    assert main(JOB) == 0 and main([*JOB, "--yes"]) == 2
    shown = capsys.readouterr()
    assert "role is empty" in shown.err
    shown = shown.out
    assert ("<role, not filled in>" in shown and "Nothing was submitted" in shown and "ml.g5.2xlarge" in shown
            and "CCAI_SAGEMAKER_BUCKET" in shown and not runs.exists())


def test_yes_uploads_and_submits(account, capsys, tmp_path):
    assert main([*JOB, "--yes"]) == 0
    name = boto3.client("sagemaker").list_training_jobs()["TrainingJobSummaries"][0]["TrainingJobName"]
    job = boto3.client("sagemaker").describe_training_job(TrainingJobName=name)
    assert (job["AlgorithmSpecification"]["ContainerEntrypoint"][0] == "bash"
            and job["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints")
    def content(file):
        key = f"contemplative-cai/code/{name}/{file}"
        return boto3.client("s3").get_object(Bucket="lab-bucket", Key=key)["Body"].read()
    names = tarfile.open(fileobj=io.BytesIO(gzip.decompress(content("source.tar.gz")))).getnames()
    assert {"settings.ini", "Makefile", "nbs/pipelines/03_generate.ipynb",
            "contemplative_cai/command/pipeline.py"} <= set(names)
    assert not any(name.startswith((".venv", ".git/", "runs/q")) for name in names)
    assert b"ccai run generate --run cloud" in content("entry.sh")
    (tmp_path / "recipe.yaml").write_bytes(content("recipe.yaml"))
    assert load_recipe(str(tmp_path / "recipe.yaml")) == load_recipe("smoke", {"n_prompts": 4})


def test_a_refusal_is_the_services_own_words(account, capsys, monkeypatch):
    monkeypatch.setenv("CCAI_SAGEMAKER_BUCKET", "nobody-made-this-bucket")
    assert main([*JOB, "--yes"]) == 2
    assert "NoSuchBucket" in capsys.readouterr().err


def test_a_run_that_lives_here_goes_along_without_what_is_not_its_own(runs):
    run = open_run("mine")
    for name in ("run.json", "reviews/ann.jsonl", ".lock", "notebooks/x.ipynb", "dpo/checkpoint-4/w", "dpo/adapter/a",
                 "jobs.json"):
        run.path(name).parent.mkdir(parents=True, exist_ok=True)
        run.path(name).write_text("{}")
    with closing(sqlite3.connect(run.path("journal.sqlite"))) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("create table calls (key)")
        db.execute("insert into calls values ('asked')")
        db.commit()
        sent = tarfile.open(fileobj=io.BytesIO(run_archive(run)))  # while another has the journal open
    assert sent.getnames() == [f"mine/{name}" for name in
                               ("dpo/adapter/a", "journal.sqlite", "reviews/ann.jsonl", "run.json")]
    sent.extractall(runs / "there", filter="data")
    with closing(sqlite3.connect(runs / "there/mine/journal.sqlite")) as db:
        assert db.execute("select key from calls").fetchall() == [("asked",)]
    run.path("journal.sqlite").write_bytes(b"no data base at all")
    with pytest.raises(InputError, match="ccai repair mine"): run_archive(run)
    assert run_archive(Run("other", runs / "other")) is None


def test_training_a_run_that_is_not_here_is_refused(capsys):
    assert main(["run", "train", "--run", "nowhere", "--recipe", "smoke", "--on", "sagemaker"]) == 2
    assert "no run 'nowhere'" in capsys.readouterr().err


# the shape of a method's plan


def test_a_plans_file_is_a_recipe_and_names_the_machine(tmp_path, capsys):
    path = tmp_path / "plan.yaml"
    written = {"training": {"instance_type": "ml.g5.12xlarge", "volume_size": 50, "max_runtime": 7200},
               "model": {"name": "random-tiny"}, "training_params": {"num_train_epochs": 2, "batch_size": 4}}
    path.write_text(yaml.safe_dump(written))
    recipe = load_recipe(str(path))
    assert (recipe.model, recipe.epochs, recipe.train_batch_size) == ("random-tiny", 2, 4)
    assert main(["run", "generate", "--run", "cloud", "--recipe", str(path), "--on", "sagemaker"]) == 0
    shown = capsys.readouterr().out
    assert "ml.g5.12xlarge, 50 GB" in shown and "at most 2 h" in shown and shown.count("plan     ") == 6
    path.write_text(yaml.safe_dump(written | {"training_params": {"optimiser": "x"}}))
    assert main(["run", "generate", "--recipe", str(path), "--on", "sagemaker"]) == 2
    assert "training_params.optimiser means nothing here" in capsys.readouterr().err


# the script


def test_the_entry_script_is_valid_shell():
    for needs in (Needs(), Needs(("vllm", "track"), ("deepspeed",), True)):
        script = entry_script(command_line("all", "a b", {"reviewer": "it's"}), needs, {"HF_TOKEN": "a/b c"},
                              '{"place": "it\'s"}', needs.vllm)
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
        assert not re.search(r"@[A-Z]+@", script)
