"""Steps as jobs of their own: in order, each once, with the run that the one before left; several instances a step."""
import boto3
import pytest

from contemplative_cai.cloud import steps, submit
from contemplative_cai.cloud.follow import JobState
from contemplative_cai.cloud.machines import cloud_settings, step_settings
from contemplative_cai.cloud.request import job_faults, plan
from contemplative_cai.cloud.steps import StepJob, check_step_budgets, run_steps
from contemplative_cai.cloud.submit import note_fetched, sent_jobs
from contemplative_cai.command.commands import main
from contemplative_cai.command.sagemaker import prepare_job, prepare_jobs
from contemplative_cai.core.errors import StepFailed
from contemplative_cai.core.recipe import Recipe, build_recipe
from contemplative_cai.core.schema import InputError

MACHINES = {"generate": {"instance": "ml.g6e.2xlarge", "count": 2}, "train": {"instance": "ml.g5.12xlarge",
                                                                           "max_hours": 2, "spot": False}}


def jobs_of(where, names=("generate", "train"), code="c0de"):
    "Two steps, ready to be sent, with a run that is here."
    return [StepJob(name, where, plan(name, "demo", Recipe(), {}, where, code),
                    {"entry.sh": name.encode(), "run.tar.gz": b"run"}, f"{name}-{code}") for name in names]


def sent_files(job):
    objects = boto3.client("s3").list_objects_v2(Bucket="lab-bucket", Prefix=f"contemplative-cai/code/{job.job}/")
    return sorted(item["Key"].rpartition("/")[2] for item in objects["Contents"])


@pytest.fixture
def ends(monkeypatch):
    "How the jobs end, by step; where nothing is said, well."
    states = {}
    def state(job):
        status = states.get(job.step, "Completed")
        if status == "Completed":
            place = "contemplative-cai/checkpoints/demo/runs/demo/run.json"
            boto3.client("s3").put_object(Bucket="lab-bucket", Key=place, Body=b"{}")
        return JobState(status, "", "cell 7: out of memory", 60.0, None, None)
    monkeypatch.setattr(steps, "job_state", state)
    monkeypatch.setattr(submit, "_standing", lambda name, where: next(
        (state(job).status for job in sent_jobs("demo") if job.job == name), None))
    return states


def test_each_step_is_sent_once_and_only_the_first_brings_the_run(account, runs, ends):
    jobs, told = jobs_of(cloud_settings()), []
    run_steps(jobs, "demo", [1.0, 2.0], told.append)
    first, second = sent_jobs("demo")
    assert (first.step, second.step, second.usd_per_hour) == ("generate", "train", 2.0)
    assert sent_files(first) == ["entry.sh", "run.tar.gz"] and sent_files(second) == ["entry.sh"]
    places = {boto3.client("sagemaker").describe_training_job(TrainingJobName=job.job)["CheckpointConfig"]["S3Uri"]
              for job in (first, second)}
    assert places == {"s3://lab-bucket/contemplative-cai/checkpoints/demo"}
    run_steps(jobs, "demo", [1.0, 2.0], told.append)
    assert len(sent_jobs("demo")) == 2 and "train: done before" in told[-2]
    note_fetched("demo", second)
    run_steps(jobs_of(cloud_settings(), code="new")[1:], "demo", [2.0], told.append)
    assert "run.tar.gz" in sent_files(sent_jobs("demo")[-1])  # what is here is the newer now


def test_what_was_done_counts_no_more_once_another_job_has_written_over_it(account, runs, ends):
    first, other = jobs_of(cloud_settings()), jobs_of(cloud_settings(), code="other")
    for jobs in (first, other): run_steps(jobs, "demo", [1.0, 1.0], print)
    told = []
    run_steps(other, "demo", [1.0, 1.0], told.append)
    assert len(sent_jobs("demo")) == 4 and sum("done before" in line for line in told) == 2
    run_steps(first, "demo", [1.0, 1.0], print)
    assert [job.content for job in sent_jobs("demo")[4:]] == ["generate-c0de", "train-c0de"]
    assert sent_jobs("demo")[4].job == f"{sent_jobs('demo')[0].job}-2"


def test_a_run_goes_along_until_a_job_has_written_one(account, runs, ends):
    where = cloud_settings()
    ends["generate"] = "Failed"  # before it wrote anything, as where there is no machine for it
    with pytest.raises(StepFailed): run_steps(jobs_of(where), "demo", [1.0, 1.0])
    ends.clear()
    again = [job._replace(request=plan(job.step, "demo", Recipe(), {}, where, "newer run")) for job in jobs_of(where)]
    ends["generate"] = "Failed"
    with pytest.raises(StepFailed): run_steps(again, "demo", [1.0, 1.0])
    assert "run.tar.gz" in sent_files(sent_jobs("demo")[-1])


@pytest.mark.parametrize("end", ["Failed", "Stopped"])
def test_a_step_that_does_not_complete_ends_the_line_and_is_sent_again_by_the_same_command(account, runs, ends, end):
    jobs, ends["generate"] = jobs_of(cloud_settings()), end
    with pytest.raises(StepFailed, match=f"generate: .* ended {end.lower()}: cell 7: out of memory"):
        run_steps(jobs, "demo", [1.0, 1.0], print)
    assert [job.step for job in sent_jobs("demo")] == ["generate"]
    sending = submit.create_job
    def mended(request, where):
        ends.pop("generate", None)
        return sending(request, where)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submit, "create_job", mended)
        run_steps(jobs, "demo", [1.0, 1.0], print)
    again = sent_jobs("demo")
    assert [job.step for job in again] == ["generate", "generate", "train"] and again[1].job.endswith("-2")
    assert sent_files(again[0]) == ["entry.sh", "run.tar.gz"]


def test_a_step_that_is_at_work_is_waited_for_and_not_sent_beside_itself(account, runs, ends, monkeypatch):
    jobs, told = jobs_of(cloud_settings(), ("generate",)), []
    run_steps(jobs, "demo", [1.0], told.append)
    ends["generate"], pauses = "InProgress", []
    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3: ends.clear()
    monkeypatch.setattr(steps.time, "sleep", pause)
    run_steps(jobs, "demo", [1.0], told.append, pause=7)
    assert pauses == [7, 7, 7] and len(sent_jobs("demo")) == 1


def test_a_steps_machine_takes_the_place_of_the_settings_and_the_price_is_of_all(where):
    whole = cloud_settings({"steps": MACHINES, "bucket": "lab-bucket", "max_hours": 3})
    machines = {step: step_settings(whole, step) for step in ("generate", "train", "evaluate")}
    assert [(one.instance, one.count, one.max_hours, one.spot, one.steps) for one in machines.values()] == [
        ("ml.g6e.2xlarge", 2, 3, True, {}), ("ml.g5.12xlarge", 1, 2, False, {}), ("ml.g5.2xlarge", 1, 3, True, {})]
    jobs = [StepJob(step, machine, {}, {}, "") for step, machine in machines.items()]
    prices = check_step_budgets(jobs, 1000)
    assert prices[0] > prices[2]
    with pytest.raises(InputError, match=r"max_usd is 5, and the jobs can cost .*generate .*, train .*, evaluate"):
        check_step_budgets(jobs, 5)
    for wrong, words in (({"trian": {}}, "did you mean 'train'"), ({"train": {"instnace": "a"}}, "instnace"),
                         ({"train": {"count": 0}}, "steps.train.count")):
        with pytest.raises(InputError, match=words): cloud_settings({"steps": wrong})


@pytest.mark.long
def test_all_is_shown_as_a_job_a_step_and_sent_in_order(account, runs, monkeypatch, capsys):
    from contemplative_cai.command import sagemaker
    settings = cloud_settings({"steps": MACHINES})
    monkeypatch.setattr(sagemaker, "cloud_settings", lambda _: settings)
    words = ["run", "all", "--run", "demo", "--recipe", "smoke", "--on", "sagemaker", "--yes"]
    assert main(words) == 0
    assert [job.step for job in sent_jobs("demo")] == ["generate", "train", "evaluate"]
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("2 x ml.g6e.2xlarge", "1 x ml.g5.12xlarge", "1 x ml.g5.2xlarge"))
    assert "3 jobs, one after the other: at most" in shown and "ccai fetch demo" in shown


# several instances


@pytest.mark.parametrize("values, steps, words", [
    ({}, {"generate"}, None), ({"critic": "qwen2.5-7b"}, {"generate"}, "--on ray runs one model's"),
    ({"pairs": "contemplative-512", "launch": "ddp"}, {"train"}, None),
    ({"pairs": "contemplative-512"}, {"train"}, "launch: ddp, fsdp2"),
    ({}, {"evaluate"}, "write each step's under steps"), ({}, {"generate", "train"}, "write each step's under steps"),
])
def test_instances_share_generation_or_training_and_nothing_else(where, values, steps, words):
    faults = [fault for fault in job_faults(build_recipe(values), steps, where.model_copy(update={"count": 2}))
              if "count" in fault]
    assert (words is None and not faults) or words in faults[0]


def test_the_calls_of_several_instances_are_made_by_rays_actors(where):
    several = where.model_copy(update={"count": 3, "instance": "ml.m5.4xlarge"})
    job = prepare_jobs("generate", "demo", build_recipe({}), {"show_text": True}, several)[0]
    script = job.files["entry.sh"].decode()
    assert '-p \'on="ray"\' ' in script and "-p actors=3" in script and "start --head" in script
    assert "cluster" in job.needs.extras and job.request["ResourceConfig"]["InstanceCount"] == 3
    alone = prepare_job("generate", "demo", build_recipe({}), {}, where)
    assert "start --head" not in alone.files["entry.sh"].decode() and "cluster" not in alone.needs.extras
