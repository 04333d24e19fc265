"""Nothing finished is lost: kills, locks, full disks, damage, network file systems, two processes at once."""
import json
import os
import sqlite3
import subprocess
import sys
import textwrap

import pytest
from support import user

from contemplative_cai.core.journal import Journal, file_system, salvage, write_ledger
from contemplative_cai.core.run import open_run, refuse_busy, step
from contemplative_cai.core.schema import InputError
from contemplative_cai.models.ask import ask
from contemplative_cai.models.llm import Sampling, ScriptedLLM

ROWS = {f"k{i}": {"text": f"row {i} " * 40, "finish_reason": "stop", "prompt_tokens": 9, "completion_tokens": 80,
                  "cached_tokens": 4}
        for i in range(600)}


def python(code: str, *arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **options)


# A nursery: it imports everything once, and forks a child for each life,
# which generates with a real model until it is killed.
NURSERY = """
    import json, os, random, signal, sys, time
    import torch, transformers
    from contemplative_cai.core.recipe import build_recipe
    from contemplative_cai.models.catalog import model_spec
    from contemplative_cai.models.local import load_llm
    from contemplative_cai.pairs.generate import generate_pairs
    from contemplative_cai.core.run import open_run

    log, kills, dice = sys.argv[1], int(sys.argv[2]), random.Random(7)
    recipe = build_recipe(dict(
        model="smollm2-135m", temperature=0, repetition_penalty=1.15, n_prompts=4, n_few_shot=1, answer_tokens=24,
        critique_tokens=20, revision_tokens=24, batch_size=4, filters=[], n_eval_prompts=0, guarded=[],
        judge="none"))  # a critic that is measured for the first time asks more than one that is remembered

    def live(name, told):
        llm = load_llm(model_spec(recipe.model), recipe.dtype, "cpu", batch_size=recipe.batch_size)
        answer = llm.chat
        def counted(conversations, sampling):
            with open(log, "a") as file: file.write(f"{name} {len(conversations)}\\n")
            return answer(conversations, sampling)
        llm.chat = counted
        os.write(told, b"x")
        generate_pairs(open_run(name), recipe, llm)

    def life(name, seconds=None):
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            try: live(name, told)
            except BaseException as error: print(repr(error), file=sys.stderr); os._exit(1)
            os._exit(0)
        os.close(told)
        os.read(heard, 1)
        os.close(heard)
        started = time.monotonic()
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        return os.waitstatus_to_exitcode(status), time.monotonic() - started

    code, whole = life("whole")
    assert code == 0
    codes = [life("killed", dice.uniform(0, whole / 6))[0] for _ in range(kills)]
    last, _ = life("killed")
    print(json.dumps({"codes": codes, "last": last}))
"""


@pytest.mark.long
@pytest.mark.parametrize("kills", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_change_nothing(runs, tmp_path, kills):
    """SIGKILL at random moments of one generation with the embedded model:
    the same files byte for byte, and only calls in flight made again."""
    batch = 4
    nursery = python(NURSERY, str(tmp_path / "log"), str(kills))
    out, err = nursery.communicate(timeout=1500)
    assert nursery.returncode == 0, err[-2000:]
    told = json.loads(out.splitlines()[-1])
    assert told["last"] == 0 and told["codes"].count(-9) >= kills // 4, "most lives were to end by a kill"
    for name in ("pairs.jsonl", "dropped.jsonl", "split.json"):
        assert (runs / "killed" / name).read_bytes() == (runs / "whole" / name).read_bytes(), name
    assert (runs / "whole" / "pairs.jsonl").stat().st_size > 1000
    calls = {name: sum(int(line.split()[1])
                       for line in (tmp_path / "log").read_text().splitlines() if line.split()[0] == name)
             for name in ("whole", "killed")}
    stored = {name: (sqlite3.connect(runs / name / "journal.sqlite")
                     .execute("SELECT key, completion FROM calls ORDER BY key").fetchall())
              for name in ("whole", "killed")}
    assert stored["whole"] == stored["killed"] and len(stored["whole"]) == calls["whole"]
    assert calls["killed"] - calls["whole"] <= told["codes"].count(-9) * batch


HOLDER = """
    import sys
    from contemplative_cai.core.run import open_run, step
    with step(open_run("mine"), "generate"):
        print("working", flush=True)
        sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_dead_one_is_not_in_the_way(runs):
    holder = python(HOLDER, stdin=subprocess.PIPE)
    assert holder.stdout.readline() == "working\n"
    run = open_run("mine")
    with pytest.raises(InputError,
                       match=rf"'mine' is being worked on \(step 'generate', process {holder.pid}.*ccai status mine"):
        refuse_busy(run)
    before = run.path("run.json").read_bytes()
    ccai = subprocess.run([
        sys.executable, "-c",
        "import sys; from contemplative_cai.command.commands import main; sys.exit(main(sys.argv[1:]))", "run",
        "generate", "--run", "mine", "-p", "n_prompts=3"
    ], capture_output=True, text=True)
    assert ccai.returncode == 2 and "is being worked on" in ccai.stderr and "Traceback" not in ccai.stderr
    assert run.path("run.json").read_bytes() == before
    with step(run, "review"): pass  # people may review meanwhile
    holder.kill()
    holder.wait()
    refuse_busy(run)


def test_a_locked_journal_is_said(tmp_path):
    Journal(tmp_path / "j.sqlite").close()
    other = sqlite3.connect(tmp_path / "j.sqlite", isolation_level=None)
    with Journal(tmp_path / "j.sqlite", wait=0.2) as journal:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match="keeps the journal locked.*run the same command again"):
            journal.save("respond", {"k0": ROWS["k0"]}, 1.0)
        other.execute("ROLLBACK")
        journal.save("respond", {"k0": ROWS["k0"]}, 1.0)
        assert journal.get(["k0"])


LIMITED = """
    import resource, signal, sys
    from pathlib import Path
    from contemplative_cai.core.journal import Journal
    from contemplative_cai.core.schema import InputError
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    done = 0
    with Journal(Path(sys.argv[1])) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            for i in range(2000):
                call = {"text": "word " * 200, "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 200}
                journal.save("respond", {f"k{i}": call}, 0.1)
                done += 1
        except InputError as error: print(done, error)
"""


def test_a_full_disk_keeps_every_committed_call(tmp_path):
    "The file may not grow: what was committed is there afterwards, and the journal goes on."
    out, err = python(LIMITED, str(tmp_path / "j.sqlite")).communicate(timeout=120)
    done = int(out.split(" ", 1)[0])
    assert done > 10 and "no disk space" in out and "run the same command again" in out, err
    with Journal(tmp_path / "j.sqlite") as journal:
        assert len(journal.get([f"k{i}" for i in range(done)])) == done
        journal.save("respond", {"after": ROWS["k0"]}, 0.1)
        assert journal.get(["after"])


@pytest.mark.parametrize("pages", [(8,), (15, 40), range(30, 34)])
def test_what_can_be_read_of_a_damaged_journal_is_saved(tmp_path, pages):
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.save("respond", ROWS, 60.0, {key: (f"a-{key}", 96) for key in ROWS})
        journal.fail("revise", {"f1": "out of memory"})
    with open(path, "r+b") as file:
        for page in pages: file.seek(page * 4096); file.write(os.urandom(4096))
    with pytest.raises(InputError, match="ccai repair"): Journal(path)
    saved, old = salvage(path)
    assert old.name == "journal.sqlite.damaged-1" and old.exists()
    with Journal(path) as journal:
        found = journal.get(list(ROWS))
        assert len(found) == saved >= 600 - 40 * len(pages) and all(ROWS[key] == value for key, value in found.items())
        lost = [key for key in ROWS if key not in found]
        journal.save("respond", {key: ROWS[key] for key in lost}, 1.0)
        assert journal.get(list(ROWS)) == ROWS


def test_repair_by_command(runs, capsys):
    from contemplative_cai.command.commands import main
    run = open_run("mine")
    run.record(steps={})
    with Journal(run.path("journal.sqlite")) as journal: journal.save("respond", ROWS, 1.0)
    assert main(["repair", "mine"]) == 0 and "nothing to repair" in capsys.readouterr().out
    with open(run.path("journal.sqlite"), "r+b") as file: file.seek(20 * 4096); file.write(os.urandom(4096))
    assert main(["repair", "mine"]) == 0 and "calls saved" in capsys.readouterr().out
    run.path("journal.sqlite").write_bytes(os.urandom(50_000))
    assert main(["repair", "mine"]) == 2 and "no call in it can be read" in capsys.readouterr().err
    assert run.path("journal.sqlite").stat().st_size == 50_000, "what could not be repaired stays where it was"


def test_a_network_file_system_gets_the_rollback_log(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n30 22 0:44 / /mnt/lab rw shared:9 - nfs4 "
                      "server:/lab rw\n31 22 0:45 / /mnt/lab\\040two rw - cifs //server/two rw\n")
    from pathlib import Path
    assert ([file_system(Path(p), mounts) for p in ("/mnt/lab/runs/x", "/mnt/laboratory/x", "/mnt/lab two/x", "/home")]
            == ["nfs4", "ext4", "cifs", "ext4"])
    monkeypatch.setattr("contemplative_cai.core.journal.file_system", lambda path: "nfs4")
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.save("respond", ROWS, 1.0)
        assert (journal._db.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
                and len(journal.get(list(ROWS))) == 600)
    assert not list(tmp_path.glob("*-wal"))


def test_a_journal_of_the_first_version_still_serves(tmp_path):
    "A file without the second digest is read and goes on."
    old = sqlite3.connect(tmp_path / "j.sqlite")
    old.execute("CREATE TABLE calls (key TEXT PRIMARY KEY, stage TEXT NOT NULL, completion TEXT NOT NULL, "
                "seconds REAL NOT NULL, ended TEXT NOT NULL)")
    old.execute("INSERT INTO calls VALUES ('k0', 'respond', ?, 1.0, '2026-01-01')",
                (json.dumps({"text": "Hello.", "finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 2}),))
    old.commit()
    old.close()
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.get(["k0"])["k0"]["text"] == "Hello."
        journal.save("respond", {"k1": ROWS["k1"]}, 1.0, {"k1": ("a1", 96)})
        assert set(journal.get(["k0", "k1"])) == {"k0", "k1"} and journal.totals()["respond"]["calls"] == 2


def test_the_ledger_adds_up_over_sessions(runs):
    run, llm = open_run("mine"), ScriptedLLM(lambda c: c[-1].content)
    for n in (2, 5, 5):
        with Journal(run.path("journal.sqlite")) as journal:
            ask(llm, journal, "respond", [user(f"word {i}") for i in range(n)], Sampling(max_tokens=9))
        stages = write_ledger(run, train={"seconds": 10.0}).stages
    assert (stages["respond"].calls == 5 == len(llm.calls)
            and stages["respond"].tokens_out == 10 and stages["train"].seconds == 30.0)
    assert (stages["train"].tokens_out is None
            and stages["respond"].tokens_cached is None), "what nobody counted is null"


def test_status_says_how_fast_and_how_long_while_it_runs(runs, capsys):
    "A second process reads what the working one writes."
    from contemplative_cai.command.commands import main
    holder = python("""
        import sys, time
        from contemplative_cai.core.terminal import Progress
        from contemplative_cai.core.run import open_run, step
        run = open_run("mine")
        with step(run, "generate"):
            progress = Progress(run, "critique", total=40)
            time.sleep(1.2)
            progress.advance(10, tokens=960)
            print("working", flush=True)
            sys.stdin.read()
        """, stdin=subprocess.PIPE)
    assert holder.stdout.readline() == "working\n"
    assert main(["status", "mine"]) == 0
    said = capsys.readouterr().out
    assert ("generate     running" in said and "critique: 10 of 40 calls" in said
            and " tokens/s" in said and "to go" in said)
    holder.kill()
    holder.wait()
    assert main(["status", "mine"]) == 0 and "its process is gone" in capsys.readouterr().out
