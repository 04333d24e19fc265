"""SageMaker: the plan is pure and honest about what is missing;
the request is accepted by a moto server on loopback."""
import gzip
import io
import json
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

import boto3
import pytest

from contemplative_cai.command.commands import main
from contemplative_cai.command.sagemaker import entry_script, plan, price, settings
from contemplative_cai.core.recipe import load_recipe

JOB = ["run", "generate", "--run", "cloud", "--recipe", "smoke", "-p", "n_prompts=4", "--on", "sagemaker"]


@pytest.fixture(scope="module")
def moto_server():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while True:
        try: urllib.request.urlopen(url, timeout=2).close(); break
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, "moto's server did not start"
            time.sleep(0.2)
    yield url
    process.terminate()
    process.wait()


@pytest.fixture
def account(moto_server, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": moto_server, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1", "CCAI_SAGEMAKER_ROLE": "arn:aws:iam::123456789012:role/demo",
        "CCAI_SAGEMAKER_BUCKET": "lab", "CCAI_SAGEMAKER_IMAGE": "demo:1"
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="lab")


def test_dry_run_is_the_default_and_lists_what_is_missing(capsys, runs):
    assert main(JOB) == 0
    shown = capsys.readouterr().out
    request = json.loads(shown[:shown.index("\n}") + 2])
    assert (request["RoleArn"] == "<role>" and "Nothing was submitted" in shown
            and "CCAI_SAGEMAKER_BUCKET" in shown and "USD" in shown and not runs.exists())


def test_yes_without_an_account_is_refused(capsys):
    assert main([*JOB, "--yes"]) == 2
    assert "role is empty" in capsys.readouterr().err


def test_yes_uploads_and_submits(account, capsys):
    assert main([*JOB, "--yes"]) == 0
    shown = capsys.readouterr().out
    request = json.loads(shown[:shown.index("\n}") + 2])
    job = boto3.client("sagemaker").describe_training_job(TrainingJobName=request["TrainingJobName"])
    assert (job["AlgorithmSpecification"]["ContainerEntrypoint"][0] == "bash"
            and job["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints")
    keys = {item["Key"].rsplit("/", 1)[1]: item["Key"]
            for item in boto3.client("s3").list_objects_v2(
                Bucket="lab", Prefix=f"contemplative-cai/code/{request['TrainingJobName']}"
            )["Contents"]}
    assert set(keys) == {"source.tar.gz", "recipe.yaml", "entry.sh"}
    def content(name): return boto3.client("s3").get_object(Bucket="lab", Key=keys[name])["Body"].read()
    names = tarfile.open(fileobj=io.BytesIO(gzip.decompress(content("source.tar.gz")))).getnames()
    assert {"settings.ini", "Makefile", "nbs/pipelines/03_generate.ipynb",
            "contemplative_cai/command/pipeline.py"} <= set(names)
    assert not any(name.startswith((".venv", "runs/q")) for name in names)
    assert (b"n_prompts: 4" in content("recipe.yaml")
            and b".venv/bin/ccai run generate --run cloud" in content("entry.sh"))


def test_a_refusal_is_the_services_own_words(account, capsys, monkeypatch):
    monkeypatch.setenv("CCAI_SAGEMAKER_BUCKET", "nobody-made-this-bucket")
    assert main([*JOB, "--yes"]) == 2
    assert "AWS refused" in capsys.readouterr().err


def test_the_recipe_that_travels_is_the_recipe_that_was_asked_for(account, tmp_path):
    from contemplative_cai.command.sagemaker import launch
    recipe = load_recipe("smoke", {"n_prompts": 5})
    assert launch("generate", "other", "smoke", recipe, {}, yes=True) == 0
    objects = boto3.client("s3").list_objects_v2(Bucket="lab")["Contents"]
    key = next(item["Key"] for item in objects if "ccai-other" in item["Key"] and item["Key"].endswith("recipe.yaml"))
    (tmp_path / "recipe.yaml").write_bytes(boto3.client("s3").get_object(Bucket="lab", Key=key)["Body"].read())
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe


def test_the_plan_is_pure_and_priced():
    where = settings() | {"role": "r", "bucket": "b", "image": "i"}
    recipe = load_recipe("smoke")
    assert (plan("all", "demo", recipe, {}, where, "c0de") == plan("all", "demo", recipe, {}, where, "c0de")
            != plan("all", "demo", recipe, {}, where, "beef"))
    assert price(where)["max_usd"] > 0 and price(where | {"instance": "ml.unknown"})["max_usd"] is None


def test_the_entry_script_is_valid_shell():
    assert subprocess.run(["bash", "-n"], input=entry_script([".venv/bin/ccai", "run", "all", "--run", "a b"]),
                          text=True).returncode == 0
