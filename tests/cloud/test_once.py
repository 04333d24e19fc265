"""A job is sent once, and one at a time; what lies in the bucket takes the place of nothing that only this computer
has; keys do not travel, by whatever name."""
import io
import os
import subprocess
import tarfile
import time

import boto3
import pytest

from contemplative_cai.cloud import submit as sending
from contemplative_cai.cloud.entry import command_line, entry_script
from contemplative_cai.cloud.follow import LOG_GROUP, fetch_run, log_lines
from contemplative_cai.cloud.machines import cloud_settings
from contemplative_cai.cloud.request import plan
from contemplative_cai.cloud.store import is_same
from contemplative_cai.cloud.submit import last_job, note_fetched, submit
from contemplative_cai.cloud.travel import input_files, portable, source_archive
from contemplative_cai.core.project import project_root
from contemplative_cai.core.recipe import Recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.core.shape import translate_plan
from contemplative_cai.inputs import given

BASE = "contemplative-cai/checkpoints/demo/runs/demo"


def send(files=("entry.sh",)):
    where = cloud_settings()
    return submit(plan("all", "demo", Recipe(), {}, where, "c"), dict.fromkeys(files, b"true"), where, "all", "demo")


def put(name, content): boto3.client("s3").put_object(Bucket="lab-bucket", Key=f"{BASE}/{name}", Body=content)


def put_in_parts(name, content, part=5 * 2**20):
    s3, where = boto3.client("s3"), {"Bucket": "lab-bucket", "Key": f"{BASE}/{name}"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    tags = [s3.upload_part(**where, UploadId=upload, PartNumber=n + 1, Body=content[n * part:(n + 1) * part])["ETag"]
            for n in range(-(-len(content) // part))]
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]})


@pytest.mark.parametrize("state, words", [
    ("InProgress", "is at work on it"), ("Stopping", "is at work on it"),
    ("Completed", "same code, recipe and command"),
])
def test_a_job_that_is_at_work_or_has_completed_is_not_sent_again(account, monkeypatch, state, words):
    first = send()
    monkeypatch.setattr(sending, "_standing", lambda name, where: state if name == first.job else None)
    with pytest.raises(InputError, match=words): send()
    assert last_job("demo") == first


@pytest.mark.parametrize("state", ["Failed", "Stopped"])
def test_what_failed_or_was_stopped_is_sent_again_under_another_name(account, monkeypatch, state):
    first, states = send(), {}
    states[first.job] = state
    monkeypatch.setattr(sending, "_standing", lambda name, where: states.get(name))
    second = send()
    states[second.job] = state
    assert [second.job, send().job] == [f"{first.job}-2", f"{first.job}-3"]


def test_a_job_that_was_sent_and_not_written_down_is_found_again(account, monkeypatch):
    first = send()
    sending.jobs_file("demo").unlink()
    monkeypatch.setattr(sending, "_standing", lambda name, where: "InProgress" if name == first.job else None)
    with pytest.raises(InputError, match="is InProgress"): send()
    assert last_job("demo").job == first.job


def test_a_runs_pairs_travel_as_a_file(monkeypatch):
    monkeypatch.setenv("CCAI_RUNS", str(project_root() / "data"))  # a folder of the project's
    monkeypatch.setattr(given, "_run_file", lambda name: project_root() / "data/pairs" / "x.jsonl")
    assert portable(Recipe(pairs="another-run")).pairs == "data/pairs/x.jsonl"
    assert portable(Recipe(pairs="contemplative-512")).pairs == "contemplative-512"


def test_a_run_that_lacks_what_its_last_job_made_is_not_sent(account, monkeypatch, runs):
    first = send()
    monkeypatch.setattr(sending, "_standing", lambda name, where: "Stopped" if name == first.job else None)
    put("run.json", b"{}")
    with pytest.raises(InputError, match="ccai fetch demo"): send(("entry.sh", "run.tar.gz"))
    note_fetched("demo", first)
    assert send(("entry.sh", "run.tar.gz")).job != first.job


def test_another_file_of_the_same_size_is_fetched_and_the_same_one_is_not(account, runs):
    job, run = send(), open_run("demo")
    run.path("weights").write_bytes(b"a" * 6 * 2**20)
    put_in_parts("weights", b"b" * 6 * 2**20)
    assert fetch_run(job, run).fetched == ["weights"] and fetch_run(job, run).same == 1
    assert not is_same(run.path("weights"), {"Size": 6 * 2**20, "ETag": '"0-x"'})


def test_what_only_this_computer_had_is_kept_through_every_fetch(account, runs):
    job, run = send(), open_run("demo")
    run.path("pairs.jsonl").write_text("mine")
    replaced = []
    for content in (b"one", b"two", b"three"):
        put("pairs.jsonl", content)
        replaced += fetch_run(job, run, over=False).replaced
        if content == b"two": run.path("pairs.jsonl").write_text("mine, again")
    kept = [run.path(".before-fetch", name).read_text() for name in ("pairs.jsonl", "pairs.jsonl.2")]
    assert (kept, replaced) == (["mine", "mine, again"], ["pairs.jsonl"] * 2)


def test_a_database_is_fetched_at_the_end_and_alone(account, runs):
    job, run = send(), open_run("demo")
    for name in ("journal.sqlite", "journal.sqlite-wal"): run.path(name).write_text("old")
    put("journal.sqlite", b"new")
    put("run.json", b"{}")
    assert fetch_run(job, run, over=False).fetched == ["run.json"]
    assert fetch_run(job, run).fetched == ["journal.sqlite"] and not run.path("journal.sqlite-wal").exists()
    assert run.path(".before-fetch", "journal.sqlite-wal").read_text() == "old"


def test_lines_of_one_moment_stay_in_order(account):
    job, logs, moment = send(), boto3.client("logs"), int(time.time() * 1000)
    where = {"logGroupName": LOG_GROUP, "logStreamName": f"{job.job}/algo-1"}
    logs.create_log_group(logGroupName=LOG_GROUP)
    logs.create_log_stream(**where)
    words = ["Traceback", "  File x", "Error: b", "and then a"]
    logs.put_log_events(**where, logEvents=[{"timestamp": moment, "message": word} for word in words])
    assert log_lines(job) == words


@pytest.mark.parametrize("more, words", [
    ({"environment": {"WANDB_API_KEY": "0123456789" * 4}}, "Secrets"),
    ({"environment": {"DB_PASSWORD": "x"}}, "Secrets"),
    ({"environment": {"AWS_SECRET_ACCESS_KEY": "a/b"}}, "Secrets"), ({"role": "my-role"}, "the ARN of a role"),
])
def test_keys_are_known_by_their_names_and_a_role_by_its_form(more, words):
    with pytest.raises(InputError, match=words): cloud_settings(more)
    assert cloud_settings({"environment": {"TOKENIZERS_PARALLELISM": "false", "HF_TOKEN": ""}}).environment


def test_a_file_of_keys_is_refused_and_so_is_a_tree_that_cannot_be_installed(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="credentials.json: keys and passwords are not sent"):
        source_archive(["data/credentials.json"])
    for name in ("configs", "nbs/pipelines", ".git"): (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("CCAI_ROOT", str(tmp_path))
    with pytest.raises(InputError): source_archive([])


def test_a_constitution_that_is_named_without_its_path_travels():
    path = project_root() / "data" / "constitutions"
    assert f"data/constitutions/{Recipe().constitution}.md" in input_files(Recipe()), path


@pytest.mark.parametrize("seconds, hours", [(7200, 2.0), ("7200", 2.0), ("2h", "2h seconds"), (True, "True")])
def test_a_plans_clock_is_in_seconds_however_it_is_written(seconds, hours):
    assert translate_plan({"training": {"max_runtime": seconds}}, "plan", ()).settings == {"max_hours": hours}


def packed(files: dict[str, str]) -> bytes:
    "Files as a .tar.gz."
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o755
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_a_restart_goes_on_and_a_new_job_has_what_was_sent_anew(tmp_path):
    code, there = tmp_path / "input/data/code", tmp_path / "checkpoints/runs/demo"
    code.mkdir(parents=True)
    (code / "source.tar.gz").write_bytes(packed({".venv/bin/ccai": "#!/bin/bash\nexit 0\n"}))
    (code / "entry.sh").write_text(entry_script(command_line("train", "demo", {})))
    def start(reviews):
        (code / "run.tar.gz").write_bytes(packed({"demo/reviews/ann.jsonl": reviews, "demo/journal.sqlite": "sent"}))
        subprocess.run(["bash", str(code / "entry.sh")], check=True, timeout=60,
                       env=os.environ | {"CCAI_ML_ROOT": str(tmp_path)})
        return [(there / name).read_text() for name in ("reviews/ann.jsonl", "journal.sqlite")]
    assert start("ten") == ["ten", "sent"]
    (there / "journal.sqlite").write_text("further")
    (there / "journal.sqlite-wal").write_text("removed long ago")  # as a bucket gives back what was removed
    assert start("ten") == ["ten", "further"] and not (there / "journal.sqlite-wal").exists()
    assert start("ten and forty") == ["ten and forty", "sent"]
    assert "demo/reviews/ann.jsonl" in (there.parent / "digests.txt").read_text()
