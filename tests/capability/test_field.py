"""Benchmarks' rows: read from a folder or the hub, checked, drawn; a key that is always first is moved."""
import json

import pytest

from contemplative_cai.capability import field
from contemplative_cai.capability.field import FIELD_BENCHMARKS, read_benchmarks
from contemplative_cai.core.schema import InputError

ARC = [{"question": f"What is {n} and {n}?", "answerKey": "AB"[n % 2],
        "choices": {"text": [str(2 * n + n % 2), str(2 * n + 1 - n % 2)], "label": ["A", "B"]}} for n in range(1, 31)]
ROWS = {
    "arc": ARC, "arc_easy": ARC,
    "hellaswag": [{"activity_label": "Baking", "ctx_a": "He mixes the dough.", "ctx_b": "he", "label": 1,
                   "endings": ["swims away.", "bakes it."]}],
    "mmlu": [{"question": "Where is the heart?", "subject": "anatomy", "choices": list("abcd"), "answer": 2}],
    "truthfulqa": [{"question": f"What if {n}?", "mc1_targets": {"choices": ["Nothing.", "It rains.", "It snows."],
                                                               "labels": [1, 0, 0]}} for n in range(30)],
    "gsm8k": [{"question": "How many are 2 and 3?", "answer": "2 + 3 = 5.\n#### 5"}],
    "ifeval": [{"key": 1, "prompt": "Say a word.", "instruction_id_list": ["keywords:existence"],
                "kwargs": [{"keywords": ["word"]}]}],
}


def write(folder, name, rows): folder.joinpath(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    for name, rows in ROWS.items(): write(tmp_path, f"{name}.jsonl", rows)
    write(tmp_path, "gsm8k.shots.jsonl", ROWS["gsm8k"])
    return tmp_path


def test_every_benchmark_is_read_from_a_folder(folder):
    read = read_benchmarks(list(FIELD_BENCHMARKS), folder)
    assert [one.benchmark.name for one in read] == list(FIELD_BENCHMARKS)
    assert {one.benchmark.name: len(one.rows) for one in read} == {name: len(rows) for name, rows in ROWS.items()}
    assert read[list(FIELD_BENCHMARKS).index("hellaswag")].rows[0]["label"] == "1", "as the hub writes it"


def test_parquet_is_read_as_the_hub_keeps_it(tmp_path, folder):
    import pyarrow
    import pyarrow.parquet
    other = tmp_path / "parquet"
    other.mkdir()
    for name, rows in {**ROWS, "gsm8k.shots": ROWS["gsm8k"]}.items():
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), other / f"{name}.parquet")
    assert ([one.rows for one in read_benchmarks(list(FIELD_BENCHMARKS), other)]
            == [one.rows for one in read_benchmarks(list(FIELD_BENCHMARKS), folder)])


def test_a_limit_draws_by_the_seed_and_keeps_the_order(folder):
    drawn = [read_benchmarks(["arc"], folder, limit=10, seed=seed)[0] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] and drawn[0].places != drawn[2].places
    assert list(drawn[0].places) == sorted(drawn[0].places) and len(drawn[0].rows) == 10 and drawn[0].available == 30
    assert drawn[0].rows == tuple(read_benchmarks(["arc"], folder)[0].rows[place - 1] for place in drawn[0].places)
    assert drawn[0].digest != drawn[2].digest


def test_the_right_end_of_truthfulqa_is_not_always_first(folder):
    [items] = read_benchmarks(["truthfulqa"], folder)
    firsts = [row["mc1_targets"]["labels"][0] for row in items.rows]
    assert 0 < sum(firsts) < len(firsts)
    for row in items.rows: assert dict(zip(*row["mc1_targets"].values()))["Nothing."] == 1
    reordered = read_benchmarks(["truthfulqa"], folder, limit=5)[0]
    assert all(row in items.rows for row in reordered.rows), "an item has the same order whatever else is asked"


def test_items_are_clustered_by_their_subject_or_stand_for_themselves(folder):
    write(folder, "arc.jsonl", [ARC[0], ARC[1] | {"subject": "sums"}])
    subjects = {one.benchmark.name: one.subjects[:2] for one in read_benchmarks(["arc", "hellaswag", "mmlu"], folder)}
    assert subjects == {"arc": ("item 1", "sums"), "hellaswag": ("Baking",), "mmlu": ("anatomy",)}


@pytest.mark.parametrize(("name", "change", "message"), [
    ("arc", {"answerKey": "C"}, "found 'C' and 2 labels for 2 texts"),
    ("arc", {"question": " "}, "'question'"),
    ("hellaswag", {"label": ""}, "the hub's test part hides it, its validation part does not"),
    ("hellaswag", {"label": 2}, "expected a place in 2 endings, from 0, found '2'"),
    ("mmlu", {"answer": 4}, "'answer'"), ("mmlu", {"choices": ["a", "b"]}, "'choices'"),
    ("truthfulqa", {"mc1_targets": {"choices": ["a", "b"], "labels": [1, 1]}}, "expected one label 1"),
    ("truthfulqa", {"mc1_targets": {"choices": ["a", "b"], "labels": [1]}}, "as many as choices"),
    ("gsm8k", {"answer": "five"}, "'answer'"),
    ("ifeval", {"kwargs": []}, "expected 1, one an instruction, found 0"),
])
def test_an_unreadable_item_is_told_by_file_line_and_field(folder, name, change, message):
    write(folder, f"{name}.jsonl", [ROWS[name][0], ROWS[name][0] | change])
    with pytest.raises(InputError) as told: read_benchmarks([name], folder)
    [problem] = told.value.problems
    assert problem.startswith(f"{name}.jsonl, line 2: ") and message in problem


def test_everything_that_is_missing_is_told_at_once_with_what_would_do(folder):
    for name in ("arc", "mmlu"): folder.joinpath(f"{name}.jsonl").unlink()
    folder.joinpath("gsm8k.shots.jsonl").unlink()
    with pytest.raises(InputError) as told: read_benchmarks(list(FIELD_BENCHMARKS), folder)
    assert [problem.split(":")[0] for problem in told.value.problems] == ["arc", "mmlu", "gsm8k"]
    assert "arc.jsonl or arc.parquet with the columns question, choices, answerKey, as allenai/ai2_arc" in str(
        told.value) and "gsm8k.shots.jsonl" in told.value.problems[2]


def test_worked_examples_are_needed_only_where_they_are_shown(folder):
    folder.joinpath("gsm8k.shots.jsonl").unlink()
    assert read_benchmarks(["gsm8k"], folder, shots=0)[0].shots == 0
    assert read_benchmarks(["truthfulqa"], folder, shots=5)[0].shots == 0, "its prompt has its own"


@pytest.mark.parametrize(("names", "more", "message"), [
    (["arcs"], {}, "no benchmark 'arcs'; did you mean 'arc'"), (["arc"], {"limit": 0}, "at least 1 item"),
    (["arc"], {"shots": -1}, "0 or more worked examples"),
])
def test_a_wrong_setting_is_refused(folder, names, more, message):
    with pytest.raises(InputError, match=message): read_benchmarks(names, folder, **more)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder; expected one with a file for each of arc, mmlu"):
        read_benchmarks(["arc", "mmlu"], tmp_path / "none")


def test_what_the_hub_does_not_give_could_lie_in_a_folder(monkeypatch):
    def nothing(name, *where, split): raise InputError(f"hub data set '{name}' cannot be loaded: it is gated")
    monkeypatch.setattr(field, "hub_rows", nothing)
    with pytest.raises(InputError) as told: read_benchmarks(["arc", "mmlu"])
    assert len(told.value.problems) == 2
    for problem, columns in zip(told.value.problems, ("question, choices, answerKey", "question, choices, answer")):
        assert "it is gated" in problem and columns in problem and "A folder would do" in problem


def test_rows_of_the_hub_are_checked_as_those_of_a_folder(monkeypatch, folder):
    asked = []
    def rows(name, *where, split):
        asked.append((name, *where, split))
        return ARC
    monkeypatch.setattr(field, "hub_rows", rows)
    [fetched] = read_benchmarks(["arc"])
    [local] = read_benchmarks(["arc"], folder)
    assert asked == [("allenai/ai2_arc", "ARC-Challenge", "test")]
    assert (fetched.rows, fetched.digest) == (local.rows, local.digest) and fetched.source == "allenai/ai2_arc"


def test_a_smaller_draw_is_part_of_a_larger_one():
    def drawn(limit, seed=0): return set(field._drawn(FIELD_BENCHMARKS["arc"], 500, limit, seed))
    for small, large in ((20, 100), (50, 200), (200, 499)):
        assert len(drawn(small)) == small and drawn(small) < drawn(large)
    assert drawn(None) == drawn(600) == set(range(500)) and drawn(20) != drawn(20, seed=1)
