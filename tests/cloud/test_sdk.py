"""The SageMaker SDK and boto3 send the same request, as it was planned, or nothing is sent."""
import json
import os

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from test_sagemaker import WHERE

from contemplative_cai.cloud import sdk
from contemplative_cai.cloud.request import plan, request_faults
from contemplative_cai.cloud.sdk import create_job, has_sdk, key_differences
from contemplative_cai.core.recipe import Recipe
from contemplative_cai.core.schema import InputError

needs_sdk = pytest.mark.skipif(
    not has_sdk() and os.environ.get("CCAI_SAGEMAKER_SDK") != "required",
    reason="needs the extra 'sagemaker' (CCAI_SAGEMAKER_SDK=required makes this a failure)")


@pytest.fixture
def bodies(account, monkeypatch):
    "What goes over the wire to create a job."
    real, sent = URLLib3Session.send, []
    def send(self, request):
        if request.headers.get("X-Amz-Target") in ("SageMaker.CreateTrainingJob", b"SageMaker.CreateTrainingJob"):
            sent.append(json.loads(request.body))
        return real(self, request)
    monkeypatch.setattr(URLLib3Session, "send", send)
    return sent


def refusal(code, operation): return ClientError({"Error": {"Code": code, "Message": "not today"}}, operation)


def request_of(where, name="plain", run="demo"):
    return plan("train", run, Recipe(model="smollm2-135m"), {}, where.model_copy(update=WHERE[name]), "c0de")


@needs_sdk
@pytest.mark.long
@pytest.mark.parametrize("name", WHERE)
def test_both_send_the_same_request_key_by_key(where, bodies, monkeypatch, name):
    request = request_of(where, name)
    for by_sdk, run in ((False, "boto3"), (True, "sdk")):
        monkeypatch.setattr(sdk, "has_sdk", lambda by_sdk=by_sdk: by_sdk)
        arn = create_job(request | {"TrainingJobName": f"ccai-{run}"}, where)
        assert arn.endswith(f":training-job/ccai-{run}")
    assert [body.pop("TrainingJobName") for body in bodies] == ["ccai-boto3", "ccai-sdk"]
    assert key_differences(*bodies) == [] and key_differences(request, bodies[1])[0].startswith("TrainingJobName")
    assert len(key_differences(request, bodies[1])) == 1 and request_faults(request) == []
    jobs = boto3.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    assert sorted(job["TrainingJobName"] for job in jobs) == ["ccai-boto3", "ccai-sdk"]


@needs_sdk
@pytest.mark.long
def test_a_key_that_the_sdk_changes_keeps_the_job_from_being_sent(where, bodies, monkeypatch):
    monkeypatch.setattr(sdk, "has_sdk", lambda: True)
    settings = sdk._settings
    def other(request): return settings(request | {"EnableNetworkIsolation": True})
    monkeypatch.setattr(sdk, "_settings", other)
    with pytest.raises(InputError, match="EnableNetworkIsolation: planned False, would be True.*Nothing was submitted"):
        create_job(request_of(where), where)
    def none(request): return settings(request) | {"compute": "large"}
    monkeypatch.setattr(sdk, "_settings", none)
    with pytest.raises(InputError, match="does not take the request .*boto3 then sends the same"):
        create_job(request_of(where), where)
    assert bodies == [] and "SAGEMAKER_VALIDATE_ROLE" not in os.environ


@needs_sdk
@pytest.mark.long
def test_a_job_that_was_created_is_one_whatever_the_sdk_finds_afterwards(where, bodies, monkeypatch):
    import botocore.client
    monkeypatch.setattr(sdk, "has_sdk", lambda: True)
    real = botocore.client.BaseClient._make_api_call
    def call(self, name, arguments):
        if name == "DescribeTrainingJob": raise refusal("ThrottlingException", name)
        return real(self, name, arguments)
    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    assert "training-job/ccai-demo-train" in create_job(request_of(where), where) and len(bodies) == 1


def test_a_refusal_reaches_us_through_the_sdk(where, account, monkeypatch):
    monkeypatch.setattr(sdk, "has_sdk", lambda: True)
    def refused(*_): raise refusal("ExpiredTokenException", "CreateTrainingJob")
    monkeypatch.setattr(sdk, "_trainer", refused)
    with pytest.raises(InputError, match="CreateTrainingJob .*have expired"): create_job(request_of(where), where)


def test_without_the_sdk_boto3_sends_what_was_planned(where, bodies):
    request = request_of(where)
    create_job(request, where)
    assert bodies == [request]


@pytest.mark.parametrize("other, lines", [
    ({"a": 1, "b": {"c": 2}}, []), ({"a": 1, "b": {"c": 3}}, ["b.c: planned 2, would be 3"]),
    ({"a": 1, "b": {}}, ["b.c: planned 2, would be none"]),
    ({"a": 1, "b": {"c": 2, "d": None}}, ["b.d: planned none, would be None"]),
])
def test_every_key_that_differs_is_named(other, lines):
    assert key_differences({"a": 1, "b": {"c": 2}}, other) == lines
