"""Every command of the page that begins with an empty account is executed, in its order, against the stand-in."""
import json
import os
import re
import shlex
import subprocess
import sys

import boto3
import pytest
from support import ROOT

from contemplative_cai.cloud import notebook_jobs
from contemplative_cai.command import sagemaker
from contemplative_cai.command.commands import main
from contemplative_cai.core.run import open_run

PAGE = ROOT / "nbs/docs/aws.ipynb"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    "The page's blocks of code, language and text."
    prose = [cell for cell in json.loads(PAGE.read_text())["cells"] if cell["cell_type"] == "markdown"]
    return [(match[1], match[2]) for cell in prose for match in BLOCK.finditer("".join(cell["source"]))]


COMMANDS = [line for language, text in blocks() if language == "" for line in text.splitlines()]


def finished_run() -> None:
    "What the job left in the bucket."
    base = "contemplative-cai/checkpoints/first/runs/first"
    for name, content in {"run.json": json.dumps({"recipe": {"model": "smollm2-135m"}}), "report.html": "<p>done</p>",
                          "ledger.json": json.dumps({"generate": {"kept_pairs": 40}})}.items():
        boto3.client("s3").put_object(Bucket="ccai-lab-1234", Key=f"{base}/{name}", Body=content.encode())


def test_the_page_knows_no_other_kind_of_command():
    assert {line.split()[0] for line in COMMANDS} == {"export", "ccai", "bash", "papermill"}
    assert {language for language, _ in blocks()} == {"", "python"}


@pytest.mark.long
def test_every_command_of_the_page_does_what_it_says(account, runs, monkeypatch, capsys):
    for name in list(os.environ):
        if name.startswith("CCAI_SAGEMAKER"): monkeypatch.delenv(name)
    for module in (notebook_jobs, sagemaker):  # what is sent is tested where it is made
        monkeypatch.setattr(module, "source_archive", lambda _: b"the project")
    python = iter([text for language, text in blocks() if language == "python"])
    shown = {}
    exec(next(python), {})
    assert capsys.readouterr().out == "arn:aws:iam::123456789012:role/ccai-job\n"
    for line in COMMANDS:
        words = shlex.split(line)
        if words[0] == "export": monkeypatch.setenv(*words[1].split("=", 1))
        if words[0] != "ccai": continue
        if words[1] == "fetch":
            exec(next(python), {})
            finished_run()
        assert main(words[1:]) == 0, line
        shown[line] = capsys.readouterr().out
    assert '"sts:AssumeRole"' in shown["ccai policy"] and "qwen2.5-32b" in shown["ccai plan qwen2.5-7b --models"]
    assert "Nothing was submitted" in shown["ccai run all --run first --recipe smollm2-135m --on sagemaker"]
    assert "submitted: arn:" in shown["ccai run all --run first --recipe smollm2-135m --on sagemaker --yes"]
    assert open_run("first", create=False).path("report.html").read_text() == "<p>done</p>"
    assert "Completed" in shown["ccai status first"] and "is over already" in shown["ccai stop first"]
    exec(next(python), {})
    assert [one["PipelineName"] for one in boto3.client("sagemaker").list_pipelines()["PipelineSummaries"]] == [
        "ccai-listed"]


@pytest.mark.long
def test_the_pages_papermill_runs_on_a_kernel_of_another_name_from_and_to_a_bucket(account, tmp_path, runs):
    "As conda environments of SageMaker's are called."
    spec = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "conda", "language": "python"}
    kernel = tmp_path / "kernels/conda_pytorch_p310/kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps(spec))
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="ccai-lab-1234")
    s3.upload_file(str(ROOT / "nbs/pipelines/00_setup.ipynb"), "ccai-lab-1234", "in/00_setup.ipynb")
    [line] = [line for line in COMMANDS if line.startswith("papermill")]
    words = shlex.split(line.replace("-k ccai", "-k conda_pytorch_p310"))
    subprocess.run([sys.executable, "-m", *words], check=True, timeout=280, cwd=ROOT, capture_output=True,
                   env={**os.environ, "JUPYTER_DATA_DIR": str(tmp_path)})
    out = json.loads(s3.get_object(Bucket="ccai-lab-1234", Key="out/00_setup.ipynb")["Body"].read())
    assert out["metadata"]["papermill"]["parameters"] == {"run": "far"} and (runs / "far" / "setup.json").exists()
    assert not [cell for cell in out["cells"] for one in cell.get("outputs", []) if one["output_type"] == "error"]


def test_the_pages_script_is_the_one_that_makes_the_kernel():
    "Executed, with a python that writes down what it is asked, in test_place.py."
    from contemplative_cai.cloud.place import KERNEL_SCRIPT
    assert [line for line in COMMANDS if line.startswith("bash")] == [f"bash {KERNEL_SCRIPT}"]
