"""A study is looked at whole, run cell by cell, goes on where it was, and tells what failed."""
import os

import pytest

from contemplative_cai.command import studies
from contemplative_cai.command.commands import main
from contemplative_cai.command.pipeline import begin
from contemplative_cai.command.studies import plan_lines, plan_study, run_cells
from contemplative_cai.core.errors import StepFailed
from contemplative_cai.core.files import read_rows, write_json
from contemplative_cai.core.journal import SHARED_JOURNAL, Journal
from contemplative_cai.core.project import project_root, runs_root
from contemplative_cai.core.run import now, open_run, step
from contemplative_cai.core.schema import InputError
from contemplative_cai.evaluation.declarations import read_declarations
from contemplative_cai.inputs.study import StudyDoses, build_study, read_declared_study, read_study
from contemplative_cai.report.studied import read_study_data

FILE = """
recipe: smoke
settings: {pairs: contemplative-512, n_pairs: 40, eval_judged: [], n_safety: 0, n_refusal: 0, n_helpful: 0,
           n_robustness: 0, n_games: 0, n_eval_prompts: 6, eval_arms: "base, sft, dpo"}
axes: {training: [sft, dpo]}
seeds: {training: [1, 2]}
primary: words
secondary: []
"""
TRAIN_AND_EVALUATE = [(step, f"mine.{training}.t{seed}") for seed in (1, 2) for training in ("sft", "dpo")
                      for step in ("train", "evaluate")]


@pytest.fixture
def mine(write): return write("mine.yaml", FILE)


@pytest.fixture
def cells(mine):
    study = read_study(mine)
    return study, plan_study(study)


class Worker:
    "Steps that do nothing but say that they were done, until one of them is told to end otherwise."

    def __init__(self): self.did, self.endings = [], {}

    def __call__(self, name, run, parameters):
        assert os.environ[SHARED_JOURNAL] == str(runs_root() / "mine" / "calls.sqlite")
        begun = open_run(run)
        assert read_declarations(begun).lines, "declared before anything is done"
        ending = self.endings.pop((name, run), None)
        with step(begun, name):
            if ending: raise ending
            if name == "evaluate": write_json(begun.path("metrics.json"), {})
        self.did.append((name, run))


@pytest.fixture
def worker(monkeypatch):
    worker = Worker()
    monkeypatch.setattr(studies, "execute", worker)
    return worker


def test_each_cell_asks_the_stage_that_it_ends_with(cells):
    assert [(cell.cell.name, cell.plan.recipe.eval_arms, cell.left) for cell in cells[1][:2]] == [
        ("sft.t1", ("base", "sft"), ["train", "evaluate"]), ("dpo.t1", ("base", "dpo"), ["train", "evaluate"])]
    assert [cell.plan.recipe.training_seed for cell in cells[1]] == [1, 1, 2, 2]
    lines = "\n".join(plan_lines(*cells))
    assert "cells    4, 0 of them done" in lines and "answers  24 of trained models, 6 that are asked once" in lines


@pytest.mark.long
def test_a_study_goes_on_where_it_was_and_does_nothing_twice(cells, worker):
    study, planned = cells
    worker.endings = {("evaluate", "mine.dpo.t1"): KeyboardInterrupt(), ("train", "mine.sft.t2"): KeyboardInterrupt()}
    told = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt): run_cells(study, planned, told.append)
    assert run_cells(study, planned, told.append) == [] and worker.did == TRAIN_AND_EVALUATE
    assert run_cells(study, planned, told.append) == [] and worker.did == TRAIN_AND_EVALUATE
    assert told[0] == "cell 1 of 4: mine.sft.t1" and told[-1].startswith("cell 4 of 4: mine.dpo.t2, about ")
    record = read_declared_study(runs_root() / "mine")
    assert len(record.lines) == 1 and list(record.lines[0].cells) == [cell.cell.run for cell in planned]
    assert SHARED_JOURNAL not in os.environ and "nothing is missing" in plan_lines(study, planned)[-1]


def test_a_cell_that_fails_is_told_and_the_others_go_on(cells, worker):
    study, planned = cells
    worker.endings = {("train", "mine.dpo.t1"): StepFailed("05_train.ipynb, cell 10: no memory")}
    told = []
    assert run_cells(study, planned, told.append) == ["mine.dpo.t1: 05_train.ipynb, cell 10: no memory"]
    assert "failed: mine.dpo.t1: 05_train.ipynb, cell 10: no memory" in told and len(worker.did) == 6
    assert run_cells(study, planned, told.append) == [] and set(worker.did) == set(TRAIN_AND_EVALUATE)


@pytest.mark.long
def test_a_cell_that_was_made_otherwise_is_made_again(cells, worker):
    study, planned = cells
    run_cells(study, planned, lambda line: None)
    other = plan_study(study.model_copy(update={"settings": study.settings | {"learning_rate": 0.01}}))
    assert [len(cell.left) for cell in other] == [2, 2, 2, 2]


@pytest.mark.long
def test_what_an_old_recipe_made_is_not_taken_for_the_new_ones(cells, worker, monkeypatch):
    "A run has its new recipe when its notebook begins; a training that is refused then leaves the old results."
    study, planned = cells
    run_cells(study, planned, lambda line: None)
    other = plan_study(study.model_copy(update={"settings": study.settings | {"learning_rate": 0.01}}))

    def refused(step, run, parameters):
        begin(run, parameters["recipe"], {"settings": {key: value for key, value in parameters.items()
                                                       if key != "recipe"}})
        raise InputError("trained otherwise")
    monkeypatch.setattr(studies, "execute", refused)
    assert len(run_cells(study, other, lambda line: None)) == 4
    assert [cell.left for cell in other] == [["train", "evaluate"]] * 4
    finished = [cell.cell.name for cell in other if not cell.left]
    data = read_study_data(study, [cell.cell for cell in other], finished)
    assert not data.seen and len(data.otherwise) == 4


@pytest.mark.long
def test_seeds_that_are_changed_when_others_have_been_seen_are_told(cells, worker):
    study, planned = cells
    run_cells(study, planned, lambda line: None)
    for cell in planned: cell.run.path("verdicts.jsonl").touch()
    later = study.model_copy(update={"seeds": study.seeds.model_copy(update={"training": (4,)})})
    studies.declare_cells(later, plan_study(later), runs_root() / "mine")
    assert [line.evaluated for line in read_declared_study(runs_root() / "mine").late] == [4]


@pytest.mark.long
def test_a_constitution_that_was_edited_makes_its_cells_again(write, worker):
    text = (project_root() / "data" / "constitutions" / "improve.md").read_text()
    own = write("own.md", text)
    study = read_study(write("mine.yaml", FILE.replace("[1, 2]", "[1]") + "without: [{training: sft}]\n"))
    study = study.model_copy(update={"settings": study.settings | {"constitution": str(own)}})
    run_cells(study, plan_study(study), lambda line: None)
    assert [cell.left for cell in plan_study(study)] == [[]]
    own.write_text(text.replace("Its weakest part", "The weakest part of it"))
    assert [cell.left for cell in plan_study(study)] == [["train", "evaluate"]]


def test_doses_of_all_weights_are_refused_before_anything_is_trained(cells):
    study = cells[0].model_copy(update={"settings": cells[0].settings | {"adapter": "none"},
                                        "doses": StudyDoses(weight=(0.5,))})
    with pytest.raises(InputError, match="scales an adapter, and adapter: none trains all weights"):
        plan_lines(study, plan_study(study))


@pytest.mark.long
def test_where_every_cell_fails_that_is_what_is_told(write, monkeypatch, capsys):
    mine = write("mine.yaml", FILE.replace("[1, 2]", "[1]") + "without: [{training: sft}]\nfamily: "
                 "{axis: training, level: dpo, against: [base]}\n")
    def falls(name, run, parameters): raise StepFailed("05_train.ipynb, cell 10: no memory")
    monkeypatch.setattr(studies, "execute", falls)
    monkeypatch.setattr(studies, "look_at_cells", lambda cells: None)  # seconds, and another test's
    assert main(["study", str(mine)]) == 1
    told = capsys.readouterr().err
    assert "1 of 1 cells failed: mine.dpo.t1: 05_train.ipynb, cell 10: no memory" in told and "--report" not in told


def test_a_damaged_journal_of_the_study_is_told_with_what_helps_and_torn_times_stop_nothing(cells, worker):
    folder = runs_root() / "mine"
    folder.mkdir(parents=True)
    (folder / "times.jsonl").write_text('{"run": "mine.sft.t1", "sec')
    (folder / "calls.sqlite").write_text("no journal" * 500)
    with pytest.raises(InputError, match="move it away: what cells have asked is in their own"):
        run_cells(*cells, lambda line: None)
    assert not worker.did and studies.measured_seconds(cells[1]) is None


def test_a_run_of_before_a_key_is_the_recipes_still(cells):
    recipe = cells[1][0].plan.recipe
    stored = recipe.model_dump(mode="json")
    assert studies._is_recipe({key: value for key, value in stored.items() if key != "vllm_python"}, recipe)
    assert not studies._is_recipe(stored | {"beta": 0.7}, recipe) and not studies._is_recipe({}, recipe)


def test_two_processes_do_not_work_on_one_study(cells, worker):
    from filelock import FileLock
    (runs_root() / "mine").mkdir(parents=True)
    with FileLock(runs_root() / "mine" / "study.lock"), pytest.raises(InputError, match="another process"):
        run_cells(*cells, lambda line: None)


def test_problems_of_all_cells_come_at_once_each_with_its_cells(runs):
    axes = {"content": {"a": {"pairs": "nobody"}, "b": {"pairs": "contemplative-512", "loss": "hing"}},
            "training": ["sft", "dpo"]}
    study = build_study({"recipe": "smoke", "axes": axes}, "mine.yaml", "mine")
    with pytest.raises(InputError) as error: plan_study(study)
    assert any(line.startswith("cells b.sft, b.dpo: ") and "hing" in line for line in error.value.problems)
    study = build_study({"recipe": "smoke", "axes": {"content": {"a": axes["content"]["a"]}}}, "mine.yaml", "mine")
    with pytest.raises(InputError, match="cell a: .*nothing is called 'nobody'"):
        studies.look_at_cells(plan_study(study))


def test_calls_of_one_cell_are_not_made_again_by_another(tmp_path, monkeypatch):
    reply = {"text": "Yes.", "finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 2}
    monkeypatch.setenv(SHARED_JOURNAL, str(tmp_path / "calls.sqlite"))
    with Journal(tmp_path / "one.sqlite") as journal: journal.save("answer base", {"a": reply, "b": reply}, 1.0)
    with Journal(tmp_path / "two.sqlite") as journal:
        assert journal.get(["a", "c"]) == {"a": reply} and journal.totals()["answer base"]["calls"] == 1
    (tmp_path / "one.sqlite").unlink()  # a kill between the two journals costs nothing
    with Journal(tmp_path / "one.sqlite") as journal: assert journal.get(["b"]) == {"b": reply}
    monkeypatch.delenv(SHARED_JOURNAL)
    with Journal(tmp_path / "three.sqlite") as journal: assert journal.get(["a"]) == {}


@pytest.mark.parametrize("words,told", [
    (["study", "nobody"], "unknown study 'nobody'"), (["study", "gone.yaml"], "gone.yaml: cannot be read"),
])
def test_a_study_that_is_not_there_is_told(words, told, capsys):
    assert main(words) == 2 and told in capsys.readouterr().err


@pytest.mark.long
def test_the_command_shows_what_it_would_do_and_writes_nothing(mine, capsys):
    assert main(["study", str(mine), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "cells    4, 0 of them done" in shown and "family   training: sft less dpo, base" in shown
    assert not runs_root().exists() or not list(runs_root().iterdir())
    assert main(["study", str(mine), "--report"]) == 2
    assert "no cell has been evaluated yet" in capsys.readouterr().err


def test_a_name_that_is_a_run_already_is_told(mine, capsys):
    open_run("mine").record(run="mine", recipe={}, steps={}, started=now())
    assert main(["study", str(mine)]) == 2 and "a run has that name already" in capsys.readouterr().err


def test_times_are_kept_for_what_is_said_of_the_rest(cells, worker):
    run_cells(*cells, lambda line: None)
    rows = read_rows(runs_root() / "mine" / "times.jsonl", studies.CellTime)
    assert [row.run for row in rows] == [cell.cell.run for cell in cells[1]] and rows[0].left == ("train", "evaluate")
