"""Files that grow line by line, and the values in JSON: whole lines or none, numbers that are numbers, messages that
say the same when they are passed on."""
import gzip
import json
import os
import resource
import signal
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import within

from contemplative_cai.core.errors import LONGEST_MESSAGE, MOST_MESSAGES, InputError
from contemplative_cai.core.files import (
    append_lines,
    append_row,
    read_json,
    read_lines,
    read_rows,
    readable_rows,
    write_json,
    write_rows,
)
from contemplative_cai.core.journal import Journal, salvage
from contemplative_cai.core.run import alive, hold, open_run, read_manifest, step
from contemplative_cai.core.schema import Record
from contemplative_cai.core.terminal import Standing, progress_line

many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# every sign that something somewhere takes for the end of a line, and half a character
TEXTS = st.text(st.sampled_from(list("a}{\"\\\n\r\t\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\ufeff\0\ud800é")), max_size=12)


class Note(Record):
    text: str


def stored(text):
    return text.replace("\ud800", "\ufffd")


@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
@many
def test_any_text_comes_back_from_a_line(texts, tmp_path):
    for name in ("people.jsonl", "training.jsonl", "rows.jsonl"): (tmp_path / name).unlink(missing_ok=True)
    for text in texts:
        append_row(tmp_path / "people.jsonl", Note(text=text))
        append_lines(tmp_path / "training.jsonl", [{"text": text}])
    write_rows(tmp_path / "rows.jsonl", [Note(text=text) for text in texts])
    wanted = list(map(stored, texts))
    rows, damage = readable_rows(tmp_path / "people.jsonl", Note)
    assert [row.text for row in rows] == wanted and not damage
    assert [row["text"] for row in read_lines(tmp_path / "training.jsonl")] == wanted
    assert [row.text for row in read_rows(tmp_path / "rows.jsonl", Note)] == wanted


@given(before=st.lists(TEXTS, max_size=3), torn=st.binary(max_size=6), room=st.integers(0, 40))
@many
def test_a_line_that_does_not_fit_leaves_no_trace_and_the_next_one_is_whole(before, torn, room, tmp_path):
    for path, add in ((tmp_path / "people.jsonl", lambda path: append_row(path, Note(text="x" * 60))),
                      (tmp_path / "training.jsonl", lambda path: append_lines(path, [{"text": "x" * 30}] * 2))):
        path.write_bytes(b"".join(json.dumps({"text": stored(text)}).encode() + b"\n" for text in before)
                         + torn.replace(b"\x1f", b""))
        content, most = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) + room, most[1]))  # here the disk is full
        try:
            with pytest.raises(OSError): add(path)
        finally: resource.setrlimit(resource.RLIMIT_FSIZE, most)
        assert path.read_bytes() == content
        add(path)
        after = path.read_bytes()
        assert after.startswith(content) and json.loads(after.split(b"\n")[-2])["text"].startswith("xxx")


PLACES = {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/full"), "folder": lambda path: path.mkdir(),
          "loop": lambda path: path.symlink_to(path), "nowhere": lambda path: path.symlink_to("/no/such/place"),
          "gzip": lambda path: path.write_bytes(gzip.compress(b'{"text": "a"}\n'))}


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_added_to_what_is_no_log(place, tmp_path):
    path = tmp_path / "log.jsonl"
    PLACES[place](path)
    before = path.read_bytes() if place == "gzip" else None
    for add in (lambda: append_row(path, Note(text="a")), lambda: append_lines(path, [{"a": 1}])):
        with within(5), pytest.raises(InputError, match="move it away|unpack"): add()
    assert before is None or path.read_bytes() == before


def test_an_editors_mark_costs_no_decision(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n')
    assert [row.text for row in readable_rows(tmp_path / "log.jsonl", Note)[0]] == ["a", "b"]


@pytest.mark.parametrize("last", ['{"step": 2, "lo', '{"step": 2, "more": {"a": 1}', '{"step": 2}', "\0" * 30, ""])
def test_a_training_that_writes_now_may_be_looked_at(last, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n' + last)
    steps = [row["step"] for row in read_lines(tmp_path / "metrics.jsonl")]
    assert steps == ([1, 2] if last == '{"step": 2}' else [1])


@pytest.mark.parametrize("place", [None, "deep", "list"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 30, "-" + "9" * 4000,
                                    r'"\ud800"', r'"a\uDFFFb"'])
def test_a_value_that_is_none_is_refused_where_it_is_read(number, place, tmp_path):
    text = {None: number, "deep": f'{{"b": {{"c": {number}}}}}', "list": f"[1, [{number}]]"}[place]
    (tmp_path / "run.json").write_text(f'{{"a": {text}}}')
    with pytest.raises(InputError, match="restore the file") as refused: read_json(tmp_path / "run.json")
    assert len(str(refused.value)) < 600


@given(value=st.dictionaries(TEXTS.map(stored), st.integers(-2**63, 2**63 - 1) | TEXTS.map(stored)
                             | st.floats(allow_nan=False, allow_infinity=False), max_size=4))
@many
def test_what_is_written_is_read(value, tmp_path):
    write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == value
    (tmp_path / "value.json").write_text(json.dumps(value))  # the same with escapes, pairs of halves among them
    assert read_json(tmp_path / "value.json") == value


def test_an_error_with_half_a_character_is_recorded():
    "The name of a file that is not UTF-8 has some, and the step's end is written all the same."
    run = open_run("named")
    with pytest.raises(OSError), step(run, "train"): open(b"/no/such/\xff\xfe")
    with pytest.raises(ValueError, match="caf"), step(run, "train"): raise ValueError("caf\udce9")
    assert read_manifest(run).steps["train"].status == "failed"


@pytest.mark.parametrize("pid", [None, 0, -1, -2**31, 2**31, 2**63, 10**30])
def test_no_number_of_a_process_is_alive_by_mistake(pid):
    assert not alive(pid) and alive(os.getpid())


@pytest.mark.parametrize("place", ["folder", "device", "loop", "nowhere"])
def test_a_lock_that_is_none_and_a_record_that_is_elsewhere_are_told(place):
    run = open_run("odd")
    PLACES[place](run.path(".lock"))
    with pytest.raises(InputError, match="is a lock"), hold(run): pass
    if place in ("loop", "nowhere"):
        PLACES[place](run.path("run.json"))
        for read in (lambda: run.manifest, lambda: read_manifest(run)):
            with pytest.raises(InputError, match="run.json"): read()


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
@pytest.mark.parametrize("place", [place for place in PLACES if place != "gzip"])
def test_a_journal_that_is_no_file_is_told_and_not_repaired(place, end, tmp_path):
    PLACES[place](tmp_path / f"journal.sqlite{end}")
    for act in (Journal, salvage):
        with within(5), pytest.raises(InputError, match="expected a regular file"): act(tmp_path / "journal.sqlite")


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="a file that cannot be read is made of Linux's /proc")
def test_a_journal_that_the_disk_does_not_give_is_told_and_leaves_no_draft(tmp_path):
    (tmp_path / "journal.sqlite").symlink_to("/proc/self/mem")
    for act in (Journal, salvage):
        with within(5), pytest.raises(InputError, match="journal.sqlite"): act(tmp_path / "journal.sqlite")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


DAMAGES = ["UPDATE calls SET completion = '{not json' WHERE key = 'k1'", "UPDATE calls SET completion = x'ff00'",
           "UPDATE calls SET completion = '[1]' WHERE key = 'k2'", "UPDATE calls SET completion = '' WHERE key = 'k1'",
           f"UPDATE calls SET completion = '{'[' * 50_000}' WHERE key = 'k0'",
           "UPDATE calls SET completion = 'null'", "UPDATE calls SET stage = x'00ff'",
           "ALTER TABLE calls RENAME TO other; CREATE VIEW calls AS SELECT * FROM other",
           "ALTER TABLE calls ADD COLUMN future TEXT DEFAULT 'x'", "DROP TABLE failures",
           "DROP TABLE calls; CREATE TABLE calls (key TEXT PRIMARY KEY, stage TEXT)",
           "CREATE TRIGGER t BEFORE INSERT ON calls BEGIN SELECT RAISE(ABORT, 'no'); END"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_rows_of_a_journal_are_told_and_the_others_saved(damage, tmp_path):
    path, completion = tmp_path / "journal.sqlite", {"text": "a", "finish_reason": "stop", "prompt_tokens": 1,
                                                     "completion_tokens": 1}
    with Journal(path) as journal: journal.save("respond", {f"k{i}": completion for i in range(3)}, 1.0)
    db = sqlite3.connect(path)
    db.executescript(damage)
    db.close()
    def used():
        with Journal(path) as journal:
            journal.totals()
            journal.get(["k0", "k1", "k2"])
            journal.save("respond", {"k3": completion}, 1.0)
    try: used()
    except InputError as error:
        assert "ccai repair" in str(error)
        try: saved, _ = salvage(path)
        except InputError as none: assert "no call in it can be read" in str(none)
        else:
            assert 0 < saved <= 3
            used()


@given(faults=st.lists(TEXTS.map(lambda text: text * 400) | st.text(max_size=30) | st.just("x" * 3000)
                       | st.just("\x1b" * 1990), max_size=80))
@many
def test_messages_that_are_passed_on_stay_what_they_were(faults):
    error = InputError(*faults)
    assert InputError(*error.problems).problems == error.problems
    assert all(len(problem) <= LONGEST_MESSAGE + 60 and "\n" not in problem for problem in error.problems)
    both = InputError(*error.problems, *error.problems)
    told = len(both.problems) if len(faults) * 2 <= MOST_MESSAGES else MOST_MESSAGES + int(both.problems[-1].split()[1])
    assert told == 2 * len(faults), "none is counted twice, none is forgotten"


@given(stage=TEXTS, unit=TEXTS)
@many
def test_a_line_of_progress_is_one_line(stage, unit):
    state = Standing(stage=stored(stage), unit=stored(unit), done=1, total=2).model_dump()
    assert progress_line(state).isprintable()


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b"\xff", b'{"stage": 5}', b"[" * 100_000, b"\0" * 99,
                                     b'{"stage": "a", "unit": "b", "done": "many", "total": 1}',
                                     b'{"stage": "a", "unit": "b", "done": 1, "total": 1, "elapsed": 1e999}'])
def test_a_progress_that_cannot_be_read_ends_no_watch(content, tmp_path, capsys):
    from contemplative_cai.command.pipeline import _ProgressLine
    path = tmp_path / "progress.json"
    line = _ProgressLine(path)
    path.write_bytes(content)
    line.look(30.0)
    write_json(path, {"stage": "respond", "unit": "calls", "done": 2, "total": 2})
    line.look(30.0)
    assert "2 of 2" in "".join(capsys.readouterr())
