"""One training over several machines, each with a disk of its own."""
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import TRAIN, play
from test_trainer import RECIPE, losses, recipe_with

from contemplative_cai.core.files import read_json
from contemplative_cai.core.run import Run, open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.training import train as training
from contemplative_cai.training.train import train
from contemplative_cai.training.trainer import _reference_kept

ALONE = {"CCAI_MACHINES": "2", "CCAI_MACHINE_RANK": "1", "CCAI_MAIN_MACHINE": "algo-1"}


def words(recipe):
    command = training._launch_command(Run("demo", Path("runs/demo")), recipe, "dpo", Path("runs/demo/dpo"), None)
    return command[command.index("--config_file") + 2:command.index("contemplative_cai.training.train") - 1]


def test_each_machine_is_told_its_rank_the_first_ones_address_and_how_many_processes_there_are(monkeypatch):
    recipe = recipe_with(launch="cpu2")
    assert words(recipe) == [] and words(recipe_with(launch="ddp"))[0] == "--num_processes" and _reference_kept(recipe)
    for name, value in ALONE.items(): monkeypatch.setenv(name, value)
    told = words(recipe)
    assert dict(zip(told[::2], told[1::2])) == {
        "--num_machines": "2", "--machine_rank": "1", "--main_process_ip": "algo-1", "--main_process_port": "29500",
        "--num_processes": "4"}  # two on each machine
    assert not _reference_kept(recipe)
    monkeypatch.delenv("CCAI_MAIN_MACHINE")
    with pytest.raises(InputError, match="CCAI_MACHINES is 2, and CCAI_MAIN_MACHINE is not set"): words(recipe)


@pytest.mark.slow
def test_two_machines_have_the_losses_of_one_and_each_keeps_what_was_trained(runs, contemplative, tmp_path):
    run, recipe = open_run("demo"), RECIPE | {"training": "sft+dpo", "epochs": 1}
    generate_pairs(run, recipe_with(), play(contemplative))
    launch = tmp_path / "one.yaml"
    launch.write_text("compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nuse_cpu: true\n"
                      "num_machines: 1\nmachine_rank: 0\nmixed_precision: 'no'\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    machines = []
    for rank in ("0", "1"):
        shutil.copytree(runs, tmp_path / rank)
        told = ALONE | {"CCAI_MACHINE_RANK": rank, "CCAI_MAIN_MACHINE": "127.0.0.1", "CCAI_MAIN_PORT": port}
        machines.append(subprocess.Popen(
            [sys.executable, "-c", TRAIN, json.dumps(recipe | {"launch": str(launch), "train_batch_size": 1})],
            env=os.environ | told | {"CCAI_RUNS": str(tmp_path / rank)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    ends = [machine.communicate(timeout=900)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(ends)
    train(run, recipe_with(training="sft+dpo", epochs=1))
    for rank in ("0", "1"):
        for stage in ("sft", "dpo"):
            folder = tmp_path / rank / "demo" / stage
            assert losses(folder) == pytest.approx(losses(run.path(stage)), abs=1e-4)
            assert read_json(folder / "result.json")["processes"] == 2
            assert (folder / "adapter" / "adapter_model.safetensors").exists()
