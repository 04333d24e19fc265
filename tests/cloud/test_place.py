"""Where a process runs is told from what SageMaker leaves there; the kernel `ccai` is an environment of its own in a
folder that stays; and the pipeline notebooks ask for no kernel of their own."""
import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from support import ROOT

from contemplative_cai.cloud import place, ready
from contemplative_cai.cloud.machines import CloudSettings
from contemplative_cai.cloud.place import Place, jupyter_kernels, make_kernel, this_place
from contemplative_cai.cloud.ready import found_bucket, found_quota, found_role, place_checks
from contemplative_cai.core.errors import StepFailed
from contemplative_cai.core.schema import InputError

NOTE = "arn:aws:sagemaker:eu-west-1:123456789012:notebook-instance/lab"
SPACE = "arn:aws:sagemaker:us-east-1:123456789012:space/d-1/mine"
METADATA = "opt/ml/metadata/resource-metadata.json"


def lay(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return root


@pytest.mark.parametrize("files, kind, name, region", [
    ({}, "local", "", ""), ({".dockerenv": ""}, "container", "", ""), ({"run/.containerenv": ""}, "container", "", ""),
    ({METADATA: {"ResourceArn": NOTE, "ResourceName": "lab"}, ".dockerenv": ""}, "notebook instance", "lab",
     "eu-west-1"),
    ({METADATA: {"AppType": "JupyterLab", "SpaceName": "mine", "ResourceArn": SPACE}, ".dockerenv": ""}, "studio",
     "mine", "us-east-1"),
    ({METADATA: {"AppType": "KernelGateway", "ResourceName": "old"}}, "studio", "old", ""),
    ({"opt/ml/input/config/resourceconfig.json": {}, METADATA: {}}, "training job", "", ""),
    ({METADATA: "{"}, "local", "", ""), ({METADATA: {}}, "local", "", ""),
])
def test_a_place_is_told_from_what_lies_there(tmp_path, files, kind, name, region):
    there = this_place(lay(tmp_path, files))
    assert (there.kind, there.name, there.region) == (kind, name, region)
    assert bool(there.folder) == (kind in ("notebook instance", "studio"))


# role, bucket, quotas


@pytest.fixture
def where(): return CloudSettings(region="us-east-1")


def test_role_and_bucket_are_found_where_they_are_not_named(account, where):
    role = "arn:aws:iam::123456789012:role/service-role/lab"
    boto3.client("sagemaker").create_notebook_instance(NotebookInstanceName="lab", InstanceType="ml.t3.medium",
                                                       RoleArn=role)
    assert found_role(Place("notebook instance", "lab"), where) == role
    assert found_role(Place("studio", role="arn:aws:iam::1:role/a"), where) == "arn:aws:iam::1:role/a"
    assert found_role(Place("studio"), where.model_copy(update={"role": "mine"})) == "mine"
    with pytest.raises(InputError, match="DescribeNotebookInstance"): found_role(Place("notebook instance", "x"), where)
    with pytest.raises(InputError, match="which is no role"): found_role(Place("studio"), where)
    with pytest.raises(InputError, match="HeadBucket"): found_bucket(where)
    boto3.client("s3").create_bucket(Bucket="sagemaker-us-east-1-123456789012")
    assert found_bucket(where) == "sagemaker-us-east-1-123456789012"
    assert found_bucket(where.model_copy(update={"bucket": "lab-bucket"})) == "lab-bucket"


def test_the_role_that_is_worked_under_is_told_with_its_path(account, where, monkeypatch):
    iam = boto3.client("iam")
    role = iam.create_role(RoleName="lab", Path="/service-role/", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    taken = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
    for name, key in {"AWS_ACCESS_KEY_ID": "AccessKeyId", "AWS_SECRET_ACCESS_KEY": "SecretAccessKey",
                      "AWS_SESSION_TOKEN": "SessionToken"}.items(): monkeypatch.setenv(name, taken[key])
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the credentials that it began with
    assert found_role(Place("training job"), where) == role == "arn:aws:iam::123456789012:role/service-role/lab"


@pytest.fixture
def quotas(account, monkeypatch):
    "Quotas of two pages; the stand-in has no such call."
    import botocore.client
    real, pages = botocore.client.BaseClient._make_api_call, []
    def call(self, name, arguments):
        if name != "ListServiceQuotas": return real(self, name, arguments)
        if not pages: raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, name)
        more = {"NextToken": "1"} if "NextToken" not in arguments else {}
        return {"Quotas": pages[int(arguments.get("NextToken", 0))], **more}
    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    return pages


def test_a_quota_is_found_on_every_page_and_spare_capacity_has_its_own(quotas, where):
    quotas += [[{"QuotaName": "ml.g5.2xlarge for training job usage", "Value": 2.0}],
               [{"QuotaName": "ml.g5.2xlarge for spot training job usage", "Value": 0.0}]]
    assert found_quota(where.model_copy(update={"spot": False})) == 2 and found_quota(where) == 0
    assert found_quota(where.model_copy(update={"instance": "ml.g6e.2xlarge"})) is None
    assert ready._quota_row(where)["status"] == "missing" and "Service Quotas" in ready._quota_row(where)["todo"]


def test_each_kind_of_machine_that_the_steps_have_needs_its_own_quota(quotas, monkeypatch):
    quotas += [[{"QuotaName": "ml.g5.2xlarge for spot training job usage", "Value": 1.0}],
               [{"QuotaName": "ml.g5.12xlarge for training job usage", "Value": 0.0}]]
    settings = CloudSettings(bucket="lab-bucket", role="mine", steps={
        "generate": {"count": 2}, "train": {"instance": "ml.g5.12xlarge", "spot": False}})
    monkeypatch.setattr(ready, "cloud_settings", lambda _: settings)
    rows = [row for row in place_checks(Place("training job")) if row["what"] == "quota"]
    assert [row["found"] for row in rows] == ["1 x ml.g5.2xlarge for spot training job usage, and a job asks for 2",
                                              "0 x ml.g5.12xlarge for training job usage, and a job asks for 1"]


def test_on_sagemaker_every_row_is_there_and_what_aws_does_not_tell_is_a_note(quotas, account, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    rows = {row["what"]: row for row in place_checks(Place("studio", "mine", SPACE, "arn:aws:iam::1:role/a", "/x"))}
    assert {name: row["status"] for name, row in rows.items()} == {
        "place": "ok", "region": "ok", "role": "ok", "bucket": "ok", "quota": "note", "kernel": "missing"}
    assert "ListServiceQuotas" in rows["quota"]["found"] and "kernel.sh" in rows["kernel"]["todo"]
    job = place_checks(Place("training job"))
    assert [row["what"] for row in job] == ["place", "region", "role", "bucket", "quota"]
    assert [row["what"] for row in place_checks(Place("local"))] == ["place"]


# the kernel

STUB = """#!/bin/bash
echo "$(basename "$0") $*" >> "$STUB_LOG"
case "$*" in
  "-c import sys, venv"*) exit ${STUB_OLD:-0};;
  "-m venv "*) mkdir -p "$3/bin" && rm -f "$3/bin/broken" && cp "$0" "$3/bin/python";;
  *"-m pip --version"*) [ ! -e "$(dirname "$0")/broken" ]; exit;;
  *"-m pip"*) exit ${STUB_PIP:-0};;
  "-m ipykernel"*) KERNEL=$JUPYTER_DATA_DIR/kernels/ccai && mkdir -p "$KERNEL" &&
    echo '{"argv": ["x"], "display_name": "ccai", "language": "python"}' > "$KERNEL/kernel.json";;
esac
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    "A python that writes down what it is asked to do."
    path = tmp_path / "python3"
    path.write_text(STUB)
    path.chmod(0o755)
    for name, value in {"CCAI_PYTHON": path, "STUB_LOG": tmp_path / "log", "JUPYTER_DATA_DIR": tmp_path / "jupyter",
                        "JUPYTER_PATH": tmp_path / "none"}.items(): monkeypatch.setenv(name, str(value))
    return lambda: (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""


def test_the_kernel_is_made_once_survives_a_restart_and_takes_nothing_of_the_image(stub, tmp_path):
    there = Place("notebook instance", "lab", folder=str(tmp_path / "SageMaker"))
    assert "is made" in make_kernel(there, tell=lambda _: None)
    said = stub()
    assert f"-m venv {tmp_path}/SageMaker/.ccai-kernel" in said and "system-site-packages" not in said
    assert said.count("-m pip install") == 3 and "constraints.txt" in said and "PYTHONNOUSERSITE 1" in said
    assert "is there" in make_kernel(there) and stub() == said
    (tmp_path / "jupyter/kernels/ccai/kernel.json").unlink()  # as a restart leaves it
    (tmp_path / "jupyter/kernels/ccai").rmdir()
    assert "ccai" not in jupyter_kernels()
    assert "is made" in make_kernel(there, tell=lambda _: None) and stub().count("-m pip install") == 3


def test_a_kernel_whose_making_was_broken_off_or_whose_project_moved_is_made_anew(stub, tmp_path):
    venv = tmp_path / "lab/.ccai-kernel"
    there = {"CCAI_PERSISTENT": str(tmp_path / "lab"), **os.environ}
    def make(project): subprocess.run(["bash", str(project / "configs/sagemaker/kernel.sh")], check=True, env=there)
    make(ROOT)
    (venv / "bin/broken").touch()
    make(ROOT)
    assert not (venv / "bin/broken").exists() and stub().count("-m venv") == 2
    assert stub().count("-m pip install") == 3
    moved = tmp_path / "clone"
    (moved / "configs/sagemaker").mkdir(parents=True)
    for name in ("configs/sagemaker/kernel.sh", "constraints.txt", "settings.ini"):
        shutil.copy2(ROOT / name, moved / name)
    make(moved)
    assert f"-e {moved}[sagemaker]" in stub() and stub().count("-m pip install") == 6


SUDO = """#!/bin/bash
# as sudo -u USER -i does: a command's words are escaped for the login shell, which without a command reads its input
shift 3
[ $# -gt 0 ] || exec bash
exec python3 -c 'import os, re, sys
words = " ".join(re.sub(r"([^a-zA-Z0-9_$-])", r"\\\\\\1", word) for word in sys.argv[1:])
os.execvp("bash", ["bash", "-c", words])' "$@"
"""


def test_the_lifecycle_configuration_makes_the_kernel_as_the_instances_user(tmp_path):
    home = tmp_path / "SageMaker"
    script = home / "contemplative_cai/configs/sagemaker/kernel.sh"
    script.parent.mkdir(parents=True)
    script.write_text("echo made $PWD")
    (tmp_path / "sudo").write_text(SUDO)
    (tmp_path / "sudo").chmod(0o755)
    text = (ROOT / "configs/sagemaker/on-start.sh").read_text().replace("/home/ec2-user/SageMaker", str(home))
    subprocess.run(["bash", "-c", text], check=True, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    for _ in range(100):
        if (log := home / ".ccai-kernel.log").exists() and log.read_text(): break
        time.sleep(0.05)
    assert log.read_text() == f"made {home}/contemplative_cai\n"


@pytest.mark.parametrize("name, value, words", [("STUB_OLD", "1", "expected Python 3.11 or newer"),
                                                ("STUB_PIP", "3", "could not be made")])
def test_a_kernel_that_could_not_be_made_is_told_and_made_by_the_next_try(stub, tmp_path, monkeypatch, name, value,
                                                                          words):
    there = Place("studio", folder=str(tmp_path / "home"))
    monkeypatch.setenv(name, value)
    with pytest.raises(StepFailed, match=words): make_kernel(there, tell=lambda _: None)
    monkeypatch.delenv(name)
    assert "is made" in make_kernel(there, tell=lambda _: None)


@pytest.mark.parametrize("kind", ["local", "container", "training job"])
def test_no_kernel_is_made_elsewhere(kind, monkeypatch):
    monkeypatch.setattr(place.subprocess, "run", lambda *_, **__: pytest.fail("something was made"))
    assert "no kernel is made" in make_kernel(Place(kind))


def test_the_lifecycle_configuration_is_taken_by_the_service(account):
    text = (ROOT / "configs/sagemaker/on-start.sh").read_bytes()
    assert len(base64.b64encode(text)) <= 16384 and b"configs/sagemaker/kernel.sh" in text
    boto3.client("sagemaker").create_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName="ccai", OnStart=[{"Content": base64.b64encode(text).decode()}])
    for name in ("kernel.sh", "on-start.sh"):
        subprocess.run(["bash", "-n", str(ROOT / "configs/sagemaker" / name)], check=True)


# any kernel: see test_aws_page.py


@pytest.mark.parametrize("path", sorted((ROOT / "nbs/pipelines").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_pipeline_notebook_asks_for_no_kernel_but_the_usual(path):
    kernel = json.loads(path.read_text())["metadata"]["kernelspec"]
    assert (kernel["name"], kernel.get("language", "python")) == ("python3", "python")
