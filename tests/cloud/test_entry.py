"""The entry without a container: what it installs from, what it checks, and what it does on each of several hosts."""
import hashlib
import json
import os
import re
import subprocess

import boto3
import pytest
from test_once import packed

from contemplative_cai.cloud import wheels
from contemplative_cai.cloud.entry import Needs, command_line, entry_script
from contemplative_cai.cloud.request import plan
from contemplative_cai.cloud.wheels import installed_from, kept_as, wheels_place, with_wheels
from contemplative_cai.core.recipe import Recipe
from contemplative_cai.core.schema import InputError

# a python that writes down what it is asked, and makes an environment of copies of itself
PYTHON = """#!/bin/bash
case "$1" in
  -c) [[ "$2" == *resourceconfig* || "$2" == *current_host* ]] && exec python3 "$@"
      [[ "$2" == *ray* ]] && echo 2
      exit 0;;
esac
echo "$@" >> "$ASKED"
if [ "$2" = venv ]; then
  mkdir -p .venv/bin && cp "$0" .venv/bin/python
  printf '#!/bin/bash\\necho ccai "$@" >> "$ASKED"\\nenv > "$CCAI_RUNS/env.txt"\\n' > .venv/bin/ccai
  printf '#!/bin/bash\\necho ray "$@" >> "$ASKED"\\necho "Ray runtime started."\\n' > .venv/bin/ray
  chmod +x .venv/bin/*
fi
exit 0
"""


@pytest.fixture
def host(tmp_path):
    "Runs an entry in a folder in place of /opt/ml; what it asked of Python, pip and Ray."
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    code = tmp_path / "ml/input/data/code"
    code.mkdir(parents=True)
    (code / "source.tar.gz").write_bytes(packed({"constraints.txt": ""}))
    def start(script, fails=False, **more):
        (tmp_path / "asked.txt").write_text("")
        done = subprocess.run(["bash", "-c", script], timeout=60, capture_output=True, text=True,
                              env={"PATH": os.environ["PATH"], "PYTHON": str(python), "CCAI_PAUSE": "0",
                                   "ASKED": str(tmp_path / "asked.txt"), "CCAI_ML_ROOT": str(tmp_path / "ml")} | more)
        assert (done.returncode != 0) == fails, done.stderr
        return (tmp_path / "asked.txt").read_text().split("\n")[:-1]
    return tmp_path / "ml", start


def hosts(root, here, names=("algo-1", "algo-2")):
    "What the service says of a job's instances."
    (root / "input/config").mkdir(exist_ok=True)
    (root / "input/config/resourceconfig.json").write_text(json.dumps(
        {"current_host": here, "hosts": list(names), "network_interface_name": "eth7"}))


def test_what_a_job_installs_is_kept_and_the_next_one_asks_no_index(host, where):
    root, start = host
    script = entry_script(command_line("train", "demo", {}), Needs(("quantize",)), kept_as=kept_as(Needs(), where))
    asked = start(script)
    assert asked[0].startswith("-m venv --system-site-packages")  # the image's torch is the one that is needed
    assert sum("pip install" in line for line in asked) == 3 and "--no-index" not in " ".join(asked)
    assert "-e .[quantize]" in asked[2] and "contemplative_cai.cloud.wheels" in asked[4] and "wheels/" in asked[4]
    (root / "input/data/wheels").mkdir()
    (root / "input/data/wheels/whole.txt").write_text("3 wheels")
    subprocess.run(["rm", "-r", str(root / "code/.venv")], check=True)
    asked = start(script)
    assert all(f"--no-index --find-links {root}/input/data/wheels" in line for line in asked if "pip install" in line)
    assert not any("cloud.wheels" in line for line in asked) and asked[-1].startswith("ccai run train")


def test_what_the_job_before_left_must_have_come_whole(host):
    root, start = host
    runs, script = root / "checkpoints/runs", entry_script(command_line("train", "demo", {}))
    (runs / "demo").mkdir(parents=True)
    (runs / "demo/pairs.jsonl").write_text("half")
    digests = f"{hashlib.sha256(b'whole').hexdigest()}  ./demo/pairs.jsonl\n"
    (runs / "digests.txt").write_text(digests)
    (root / "checkpoints/job.txt").write_text("generate-1\n")
    start(script, fails=True, TRAINING_JOB_NAME="train-1")
    words = (root / "output/failure").read_text()
    assert "is not what the job before it left" in words and "demo/pairs.jsonl: FAILED" in words
    start(script, TRAINING_JOB_NAME="generate-1")  # the same job again, after an interruption, goes on
    assert (root / "checkpoints/job.txt").read_text() == "generate-1\n"
    (runs / "digests.txt").write_text(digests)
    (runs / "demo/pairs.jsonl").write_text("whole")
    start(script, TRAINING_JOB_NAME="train-1")
    assert "./demo/pairs.jsonl" in (runs / "digests.txt").read_text()


def test_of_several_hosts_the_first_keeps_the_run_and_all_know_each_other(host):
    root, start = host
    script = entry_script(command_line("train", "demo", {}))
    (root / "checkpoints/runs/demo").mkdir(parents=True)
    (root / "checkpoints/runs/demo/run.json").write_text("{}")
    hosts(root, "algo-2", ("algo-2", "algo-1"))
    start(script)
    assert not list((root / "model").iterdir()) and not (root / "checkpoints/runs/env.txt").exists()
    told = (root / "work/runs/env.txt").read_text()
    assert (root / "work/runs/demo/run.json").exists() and "CCAI_MACHINE_RANK=1" in told
    assert "CCAI_MACHINES=2" in told and "CCAI_MAIN_MACHINE=algo-1" in told and "GLOO_SOCKET_IFNAME=eth7" in told
    hosts(root, "algo-1")
    start(script)
    assert "CCAI_MACHINE_RANK=0" in (root / "checkpoints/runs/env.txt").read_text() and (root / "model/demo").is_dir()


def test_generation_over_hosts_is_asked_by_the_first_and_answered_by_rays_actors(host):
    root, start = host
    script = entry_script(command_line("generate", "demo", {"on": "ray"}), Needs(("cluster",)), over_ray=True)
    hosts(root, "algo-1")
    asked = [line for line in start(script) if line.startswith(("ray", "ccai"))]
    assert asked[0].startswith("ray start --head --port=6379") and asked[-1] == "ray stop"
    assert asked[1].startswith("ccai run generate") and '-p on="ray"' in asked[1]
    told = (root / "checkpoints/runs/env.txt").read_text()
    assert "RAY_ADDRESS=algo-1:6379" in told and re.search(r"RAY_AUTH_TOKEN=[0-9a-f]{64}\n", told)
    hosts(root, "algo-2")
    asked = [line for line in start(script) if line.startswith(("ray", "ccai"))]
    assert asked == ["ray start --address=algo-1:6379 --block"]
    (root / "code/.venv/bin/ray").write_text("#!/bin/bash\nexit 1\n")
    start(script.replace("seq 120", "seq 2"), fails=True)
    assert "found no first instance at algo-1" in (root / "output/failure").read_text()


# wheels

@pytest.fixture
def wheel(tmp_path):
    "A small wheel, and pip's report of having installed it beside the project."
    import zipfile
    path = tmp_path / "tiny_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        info = "tiny_thing-1.0.dist-info"
        file.writestr("tiny_thing.py", "")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/installed-2.json").write_text(json.dumps({"install": [
        {"download_info": {"url": path.as_uri()}},
        {"download_info": {"url": "file:///opt/ml/code", "dir_info": {"editable": True}}}]}))
    return tmp_path


@pytest.mark.long
def test_wheels_are_kept_once_and_travel_with_the_next_job(account, where, wheel, capsys):
    place, request = wheels_place(Needs(), where), plan("train", "demo", Recipe(), {}, where, "c")
    assert with_wheels(request, where, place) == request
    told = [kept_as(Needs(), where), str(wheel / "reports"), str(wheel / "made")]
    assert wheels.main(told) == wheels.main(told) == 0
    assert capsys.readouterr().out == "1 wheels kept for the next job\n0 wheels kept for the next job\n"
    keys = [item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket="lab-bucket")["Contents"]]
    assert keys == [f"contemplative-cai/{place}/{name}" for name in ("tiny_thing-1.0-py3-none-any.whl", "whole.txt")]
    sent = with_wheels(request, where, place)["InputDataConfig"]
    assert [channel["ChannelName"] for channel in sent] == ["code", "wheels"]
    assert sent[1]["DataSource"]["S3DataSource"]["S3Uri"] == f"s3://lab-bucket/contemplative-cai/{place}"


def test_a_job_without_network_needs_wheels(account, where):
    alone = where.model_copy(update={"network_isolation": True})
    request = plan("train", "demo", Recipe(), {}, alone, "c")
    with pytest.raises(InputError, match="no wheels of such a job.*network_isolation: false.*Nothing was submitted"):
        with_wheels(request, alone, wheels_place(Needs(), alone))


def test_a_cache_that_cannot_be_filled_costs_the_job_nothing(account, where, wheel, capsys):
    gone = where.model_copy(update={"bucket": "nobody-made-this-bucket"})
    report = wheel / "reports/installed-2.json"
    report.write_text(json.dumps({"install": []}))
    assert wheels.main([kept_as(Needs(), gone), str(wheel / "reports"), str(wheel / "made")]) == 0
    assert "could not be kept" in (told := capsys.readouterr().out) and "NoSuchBucket" in told
    report.unlink()
    assert wheels.main([kept_as(Needs(), gone), str(wheel / "reports"), str(wheel / "made")]) == 0
    assert "0 wheels" in capsys.readouterr().out


def test_another_image_another_need_another_folder(where):
    other = where.model_copy(update={"image": "demo:2"})
    places = [wheels_place(needs, settings) for needs in (Needs(), Needs(("vllm",))) for settings in (where, other)]
    assert len(set(places)) == 4 and places[0] == wheels_place(Needs(), where)
    assert installed_from({}) == [] and kept_as(Needs(), where.model_copy(update={"bucket": None})) == ""
