"""Generation over Ray: the same bytes, whoever dies; nothing done twice, nothing lost unnoticed."""
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from support import ROOT, journalled, wait_for

from contemplative_cai.core.project import project_root
from contemplative_cai.core.recipe import load_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.models.llm import ModelCallError, ScriptedLLM
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.revision import cluster
from contemplative_cai.revision.cluster import ChainActor, ray_llm, recipe_chain

pytestmark = [pytest.mark.long, pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra 'cluster'")]
OUTPUTS = ("pairs.jsonl", "dropped.jsonl", "split.json")
DRIVER = """
import sys
from test_cluster import scripted, ray_llm, generate_pairs, load_recipe, open_run
recipe = load_recipe('smoke', {'n_prompts': 24, 'batch_size': 2})
run, opening = open_run(sys.argv[1]), scripted(sys.argv[2], 0.1)
generate_pairs(run, recipe, ray_llm(run, recipe, actors=2, opening=opening))
"""


def scripted(log, delay=0.0):
    "Opens a model that says what it was asked, slowly, and writes a line into `log` for every call."
    def opening():
        def reply(conversation):
            time.sleep(delay)
            with open(log, "a") as file: file.write(json.dumps(conversation[-1].content) + "\n")
            return f"{len(conversation)} turns, the last of them: {conversation[-1].content[-60:]}"
        return ScriptedLLM(reply, batch_size=2)
    return opening


def calls(log): return [json.loads(line) for line in Path(log).read_text().splitlines()] if Path(log).exists() else []


def same(left, right): return all(left.path(name).read_bytes() == right.path(name).read_bytes() for name in OUTPUTS)


def journal(run):
    "Key, stage and text of every call; the tokens read from a cache depend on who shared a batch."
    return sqlite3.connect(run.path("journal.sqlite")).execute(
        "SELECT key, stage, json_extract(completion, '$.text') FROM calls ORDER BY key"
    ).fetchall()


@pytest.fixture(scope="module")
def head():
    "A cluster as `ray start` makes it, on this machine; its address."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ccai-head-", dir="/tmp")  # a socket's path must be short
    words = ["start", "--head", "--block", f"--port={port}", "--include-dashboard=false", "--num-cpus=2",
             "--disable-usage-stats", f"--temp-dir={folder}"]
    log = Path(folder, "said")
    process = subprocess.Popen([str(Path(sys.executable).with_name("ray")), *words], stdout=open(log, "w"),
                               stderr=subprocess.STDOUT, cwd=folder)
    wait_for(lambda: process.poll() is not None or "Ray runtime started" in log.read_text())
    assert process.poll() is None, log.read_text()
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


def test_two_actors_write_what_one_process_writes(runs, monkeypatch):
    "The random model in float32: the same bytes; a second run makes no call and starts no Ray."
    recipe = load_recipe("smoke", {"n_prompts": 8, "batch_size": 2, "temperature": 0.9})
    local, there = open_run("local"), open_run("ray")
    generate_pairs(local, recipe)
    generate_pairs(there, recipe, ray_llm(there, recipe, actors=2))
    assert same(local, there) and journal(local) == journal(there) and len(journal(there)) == 8 + 2 * 32
    state = json.loads(there.path("progress.json").read_text())
    assert state["done"] == state["total"]
    monkeypatch.setattr(cluster, "_ray", lambda address: pytest.fail("Ray was started, with nothing left to do"))
    generate_pairs(there, recipe, ray_llm(there, recipe, actors=2))
    assert same(local, there)


def workers(driver):
    "The processes of the actors that a driver's own Ray session runs."
    return [process for process in psutil.Process(driver.pid).children(recursive=True)
            if "ChainActor" in " ".join(process.cmdline())]


def test_an_actor_killed_then_the_driver_killed_then_whole(runs, tmp_path):
    "kill -9 at both; the next run does what was in flight and leaves the bytes of an undisturbed run."
    log, whole, run = tmp_path / "calls", open_run("whole"), open_run("killed")
    generate_pairs(whole, load_recipe("smoke", {"n_prompts": 24, "batch_size": 2}), scripted(tmp_path / "reference")())
    tests = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "tests" / "revision")])
    def start():
        return subprocess.Popen([sys.executable, "-c", DRIVER, "killed", str(log)], cwd=ROOT,
                                env=os.environ | {"PYTHONPATH": tests}, stderr=subprocess.DEVNULL)
    driver = start()
    wait_for(lambda: journalled(run.path("journal.sqlite")) >= 18)
    workers(driver)[0].send_signal(signal.SIGKILL)
    wait_for(lambda: journalled(run.path("journal.sqlite")) >= 108)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    before = journalled(run.path("journal.sqlite"))
    assert 108 <= before < 216 and not run.path("pairs.jsonl").exists()
    driver = start()
    assert driver.wait(120) == 0
    assert same(whole, run) and journal(whole) == journal(run) and len(journal(run)) == 24 * 9
    # the killed actor's; at the driver's end two actors with up to two each, one of them done and not yet committed
    blocks_lost = 1 + 2 * 2
    assert len(calls(log)) <= 24 * 9 + blocks_lost * 2 * 9, "more was done again than was in flight"
    # Ray's two agents take a minute to notice
    def there(process):
        return (process.is_running() and process.status() != psutil.STATUS_ZOMBIE
                and "Agent" not in " ".join(process.cmdline()))
    assert not any(map(there, family)), "processes of the dead driver are still there"


def test_an_edited_principle_redoes_only_its_own_calls(runs, tmp_path, head):
    "On a cluster that `ray start` made."
    path, log = tmp_path / "mine.md", tmp_path / "calls"
    text = (project_root() / "data" / "constitutions" / "contemplative.md").read_text()
    path.write_text(text)
    recipe = load_recipe("smoke", {"n_prompts": 6, "constitution": str(path), "batch_size": 2, "n_few_shot": 0})
    run = open_run("edited")
    generate_pairs(run, recipe, ray_llm(run, recipe, actors=2, address=head, opening=scripted(log)))
    assert len(calls(log)) == 6 * 9
    principle = recipe_chain(recipe).constitution.principles[1]
    assert text.count(principle.critique_request) == 1
    path.write_text(text.replace(principle.critique_request, "Look at it once more, from the other side."))
    llm = ray_llm(run, recipe, actors=2, address=head, opening=scripted(log))
    fresh = calls(log)[6 * 9:]
    assert (len(fresh) == 6 * 2 and sum("from the other side" in call for call in fresh) == 6
            and sum(principle.revision_request in call for call in fresh) == 6)
    generate_pairs(run, recipe, llm)
    local = open_run("local")
    generate_pairs(local, recipe, scripted(tmp_path / "other")())
    assert same(local, run)


def test_a_block_that_vanishes_is_an_error(runs, tmp_path, head, monkeypatch):
    "Its prompts are counted and named; the next run makes them."
    recipe, run, log = load_recipe("smoke", {"n_prompts": 6, "batch_size": 2}), open_run("lost"), tmp_path / "calls"
    whole = cluster._results
    def without_one(*args):
        results = whole(*args)
        next(iter(results))
        return results
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "_results", without_one)
        with pytest.raises(RuntimeError,
                           match=(r"2 of 6 prompts went to Ray and did not come back: [0-9a-f]{16}, [0-9a-f]{16}; "
                                  r".*run the same step again")):
            ray_llm(run, recipe, 2, address=head, opening=scripted(log))
    assert len(journal(run)) == 4 * 9
    generate_pairs(run, recipe, ray_llm(run, recipe, 2, address=head, opening=scripted(log)))
    assert len(journal(run)) == 6 * 9 and len(calls(log)) == 8 * 9


def picky(words):
    "Opens a model that cannot read prompts with any of these words."
    def opening():
        return ScriptedLLM(lambda c: (ModelCallError("the prompt is too long")
                                      if any(word in c[0].content for word in words) else f"{len(c)} turns"),
                           batch_size=2)
    return opening


def test_a_call_that_fails_is_a_row_with_its_reason(runs, head):
    "Failures are recorded, count as produced, and are dropped rows as on one machine, also when a whole block fails."
    recipe = load_recipe("smoke", {"n_prompts": 6, "batch_size": 2, "n_few_shot": 0})
    prompts = cluster.recipe_prompts(recipe)
    opening = picky([prompts[i].text for i in (0, 1, 4)])
    there, local = open_run("ray"), open_run("local")
    made = generate_pairs(there, recipe, ray_llm(there, recipe, 2, address=head, opening=opening))
    generate_pairs(local, recipe, opening())
    assert same(local, there) and sum(row.detail == "the prompt is too long" for row in made.dropped) == 12


def actor_row(prompts):
    return {"ids": json.dumps([p.id for p in prompts]),
            "prompts": json.dumps([p.model_dump(mode="json") for p in prompts]), "known": "{}"}


def test_what_keeps_an_actor_from_working_is_data():
    "A model that cannot be opened, has another key, or has gone away in the middle: an error, and no prompt counted."
    recipe = load_recipe("smoke", {"n_prompts": 2})
    row = actor_row(cluster.recipe_prompts(recipe))
    class Gone(ScriptedLLM):
        def stream(self, conversations, sampling): raise ModelCallError("the server has gone away")
    def broken(): raise InputError("model 'x' is not installed")
    for opening, key, words in [(broken, "a", "not installed"), (lambda: Gone(str, key="a"), "a", "gone away"),
                                (lambda: ScriptedLLM(str, key="b"), "a", "differ in weights or precision")]:
        done = ChainActor(opening, key, recipe_chain(recipe))(row)
        assert words in done["error"] and done["ids"] == "[]"


def test_no_cluster_at_the_address(runs):
    with pytest.raises(InputError, match="no Ray cluster at '127.0.0.1:1'.*ray start --head"):
        ray_llm(open_run("nowhere"), load_recipe("smoke"), address="127.0.0.1:1")
