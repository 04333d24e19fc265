"""A cell follows a job live: state, progress, cost and last lines come from AWS, each tick looks again, and where no
browser is open nothing ticks."""
import subprocess
import sys
from datetime import UTC, datetime

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings, strategies

from contemplative_cai.cloud import follow
from contemplative_cai.cloud.live import Advance, LiveJob, Look, advance_in, follow_job
from contemplative_cai.cloud.machines import cloud_settings
from contemplative_cai.cloud.policy import LOG_GROUP
from contemplative_cai.cloud.request import plan
from contemplative_cai.cloud.submit import submit
from contemplative_cai.core.recipe import Recipe
from contemplative_cai.core.schema import InputError
from contemplative_cai.core.terminal import progress_line


@pytest.fixture
def sent(account):
    where = cloud_settings()
    return submit(plan("all", "demo", Recipe(), {}, where, "c0de"), {"entry.sh": b"true"}, where, "all", "demo", 2.0)


def say(job, *lines):
    "What a job says; each line a moment later."
    logs, moment = boto3.client("logs"), int(datetime.now(UTC).timestamp() * 1000)
    try: logs.create_log_group(logGroupName=LOG_GROUP)
    except ClientError: pass
    try: logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=f"{job}/algo-1")
    except ClientError: pass
    logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=f"{job}/algo-1", logEvents=[
        {"timestamp": moment + i, "message": line} for i, line in enumerate(lines)])


def test_each_tick_shows_state_progress_cost_and_the_last_lines(sent, monkeypatch):
    live = follow_job("demo", every=20)
    assert "not said anything" in live._lines.value and live._bar.layout.visibility == "hidden"
    assert live.clock.interval == 20_000 and sent.job in live._state.value
    say(sent.job, "respond: 3 of 3 calls · done in 2 s", "critique: 12 of 40 calls · <b>fast</b>")
    live.clock.value += 1
    assert (live._bar.value, live._bar.max, live._bar.description) == (12, 40, "critique")
    assert "&lt;b&gt;fast" in live._lines.value and live._bar.layout.visibility == "visible"
    began = datetime(2026, 1, 1, tzinfo=UTC)
    ended = {"TrainingJobStatus": "Completed", "BillableTimeInSeconds": 1800, "TrainingTimeInSeconds": 3600,
             "TrainingStartTime": began, "EnableManagedSpotTraining": True}
    monkeypatch.setattr("contemplative_cai.cloud.live.job_state", lambda job: follow._state_of(ended, job, began))
    live.clock.value += 1
    assert "1.00 USD" in live._state.value and "saved 50%" in live._state.value and not live.clock.playing


def test_what_aws_refuses_is_shown_and_the_next_tick_looks_again(sent, monkeypatch):
    began = datetime(2026, 1, 1, tzinfo=UTC)
    under_way = {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Training", "TrainingStartTime": began}
    monkeypatch.setattr(follow, "_state_of", lambda _, job, moment, real=follow._state_of: real(under_way, job, moment))
    live, real = follow_job("demo"), follow.aws
    def refused(*_): raise InputError("AWS asks for patience")
    monkeypatch.setattr(follow, "aws", refused)
    live.clock.value += 1
    assert "patience" in live._state.value and live.clock.playing
    monkeypatch.setattr(follow, "aws", real)
    live.clock.value += 1
    assert sent.job in live._state.value and "InProgress, Training" in live._state.value


def test_a_run_that_was_not_sent_and_a_clock_that_does_not_tick_are_refused(account, sent):
    with pytest.raises(InputError, match="no job of it was sent"): follow_job("other")
    with pytest.raises(InputError, match="1 or more"): follow_job("demo", every=0)


@settings(max_examples=40, deadline=None)
@given(strategies.text(max_size=20), strategies.integers(0, 10**6), strategies.integers(1, 10**6))
def test_our_own_progress_lines_are_read_back(stage, done, total):
    state = {"stage": stage.strip() or "x", "unit": "calls", "done": min(done, total), "total": total, "fresh": done,
             "tokens": 0, "read": 0, "written": 0, "elapsed": 3.0}
    assert advance_in(["words: , of , more"]) is None
    found = advance_in(["something: else", progress_line(state), "a line that is none"])
    if stage.isalpha(): assert found == Advance(stage, min(done, total), total)
    assert found is None or found.done <= found.total


@pytest.mark.long
def test_without_a_browser_a_cell_looks_once_and_ends(tmp_path):
    "As papermill executes it."
    import nbformat
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(
        "from contemplative_cai.cloud.live import LiveJob, Look\nlooks = []\n"
        "def look():\n    looks.append(1)\n    return Look(('job demo: InProgress',), (), False)\n"
        "live = LiveJob(look, 1)\nlive"), nbformat.v4.new_code_cell("import time; time.sleep(2.5); len(looks)")])
    nbformat.write(notebook, tmp_path / "in.ipynb")
    subprocess.run([sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", str(tmp_path / "in.ipynb"),
                    str(tmp_path / "out.ipynb")], check=True, capture_output=True, timeout=180)
    out = nbformat.read(tmp_path / "out.ipynb", 4)
    assert out.cells[-1].outputs[0]["data"]["text/plain"] == "1"
    assert "application/vnd.jupyter.widget-view+json" in out.cells[-2].outputs[0]["data"]


def test_a_job_that_was_over_when_it_was_first_seen_has_no_clock_running():
    assert not LiveJob(lambda: Look(("Completed",), (), True)).clock.playing
