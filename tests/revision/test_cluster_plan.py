"""What the driver of a cluster holds and walks: a few blocks, whatever the number of prompts. No Ray is needed."""
import json
import os
import subprocess
import sys
import tracemalloc

import pytest
from support import ROOT

from contemplative_cai.core.journal import Journal, salvage
from contemplative_cai.core.recipe import Recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Prompt, digest
from contemplative_cai.inputs.draw import recipe_prompts
from contemplative_cai.models.llm import ScriptedLLM
from contemplative_cai.revision import cluster
from contemplative_cai.revision.cluster import ChainActor, freeze, recipe_chain

RECIPE = Recipe(n_prompts=8, n_few_shot=0, temperature=0.0)
SIZE = 16


class MadeUp:
    "Prompts that are made when they are asked for."
    def __init__(self, count): self.count = count

    def __len__(self): return self.count

    def __iter__(self): return (self.one(i) for i in range(self.count))

    def __getitem__(self, part): return [self.one(i) for i in range(*part.indices(self.count))]

    def one(self, i): return Prompt(text=f"What would be kind, the {i}. time?", source="made_up")


def nothing(row):
    "What an actor sends back that did not have to ask."
    return {"ids": row["ids"], "block": row["block"], "made": "[]", "failed": "{}", "error": ""}


def work_off(count, name="flat"):
    "Freeze prompts, walk them, and take them back from actors that do nothing."
    run, chain = open_run(name), recipe_chain(RECIPE)
    path = freeze(run, MadeUp(count), SIZE)
    with Journal(run.path("journal.sqlite")) as journal:
        work = cluster._Work(run, journal, path, count, SIZE)
        marks, rows = work.left("scripted", chain)
        work.off(rows, lambda rows: map(nothing, rows), marks)


def test_what_is_held_does_not_grow_with_the_prompts(runs):
    "Ten times the prompts: the same memory."
    work_off(SIZE, "warm")
    peaks = []
    for count in (400, 4000):
        tracemalloc.start()
        work_off(count, f"run-{count}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 100_000, f"{peaks} bytes"


@pytest.mark.long
@pytest.mark.parametrize("fewer, more", [(10_000, 100_000),
                                         pytest.param(100_000, 1_000_000, marks=pytest.mark.slow)])
def test_ten_times_the_prompts_take_no_more_memory(runs, fewer, more):
    "The most that a program of its own ever had."
    script = ("import sys; sys.path[:0] = sys.argv[2:]; from test_cluster_plan import work_off; "
              "from contemplative_cai.training.trainer import peak_memory_mb; "
              "work_off(int(sys.argv[1])); print(peak_memory_mb('cpu'))")
    def most(count):
        folders = [str(ROOT / "tests"), str(ROOT / "tests" / "revision")]
        done = subprocess.run([sys.executable, "-c", script, str(count), *folders], capture_output=True, text=True,
                              cwd=ROOT, env=os.environ | {"CCAI_RUNS": str(runs / str(count))})
        assert done.returncode == 0, done.stderr
        return float(done.stdout)
    few, many = most(fewer), most(more)
    assert many - few < 10, f"{few:.0f} and {many:.0f} MB"


def test_the_frozen_inputs_have_the_name_they_always_had(runs):
    "Resumed runs find their file: the name is the digest of prompts and size."
    prompts = recipe_prompts(RECIPE)
    path = freeze(open_run("demo"), prompts, 3)
    assert path.name == f"{digest([prompts, 3])}.jsonl" and path.read_text() == "".join(
        json.dumps([prompt.model_dump(mode="json") for prompt in prompts[i:i + 3]], ensure_ascii=False) + "\n"
        for i in range(0, 8, 3))


@pytest.fixture
def finished(runs):
    "A run whose journal has every call, made before anything was noted."
    run, chain, llm = open_run("demo"), recipe_chain(RECIPE), ScriptedLLM(lambda c: f"{len(c)} turns", batch_size=2)
    path = freeze(run, recipe_prompts(RECIPE), 2)
    with Journal(run.path("journal.sqlite")) as journal:
        for prompts in cluster.read_blocks(path): chain.triples(llm, journal, prompts)
    return run, chain, path


def left(finished, looked_up, monkeypatch):
    "The blocks that are left, as the driver sees them; `looked_up` notes which it walked."
    run, chain, path = finished
    walk = cluster.look_up
    def noted(journal, key, chain, prompts):
        looked_up.append(prompts[0].id)
        return walk(journal, key, chain, prompts)
    with monkeypatch.context() as patch, Journal(run.path("journal.sqlite")) as journal:
        patch.setattr(cluster, "look_up", noted)
        marks, rows = cluster._Work(run, journal, path, 8, 2).left("scripted", chain)
        return [row["block"] for row in rows or []], marks


def test_what_is_done_is_walked_once(finished, monkeypatch):
    "Afterwards only the first block is, to see whether the same is asked."
    first, second = [], []
    assert left(finished, first, monkeypatch)[0] == left(finished, second, monkeypatch)[0] == []
    assert len(first) == 4 and second == first[:1]


def test_a_journal_that_lost_rows_is_walked_again(finished, monkeypatch):
    "Notes of rows that are elsewhere now count for nothing: no block is taken for done that is not."
    run = finished[0]
    left(finished, [], monkeypatch)
    with Journal(run.path("journal.sqlite")) as journal:
        journal._db.execute("DELETE FROM calls WHERE rowid = (SELECT MAX(rowid) FROM calls) - 3")
    salvage(run.path("journal.sqlite"))
    assert left(finished, [], monkeypatch)[0] == [3]


def test_another_version_of_the_chain_is_walked_again(finished, monkeypatch):
    "Where the first block that is noted is not done, no note counts."
    run, chain, path = finished
    _, marks = left(finished, [], monkeypatch)
    with Journal(run.path("journal.sqlite")) as journal:
        # as if the first prompt were asked otherwise now
        journal._db.execute("UPDATE calls SET key = 'x' || key, alike = NULL WHERE rowid = 1")
    looked_up = []
    assert left(finished, looked_up, monkeypatch)[0] == [0]
    assert len(looked_up) == 1 + 4, "the first block, to see whether notes count; then all"


def test_a_block_that_does_not_come_back_is_named(finished, monkeypatch):
    "With the ids of its prompts; the others are committed and noted."
    run, chain, path = finished
    run.path("journal.sqlite").unlink()
    actor = ChainActor(lambda: ScriptedLLM(lambda c: f"{len(c)} turns", batch_size=2), "scripted", chain)
    with Journal(run.path("journal.sqlite")) as journal:
        work = cluster._Work(run, journal, path, 8, 2)
        marks, rows = work.left("scripted", chain)
        lost = [prompt.id for prompt in list(cluster.read_blocks(path))[1]]
        with pytest.raises(RuntimeError, match=f"2 of 8 prompts went to Ray .*{sorted(lost)[0]}, {sorted(lost)[1]};"):
            work.off(rows, lambda rows: (actor(row) for row in rows if row["block"] != 1), marks)
        assert [block in marks for block in range(4)] == [True, False, True, True]
    assert left(finished, [], monkeypatch)[0] == [1]


def test_a_block_that_failed_is_tried_again(finished, monkeypatch):
    "A call that failed is no call that is done."
    run, chain, path = finished
    run.path("journal.sqlite").unlink()
    with Journal(run.path("journal.sqlite")) as journal:
        work = cluster._Work(run, journal, path, 8, 2)
        marks, rows = work.left("scripted", chain)
        def failing(row): return nothing(row) | {"failed": json.dumps({"k": {"stage": "revise", "reason": "dead"}})}
        work.off(rows, lambda rows: map(failing, rows), marks)
        assert not any(block in marks for block in range(4))


@pytest.mark.parametrize("environment, given", [(b"PATH=/bin\0OMP_NUM_THREADS=3\0", True), (b"PATH=/bin\0", False),
                                                (b"NOT_OMP_NUM_THREADS=3\0", False), (None, False)])
def test_a_number_of_threads_counts_where_the_process_began_with_it(tmp_path, environment, given):
    if environment is not None: (tmp_path / "environ").write_bytes(environment)
    assert cluster._given_threads(tmp_path / "environ") == given
