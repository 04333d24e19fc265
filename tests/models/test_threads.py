"""As many threads as cores are free, looked at again while a model computes."""
import os
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT

from contemplative_cai.models import threads
from contemplative_cai.models.attention import PackedRows
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.local import load_llm
from contemplative_cai.models.threads import busy_seconds, own_cores, threads_beside, usable_cores


@pytest.fixture
def machine(monkeypatch):
    "A machine of four cores on which others keep some busy; torch's number of threads is put back."
    state, before = {"others": 0.0, "now": 100.0, "ours": 0.0, "busy": 0.0}, torch.get_num_threads()
    def passes(seconds=1.0, threads=None):
        ours = torch.get_num_threads() if threads is None else threads
        state["now"] += seconds
        state["ours"] += seconds * ours
        state["busy"] += seconds * (ours + state["others"])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    monkeypatch.setattr(threads, "busy_seconds", lambda cores: state["busy"])
    monkeypatch.setattr(threads.time, "monotonic", lambda: state["now"])
    monkeypatch.setattr(threads.time, "sleep", lambda seconds: passes(seconds, 0))
    monkeypatch.setattr(threads.time, "process_time", lambda: state["ours"])
    torch.set_num_threads(4)
    yield state, passes
    torch.set_num_threads(before)


@given(st.integers(1, 256), st.floats(0, 300))
def test_there_is_a_thread_for_each_free_core_and_always_one(cores, elsewhere):
    number = threads_beside(cores, elsewhere)
    assert 1 <= number <= cores and threads_beside(cores, 0) == cores
    assert number == 1 or number <= cores - elsewhere + 0.25
    assert threads_beside(cores, elsewhere + 1) in (number - 1, 1)


def test_threads_follow_what_others_do(machine):
    state, passes = machine
    chosen, ours = threads._Threads(), []
    for others in (0, 0, 2, 2, 9, 1, 0, 0):
        state["others"] = others
        passes()
        chosen.spread()
        ours.append(torch.get_num_threads())
    assert ours == [4, 4, 2, 2, 1, 3, 4, 4]


def test_the_machine_is_looked_at_twice_a_second_and_an_old_look_is_forgotten(machine):
    state, passes = machine
    chosen = threads._Threads()
    chosen.spread()
    state["others"] = 3
    passes(0.3)
    chosen.spread()
    assert torch.get_num_threads() == 4
    passes(0.3)
    chosen.spread()
    assert torch.get_num_threads() == 1
    state["others"] = 0
    passes(40)
    chosen.spread()
    assert torch.get_num_threads() == 4, "what was before a long pause says nothing"


def test_the_first_look_is_before_anything_is_computed(machine):
    state, _ = machine
    state["others"] = 2
    threads._Threads().spread()
    assert torch.get_num_threads() == 2


def test_who_has_said_how_many_threads_is_not_contradicted(machine, monkeypatch):
    state, passes = machine
    chosen = threads._Threads()
    for _ in range(2):
        chosen.spread()
        passes()
    torch.set_num_threads(3)
    state["others"] = 2
    passes()
    chosen.spread()
    assert torch.get_num_threads() == 3
    torch.set_num_threads(4)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    passes()
    threads._Threads().spread()
    chosen.spread()
    assert torch.get_num_threads() == 4


def test_another_busy_process_is_seen():
    "A real process that computes; what the kernel counts grows by what it took."
    if busy_seconds(own_cores()) is None: pytest.skip("the system does not say")
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            time.sleep(0.3)  # it has started
            before, began = busy_seconds(own_cores()), time.monotonic()
            time.sleep(1.5)
            taken = (busy_seconds(own_cores()) - before) / (time.monotonic() - began)
        finally: other.kill()
    assert taken > 0.3 and 1 <= usable_cores() <= len(own_cores())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_model_says_does_not_depend_on_threads(dtype):
    "Scores to the bit, with the number of threads changed between any two steps."
    llm, before = load_llm(model_spec("random-tiny"), dtype, "cpu"), torch.get_num_threads()
    def scores(numbers):
        with torch.inference_mode():
            batch = PackedRows(llm.model, [[5 + i] * (20 + i) for i in range(6)], [], room=8)
            told = [torch.cat(list(batch.read()))]
            for number in numbers:
                torch.set_num_threads(number)
                told.append(batch.step(told[-1].argmax(-1)))
        return torch.stack(told)
    try: assert torch.equal(scores([1] * 6), scores([2, 1, 2, 2, 1, 2]))
    finally: torch.set_num_threads(before)


def test_what_is_learned_does_not_depend_on_threads():
    "Weights of an adapter after three steps, to the bit."
    from peft import LoraConfig, get_peft_model

    from contemplative_cai.models.weights import load_model
    def learned(number):
        torch.manual_seed(0)
        torch.set_num_threads(number)
        model = get_peft_model(load_model(model_spec("random-tiny"), "float32", "cpu"),
                               LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")).train()
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        steps, draw = torch.optim.AdamW(weights, lr=1e-2), torch.Generator().manual_seed(1)
        for _ in range(3):
            ids = torch.randint(4, 1000, (4, 80), generator=draw)
            model(input_ids=ids, labels=ids).loss.backward()
            steps.step()
            steps.zero_grad()
        return torch.cat([weight.detach().flatten() for weight in weights])
    before = torch.get_num_threads()
    try: assert torch.equal(learned(1), learned(2))
    finally: torch.set_num_threads(before)


def groups(root, limits, version=2):
    "Control groups with limits, in hundredths of a core, by folder; what /proc/self/cgroup says of the last."
    for folder, limit in limits.items():
        place = root / ("" if version == 2 else "cpu") / folder
        place.mkdir(parents=True, exist_ok=True)
        if version == 2: (place / "cpu.max").write_text(f"{'max' if limit is None else limit * 1000} 100000\n")
        else:
            (place / "cpu.cfs_quota_us").write_text(f"{-1 if limit is None else limit * 1000}\n")
            (place / "cpu.cfs_period_us").write_text("100000\n")
    own = root / "own"
    own.write_text(f"0::/{list(limits)[-1]}\n" if version == 2 else f"5:memory:/x\n4:cpu,cpuacct:/{list(limits)[-1]}\n")
    return own


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("limits, cores", [
    ({"": 150}, 1.5), ({"": None}, float("inf")), ({"job": 300, "job/step": None}, 3.0),
    ({"job": 300, "job/step": 200}, 2.0), ({"job": 100, "job/step": 200}, 1.0)
])
def test_the_limits_of_a_control_group_and_of_those_above_count(tmp_path, version, limits, cores):
    assert threads._quota(tmp_path, groups(tmp_path, limits, version)) == cores


def test_a_machine_that_says_nothing_of_control_groups_has_no_limit(tmp_path):
    assert threads._quota(tmp_path, tmp_path / "none") == float("inf")


def test_what_a_launcher_has_set_is_nobodys_wish(machine, monkeypatch):
    "accelerate and Ray set OMP_NUM_THREADS themselves; a process that was told so follows what is free."
    state, _ = machine
    assert threads.launched_freely() == {"CCAI_FREE_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads.launched_freely() == {}, "somebody has set it"
    monkeypatch.setenv("CCAI_FREE_THREADS", "1")
    state["others"] = 2
    threads._Threads().spread()
    assert torch.get_num_threads() == 2 and threads._Threads().free() == 2


def test_a_process_that_loaded_torch_first_follows_too():
    "What libgomp reads when it is loaded does not bind us."
    script = ("import torch; torch.ones(400, 400) @ torch.ones(400, 400); "
              "import contemplative_cai.models.threads as t; t.usable_cores = lambda: 3; "
              "t.threads_beside = lambda cores, elsewhere: cores; t.spread_threads(); print(torch.get_num_threads())")
    free = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=free)
    assert done.stdout == "3\n", done.stderr
