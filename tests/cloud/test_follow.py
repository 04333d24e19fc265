"""A job is followed, fetched and stopped against the stand-in; what AWS refuses is told with what to do, and nothing
is lost."""
import hashlib
import json
from datetime import UTC, datetime

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from contemplative_cai.cloud import follow, store
from contemplative_cai.cloud.follow import fetch_run, job_state, log_lines, stop_job
from contemplative_cai.cloud.machines import cloud_settings
from contemplative_cai.cloud.policy import (
    LOG_GROUP,
    SERVICES,
    action_for,
    job_policy,
    missing_statement,
    trust_policy,
    user_policy,
)
from contemplative_cai.cloud.request import plan
from contemplative_cai.cloud.store import aws_fault, list_objects, may_travel, receive_file, send_files
from contemplative_cai.cloud.submit import SentJob, last_job, submit
from contemplative_cai.command.commands import main
from contemplative_cai.core.recipe import Recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError


@pytest.fixture
def here(account): return cloud_settings()


@pytest.fixture
def sent(here) -> SentJob:
    "A job that was submitted, with a run in the bucket."
    return submit(plan("all", "demo", Recipe(), {}, here, "c0de"), {"entry.sh": b"true"}, here, "all", "demo", 2.0)


def put(files: dict[str, bytes], run: str = "demo") -> None:
    "What a job has written."
    s3, base = boto3.client("s3"), "contemplative-cai/checkpoints/demo/runs"
    for name, content in files.items(): s3.put_object(Bucket="lab-bucket", Key=f"{base}/{run}/{name}", Body=content)


def refuse(monkeypatch, operation: str, code: str, times: int = 10**6) -> list:
    "Let AWS refuse a call so many times; the list of calls that were made."
    import botocore.client
    real, calls = botocore.client.BaseClient._make_api_call, []
    def call(self, name, arguments):
        calls.append(name)
        if name == "StopTrainingJob": return {}  # the stand-in has no such call
        if name == operation and calls.count(name) <= times:
            raise ClientError({"Error": {"Code": code, "Message": "not today"}}, name)
        return real(self, name, arguments)
    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    return calls


# up and down


def test_what_was_sent_comes_back_and_is_not_sent_twice(here, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PART", 5 * 2**20)
    big = tmp_path / "big.bin"
    big.write_bytes(b"0123456789abcdef" * (11 * 2**16))
    files = {"a/small.txt": b"small", "big.bin": big, ".git/config": b"no", "a/.env": b"no", "a/key.pem": b"no"}
    assert send_files(here, "code/x", files, exclude=["*.png"]) == ["a/small.txt", "big.bin"]
    assert send_files(here, "code/x", files) == []
    objects = list_objects(here, "code/x")
    assert set(objects) == {"a/small.txt", "big.bin"}
    for name, item in objects.items():
        receive_file(here, f"contemplative-cai/code/x/{name}", item, tmp_path / "back" / name)
    assert (tmp_path / "back/big.bin").read_bytes() == big.read_bytes()


def test_a_half_uploaded_file_is_gone_on_with(here, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PART", 5 * 2**20)
    big = tmp_path / "big.bin"
    big.write_bytes(b"0123456789abcdef" * (11 * 2**16))
    calls = refuse(monkeypatch, "CompleteMultipartUpload", "SlowDown", 1)
    with pytest.raises(InputError, match="patience.*what was sent is not sent again"):
        send_files(here, "code/x", {"big.bin": big})
    assert calls.count("UploadPart") == 3 and list_objects(here, "code/x") == {}
    assert send_files(here, "code/x", {"big.bin": big}) == ["big.bin"] and calls.count("UploadPart") == 3
    item = list_objects(here, "code/x")["big.bin"]
    begun = tmp_path / "back" / f".big.bin.{item['ETag'].strip(chr(34))[:16]}.part"
    begun.parent.mkdir()
    begun.write_bytes(big.read_bytes()[:100])  # so far it came before
    receive_file(here, "contemplative-cai/code/x/big.bin", item, tmp_path / "back/big.bin")
    assert (tmp_path / "back/big.bin").read_bytes() == big.read_bytes() and not begun.exists()


def test_a_file_that_arrives_damaged_does_not_take_the_place_of_what_was_here(here, tmp_path):
    send_files(here, "code/x", {"a.txt": b"right"})
    item = list_objects(here, "code/x")["a.txt"]
    (tmp_path / "a.txt").write_text("before")
    (tmp_path / f".a.txt.{item['ETag'].strip(chr(34))[:16]}.part").write_bytes(b"wro")
    with pytest.raises(InputError, match="left as it was"):
        receive_file(here, "contemplative-cai/code/x/a.txt", item, tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "before"
    receive_file(here, "contemplative-cai/code/x/a.txt", item, tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "right"


def test_what_is_sent_is_encrypted_with_the_key_of_the_settings(here, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PART", 5 * 2**20)
    big = tmp_path / "big.bin"
    big.write_bytes(b"0123456789abcdef" * (6 * 2**16))
    s3, locked = boto3.client("s3"), here.model_copy(update={"kms_key": "alias/lab"})
    for settings, keys in ((here, {None}), (locked, {"alias/lab"})):
        place = f"code/{settings.kms_key or 'open'}"
        send_files(settings, place, {"a.txt": b"small", "big.bin": big})
        heads = [s3.head_object(Bucket="lab-bucket", Key=f"contemplative-cai/{place}/{name}")
                 for name in ("a.txt", "big.bin")]
        assert {head.get("SSEKMSKeyId") for head in heads} == keys
    assert "kms:GenerateDataKey" in json.dumps(user_policy(locked)) and "kms:" not in json.dumps(user_policy(here))


@pytest.mark.parametrize("name", ["/etc/passwd", "../b", "a/../../b", ".git/x", "a/id_rsa", "a/credentials", "x.key"])
def test_secrets_and_what_lies_outside_never_travel(name):
    assert not may_travel(name) and may_travel("a/b.jsonl") and not may_travel("a/b.jsonl", exclude=["a/*"])


# what AWS refuses


@pytest.mark.parametrize("operation, code, words", [
    ("PutObject", "NoSuchBucket", "make it, or name another"), ("PutObject", "AccessDenied", '"s3:PutObject"'),
    ("CreateTrainingJob", "AccessDeniedException", '"sagemaker:CreateTrainingJob"'),
    ("CreateTrainingJob", "ExpiredTokenException", "have expired"),
    ("CreateTrainingJob", "ResourceLimitExceeded", "quota"), ("PutObject", "PermanentRedirect", "another region"),
    ("CreateTrainingJob", "ThrottlingException", "patience"), ("CreateTrainingJob", "ResourceInUse", "there already"),
    ("CreateTrainingJob", "ValidationException", "not today"),
])
def test_a_refusal_says_what_to_do_and_no_job_is_written_down(here, monkeypatch, operation, code, words):
    refuse(monkeypatch, operation, code)
    with pytest.raises(InputError, match=words) as refused:
        submit(plan("all", "demo", Recipe(), {}, here, "c"), {"entry.sh": b"true"}, here, "all", "demo")
    assert operation in str(refused.value)
    with pytest.raises(InputError, match="no job of it was sent"): last_job("demo")


@pytest.mark.parametrize("operation, code, words", [
    ("ListObjectsV2", "AccessDenied", '"s3:ListBucket"'), ("ListObjectsV2", "NoSuchBucket", "make it, or name another"),
    ("GetObject", "SlowDown", "patience"), ("GetObject", "ExpiredToken", "have expired"),
    ("GetObject", "PreconditionFailed", "written it anew"),
])
def test_a_fetch_that_is_refused_loses_nothing_and_is_gone_on_with(sent, runs, monkeypatch, operation, code, words):
    run = open_run("demo")
    run.path("run.json").write_text("mine")
    put({"run.json": b"new", "pairs.jsonl": b"pairs"})
    calls = refuse(monkeypatch, operation, code)
    with pytest.raises(InputError, match=words): fetch_run(sent, run)
    assert run.path("run.json").read_text() == "mine" and not run.path("pairs.jsonl").exists()
    calls.extend([operation] * 10**6)  # from now on it is allowed
    assert sorted(fetch_run(sent, run).fetched) == ["pairs.jsonl", "run.json"]
    assert run.path(".before-fetch", "run.json").read_text() == "mine"


@pytest.mark.parametrize("command, operation, code, words", [
    ("status", "DescribeTrainingJob", "ThrottlingException", "patience"),
    ("logs", "DescribeLogStreams", "AccessDeniedException", "logs:DescribeLogStreams"),
    ("stop", "DescribeTrainingJob", "ExpiredTokenException", "have expired"),
    ("fetch", "DescribeTrainingJob", "AccessDeniedException", "sagemaker:DescribeTrainingJob"),
])
def test_every_command_says_what_aws_refused_and_what_to_do(sent, monkeypatch, capsys, command, operation, code, words):
    refuse(monkeypatch, operation, code)
    assert main([command, "demo"]) == 2
    told = capsys.readouterr().err
    assert words in told and operation in told and "Traceback" not in told and last_job("demo") == sent


def test_a_run_that_is_here_is_told_of_whatever_aws_says(sent, monkeypatch, capsys):
    open_run("demo").record(recipe={"model": "smollm2-135m"})
    refuse(monkeypatch, "DescribeTrainingJob", "ExpiredTokenException")
    assert main(["status", "demo"]) == 0
    shown = capsys.readouterr().out
    assert "nobody knows how it stands" in shown and "have expired" in shown and "train        to do" in shown


def test_no_credentials_and_no_answer_are_told(where):
    assert "aws sso login" in aws_fault(NoCredentialsError(), where)
    assert "region" in aws_fault(EndpointConnectionError(endpoint_url="https://s3.nowhere"), where)


# follow


def test_status_logs_and_stop(sent, capsys):
    logs = boto3.client("logs")
    logs.create_log_group(logGroupName=LOG_GROUP)
    assert log_lines(sent) == []
    logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=f"{sent.job}/algo-1")
    moment = int(datetime.now(UTC).timestamp() * 1000)
    logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=f"{sent.job}/algo-1", logEvents=[
        {"timestamp": moment, "message": "step 1\rstep 2\r"}, {"timestamp": moment + 1, "message": "done"}])
    assert main(["logs", "demo"]) == 0 and main(["status", "demo"]) == 0
    shown = capsys.readouterr().out
    assert "step 2\ndone" in shown and "step 1" not in shown and sent.job in shown and "ccai fetch demo" in shown


@pytest.mark.parametrize("status, seconds, words", [
    ("Failed", 1800, "cell 7"), ("Stopped", 60, "Stopped"), ("Completed", 3600, "1.00 USD"),
    ("InProgress", None, "Pro"),
])
def test_every_end_of_a_job_is_told(sent, monkeypatch, status, seconds, words):
    began = datetime(2026, 1, 1, tzinfo=UTC)
    answer = {"TrainingJobStatus": status, "SecondaryStatus": status, "BillableTimeInSeconds": seconds,
              "FailureReason": "05_train.ipynb, cell 7: out of memory" if status == "Failed" else None,
              "TrainingStartTime": began if seconds else None, "TrainingTimeInSeconds": 7200,
              "EnableManagedSpotTraining": True}
    state = follow._state_of({key: value for key, value in answer.items() if value is not None},
                             sent.model_copy(update={"usd_per_hour": 1.0}), began)
    assert words in "\n".join(follow.state_lines(sent, state))
    monkeypatch.setattr(follow, "job_state", lambda _: state)
    if status in follow.OVER: assert "is over already" in stop_job(sent)


def test_a_job_that_is_gone_and_a_run_without_one_are_told(sent, capsys):
    with pytest.raises(InputError, match="DescribeTrainingJob"): job_state(sent.model_copy(update={"job": "gone"}))
    for command in ("logs", "fetch", "stop"):
        assert main([command, "other"]) == 2 and "no job of it was sent" in capsys.readouterr().err


def test_fetching_merges_keeps_reviews_and_what_was_here_and_goes_on(sent, runs):
    run = open_run("demo")
    run.path("reviews").mkdir()
    run.path("reviews", "ann.jsonl").write_text("mine")
    run.path("run.json").write_text("old")
    put({"run.json": b"new", "pairs.jsonl": b"pairs", "reviews/ann.jsonl": b"theirs", "reviews/bo.jsonl": b"bo",
         ".git/config": b"no"})
    put({"run.json": b"other"}, run="another-run")
    result = fetch_run(sent, run)
    assert sorted(result.fetched) == ["pairs.jsonl", "reviews/bo.jsonl", "run.json"]
    assert (result.kept, result.replaced) == (["reviews/ann.jsonl"], ["run.json"])
    assert run.path("reviews", "ann.jsonl").read_text() == "mine" and run.path("run.json").read_text() == "new"
    assert run.path(".before-fetch", "run.json").read_text() == "old" and not run.path(".git").exists()
    again = fetch_run(sent, run)
    assert (again.fetched, again.same) == ([], 3) and not (runs / "another-run").exists()


def test_a_file_that_is_not_what_the_job_wrote_is_not_taken(sent, runs):
    put({"run.json": b"new"})
    digest = hashlib.sha256(b"what the job wrote").hexdigest()
    boto3.client("s3").put_object(Bucket="lab-bucket", Key="contemplative-cai/checkpoints/demo/runs/digests.txt",
                                  Body=f"{digest}  ./demo/run.json\n".encode())
    with pytest.raises(InputError, match="not what lies there"): fetch_run(sent, open_run("demo"))
    assert not (runs / "demo" / "run.json").exists()
    assert fetch_run(sent, open_run("demo"), over=False).fetched == ["run.json"]


def test_a_run_that_is_not_there_yet_is_told(sent):
    with pytest.raises(InputError, match="has not written anything yet"): fetch_run(sent, open_run("demo"))


# rights


def test_the_policy_allows_every_call_that_is_made_and_no_other(here, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PART", 5 * 2**20)
    big = tmp_path / "big.bin"
    big.write_bytes(b"0123456789abcdef" * (6 * 2**16))
    calls = refuse(monkeypatch, "CompleteMultipartUpload", "SlowDown", 1)
    with pytest.raises(InputError): send_files(here, "code/x", {"big.bin": big})
    send_files(here, "code/x", {"big.bin": big})
    job = submit(plan("all", "demo", Recipe(), {}, here, "c"), {"entry.sh": b"true"}, here, "all", "demo")
    boto3.client("logs").create_log_group(logGroupName=LOG_GROUP)
    boto3.client("logs").create_log_stream(logGroupName=LOG_GROUP, logStreamName=f"{job.job}/algo-1")
    put({"run.json": b"{}"})
    before = len(calls)
    log_lines(job), job_state(job), fetch_run(job, open_run("demo"))
    monkeypatch.setattr(follow, "job_state", lambda _: follow.JobState("InProgress", "", "", None, None, None))
    stop_job(job)
    made = {*calls[:before], *calls[before:]} - {"CreateLogGroup", "CreateLogStream"}
    assert {action_for(call) for call in made} == {action for calls in SERVICES.values() for action in calls.values()
                                                   } - {"sagemaker:AddTags"}  # asked of who creates a job with tags
    assert all(missing_statement(call, here) for call in made)


def test_rights_end_at_the_prefix_the_jobs_and_the_secrets(where):
    secret = where.model_copy(update={"secrets": {"HF_TOKEN": "lab/hub"}})
    policies = json.dumps([user_policy(where), job_policy(secret)])
    assert "lab-bucket/contemplative-cai/*" in policies and "secret:lab/hub-*" in policies and "Delete" not in policies
    assert '"*"' not in json.dumps([one for one in user_policy(where)["Statement"]])
    assert trust_policy()["Statement"][0]["Principal"] == {"Service": "sagemaker.amazonaws.com"}


def test_one_command_prints_the_policies(capsys):
    assert main(["policy"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"user", "role", "trust"}
