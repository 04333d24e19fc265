"""Files as people really have them: what is read is right,
or an `InputError` names file, line and remedy; nothing else, and nothing hangs."""
import datetime
import gzip
import json
import os
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support import within

from contemplative_cai.command.builder import WORKED_EXAMPLE_FIELDS, Draft
from contemplative_cai.command.commands import main
from contemplative_cai.command.lint import diff_constitutions, lint_file, show_text
from contemplative_cai.core.foreign import visible
from contemplative_cai.core.recipe import Source
from contemplative_cai.core.schema import InputError, Prompt
from contemplative_cai.inputs.constitution import (
    combine,
    dump_constitution,
    leave_out,
    load_constitution,
    parse_constitution,
)
from contemplative_cai.inputs.dialects import canonical_id, dialect, read_dialect
from contemplative_cai.inputs.sources import draw_prompts, load_prompts, pool_prompts
from contemplative_cai.inputs.split import check_split, read_split, split_prompts
from contemplative_cai.inputs.tables import clean_text, is_visible, read_prompts

A, B = "How do I boil rice for ten guests?", "When do I water the roses?"
CSV, JSONL = f"text\n{A}\n{B}\n", f'{{"text": "{A}"}}\n{{"text": "{B}"}}\n'
FRONT = {"id": "garden", "title": "Garden", "language": "en", "version": '"1"'}
EXAMPLE = ("\n### Example 1\n\n#### Prompt\n\nIs it late?\n\n#### Response\n\nYes.\n\n#### Critique\n\nCurt.\n\n"
           "#### Revision\n\nIt is, and there is tea.\n")
fuzz = settings(max_examples=60, deadline=None)


def pack(content: bytes) -> bytes:
    "Gzipped, without the time, which would be in the names of the tests."
    return gzip.compress(content, mtime=0)


def short(value):
    "A parameter as a test's name: its first letters; None for what has none."
    return re.sub(r"\W+", " ", repr(value[:200]))[:32].strip() if isinstance(value, str | bytes) else None


def cases(names, values, ids=short):
    "A test for every one of `values`, under a short name."
    return pytest.mark.parametrize(names, values, ids=ids)


def seconds(limit=30):
    "Fails when the block takes longer."
    return within(limit)


def refused(read, *there, hidden=("boil rice", "water the roses")):
    "The message of the `InputError` that `read` raises; `there` is in it, `hidden` is not."
    with seconds(), pytest.raises(InputError) as caught: read()
    message = str(caught.value)
    assert all(part in message for part in there), message
    assert not any(part in message for part in hidden), message
    return message


def attempt(read):
    "What `read` returns, or None when it raises `InputError`; every other exception is passed on."
    with seconds():
        try: return read()
        except InputError as error: assert str(error).strip()


def texts(path, **source):
    "The prompts' texts."
    with seconds():
        return [prompt.text
                for prompt in read_prompts(path, source=Source(source=str(path), **source) if source else None)]


# tables: line ends, encodings, packing


@cases("name, content", [
    ("bom.csv", "\ufeff" + CSV),
    ("bom, quoted header.csv", f'\ufeff"text"\n{A}\n{B}'),
    ("crlf.csv", CSV.replace("\n", "\r\n")),
    ("cr.csv", CSV.replace("\n", "\r")),
    ("crcrlf.csv", CSV.replace("\n", "\r\r\n")),
    ("mixed.csv", f"text\r\n{A}\r{B}\n"),
    ("no line end at the end.csv", CSV.strip()),
    ("blank lines.csv", CSV.replace("\n", "\n\n") + "\n\n"),
    ("nul.csv", CSV.replace(A, A[:5] + "\0" + A[5:])),
    ("CAPITALS.CSV", CSV),
    ("spaces around the header.csv", CSV.replace("text", "  text ")),
    ("bom.jsonl", "\ufeff" + JSONL),
    ("crlf.jsonl", JSONL.replace("\n", "\r\n")),
    ("blank lines.jsonl", "\n \n" + JSONL.replace("\n", "\n\t\n")),
    ("keys that differ.jsonl", JSONL.replace('"}\n', '", "extra": {"deep": [1]}}\n', 1)),
    ("packed.csv.gz", pack(CSV.encode())),
    ("packed.jsonl.gz", pack(JSONL.encode())),
    ("two members.csv.gz", pack(f"text\n{A}\n".encode()) + pack(f"{B}\n".encode())),
    ("packed after all.csv", pack(CSV.encode())),
    ("packed after all.jsonl", pack(JSONL.encode())),
    ("not packed.csv.gz", CSV),
    ("not packed.jsonl.gz", JSONL),
    ("fräge ☕ два.csv", CSV),
    ("joined.csv", f"text\n{A}\n\ufeff{B}\n"),
    ("blank first.csv", "\n\n" + CSV),
    (".hidden.csv", CSV),
])
def test_the_same_two_prompts_from_every_kind_of_file(write, name, content):
    assert texts(write(name, content)) == [A, B]


@cases("name, content, there", [
    ("x.csv", CSV.encode("utf-16"), ["line 1", "UTF-8"]),
    ("x.csv", CSV.encode("utf-32"), ["line 1", "UTF-8"]),
    ("x.jsonl", JSONL.encode("utf-16"), ["line 1", "UTF-8"]),
    ("x.csv", CSV.encode("utf-16-le"), ["column 'text' is missing"]),
    ("x.jsonl", JSONL.encode("utf-16-be"), ["line 1", "JSON"]),
    ("x.csv", CSV.encode() + "Un café ?\n".encode("latin-1"), ["line 4", "UTF-8"]),
    ("x.jsonl", JSONL.encode() + '{"text": "Un café ?"}\n'.encode("latin-1"), ["line 3", "UTF-8"]),
    ("x.csv", f"text\n{A} ☕\n".encode() + "naïf\n".encode("latin-1"), ["line 3", "UTF-8"]),
    ("x.csv.gz", pack("text\ncafé\n".encode("latin-1")), ["line 2", "UTF-8"]),
    ("x.csv", CSV.replace("\n", "\r").encode() + b"caf\xe9\r", ["line 4", "UTF-8"]),
    ("x.csv.gz", pack(CSV.encode())[:-4], ["gzip", "again"]),
    ("x.csv.gz", pack(CSV.encode())[:15], ["gzip"]),
    ("x.csv.gz", b"\x1f\x8b", ["gzip"]),
    ("x.jsonl.gz", pack(JSONL.encode()) + b"more", ["gzip"]),
    ("x.csv.gz", b"\x1f\x8b\x08\xff" + b"a" * 40, ["gzip"]),
    ("x.csv.gz", pack(pack(CSV.encode())), ["UTF-8"]),
    ("x.csv.gz.gz", CSV, [".parquet file"]),
    ("x.tsv", CSV, [".parquet file"]),
    ("x", CSV, [".parquet file"]),
    ("x.parquet.gz", pack(CSV.encode()), ["Parquet"]),
    ("x.csv", "", ["empty"]),
    ("x.csv", "\ufeff", ["empty"]),
    ("x.csv", "\n\n\n", ["empty"]),
    ("x.jsonl", " \n\n", ["empty"]),
    ("x.csv.gz", pack(b""), ["empty"]),
    ("x.csv", "text\n", ["no prompts"]),
    ("x.csv", "text\n\n\r\n", ["no prompts"]),
    ("x.jsonl", "\0", ["line 1"]),
    ("x.csv", "text,id\nOne?,1\n,2\n", ["line 3", "text", "visible"]),
    ("x.csv", "id,text\n1,One?\n2\n", ["line 3", "text"]),
    ("x.csv", f"text,id\n\"{A}\n{A}\",1\n   ,2\n", ["line 4", "text"]),
    ("x.csv", f"text,id\n{A}, please,1\n", ["line 2", "3 values for 2", "quote"]),
    ("x.csv", "text,id\nOne?,1\n,2\n,\n", ["line 3", "text"]),
    ("x.csv", "text,text\nOne?,Two?\n", ["line 1", "'text'", "twice"]),
    ("x.csv", " text,text \nOne?,Two?\n", ["line 1", "twice"]),
    ("x.csv", f"text,{A * 2},{A * 2}\nOne?,1,2\n", ["line 1", "twice"]),
    ("x.csv", f"{A * 2}\n{B}\n", ["column 'text' is missing", "68 characters"]),
    ("x.csv", "text;id\nOne?;1\n", ["text;id"]),
    ("x.csv", "text\tid\nOne?\t1\n", ["column 'text' is missing"]),
    ("x.csv", f'text\n"{A}" {B}\n', ["line 2", "CSV"]),
    ("x.csv", f'text\nOne?\n"{A}\n', ["line 3", "CSV"]),
    ("x.csv", f'"text\n{A}\n', ["CSV"]),
    ("x.csv", f'text\nOne?\n"{A}\n' + "Next?\n" * 50, ["line 3", "CSV"]),
    ("x.jsonl", f'{{"text": "{A}", "text": "{B}"}}', ["line 1", "'text' appears twice"]),
    ("x.jsonl", JSONL + f'{{"text": "One?", "{A * 2}": 1, "{A * 2}": 2}}', ["line 3", "twice"]),
    ("x.jsonl", JSONL + '{"text": "One?", "m": {"a": 1, "a": 2}}', ["line 3", "twice"]),
    ("x.jsonl", JSONL + f'{{"text": "{A}"', ["line 3", "JSON"]),
    ("x.jsonl", JSONL + f'"{A}"', ["line 3", "object"]),
    ("x.jsonl", JSONL + f'["{A}"]', ["line 3", "object"]),
    ("x.jsonl", f'[\n{{"text": "{A}"}}\n]', ["line 1"]),
    ("x.jsonl", JSONL.replace("\n", "\r"), ["line 1"]),
    ("x.jsonl", JSONL + "\ufeff" + JSONL, ["line 3"]),
    ("x.jsonl", JSONL + "{'text': 'One?'}", ["line 3", "JSON"]),
    ("x.jsonl", JSONL + '{"text": "One?", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", ["line 3"]),
    ("x.jsonl", JSONL + '{"text": "One?", "x": ' + "9" * 5000 + "}", ["line 3"]),
    ("x.jsonl", '{"question": "One?"}', ["column 'text' is missing", "question"]),
    ("x.jsonl", JSONL + '{"question": "One?"}', ["line 3", "text"]),
])
def test_what_cannot_be_read_is_named(write, name, content, there):
    "The file, the line, and none of the prompts."
    path = write(name, content)
    refused(lambda: read_prompts(path), name, *there)
    refused(lambda: draw_prompts([str(path)], 1), *there)


@cases("name, content", [
    ("x.csv", "text,id\nOne?, two?,1\n"), ("x.csv", "text,text\n1,2\n"), ("x.csv", "question\nOne?\n"),
    ("x.jsonl", "[1]"), ("x.csv", b"caf\xe9"), ("x.csv.gz", b"\x1f\x8b\x08"), ("x.jsonl", '{"text": 5}'),
    ("x.jsonl", '{"text": "One?", "hazard": true}'), ("x.jsonl", '{"text": "One?"'), ("x.csv", 'text\n"One?" Two?\n')
])
def test_the_message_says_what_to_do(write, name, content):
    assert re.search(r"(?i)\b(save|fetch|rename|write|quote|expected (an?|a \S+) object|needs|close|put)\b",
                     refused(lambda: read_prompts(write(name, content)), name))


@cases("content, expected", [
    (f'text\n{A[:3]} "quoted" word\n', [f'{A[:3]} "quoted" word']),
    ('text\n"one ""two"" three"\n', ['one "two" three']),
    ('text,id\n "a" b,1\n', ['"a" b']),
    ('text\n"one, two\nand three"\n', ["one, two\nand three"]),
    ('text\n"one\r\ntwo\rthree"\n', ["one\ntwo\nthree"]),
    ("text\na\u2028b\x0cc\x85d\n", ["a\u2028bcd"]),
    ("text\n\x13a\x14 \x1cb\x1d\n", ["–a— “b”".replace("–", "\u2013").replace("—", "\u2014")]),
    ("text\n😀 👩‍👩‍👧 é\n", ["😀 👩‍👩‍👧 é"]),
    ("text,,\none,,\n", ["one"]),
    ("sep=,\ntext\none\n", None),
])
def test_quotes_and_odd_characters_in_csv(write, content, expected):
    path = write("x.csv", content)
    if expected is None: refused(lambda: read_prompts(path), "x.csv")
    else: assert texts(path) == expected


@cases("name, content", [
    ("x.csv", "text\n" + "word " * 200_000 + "\n"), ("x.jsonl", json.dumps({"text": "word " * 200_000})),
    ("x.csv", 'text\n"' + 'He said ""hi"" ' * 70_000 + '"\n'), ("x.csv", "text\n" + "A?\n" * 30_000)
], ids=["csv", "jsonl", "quotes", "many lines"])
def test_huge_files(write, name, content):
    "A prompt of a megabyte, or thirty thousand of them."
    found = texts(write(name, content))
    assert len(found) in (1, 30_000) and len(found) * len(found[0]) >= 60_000


@cases("content",
       ['text\n"' + "word " * 200_000, "text\n" + '"a' * 300_000, 'text\n"' + "word\n" * 200_000,
        "," * 300_000 + "\n1\n", '"' * 500_001],
       ids=["open quote", "quotes", "open quote, many lines", "commas", "only quotes"])
def test_huge_files_that_are_broken(write, content):
    assert len(refused(lambda: read_prompts(write("x.csv", content)), "x.csv", hidden=("word word",))) < 1000


# tables: what a value can be


@cases("value", ["5", "1.5", "null", "true", '["How do I boil rice?"]', '{"a": "How do I boil rice?"}', '""',
                 '" \\n\\t"', '"\\u0000\\u0007"', "NaN", "Infinity", "1e999", '"\\u200b\\ufeff"'])
def test_a_text_that_is_none(write, value):
    refused(lambda: read_prompts(write("x.jsonl", JSONL + f'{{"text": {value}}}')), "x.jsonl, line 3: text: ")


@cases("field", ["hazard", "persona", "locale", "principle", "tension"])
@cases("value", ["true", '["boil rice"]', '{"a": "boil rice"}'])
def test_a_field_that_is_no_text(write, field, value):
    refused(lambda: read_prompts(write("x.jsonl", JSONL + f'{{"text": "One?", "{field}": {value}}}')),
            f"x.jsonl, line 3: {field}: ", "write it as text")


@cases("field", ["hazard", "persona", "locale", "principle", "topic", "tension", "label"])
@cases("value", ["null", '""', '" \\t"'])
def test_an_empty_cell_says_nothing(write, field, value):
    bare, said = (read_prompts(write("x.jsonl", content))[0]
                  for content in ('{"text": "One?"}', f'{{"text": "One?", "{field}": {value}}}'))
    assert bare == said


@cases("value, expected", [("3", "3"), ("0", "0"), ("2.5", "2.5"), ("null", "line 1"), ('""', "line 1"),
                           ('" \\t"', "line 1"), ('" a b "', "a b"), ("9" * 40, "9" * 40), ("NaN", "line 1"),
                           *((value, None) for value in ("1e999", '["a"]', '{"a": 1}'))])
def test_ids_are_numbers_or_texts(write, value, expected):
    "Anything else is refused."
    path = write("x.jsonl", f'{{"text": "One?", "id": {value}}}')
    if expected is None: refused(lambda: read_prompts(path), "x.jsonl, line 1: ", "id")
    else: assert read_prompts(path)[0].source_id == expected


@cases("row", ['{"text": "A \\ud83d\\ude00 b"}',
               *(row for row in ('{"text": "A \\ud800 b"}', '{"text": "A b", "id": "\\ud800"}',
                                 '{"text": "A b", "hazard": "\\udfff"}', '{"text": "A b", "label": "x\\udfff"}'))])
def test_a_prompt_that_is_read_can_be_written(write, row):
    "Surrogate escapes: a pair is a character, half of one is refused or taken away."
    for prompt in attempt(lambda: read_prompts(write("x.jsonl", row))) or ():
        assert Prompt.model_validate_json(prompt.model_dump_json()) == prompt


@cases("row", [
    '{"turns": [5], "question_id": 1, "category": "x"}',
    '{"turns": [], "question_id": 1, "category": "x"}',
    '{"turns": [null], "question_id": 1, "category": "x"}',
    '{"turns": {"a": 1}, "question_id": 1, "category": "x"}',
    '{"chosen": 5, "rejected": ""}',
    '{"chosen": "", "rejected": ""}',
    '{"chosen": "How do I boil rice?", "rejected": ""}',
    '{"chosen": "\\n\\nHuman: \\n\\nAssistant: Hi", "rejected": ""}',
    '{"chosen": ["Human: Hi"], "rejected": ""}',
])
def test_conversations_that_are_none(write, row):
    for history in (False, True):
        refused(lambda history=history: texts(write("x.jsonl", row), history=history), "x.jsonl, line 1: ")


@cases("columns, there", [
    ({"text": "q"}, None), ({"text": "q", "hazard": "k", "id": "n"}, None),
    ({"text": "t"}, ["'t'", "missing", "q, k, n"]), ({"txt": "q"}, ["'txt'", "did you mean 'text'"]),
    ({"hazard": "k"}, ["'text' is missing"]), ({"text": "n"}, None), ({"text": ""}, ["missing"])
])
@cases("ending", ["csv", "jsonl"])
def test_column_maps(write, columns, there, ending):
    path = write(f"x.{ending}", "q,k,n\nOne?,hte,7\n" if ending == "csv" else '{"q": "One?", "k": "hte", "n": "7"}')
    if there: refused(lambda: texts(path, columns=columns), f"x.{ending}", *there)
    else:
        prompt = read_prompts(path, source=Source(source=str(path), columns=columns))[0]
        assert (prompt.text == ("7" if columns["text"] == "n" else "One?")
                and (not columns.get("hazard") or (prompt.hazard, prompt.source_id) == ("hte", "7")))


# Parquet


@pytest.fixture
def parquet(tmp_path):
    "Write columns to a Parquet file; returns its path."
    import pyarrow.parquet
    def file(columns, name="x.parquet"):
        pyarrow.parquet.write_table(columns if isinstance(columns, pyarrow.Table) else pyarrow.table(columns),
                                    tmp_path / name)
        return tmp_path / name
    return file


def test_parquet_columns_of_every_kind(parquet):
    "Columns that are not asked for may hold anything; text may be large, or a dictionary."
    import pyarrow as pa
    others = {"meta": [{"a": [1]}] * 2, "list": [["x"]] * 2, "nothing": pa.nulls(2), "hazard": pa.nulls(2),
              "locale": pa.array([None, "en_GB"]), "when": [datetime.datetime(2024, 2, 29)] * 2, "bytes": [b"\xff"] * 2,
              "map": pa.array([[("a", 1)]] * 2, pa.map_(pa.string(), pa.int64()))}
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
        prompts = read_prompts(parquet({"text": pa.array([A, B]).cast(kind)} | others))
        assert [(p.text, p.hazard, p.locale) for p in prompts] == [(A, None, "und"), (B, None, "en_GB")]


def test_parquet_texts_that_are_none(parquet):
    import pyarrow as pa
    for column in (pa.nulls(2), pa.array([None, A]), pa.array([[A], [B]]), pa.array([{"a": A}] * 2), pa.array([1, 2]),
                   pa.array([True, False]), pa.array(["", A])):
        refused(lambda column=column: read_prompts(parquet({"text": column})), "x.parquet, row 1: text: ")
    refused(lambda: read_prompts(parquet({"text": pa.array([], pa.string())})), "x.parquet", "no prompts")
    refused(lambda: read_prompts(parquet({})), "x.parquet", "empty")
    refused(lambda: read_prompts(parquet({"question": [A]})), "x.parquet: column 'text' is missing; found question")
    refused(lambda: read_prompts(parquet({"text": [A], "hazard": [["vcr"]]})), "x.parquet, row 1: hazard: ")
    for names in (["text", "text"],):
        refused(lambda names=names: read_prompts(parquet(pa.Table.from_arrays([pa.array([A])] * len(names), names))),
                "x.parquet")


@cases("change", [
    lambda b: b[:-10], lambda b: b[:len(b) // 2], lambda b: b"", lambda b: b"PAR1PAR1",
    lambda b: b"PAR1" + b"\xff" * 200 + b"PAR1", lambda b: CSV.encode(), lambda b: pack(b),
    lambda b: b[:-12] + b"\xff" * 4 + b[-8:], lambda b: b[:-8] + b"\xff\xff\xff\x7fPAR1", lambda b: b + b"\n"
], ids=["end cut", "half", "empty", "marks only", "junk", "csv", "gzip", "footer", "footer length", "newline added"])
def test_broken_parquet(parquet, write, change):
    refused(lambda: read_prompts(write("x.parquet", change(parquet({"text": [A, B]}).read_bytes()))), "x.parquet",
            "Parquet", "write it again")


@cases("kind", ["text", "other", "id"])
def test_parquet_texts_in_another_encoding(parquet, kind):
    import pyarrow as pa
    latin = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\4\0\0\0\5\0\0\0"), pa.py_buffer(b"caf\xe9b"))
    read = attempt(
        lambda: read_prompts(parquet({"text": latin} if kind == "text" else {"text": pa.array([A, B]), kind: latin}))
    )
    assert read is None or (kind == "other" and [p.text for p in read] == [A, B])


@cases("value, kind", [(2**53, "ms"), (2**40, "s"), (2**30, "date"), (1, "zone")])
def test_parquet_dates_out_of_range(parquet, value, kind):
    import pyarrow as pa
    column = pa.array(
        [value], {"date": pa.date32(), "zone": pa.timestamp("ms", tz="Mars/Olympus")}.get(kind) or pa.timestamp(kind)
    )
    assert texts(parquet({"text": pa.array([A]), "when": column})) == [A]


@cases("columns", [{"text": [b"  " + A.encode() + b"\r\n\0"], "id": ["7"]}, {"text": [A], "id": [b"7"]},
                   {"text": [A], "id": [float("nan")]}])
def test_parquet_bytes_and_missing_numbers(parquet, columns):
    "What other programs write is read as text, or refused."
    for prompt in attempt(lambda: read_prompts(parquet(columns))) or ():
        assert (prompt.text, prompt.source_id) == (A, "7" if columns["id"][0] in ("7", b"7") else "row 1")


# names and places


def test_names_that_are_no_files(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("folder.csv", "loop.csv", "gone.csv", "pipe.csv", "missing.csv", "nul\0.csv"):
        refused(lambda name=name: read_prompts(tmp_path / name), visible(name))
        refused(lambda name=name: load_prompts(str(tmp_path / name)), visible(name))
    for name in ("folder", "loop", "gone"): (tmp_path / f"{name}.csv").rename(tmp_path / f"{name}.md")
    for name in ("folder.md", "loop.md", "gone.md", "missing.md", "nul\0.md"):
        refused(lambda name=name: load_constitution(str(tmp_path / name)), visible(name))
    for name in ("missing.json", "."): refused(lambda name=name: read_split(tmp_path / name), str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
@cases("name, read", [("x.csv", read_prompts), ("x.jsonl", read_prompts), ("x.parquet", read_prompts),
                      ("x.md", lambda path: load_constitution(str(path))), ("x.json", read_split)])
def test_files_that_may_not_be_read(write, name, read):
    path = write(name, CSV)
    path.chmod(0)
    refused(lambda: read(path), name)


@cases("read", [
    *(read for read in (lambda: read_prompts("a" * 300 + ".csv"), lambda: load_prompts("a" * 300 + ".jsonl"),
                        lambda: load_constitution("a" * 300 + ".md"), lambda: load_constitution("a" * 300))),
    lambda: load_prompts(""),
    lambda: pool_prompts([""]),
    lambda: pool_prompts([]),
    lambda: load_constitution(""),
    lambda: load_constitution(".md"),
])
def test_impossible_names(read):
    refused(read)


@cases("name, read", [("caf\udce9.csv", lambda path: read_prompts(path)),
                      ("caf\udce9.csv", lambda path: load_prompts(str(path))),
                      ("caf\udce9.md", lambda path: main(["constitution", "lint", str(path)]))])
def test_file_names_in_another_encoding(tmp_path, capsys, name, read):
    try: (tmp_path / name).write_text(CSV if name.endswith("csv") else "Be kind.\n")
    except OSError: pytest.xfail("this file system has no such names")
    attempt(lambda: read(tmp_path / name))


@cases("name, source", [("my prompts.csv", "my prompts"), ("x.csv.gz", "x"), ("три ☕.csv", "три ☕"),
                        ("week 1.5 of tea.csv", "week 1.5 of tea")])
def test_the_source_is_the_files_stem(write, name, source):
    assert read_prompts(write(name, CSV))[0].source == source


# pools


def test_a_pool_of_the_same_prompts_in_several_encodings(write):
    "What differs in packing and line ends alone is there once."
    paths = [str(write(name, content))
             for name, content in [("a.csv", CSV), ("b, b.csv", "\ufeff" + CSV.replace("\n", "\r\n")),
                                   ("c.jsonl.gz", pack(JSONL.encode()))]]
    pool = pool_prompts([{"source": path} for path in paths])
    assert ([len(part) for part in pool.prompts] == [2, 0, 0] and pool.repeated == 4
            and {p.text for p in draw_prompts([{"source": path} for path in paths], 2)} == {A, B})


def test_an_unknown_filter_does_not_repeat_prompts(write):
    refused(lambda: pool_prompts([str(write("x.csv", f'text,hazard\nOne?,"{A} {B}"\n'))], hazards=("vcr",)),
            "no prompt has hazard 'vcr'")


def test_the_command_shows_no_prompt_of_a_wrong_column(write, capsys):
    assert main(["prompts", str(write("x.csv", f'text,hazard\nOne?,"{A} {B}"\n'))]) in (0, 2)
    assert "boil rice" not in capsys.readouterr().out


@pytest.mark.long
def test_many_similar_prompts(write):
    path = write("x.csv", "text\n" + "".join(f"How many days has week {n}?\n" for n in range(1500)))
    with seconds(): assert main(["prompts", str(path)]) == 0


@cases("name, content", [("x.csv", "text\n" + "word " * 150_000), ("x.jsonl", "\n".join([JSONL.strip()] * 5000))],
       ids=["one huge prompt", "ten thousand copies"])
def test_huge_files_in_the_command(write, capsys, name, content):
    with seconds(): assert main(["prompts", str(write(name, content))]) == 0
    assert "word word" not in capsys.readouterr().out


@cases("argv", [
    ["x.csv"], ["practice", "x.csv"], ["x.csv", "--columns", "text=no"], ["x.csv", "--columns", "text"],
    ["x.csv", "--hazards", "vcr"], ["{source: x.csv"], ["{a: b}"], ["[x.csv]"], ["{source: [x.csv]}"], [""],
    ["x.csv", "--constitution", "none"], *([text, "--columns", "text=q"] for text in ("{source: x.csv", "{a: b}"))
])
def test_the_prompts_command_refuses(tmp_path, monkeypatch, capsys, argv):
    "Exit status 2, one line a problem, no traceback."
    (tmp_path / "x.csv").write_bytes(b"text\nWhere is my caf\xe9?\n")
    argv = [word.replace("x.csv", str(tmp_path / "x.csv")) for word in argv]
    with seconds(): assert main(["prompts", *argv]) == 2
    said = capsys.readouterr()
    assert (said.err and all(line.startswith("ccai: ") for line in said.err.splitlines())
            and "Where is" not in said.err + said.out)


def test_the_prompts_command_prints_what_it_counts(write, capsys):
    with seconds(): assert main(["prompts", str(write("x.jsonl", '{"text": "One?", "hazard": "\\ud800"}'))]) in (0, 2)


# splits


SPLIT = {"train": ["a", "b"], "validation": ["c"], "test": ["d"], "seed": 0, "prompts_digest": "x"}


@cases("content", [
    "",
    "\ufeff",
    "[]",
    "null",
    "{}",
    "text,id\n",
    '{"train": ["a"',
    "[" * 100_000,
    b"\0" * 50,
    b"\x1f\x8b\x08",
    json.dumps(SPLIT).encode("utf-16"),
    json.dumps(SPLIT).encode() + b"\xe9",
    *(json.dumps(SPLIT | change) for change in ({"train": "abc"}, {"train": [1]}, {"train": None}, {"seed": 1.5},
                                                {"seed": "one"}, {"more": 1}, {"places": ["a"]}, {"test": {"a": 1}})),
    json.dumps(SPLIT)[:-1] + ', "validation_share": ' + "9" * 5000 + "x}",
])
def test_broken_splits(write, content):
    "The file, and what to do."
    message = refused(lambda: read_split(write("split.json", content)), "split.json")
    assert re.search("restore|save|again", message)


@cases("change",
       [{"test": ["a"]}, {"train": ["a", "a"]}, {"by": "stars"}, {"test_share": float("nan")}, {"test_share": 7}],
       ids=str)
def test_splits_that_cannot_be_right(write, change):
    refused(lambda: read_split(write("split.json", json.dumps(SPLIT | change))), "split.json")


def test_a_split_with_a_repeated_key(write):
    refused(lambda: read_split(write("split.json", json.dumps(SPLIT)[:-1] + ', "train": ["b"]}')), "split.json")


def test_a_split_of_other_prompts(write):
    """Edited, new and gone prompts are named by place, without text;
    line ends, a byte-order mark and gzip change nothing."""
    prompts = [Prompt(text=f"{A} {n}", source="mine", source_id=str(n)) for n in range(8)]
    split = split_prompts(prompts, 0.2, 0.2)
    for content in ("\ufeff" + split.model_dump_json(indent=1).replace("\n", "\r\n"),
                    pack(split.model_dump_json().encode())):
        again = read_split(write("split.json", content))
        assert again == split and check_split(again, prompts, "split.json") is None
    edited = [prompts[0].model_copy(update={"text": B, "id": "other"}), *prompts[1:]]
    refused(lambda: check_split(split, edited, "split.json"), "split.json", "1 edited: mine 0")
    refused(lambda: check_split(split, prompts[1:], "split.json"), "1 gone")
    refused(lambda: check_split(split.model_copy(update={"prompts_digest": "x"}), prompts, "split.json"),
            "digest disagree")


def test_a_prompt_on_both_sides_of_a_split():
    prompts = [Prompt(text=f"{A} {n}", source="mine", source_id=str(n)) for n in range(8)]
    split = split_prompts(prompts, 0.2, 0.2)
    refused(
        lambda: check_split(split.model_copy(update={"test": (*split.test, split.train[0])}), prompts, "split.json"),
        "split.json",
    )


# constitutions: our own format


def garden(front=(), before="", head="## Kindness {#kindness}", description="Be kind.", clauses="- It is kind.",
           critique="Look again.", revision="Write it again.", after="") -> str:
    "A constitution file with parts of one's own."
    above = (front if isinstance(front, str)
             else "\n".join(f"{key}: {value}" for key, value in (FRONT | dict(front)).items()))
    return (f"---\n{above}\n---\n\n{before}\n\n{head}\n\n{description}\n\n### Clauses\n\n{clauses}\n\n"
            f"### Critique request\n\n{critique}\n\n### Revision request\n\n{revision}\n{after}")


def parsed(text, name="garden.md"):
    "The constitution, which its own file gives again."
    with seconds(): constitution = parse_constitution(text, name)
    assert parse_constitution(dump_constitution(constitution), name) == constitution
    return constitution


@cases("change",
       [
           lambda t: t,
           lambda t: t.replace("\n", "\r\n"),
           lambda t: "\ufeff" + t,
           lambda t: "\ufeff" + t.replace("\n", "\r\n"),
           lambda t: t.replace("\n", "  \n"),
           lambda t: t.replace(".\n", ".\t\n"),
           lambda t: t.replace("## ", "##\t"),
           lambda t: t.replace("Kindness {#kindness}", "Kindness   {#kindness}  ##"),
           lambda t: t.replace("## Kindness {#kindness}", "Kindness {#kindness}\n---"),
           lambda t: t.replace("- It", "* It"),
           lambda t: t.replace("\n\n", "\n\n\n\n"),
           lambda t: t.rstrip("\n"),
           lambda t: t.replace("### Clauses", "### CLAUSES"),
           lambda t: t.replace("\n### ", "\n ### "),
           lambda t: t.replace('"1"', "1"),
           lambda t: t.replace("It is kind.", "It is\n  kind."),
           lambda t: t.replace("Garden", "&a Garden"),
           lambda t: t.replace("\n", "\n# a comment\n", 1),
           lambda t: t.replace("\n", "\r"),
           lambda t: t.replace("\n\nBe kind.", "\n\rBe kind."),
       ],
       ids=["as it is", "crlf", "bom", "bom, crlf", "trailing spaces", "trailing tabs", "tabs", "closing hashes",
            "setext", "stars", "blank lines", "no line end", "capitals", "indented", "number", "wrapped", "anchor",
            "comment", "cr", "mixed"])
def test_the_same_constitution_however_it_is_typed(change):
    plain = parse_constitution(garden())
    same = parsed(change(garden()))
    assert same == plain and diff_constitutions(same, plain).changes == ()


@cases("part", ["description", "critique", "revision", "before"])
@cases("text", [
    "```\n## no heading {#x}\n### Clauses\n```",
    "<h2>no heading</h2>\n<div>\n## no heading {#x}\n</div>",
    "> ## no heading {#x}\n> text",
    "| a | b |\n|---|---|\n| c | d |",
    "- ## no heading",
    "text\u2028text\x0ctext\x85",
    "[a]: https://example.org",
    "空 ☕ śūnyatā",
    "~~~\n# no heading\n~~~",
    "<!--\n## no heading\n-->",
    "* * *\ntext",
    "a\0b",
    "word " * 50_000,
    "    # code\n    more",
])
def test_headings_that_are_none(part, text):
    "Code, HTML, quotations and tables stay where they are, to the letter."
    constitution = parsed(garden(**{part: text}))
    principle = constitution.principles[0]
    assert ({"description": principle.description, "critique": principle.critique_request,
             "revision": principle.revision_request, "before": constitution.preamble}[part]
            == text.rstrip())


@cases("change",
       [
           {"before": "# The garden\n\nhidden"},
           {"before": "### About\n\nhidden"},
           {"before": "## Meta-principles\n\n- Stay calm.\n\n### Notes\n\nhidden"},
           {"before": "## Meta-principles\n\n- Stay calm.\n\n# Notes\n\nhidden"},
           {"clauses": "- It is kind.\n\n#### More\n\n- hidden"},
           {"critique": "Look.\n\n##### Note\n\nhidden"},
           {"revision": "Look.\n\n# Note\n\nhidden"},
           {"description": "Be kind.\n\n#### Note\n\nhidden"},
           {"after": "\n# Notes\n\nhidden"},
           {"after": EXAMPLE.replace("Example 1\n", "Example 1\n\nhidden\n")},
           {"after": EXAMPLE.replace("tea.", "tea.\n\n##### Note\n\nhidden")},
       ],
       ids=["title", "third level first", "below meta", "first level below meta", "below clauses", "below critique",
            "first level", "below description", "notes at the end", "above an example", "below an example"])
def test_nothing_is_lost_without_a_word(change):
    "A heading out of place is refused, or its text kept."
    constitution = attempt(lambda: parse_constitution(garden(**change)))
    assert constitution is None or "hidden" in dump_constitution(constitution)


@cases("clauses, expected", [
    ("- It is kind.\n- It is calm.", ("It is kind.", "It is calm.")),
    ("* It is kind.\n\n* It is calm.", ("It is kind.", "It is calm.")),
    ("- It is\n  kind.", ("It is kind.",)),
    ("– It is kind.", None),
    ("• It is kind.", None),
    ("1. It is kind.", None),
    ("It is kind.", None),
    ("| It is kind. |\n|---|", None),
    ("-", None),
    ("", None),
    ("-It is kind.", None),
    *((clauses, expected) for what, clauses, expected in [
        ("a bullet with a tab", "- It is kind.\n-\tIt is calm.", ("It is kind.", "It is calm.")),
        ("a bullet of another kind", "- It is kind.\n+ It is calm.", ("It is kind.", "It is calm.")),
        ("a bullet of another kind", "- It is kind.\n• It is calm.", None),
        ("a number", "- It is kind.\n1. It is calm.", None),
        ("an indented bullet", "- It is kind.\n - It is calm.", ("It is kind.", "It is calm.")),
        ("a paragraph", "- It is kind.\n\nA closing word.", None),
        ("a code block", "- It is kind.\n\n```\ncode\n```", None),
        ("a line", "- It is kind.\n\n---\n\n- It is calm.", None),
        ("a comment", "- It is kind.\n\n<!-- to do -->", None),
        ("an empty bullet", "- It is kind.\n-", None),
    ]),
    ("- It is kind.\n- \n- It is calm.", None),
])
def test_clauses_are_a_list(clauses, expected):
    "Every bullet is a clause; what is no bullet is refused, or kept as a clause of its own."
    constitution = attempt(lambda: parsed(garden(clauses=clauses)))
    assert constitution is None or (expected or ()) == constitution.principles[0].clauses


@cases("text, there", [
    (b"caf\xe9".join([garden().encode(), b""]), ["line 25", "UTF-8"]),
    (garden().encode("utf-16"), ["line 1", "UTF-8"]),
    ("", ["not a constitution"]),
    ("\ufeff", ["not a constitution"]),
    (" \n\t\n", ["not a constitution"]),
    ("# Garden\n\nBe kind.\n", ["not a constitution"]),
    (garden(head="## Kindness"), ["line 10", "no id", "{#short_name}"]),
    (garden(head="Kindness"), ["no principles"]),
    *((garden(head=f"## Kindness {{#{id}}}"), ["line 10", "Kindness", "id"])
      for id in ("", "Kindness", "kind-ness", "kind ness", "9lives", "kínd", "kind}{#ness", "kind\u2011ness", "_kind")),
    (garden(head="## {#kindness}"), ["line 10", "title"]),
    (garden(after=garden().split("---\n", 2)[2]), ["share the id kindness"]),
    (garden(clauses=""), ["line 10", "no clauses"]),
    (garden(critique=""), ["no critique request"]),
    (garden(revision=" \n\n"), ["no revision request"]),
    (garden(description="```\nnever closed"), ["line 10", "Kindness"]),
    (garden(description="<!-- never closed"), ["line 10"]),
    (garden(after="\n### Clauses\n\n- a\n"), ["Clauses", "twice"]),
    (garden(after="\n### Claws\n\n- a\n"), ["line 26", "Claws", "did you mean 'Clauses'"]),
    (garden(after=EXAMPLE.replace("#### Critique\n", "")), ["Example 1", "#### Critique"]),
    (garden(after=EXAMPLE + EXAMPLE), ["twice"]),
    (garden(after=EXAMPLE.replace("Yes.", "")), ["#### Response"]),
    (garden(before="## Meta-principles\n\n- a\n\n## Meta-principles\n\n- b"), ["line 12", "twice"]),
    (garden(before="## Meta-principles\n\nStay calm."), ["line 8", "'- '"]),
    (garden(before="## Meta\u2011principles\n\n- Stay calm."), ["line 8"]),
    (garden(before="- " * 300 + "a\n" + ">" * 300 + "a", description=""), []),
    (garden(front="- id: garden"), ["expected 'key: value'"]),
    (garden(front=""), ["lacks id, title"]),
    (garden(front="id: garden\nid: garden\n"), ["line 3", "twice"]),
    (garden(front={"colour": "red"}), ["unknown key 'colour'"]),
    (garden(front={"title": "*a"}), ["line 3", "YAML"]),
    (garden(front={"title": "[a"}), ["YAML"]),
    (garden(front="? [a]\n: b"), ["line 2", "name"]),
    (garden(front="1: a"), ["lacks id"]),
    (garden(front={"title": "!!python/object:os.x {}"}), ["should be a text"]),
    (garden(front={"title": "a\0b"}), ["YAML"]),
    (garden(front="<<: {id: a}"), ["should be a text"]),
    ("---\nid: garden\n\n## Kindness {#kindness}\n", ["line 1", "'---'"]),
    ("---\nid: garden\n\n## Kindness {#kindness}\n\nText: text\n\n---\n\nmore", []),
    (garden().replace("\n---\n", "\n...\n", 1), ["line 1", "'---'"]),
    (garden(front={"id": "123"}), ["pattern"]),
    (garden(front={"id": "Garden"}), ["pattern"]),
    (garden(front={"id": "gärten"}), ["pattern"]),
    ("--- Be kind.", ["line 1"]),
    ("\n" + garden(), ["line 1", "front matter"]),
])
def test_constitutions_that_cannot_be_read(write, capsys, text, there):
    "The file, the line and the remedy: from the function, from lint, and from the command."
    path = write("garden.md", text)
    message = refused(lambda: load_constitution(str(path)), "garden.md", *there)
    if isinstance(text, str):
        assert [finding.level for finding in lint_file(path)] == ["error"] * len(message.split("\ngarden.md"))
    with seconds():
        assert (main(["constitution", "lint", str(path)]) == main(["constitution", "show", str(path)])
                == main(["constitution", "diff", "generic", str(path)]) == 2)
    assert "Traceback" not in capsys.readouterr().err


@cases("key, written, meant", [
    ("title", "'yes and no'", "yes and no"),
    ("version", "2024-01-01", "2024-01-01"),
    ("version", "1.5", "1.5"),
    ("version", "3", "3"),
    ("title", "Der Garten – 空", "Der Garten – 空"),
    ("language", "fr-CA", "fr-CA"),
    ("language", "no", "no"),
    ("version", "1.10", "1.10"),
    ("version", "010", "010"),
    ("version", "0", "0"),
    ("version", "1_0", "1_0"),
    ("version", "1:30", "1:30"),
    ("title", "Yes", "Yes"),
    ("title", "On", "On"),
    *(("title", written, yaml.safe_load(written))
      for written in ("'Care: for all'", "'Care # first'", "'[Care]'", "'**Care**'", "'@care'", "'& care'",
                      "'\"Care\" first'", "'yes'", "'1.10'", "'null'", "'- care'", '"two\\nlines"', '"a\\tb"')),
    *(("version", written, yaml.safe_load(written)) for written in ("'1\"2'", "'a\\b'")),
    ("language", "'no'", "no"),
    ("id", "'yes'", "yes"),
    ("id", "'null'", "null"),
])
def test_front_matter_is_text(key, written, meant):
    "A value is what is written there, and its own file gives it again."
    assert getattr(parsed(garden(front={key: written})), key) == meant


@cases("value", ["[a, b]", "{a: b}", "[&a [x, x], *a, *a]", "!!set {a}"])
def test_front_matter_that_is_no_text(value):
    refused(lambda: parse_constitution(garden(front={"title": value}), "garden.md"), "garden.md", "title")


@cases("value", ["!!timestamp x", "!!bool maybe", '!!float ""', '!!int ""'])
def test_front_matter_with_impossible_tags(value):
    attempt(lambda: parse_constitution(garden(front={"title": value}), "garden.md"))


@cases("text", [
    garden(description="["*20_000),
    garden(description="*a_ " * 5000),
    garden(description="a <!--" * 5000),
    garden(description="![" * 5000),
    garden(clauses="- It is kind.\n" * 10_000),
    garden(head="## " + "word " * 100_000 + "{#kindness}"),
    "Be kind. " * 100_000,
    garden(after=EXAMPLE.replace("Yes.", "Yes. " * 100_000)),
    "Be kind.\n" * 400,
], ids=["brackets", "stars", "comments", "images", "clauses", "title", "line", "example", "lines"])
def test_huge_constitutions(text):
    with seconds(): assert parse_constitution(text).principles


# constitutions: foreign dialects


def structured(before="", title="Emptiness", description="What it asks.", critique="Look again.",
               revision="Write it again.", example="- It is calm.", after="") -> str:
    return (f"{before}\n## {title}\n\n{description}\n\n### Critique Template\n\n{critique}\n\n"
            f"### Revision Guideline\n\n{revision}\n\n### Example Application\n\n{example}\n{after}")


def directives(before="", title="Emptiness", body="E1. Choose the response that is calm.\nE2. It is kind.",
               after="") -> str:
    return f"{before}\n## {title}\n\n{body}\n{after}"


TALK = "User: Is it late?\nAssistant: Yes.\nCritique: Curt.\nRevision: It is, and there is tea.\n"
FOREIGN = {"structured": structured("# The garden\n\nA word before.\n\n## Meta-principles\n\n- Stay calm.\n"),
           "directives": directives("# The garden\n\nA word before.\n\n## Meta-principles\n\n- Stay calm.\n"),
           "headerless": "Emptiness is calm.\n\n- Be kind.\n* Be still.\n1. Be here.\n"}


@cases("kind", FOREIGN)
@cases("change", [
    lambda t: t, lambda t: t.replace("\n", "\r\n"), lambda t: "\ufeff" + t, lambda t: t.replace("\n", "   \n"),
    lambda t: "\n\n" + t, lambda t: t.replace("\n", "\n\n"), lambda t: t.rstrip(), lambda t: t.replace("\n", "\r")
], ids=["as it is", "crlf", "bom", "trailing spaces", "blank first", "blank lines", "no line end", "cr"])
def test_the_same_foreign_constitution_however_it_is_typed(kind, change):
    assert dialect(FOREIGN[kind]) == kind and parsed(change(FOREIGN[kind])) == parsed(FOREIGN[kind])


@cases("text", [
    structured(description="```\n## no heading\n```"),
    structured(title="Non\u2011duality"),
    structured(title="空"),
    structured(title="☕"),
    structured(title="A {b}"),
    structured(title="C#"),
    structured(title="1. Emptiness (śūnyatā)"),
    structured(example="- It is calm.\n  and still"),
    structured(example=TALK + "\n### Examples in words\n\n- It is calm."),
    structured(after=structured(title="Mindfulness")),
    structured().replace("### ", "#### "),
    directives(body="Words first.\n\nE1. It is calm.\nand still\n\nE2. It is kind."),
    directives(body="- E1. It is calm.\n- E2) It is kind."),
    directives(body="| a | b |\n|---|---|\n\nE1. It is calm."),
    directives("<!--\n## no heading\n-->"),
    directives(body="E1. It is calm.\nE1. It is kind."),
    directives(body="E1. It is calm:\n  this way"),
    "Be kind.\n\n\n- Be calm.\n",
    "# no heading".join(["```\n", "\n```\n"]),
    "<!-- a comment -->\nBe kind.",
    "E1. Be kind.\nE2. Be calm.",
    "Be kind.\u2028Be calm.\x0c",
    "    # no heading\n",
    "Sunyata is calm.\nŚūnyatā is kind.\nShunyata is here.",
    *(structured(f"# {title}")
      for title in ("Care: for all", "**Care**", "Care # first", "[Care]", '"Care" first', "Yes", "1.10")),
])
def test_foreign_constitutions_round_trip(text):
    "Nothing is lost when it is written in our own format."
    written = dump_constitution(parsed(text))
    assert all(word in written for word in re.findall(r"\w+", text)
               if word not in ("User", "Assistant", "Critique", "Revision", "Template", "Guideline", "Example",
                               "Examples", "Application", "in", "words"))


@cases("text", ["| a | b |\n|---|---|\n", '{"be": "kind"}'])
def test_another_format_is_named_instead_of_read_as_clauses(text):
    refused(lambda: parsed(text), "expected a clause a line")


@cases("text", [
    structured(example="User: ```\nAssistant: Yes.\nCritique: Curt.\nRevision: Warm.\n\n### Examples\n\n- It is calm."),
    structured(example=TALK.replace("Is it", "# Is it") + "\n### Examples\n\n- It is calm."),
    directives(body="```\nE1. It is calm.\n```"),
])
def test_what_our_format_would_misread_is_not_written(write, text):
    "A text with half a code block or a heading in it can be used, but not be rewritten in our own format."
    refused(lambda: show_text(load_constitution(str(write("garden.md", text))), full=True), "misread")


@cases("text",
       [
           structured("# One\n\na\n\n# hidden\n\nb\n"),
           structured("# One\n\n### About\n\nhidden\n"),
           structured("## Meta-principles\n\n- Stay calm.\n\n### Notes\n\nhidden\n"),
           structured(example=f"These words are hidden.\n\n{TALK}\n### Examples in words\n\n- It is calm."),
           structured(example=f"- hidden\n\n{TALK}\n### Examples in words\n\n- It is calm."),
           directives("### About\n\nhidden\n"),
           directives(after="\n## Meta-principles\n\n- Stay calm.\n\n### Notes\n\nhidden\n"),
       ],
       ids=["second title", "third level first", "below meta", "before a talk", "bullets before a talk",
            "directives, third level first", "directives, below meta"])
def test_nothing_foreign_is_lost_without_a_word(text):
    constitution = attempt(lambda: parse_constitution(text, "garden.md"))
    assert constitution is None or "hidden" in dump_constitution(constitution)


@cases("text, clauses", [
    (directives(body="E1. It is calm.\nand still\nE2. It is kind."), ["E1. It is calm. and still", "E2. It is kind."]),
    ("- Be kind.\n\n\n* Be calm.\n\t1. Be still.\n", ["Be kind.", "Be calm.", "Be still."]),
    *((text, clauses) for text, clauses, reason in [
        (directives(body="**E1.** It is calm.\nE2. It is kind."), ["**E1.** It is calm.", "E2. It is kind."],
         "a bold label is not seen: the first clause becomes the description"),
        (directives(body="E1 – It is calm.\nE2. It is kind."), ["E1 – It is calm.", "E2. It is kind."],
         "a label with a dash is not seen: the first clause becomes the description"),
        (directives(body="E1. It is calm.\n\n---\n\nE2. It is kind."), ["E1. It is calm.", "E2. It is kind."],
         "a rule between clauses becomes part of one"),
        (directives(body="E1. It is calm.\n\nIn closing, a word."), ["E1. It is calm."],
         "a paragraph after the clauses becomes part of the last one"),
        (directives(body="E1. \nE2. It is kind."), ["E2. It is kind."], "a label without a clause becomes a clause"),
        ("Be kind.\n\n---\n\nBe calm.", ["Be kind.", "Be calm."], "a rule becomes a principle of its own"),
        ("- Be kind.\n-\n- \n", ["Be kind."], "an empty bullet becomes a principle of its own"),
    ]),
])
def test_foreign_clauses(text, clauses):
    "Every clause is one, and nothing else is; a file that is not understood is refused."
    constitution = attempt(lambda: parse_constitution(text, "garden.md"))
    assert (constitution is None
            or [clause for principle in constitution.principles for clause in principle.clauses] == clauses)


def test_labelled_meta_principles():
    assert len(
        parse_constitution(directives("## Meta-principles\n\nM1. Stay calm.\nM2. Stay kind.\n")).meta_principles
    ) == 2


@cases("text, there", [
    (structured(title=""), ["line 2"]),
    (structured(critique=""), ["line 2", "critique template"]),
    (structured(after=structured(title="Śūnyatā")), ["share the id emptiness"]),
    (structured(after="\n### Notes\n\nmore"), ["Notes"]),
    (structured(after="\n### Critique Template\n\nmore"), ["twice"]),
    (structured(after=directives(title="Mindfulness")), ["Mindfulness"]),
    (structured(title="Care {#care}"), ["line 1", "front matter"]),
    ("---\ntitle: x\n---\n" + structured(), ["lacks id"]),
    (structured().replace("Critique Template", "Critique request"), ["line 1", "front matter"]),
    (directives(after="\n## Mindfulness\n\nNo number here.\n"), ["Mindfulness", "E1."]),
    (directives(body="### Part\n\nE1. It is calm."), ["Part"]),
    (directives(title="Emptiness {#emptiness}"), ["line 1"]),
    (directives(after=directives(title="Sunyata")), ["share the id emptiness"]),
    (directives(after=structured(title="Mindfulness")), ["Emptiness"]),
    ("# Garden\n\nE1. Be kind.", ["not a constitution"]),
    ("Be kind.\n---\nBe calm.", ["not a constitution"]),
    (garden(after=structured()), ["Emptiness", "no id"]),
    (garden() + "\n" + directives(), ["Emptiness", "no id"]),
    ("---\nBe kind.", ["line 1"]),
])
def test_files_that_mix_dialects(text, there):
    refused(lambda: parse_constitution(text, "garden.md"), "garden.md", *there)
    if dialect(text) == "own": refused(lambda: read_dialect(text, "garden.md"), "garden.md")


@cases("line", ["User:", "Critique:", "Assistant:", "Revision:"])
def test_a_talk_with_an_empty_part(line):
    text = structured(example=re.sub(f"(?m)^{line}.*$", line, TALK) + "\n### Examples\n\n- It is calm.")
    attempt(lambda: parse_constitution(text, "garden.md"))


@cases("name", ["my garden.md", "宪法.md", "2024 rules.md", "a.b.md", "☕.md", "Ünïcode – file.md",
                *(name for name in ("a: b.md", "#1 list.md", "yes.md", "[draft] garden.md", "null.md"))])
def test_file_names_become_titles(write, capsys, name):
    "A headerless file is shown in our own format, and that is read again."
    path = write(name, FOREIGN["headerless"])
    assert main(["constitution", "lint", str(path)]) == main(["constitution", "show", str(path)]) == 0
    capsys.readouterr()
    assert main(["constitution", "show", "--full", str(path)]) == 0
    assert parse_constitution(capsys.readouterr().out, name) == load_constitution(str(path))


def test_leaving_out_and_combining_what_is_not_there():
    constitution = parse_constitution(garden(after="\n## Calm {#calm}" + garden().split("{#kindness}")[1]))
    for ids in (("none",), ("",), ("kindness", "calm"), ("Kindness",)):
        refused(lambda ids=ids: leave_out(constitution, ids), "leave_out")
    for combinations in (("kindness",), ("kindness+none",), ("kindness+kindness",), ("+",), ("",),
                         ("kindness+calm", "calm+kindness"), ("kindness+",)):
        refused(lambda combinations=combinations: combine(constitution, combinations), "combine")
    joined = combine(constitution, ("calm + kindness",))
    assert (parsed(dump_constitution(joined)) == joined
            and [p.id for p in leave_out(joined, ()).principles] == ["calm_and_kindness"])


def test_a_combination_that_takes_anothers_id():
    one = "\n## {0} {{#{0}}}" + garden().split("{#kindness}")[1]
    attempted = attempt(lambda: combine(
        parse_constitution(garden(after=one.format("calm") + one.format("kindness_and_calm"))), ("kindness+calm",)
    ))
    assert attempted is None or len({p.id for p in attempted.principles}) == len(attempted.principles)


# drafts


def draft(head=(), **principle) -> Draft:
    "A draft that could be saved, with other texts."
    made = Draft.of(parse_constitution(garden(after=EXAMPLE)))
    made.head |= dict(head)
    made.principles[0] |= principle
    return made


@cases("made", [
    Draft(),
    draft({"id": ""}),
    draft({"id": "A b"}),
    draft({"id": "../x"}),
    draft({"id": "x/y"}),
    draft({"id": "x\n---"}),
    draft({"title": " \n"}),
    draft({"title": "\ud800"}),
    draft({"preamble": "# A\n\nb"}),
    draft({"preamble": "## A {#a}"}),
    draft(title="A {#b}"),
    draft(title="a\nb"),
    draft(clauses="- \n*  \n"),
    draft(description="### Clauses\n\n- x"),
    draft(description="```\nopen"),
    draft(description="text\n---"),
    draft(clauses="a\rb"),
    draft(critique_request="##### a"),
    draft(description="<!--"),
    draft(id="meta-principles"),
    draft(id="Ünï"),
    draft({"id": "a" * 300}),
    draft({"preamble": "\ud800"}),
    draft(description="\ud800"),
])
def test_drafts_that_cannot_be_saved(tmp_path, made):
    "Nothing is written, and every problem has a line."
    refused(lambda: made.save(tmp_path))
    assert not list(tmp_path.iterdir()) and all(finding.level == "error" for finding in made.findings())


@cases("made", [
    draft(),
    draft({"meta_principles": "- a\n\n* b\nc\n"}),
    draft(clauses="- a\n-\tb\n\n* c"),
    draft(title="a #"),
    draft(title="Meta-principles x"),
    draft(description="> # a\n\n    # b"),
    draft(description="```\n## a\n```"),
    draft({"title": "Der Garten – 空 ☕"}),
    draft({"version": "1.10"}),
    draft({"preamble": "--- a\n* * *\nb"}),
    draft({"preamble": "a\u2028b\x0c\x85c"}),
    draft({"language": "no"}),
    *(draft({"title": title}) for title in ("Care: for all", "Yes", "[Care]", "Care # first", "@care", '"Care"')),
    draft({"id": "null"}),
])
def test_drafts_that_can_be_saved(tmp_path, made):
    constitution = made.build()
    assert load_constitution(str(made.save(tmp_path))) == constitution
    refused(lambda: made.save(tmp_path), "is there already")
    assert load_constitution(str(made.save(tmp_path, replace=True))) == constitution


# properties


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(st.lists(TEXT.filter(lambda text: is_visible(clean_text(text))), min_size=1, max_size=8), st.booleans(),
       st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans())
@fuzz
def test_any_text_survives_a_jsonl_file(tmp_path_factory, given_texts, ascii, end, packed):
    "In order, cleaned, and as it was found in raw."
    content = "".join(json.dumps({"text": text, "id": n}, ensure_ascii=ascii) + end
                      for n, text in enumerate(given_texts)).encode()
    path = tmp_path_factory.mktemp("jsonl") / ("x.jsonl.gz" if packed else "x.jsonl")
    path.write_bytes(pack(content) if packed else content)
    prompts = read_prompts(path)
    assert ([p.text for p in prompts] == [clean_text(text) for text in given_texts]
            and [p.raw or p.text for p in prompts] == given_texts
            and [p.source_id for p in prompts] == [str(n) for n in range(len(given_texts))])


PIECES = {
    ".csv": ["text", ",", "\n", "\r", '"', "id", "\ufeff", "a b", "\0", ";"],
    ".jsonl": ['{"text": ', '"a"', "}", "\n", "NaN", "[", "]", '"id"', ":", ",", "1e9", '"\\ud83d"', "null"],
    ".parquet": ["PAR1", "\0\0\0", "text"],
    ".md": ["---\n", "id: a\n", "title: b\n", "language: en\n", "version: 1\n", "## A {#a}\n", "## B\n",
            "### Clauses\n", "- a\n", "### Critique request\n", "### Revision request\n", "### Critique Template\n",
            "### Revision Guideline\n", "### Example\n", "E1. a\n", "\r", "```\n", "<!--", "a\n", "  ", "\n", "# T\n",
            "## Meta-principles\n", "\t", "===\n", "#### Prompt\n", "[a]: b\n"],
    ".json": ["{", "}", '"train"', '"test"', '"validation"', ":", "[", "]", '"seed"', "0", ",", '"prompts_digest"',
              "NaN", "null"],
}
READ = {".csv": read_prompts, ".jsonl": read_prompts, ".parquet": read_prompts,
        ".md": lambda path: (lint_file(path), load_constitution(str(path))), ".json": read_split}


@cases("ending", READ)
@given(data=st.data())
@fuzz
def test_anything_at_all_is_read_or_refused(tmp_path_factory, ending, data):
    "Random bytes, bytes after a good beginning, and the pieces of a good file in any order."
    pieces = st.lists(st.sampled_from(PIECES[ending]), max_size=24).map(lambda found: "".join(found).encode())
    content = data.draw(st.one_of(pieces, pieces, st.binary(max_size=200), st.builds(
        bytes.__add__,
        st.sampled_from([b"\x1f\x8b\x08", b"\xef\xbb\xbf", b"\xff\xfe", b"PAR1", b"---\n", b"text\n", b'{"text": "']),
        st.binary(max_size=80),
    )))
    if data.draw(st.booleans()): content = pack(content)
    path = tmp_path_factory.mktemp("any") / f"x{ending}"
    path.write_bytes(content)
    attempt(lambda: READ[ending](path))


WORD = st.from_regex(r"[a-zäéñ]{3,8}",
                     fullmatch=True).filter(lambda word: not word.startswith(("principle", "example", "meta")))
SAID = st.lists(WORD, min_size=2, max_size=6).map(" ".join)
TITLES = st.lists(SAID, min_size=1, max_size=4, unique_by=canonical_id)


@st.composite
def foreign(draw):
    "A constitution of random words in one of the three dialects."
    kind = draw(st.sampled_from(["structured", "directives", "headerless"]))
    said = lambda: draw(SAID)
    if kind == "headerless":
        return "".join((draw(st.sampled_from(["", "- ", "* ", "1. ", "  - "]))
                        + said() + draw(st.sampled_from(["\n", "\n\n", "\n \n"])))
                       for _ in range(draw(st.integers(1, 6))))
    text = draw(st.sampled_from(["", f"{said()}\n\n", f"# {said()}\n\n{said()}\n\n",
                                 f"# {said()}\n\n## Meta-principles\n\n- {said()}\n- {said()}\n\n",
                                 f"## Meta principles:\n\n{said()}\n\n{said()}\n\n"]))
    for title in draw(TITLES):
        text += f"## {title}\n\n" + draw(st.sampled_from(["", f"{said()}\n{said()}\n\n"]))
        if kind == "directives":
            text += ("".join(((f"{draw(st.sampled_from(['', '- ']))}{draw(st.sampled_from(['E', 'ND']))}{n}"
                               f"{draw(st.sampled_from('.:)'))} {said()}\n")
                              + draw(st.sampled_from(["", f"{said()}\n", "\n", f"  {said()}\n\n"])))
                             for n in range(1, draw(st.integers(2, 4))))
                     + "\n")
        else:
            text += (f"### Critique Template\n{said()}\n\n{said()}\n\n### Revision Guideline\n\n{said()}\n\n"
                     "### Example Application\n\n") + "".join(
                         f"{draw(st.sampled_from('-*'))} {said()}\n" + draw(st.sampled_from(["", f"  {said()}\n"]))
                         for _ in range(draw(st.integers(1, 3)))
                     ) + "\n"
            if draw(st.booleans()):
                text += (f"### Example talk\n\nUser: {said()}\nAssistant: {said()}\n{said()}\nCritique: {said()}\n"
                         f"Revision: {said()}\n\n")
    return text


@given(foreign(), st.booleans())
@fuzz
def test_no_word_of_a_foreign_constitution_is_lost(text, crlf):
    constitution = parse_constitution(text.replace("\n", "\r\n") if crlf else text, "the garden.md")
    written = dump_constitution(constitution)
    headings = {"Critique", "Template", "Revision", "Guideline", "Example", "Application", "talk", "User", "Assistant",
                "Meta", "principles"}
    lost = [word for word in re.findall(r"[^\W\d_]+", text) if word not in headings and word not in written]
    assert not lost and parse_constitution(written, "the garden.md") == constitution


NASTY = st.one_of(TEXT, st.lists(
    st.sampled_from(["a", "word", "\n", "\r\n", "\n\n", "- ", "# ", "### Clauses", "---", "```", "> ", "    ", "{#a}",
                     "<!--", "\\", "E1. ", ": ", "* ", "===", "[a]: b", "\t", "1. "]),
    max_size=8,
).map("".join))


@given(st.fixed_dictionaries({}, optional={name: NASTY for name in ("title", "language", "version", "preamble",
                                                                    "meta_principles")}),
       st.fixed_dictionaries({}, optional={
           name: NASTY for name in ("title", "description", "clauses", "critique_request", "revision_request")
       }),
       st.fixed_dictionaries({}, optional={name: NASTY for name in WORKED_EXAMPLE_FIELDS}))
@fuzz
def test_a_draft_of_any_text_can_be_read_again_or_is_refused(tmp_path_factory, head, principle, example):
    made = draft(head, **principle)
    made.principles[0]["examples"][0] |= example
    folder = tmp_path_factory.mktemp("draft")
    constitution = attempt(made.build)
    if constitution is None: assert [finding.level for finding in made.findings()] and not list(folder.iterdir())
    else: assert load_constitution(str(made.save(folder))) == constitution
