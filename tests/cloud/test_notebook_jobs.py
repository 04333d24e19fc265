"""The pipeline notebooks as notebook jobs: the definition is the one that the SageMaker SDK writes, each step's
arguments are a training job's, and the service takes, renews and starts the pipeline."""
import json
import os
import subprocess

import boto3
import pytest

from contemplative_cai.cloud import notebook_jobs
from contemplative_cai.cloud.machines import CloudSettings
from contemplative_cai.cloud.notebook_jobs import (
    BEFORE,
    notebook_files,
    notebook_pipeline,
    notebook_step,
    send_notebooks,
)
from contemplative_cai.cloud.request import request_faults
from contemplative_cai.core.schema import InputError

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sagemaker-distribution-prod:4-gpu"
PARAMETERS = {"generate": {"recipe": "smoke", "settings": {"n_prompts": 4}, "model": None}}


@pytest.fixture
def where(): return CloudSettings(role="arn:aws:iam::123456789012:role/demo", bucket="lab-bucket", image=IMAGE)


def plain(value):
    "A definition without what only a pipeline fills in."
    if isinstance(value, dict): return "filled in" if {"Get", "Std:Join"} & set(value) else {
        name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("more", [{}, {"subnets": ("subnet-0a1b",), "security_groups": ("sg-0a1b",),
                                       "kms_key": "alias/lab", "environment": {"HF_HUB_OFFLINE": "1"}}])
def test_a_step_is_a_training_job_and_goes_on_with_the_run_of_the_one_before(where, more):
    first, second = notebook_pipeline(["generate", "train"], "my.run", PARAMETERS,
                                      where.model_copy(update=more))["Steps"]
    for step in (first, second):
        request = plain(step["Arguments"]) | {"TrainingJobName": "given-by-the-pipeline"}
        request["OutputDataConfig"]["S3OutputPath"] = "s3://lab-bucket/x"
        assert request_faults(request) == []
    assert first["Arguments"]["HyperParameters"] == {"run": "my.run", "recipe": "smoke", "settings": '{"n_prompts": 4}'}
    assert second["DependsOn"] == ["generate"] and "DependsOn" not in first
    left = second["Arguments"]["Environment"]["CCAI_BEFORE"]
    assert left == {"Get": "Steps.generate.ModelArtifacts.S3ModelArtifacts"}


@pytest.mark.parametrize("steps, parameters, words", [
    (["generate", "generate"], {}, "twice"), ([], {}, "came none"),
    (["generate"], {"generate": {"settings": {"a": "b" * 2600}}}, "2,500 characters"),
    (["trian"], {}, "did you mean 'train'"), (["generate", "review"], {}, "people review"),
    (["generate"], {"genrate": {"recipe": "smoke"}}, "parameters: genrate: none of the steps generate"),
])
def test_a_pipeline_that_could_not_run_is_refused(where, steps, parameters, words):
    with pytest.raises(InputError, match=words): notebook_pipeline(steps, "demo", parameters, where)


@pytest.mark.parametrize("step, words", [("review", "people review"), ("trian", "did you mean 'train'")])
def test_a_step_without_a_notebook_job_is_refused(step, words):
    with pytest.raises(InputError, match=words): notebook_files(step, b"")


@pytest.mark.parametrize("more, words", [
    ({"max_usd": 20.0}, r"max_usd is 20, .*36\.36 USD \(generate 12\.12, train 12\.12, evaluate 12\.12\)"),
    ({"network_isolation": True}, "network_isolation"), ({"secrets": {"HF_TOKEN": "lab/hub"}}, "secrets"),
    ({"steps": {"generate": {"count": 2}}}, "count: 2"), ({"bucket": None, "role": None}, "role is empty"),
])
def test_settings_that_a_notebook_job_does_not_keep_to_are_refused_before_anything_is_sent(where, monkeypatch, more,
                                                                                           words):
    monkeypatch.setattr(notebook_jobs, "send_files", lambda *_: pytest.fail("something was sent"))
    monkeypatch.setattr(notebook_jobs, "source_archive", lambda _: b"the project")
    settings = CloudSettings(**where.model_dump() | more)
    with pytest.raises(InputError, match=words): send_notebooks(["generate", "train", "evaluate"], "demo", {}, settings)


def test_a_step_has_the_machine_that_the_settings_give_it(where):
    own = CloudSettings(**where.model_dump() | {"steps": {"train": {"instance": "ml.g5.12xlarge", "max_hours": 2}}})
    first, second = (step["Arguments"] for step in notebook_pipeline(["generate", "train"], "demo", {}, own)["Steps"])
    assert [one["ResourceConfig"]["InstanceType"] for one in (first, second)] == ["ml.g5.2xlarge", "ml.g5.12xlarge"]
    assert second["StoppingCondition"]["MaxRuntimeInSeconds"] == 7200


def test_what_is_sourced_before_a_notebook_is_a_script_that_makes_the_kernel(tmp_path):
    (tmp_path / "before.sh").write_text(BEFORE)
    subprocess.run(["bash", "-n", str(tmp_path / "before.sh")], check=True)
    assert "configs/sagemaker/kernel.sh" in BEFORE and "CCAI_RUNS=/opt/ml/model/runs" in BEFORE


def test_the_service_takes_renews_and_starts_the_pipeline(account, where, monkeypatch):
    monkeypatch.setattr(notebook_jobs, "source_archive", lambda _: b"the project")
    for n in range(12):  # more than a page of names that begin alike
        boto3.client("sagemaker").create_pipeline(PipelineName=f"ccai-demo-{n}", RoleArn=where.role,
                                                  PipelineDefinition="{}", ClientRequestToken=f"{n:032}")
    arns = {send_notebooks(["generate", "train"], "demo", PARAMETERS, where) for _ in range(2)}
    service = boto3.client("sagemaker")
    assert len(arns) == 2 and len(service.list_pipelines(MaxResults=100)["PipelineSummaries"]) == 13
    definition = json.loads(service.describe_pipeline(PipelineName="ccai-demo")["PipelineDefinition"])
    assert definition == json.loads(json.dumps(notebook_pipeline(["generate", "train"], "demo", PARAMETERS, where)))
    sent = {item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket="lab-bucket")["Contents"]}
    assert sent == {f"contemplative-cai/notebooks/ccai-demo/{step}/{name}" for step, name in [
        ("generate", "03_generate.ipynb"), ("generate", "before.sh"), ("generate", "source.tar.gz"),
        ("train", "05_train.ipynb"), ("train", "before.sh"), ("train", "source.tar.gz")]}
    channel = definition["Steps"][0]["Arguments"]["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"]
    assert channel == "s3://lab-bucket/contemplative-cai/notebooks/ccai-demo/generate"


@pytest.mark.long
@pytest.mark.parametrize("more", [{}, {"subnets": ("subnet-0a1b",), "security_groups": ("sg-0a1b",)}])
def test_a_step_is_what_the_sdk_writes(account, where, tmp_path, more):
    "The SDK uploads under a name with the time in it, and names the job; all else is the same."
    if os.environ.get("CCAI_SAGEMAKER_SDK") != "required": pytest.importorskip("sagemaker.mlops")
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.mlops.workflow import notebook_job_step as found
    from sagemaker.mlops.workflow.pipeline import Pipeline
    where = where.model_copy(update=more)
    (tmp_path / "before.sh").write_text(BEFORE)
    files = notebook_files("generate", b"")
    ours = notebook_step("generate", "demo", PARAMETERS["generate"], where)
    theirs = found.NotebookJobStep(
        name="generate", notebook_job_name="ccai-demo-generate", input_notebook=str(files["03_generate.ipynb"]),
        initialization_script=str(tmp_path / "before.sh"), image_uri=IMAGE, kernel_name="ccai", role=where.role,
        s3_root_uri="s3://lab-bucket/contemplative-cai/notebooks", instance_type=where.instance,
        volume_size=where.volume_gb, max_runtime_in_seconds=int(where.max_hours * 3600),
        parameters=ours["Arguments"]["HyperParameters"], subnets=list(where.subnets) or None,
        security_group_ids=list(where.security_groups) or None)
    session = Session(boto_session=boto3.Session(region_name="us-east-1"), default_bucket="lab-bucket")
    [written] = json.loads(Pipeline(name="ccai-demo", steps=[theirs], sagemaker_session=session).definition())["Steps"]
    here, there = plain(ours["Arguments"]), plain(written["Arguments"])
    uploaded = there["InputDataConfig"][0]["DataSource"]["S3DataSource"].pop("S3Uri")
    assert uploaded.startswith(here["InputDataConfig"][0]["DataSource"]["S3DataSource"].pop("S3Uri"))
    there.pop("TrainingJobName", None)
    assert there == here and written["Type"] == ours["Type"]
    assert written["Arguments"]["OutputDataConfig"] == ours["Arguments"]["OutputDataConfig"]
