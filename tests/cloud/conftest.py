"""A moto server on loopback that stands in for AWS, and an account on it."""
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import boto3
import pytest

from contemplative_cai.cloud import sdk
from contemplative_cai.cloud.machines import CloudSettings

ACCOUNT = {"CCAI_SAGEMAKER_ROLE": "arn:aws:iam::123456789012:role/demo", "CCAI_SAGEMAKER_BUCKET": "lab-bucket",
           "CCAI_SAGEMAKER_IMAGE": "demo:1"}


@pytest.fixture(scope="session")
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
    "An empty account with one bucket."
    urllib.request.urlopen(urllib.request.Request(f"{moto_server}/moto-api/reset", method="POST"), timeout=20).close()
    for name, value in {"AWS_ENDPOINT_URL": moto_server, "AWS_ACCESS_KEY_ID": "testing", **ACCOUNT,
                        "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sdk, "has_sdk", lambda: False)  # boto3 sends; the SDK takes seconds to import
    boto3.client("s3").create_bucket(Bucket="lab-bucket")
    return moto_server


@pytest.fixture
def where() -> CloudSettings:
    "Settings of a job with everything filled in."
    return CloudSettings(role=ACCOUNT["CCAI_SAGEMAKER_ROLE"], bucket="lab-bucket", image="demo:1")
