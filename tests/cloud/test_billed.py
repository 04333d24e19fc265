"""What jobs elsewhere were billed for is written down once they have ended, and told with what a kept pair cost."""
import json
from datetime import UTC, datetime
from types import SimpleNamespace

import boto3
import pytest
from hypothesis import given, strategies

from contemplative_cai.cloud import follow
from contemplative_cai.cloud.follow import JobState, fetch_run, note_jobs
from contemplative_cai.cloud.machines import cloud_settings
from contemplative_cai.cloud.request import plan
from contemplative_cai.cloud.submit import SentJob, SentJobs, jobs_file, last_job, submit
from contemplative_cai.command.commands import main
from contemplative_cai.core.files import write_record
from contemplative_cai.core.journal import JOBS_FILE, BilledJob, Ledger, note_billed, read_ledger, write_ledger
from contemplative_cai.core.recipe import Recipe
from contemplative_cai.core.run import open_run, read_manifest
from contemplative_cai.core.schema import InputError
from contemplative_cai.report.billed import billed_words
from contemplative_cai.report.report import provenance

ENDED = JobState("Completed", "Completed", "", 3600.0, 1.515, 0.5, 7200.0)


@pytest.fixture
def run(runs):
    "A run with 150 kept pairs."
    run = open_run("demo")
    run.record(recipe={"model": "smollm2-135m"})
    write_ledger(run, generate={"kept_pairs": 150})
    return run


def sent(name, **more):
    return SentJob(**{"job": name, "arn": "", "step": "all", "instance": "ml.g5.2xlarge", "count": 1, "bucket": "b",
                      "region": "us-east-1", "prefix": "p", "submitted": "now", "usd_per_hour": 1.515, **more})


def billed(**more):
    return BilledJob(**{"step": "all", "status": "Completed", "machine": "ml.g5.2xlarge", "billed_seconds": 3600.0,
                        "ran_seconds": 7200.0, "usd_per_hour": 1.6, **more})


def test_what_was_billed_stands_in_the_ledger_and_in_no_other_file_of_the_job(run):
    note_billed(run, {"ccai-demo-1": billed()})
    note_billed(run, {"ccai-demo-2": billed(step="train", ran_seconds=3600.0)})
    assert list(read_ledger(run).jobs) == ["ccai-demo-1", "ccai-demo-2"]
    write_ledger(run, train={"seconds": 1.0})
    assert "jobs" not in json.loads(run.path("ledger.json").read_text())
    assert read_ledger(run).jobs["ccai-demo-1"].usd == pytest.approx(1.6) and not read_ledger(open_run("x")).jobs


def test_the_words_tell_hours_money_savings_and_a_kept_pair(run):
    note_billed(run, {"a": billed(), "b": billed(status="Failed", ran_seconds=None)})
    first, second, whole = billed_words(read_ledger(run))
    assert first == ("a (all, 1 x ml.g5.2xlarge, completed): 1 h 00 min billed of 2 h 00 min, 1.60 USD; spare capacity "
                     "saved 50%")
    assert "saved" not in second and "failed" in second
    assert whole == "in all 3.20 USD; 0.0213 USD for each of 150 kept pairs"
    note_billed(run, {"b": billed(usd_per_hour=None)})
    assert billed_words(read_ledger(run))[-1] == "in all no price" and billed_words(Ledger()) == []


@given(strategies.floats(1, 1e6), strategies.floats(0, 1), strategies.floats(0, 100))
def test_billed_and_saved_are_the_whole_time(ran, share, price):
    job = billed(billed_seconds=ran * share, ran_seconds=ran, usd_per_hour=price)
    assert job.usd / (ran / 3600) == pytest.approx(price * (1 - job.saved), abs=1e-9)


def test_ended_jobs_are_noted_and_one_that_aws_no_longer_knows_stays_out(run, monkeypatch):
    jobs = [sent("old"), sent("gone"), sent("new", step="train")]
    write_record(jobs_file("demo"), SentJobs(jobs=tuple(jobs)))
    def state(job):
        if job.job == "gone": raise InputError("AWS refused DescribeTrainingJob")
        return ENDED
    monkeypatch.setattr(follow, "job_state", state)
    note_jobs(run, ENDED._replace(status="InProgress", seconds=60.0))
    assert list(read_ledger(run).jobs) == ["old"]
    note_jobs(run, ENDED._replace(status="Stopped", seconds=None))
    assert list(read_ledger(run).jobs) == ["old"]  # stopped before it had a machine
    note_jobs(run, ENDED._replace(status="Failed"))
    assert {name: (job.step, job.status) for name, job in read_ledger(run).jobs.items()} == {
        "old": ("all", "Completed"), "new": ("train", "Failed")}


@pytest.fixture
def job(account):
    where = cloud_settings()
    return submit(plan("all", "demo", Recipe(), {}, where, "c0de"), {"entry.sh": b"true"}, where, "all", "demo", 2.0)


def answer(**more):
    began = datetime(2026, 1, 1, tzinfo=UTC)
    return {"TrainingJobStatus": "Completed", "SecondaryStatus": "Completed", "BillableTimeInSeconds": 1800,
            "TrainingTimeInSeconds": 5400, "TrainingStartTime": began, "TrainingEndTime": began,
            "EnableManagedSpotTraining": True, **more}


def test_status_and_fetch_write_it_down_and_a_fetch_leaves_it(job, run, monkeypatch, capsys):
    monkeypatch.setattr(follow, "job_state",
                        lambda job: follow._state_of(answer(), job, datetime(2026, 1, 1, tzinfo=UTC)))
    assert main(["status", "demo"]) == 0
    shown = capsys.readouterr().out
    assert "30 min 00 s billed of 1 h 30 min, 1.00 USD; spare capacity saved 67%" in shown
    assert "0.0067 USD for each of 150 kept pairs" in shown
    noted = run.path(JOBS_FILE).read_bytes()
    s3, base = boto3.client("s3"), "contemplative-cai/checkpoints/demo/runs/demo"
    for name, content in {"pairs.jsonl": b"", JOBS_FILE: b"{}", "run.json": run.path("run.json").read_bytes()}.items():
        s3.put_object(Bucket="lab-bucket", Key=f"{base}/{name}", Body=content)
    assert fetch_run(last_job("demo"), run).replaced == [] and run.path(JOBS_FILE).read_bytes() == noted
    assert main(["fetch", "demo"]) == 0 and run.path(JOBS_FILE).read_bytes() == noted


def test_a_job_on_demand_saved_nothing(run):
    told = answer(EnableManagedSpotTraining=False, BillableTimeInSeconds=5000)
    state = follow._state_of(told, sent("a"), datetime(2026, 1, 1, tzinfo=UTC))
    assert state.saved is None and follow._billed(sent("a"), state).saved is None


def test_the_report_names_what_jobs_were_billed_for(run):
    def told():
        return dict(provenance(SimpleNamespace(manifest=read_manifest(run), given=None, split=None,
                                               ledger=read_ledger(run))))
    assert "billed for jobs elsewhere" not in told()
    note_billed(run, {"a": billed()})
    assert "50%" in told()["billed for jobs elsewhere"]
