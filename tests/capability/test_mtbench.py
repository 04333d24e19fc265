"""MT-Bench: its files, both turns of every arm, judges of one answer and of two, and a judge below the bar."""
import json
import math
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from contemplative_cai.capability import measured, mtbench, mtjudged
from contemplative_cai.capability.abilities import ability_changes, ability_figure
from contemplative_cai.capability.benchmark import (
    BenchmarkItem,
    ItemScore,
    benchmark_changes,
    benchmark_levels,
    benchmark_words,
    score_benchmark,
    score_change,
    score_of,
    win_change,
)
from contemplative_cai.capability.measured import check_capability, measure_abilities
from contemplative_cai.capability.mtbench import REFERENCES, mt_questions, recipe_questions
from contemplative_cai.capability.mtgrade import SCALES, graded_rows, quality_rubric
from contemplative_cai.capability.mtjudged import below_words
from contemplative_cai.command.pipeline import check_inputs
from contemplative_cai.core.files import read_rows
from contemplative_cai.core.journal import Journal
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.evaluation.arms import Arm, OpenArm
from contemplative_cai.evaluation.calibration import UNCALIBRATED
from contemplative_cai.evaluation.judge import Asked, LogitJudge, Opinion, Seated
from contemplative_cai.models.llm import ModelCallError, ScriptedLLM
from contemplative_cai.report.card import _benchmark_results
from contemplative_cai.report.limits import _capability_limits

CATEGORIES = ("writing", "roleplay", "math", "coding", "stem", "humanities")
ROWS = [{"question_id": i, "category": CATEGORIES[i % 6], "turns": [f"Tell of river {i}.", "Say it shorter."]}
        for i in range(12)]


def laid_out(folder, rows=ROWS, references=(2,)):
    "FastChat's two files."
    folder.mkdir(exist_ok=True)
    (folder / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / REFERENCES).write_text("".join(json.dumps(
        {"question_id": id, "choices": [{"turns": ["A long river.", "Long."]}]}) + "\n" for id in references))
    return folder


@pytest.fixture
def folder(tmp_path): return laid_out(tmp_path / "mt")


def asking(folder, **more):
    return build_recipe({"capability": "mt_bench", "capability_files": {"mt_bench": str(folder)}, **more})


def writing(key, words):
    "A script whose answers have so many words."
    return ScriptedLLM(lambda conversation: " ".join([f"turn{len(conversation)}"] * words), key=key)


class Counting:
    "A judge that finds long answers good and better, and notes what it was shown."
    name = "counting"

    def __init__(self): self.claims = []

    def opinions(self, claims, run=None):
        self.claims += claims
        return [self.opinion(claim) for claim in claims]

    def opinion(self, claim):
        if isinstance(claim, Asked): value = float(len(claim.answer.split()) > 4)
        else: value = 0.5 + 0.5 * ((len(claim.second) > len(claim.first)) - (len(claim.second) < len(claim.first)))
        return Opinion(direct=value, turned=value)


@pytest.fixture
def judged(monkeypatch):
    "Arms and a judge, planted in the place of the recipe's; the judge is above the bar unless a reason is given."
    def plant(why="", judge=None, **models):
        judge = judge or Counting()
        arms = [Arm(name=name, description=name, adapter=None if name == "base" else "somewhere") for name in models]
        monkeypatch.setattr(measured, "asked_arms", lambda recipe, run: arms)
        @contextmanager
        def opened(recipe, run, given): yield {arm.name: OpenArm(arm, models[arm.name]) for arm in arms}
        @contextmanager
        def seated(recipe, seat, journal, run): yield Seated(judge, "counting")
        monkeypatch.setattr(measured, "open_arms", opened)
        monkeypatch.setattr(mtjudged, "open_seat", seated)
        monkeypatch.setattr(mtjudged, "measure_parts", lambda *given: [])
        monkeypatch.setattr(mtjudged, "below_words", lambda *given: why)
        return judge
    return plant


# files

def test_the_questions_of_fastchat_are_read(shared_data):
    questions = mt_questions(str(shared_data / "mt_bench"))
    assert len(questions) == 80 and len({one.category for one in questions}) == 8
    assert {one.category for one in questions if one.references} == {"math", "reasoning", "coding"}
    assert sum(bool(one.references) for one in questions) == 30 and questions[0].id == "81"


@pytest.mark.parametrize("rows, words", [
    ([{"question_id": 1, "category": "writing", "turns": ["One."]}], "jsonl, line 1: key 'turns.1' is missing"),
    ([ROWS[0], ROWS[0]], "line 2: question_id 0 stands twice"),
    ([{"question_id": 1, "turns": ["a", "b"]}], "line 1: key 'category' is missing"),
    ([], "the file is empty"),
])
def test_what_is_wrong_in_a_file_is_told_by_line(tmp_path, rows, words):
    with pytest.raises(InputError, match=words): mt_questions(str(laid_out(tmp_path / "mt", rows)))


def test_a_row_of_the_hubs_editions_is_read_too(tmp_path):
    row = {"prompt_id": 5, "category": "math", "prompt": ["a?", "b?"], "reference": ["1", "2"]}
    [one] = mt_questions(str(laid_out(tmp_path / "mt", [row], ())))
    assert (one.id, one.turns, one.references) == ("5", ("a?", "b?"), ("1", "2"))


@pytest.mark.parametrize("row", [{"question_id": 0, "choices": [{"turns": ["one"]}]}, {"question_id": 0, "choices": []},
                                 {"question_id": 0, "choices": [{"turns": ["one", ""]}]},
                                 {"choices": [{"turns": ["one", "two"]}]}])
def test_a_reference_to_one_turn_alone_is_refused_before_anything_is_asked(tmp_path, row):
    place = laid_out(tmp_path / "mt", ROWS[:1])
    (place / REFERENCES).write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="line 1: expected question_id, and choices with an answer to each of two"):
        mt_questions(str(place))


def test_a_data_set_of_the_hub_is_looked_at_as_a_file_is(monkeypatch):
    rows = [{"prompt_id": 5, "category": "math", "prompt": ["a?", "b?"]}] * 2
    monkeypatch.setattr(mtbench, "hub_rows", lambda name, split: rows)
    with pytest.raises(InputError, match="hub:lab/mt, row 2: question_id 5 stands twice"): mt_questions("hub:lab/mt")
    rows.clear()
    with pytest.raises(InputError, match="hub:lab/mt: the file is empty"): mt_questions("hub:lab/mt")


def test_what_is_missing_is_said_before_anything_is_asked(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("CCAI_BENCHMARKS", str(tmp_path / "none"))
    with pytest.raises(InputError, match="mt_bench needs its questions.*question.jsonl.*mt_bench=FOLDER"):
        check_inputs(["evaluate"], build_recipe({"capability": "mt_bench", "n_safety": 0}))
    with pytest.raises(InputError, match="mt_bench is judged by eval_judges, and there are none"):
        check_capability(asking(folder, eval_judges=[]))
    assert len(recipe_questions(asking(folder, capability_items=5))[0]) == 5


# turns

def test_the_second_turn_goes_on_from_the_arms_own_answer(judged, folder, runs):
    base, dpo = writing("m@1", 3), writing("m@1+a", 6)
    judged(base=base, dpo=dpo)
    measure_abilities(open_run("demo"), asking(folder))
    seconds = [conversation for conversation in dpo.calls if len(conversation) == 3]
    assert len(seconds) == 12 and {one[1].content for one in seconds} == {" ".join(["turn1"] * 6)}
    assert {one[1].content for one in base.calls if len(one) == 3} == {"turn1 turn1 turn1"}


def test_temperatures_are_fastchats(judged, folder, runs):
    seen, llm = {}, writing("m@1", 3)
    chat = llm.chat
    def noting(conversations, sampling):
        how = sampling.temperature, sampling.max_tokens
        for one in conversations: seen.setdefault(one[0].content, set()).add(how)
        return chat(conversations, sampling)
    llm.chat = noting
    judged(base=llm)
    measure_abilities(open_run("demo"), asking(folder, answer_tokens=77))
    wanted = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
    assert seen == {row["turns"][0]: {(wanted.get(row["category"], 0.0), 77)} for row in ROWS}


def test_a_run_that_was_killed_goes_on_where_it_was(judged, folder, runs):
    class Dying(ScriptedLLM):
        def chat(self, conversations, sampling):
            if len(self.calls) >= 10: raise KeyboardInterrupt
            return super().chat(conversations, sampling)
    run = open_run("demo")
    judged(base=(first := Dying(lambda conversation: "a b c", key="m@1")))
    with pytest.raises(KeyboardInterrupt): measure_abilities(run, asking(folder))
    judged(base=(again := ScriptedLLM(lambda conversation: "a b c", key="m@1")))
    measure_abilities(run, asking(folder))
    assert len(first.calls) + len(again.calls) == 24


def test_a_first_turn_that_failed_has_no_second(judged, folder, runs):
    def shaky(conversation):
        return ModelCallError("too long") if conversation[0].content == "Tell of river 3." else "a b c d e f"
    judged(base=ScriptedLLM(shaky, key="m@1", batch_size=1))
    [one] = measure_abilities(run := open_run("demo"), asking(folder)).benchmarks
    assert (one.arms[0].share.n, one.arms[0].unscored) == (22, 2)
    unscored = {line.score.id: line.score.unscored for line in read_rows(run.path("benchmarks.jsonl"), BenchmarkItem)
                if line.score.value is None}
    assert set(unscored) == {"3/1", "3/2"} and "too long" in unscored["3/1"] and "first turn" in unscored["3/2"]


# judging

def test_arms_are_judged_singly_and_side_by_side(judged, folder, runs):
    judge = judged(base=writing("m@1", 8), dpo=writing("m@1+a", 3))
    found = measure_abilities(open_run("demo"), asking(folder))
    single, beside = found.benchmarks
    assert (single.title, beside.title) == ("mt_bench share of plain qualities by logits",
                                            "mt_bench comparisons won by logits")
    assert [row.share.mean for row in single.arms] == [1.0, 0.0] and single.arms[1].kept.verdict == "worse"
    [row] = beside.arms
    assert (row.arm, row.share.mean, row.change.lost, row.kept.verdict) == ("dpo", 0.0, 24, "worse")
    assert row.share.clusters == 6, "by category"
    assert "12 questions, two turns each" in single.setting and "1 with a reference" in single.setting
    asked = [claim for claim in judge.claims if "river 2." in claim.question]
    assert all("A reference answer, to compare with" in claim.question for claim in asked)
    assert not any("reference" in claim.question for claim in judge.claims if "river 3." in claim.question)
    assert {row["items"] for row in ability_changes(found)} == {single.title, beside.title}


def test_a_judge_below_the_bar_supports_no_claim(judged, folder, runs):
    judged(why=f"{UNCALIBRATED} on clarity (not measured)", base=writing("m@1", 8), dpo=writing("m@1+a", 3))
    found = measure_abilities(open_run("demo"), asking(folder))
    row = score_of(found.benchmarks[0], "dpo")
    assert row.kept is None and row.share.p is None and row.change.difference.p is None and row.share.mean == 0.0
    assert {row["verdict"] for row in ability_changes(found)} == {
        f"no claim: {UNCALIBRATED} on clarity (not measured)"}
    facts = SimpleNamespace(abilities=found, stage="dpo", training=True, metrics=None)
    assert _benchmark_results(facts) == [] and UNCALIBRATED in _capability_limits(facts)[0]
    assert UNCALIBRATED in ability_figure(found, "dpo")[1]


def test_what_was_not_measured_is_below_the_bar():
    assert "clarity (not measured)" in below_words("nobody", ["clarity"], [])
    assert [one.id for one in quality_rubric().criteria] == ["correctness", "on_topic", "clarity", "completeness"]
    assert {one.better for one in quality_rubric().criteria} == {"higher"}


def test_answers_that_are_cut_support_no_claim(judged, folder, runs):
    judged(base=writing("m@1", 8), dpo=writing("m@1+a", 3))
    single, _ = measure_abilities(open_run("demo"), asking(folder, answer_tokens=5)).benchmarks
    assert "24 of 24 answers of base were cut" in single.unfit and single.arms[1].kept is None


def test_a_judge_that_cannot_be_asked_is_told_and_nothing_is_made_up(judged, folder, runs):
    class Silent(Counting):
        def opinions(self, claims, run=None): raise ModelCallError("it gives no log-probabilities")
    judged(judge=Silent(), base=writing("m@1", 8))
    [one] = measure_abilities(open_run("demo"), asking(folder)).benchmarks
    assert one.arms == () and one.unmeasured == ("the judge could not be asked: it gives no log-probabilities",)


def grading(key):
    "A judge that weighs: it grades by the number of words, and has no opinion on anything else."
    def likes(conversation, reply):
        if not reply.isdigit(): return math.log(0.3)
        words = min(10, conversation[0].content.count("turn1") + conversation[0].content.count("turn3"))
        best = words if SCALES[0] in conversation[0].content else 11 - words
        return math.log(0.91 if int(reply) == best else 0.01)
    return ScriptedLLM(lambda conversation: "", likes, key=key)


@pytest.fixture
def graded(judged, tmp_path, monkeypatch):
    "Two arms before a judge that grades, measured on six answers that the project labelled."
    rows, source = graded_rows(None)
    monkeypatch.setattr(mtjudged, "graded_rows", lambda own: (rows[:6], source))
    with Journal(tmp_path / "judge.sqlite") as journal:
        judged(judge=LogitJudge(grading("judge"), journal), base=writing("m@1", 8), dpo=writing("m@1+a", 3))
        yield


def test_grades_from_1_to_10_are_told_where_the_judge_is_above_the_bar(graded, folder, runs, monkeypatch):
    monkeypatch.setattr(mtjudged, "below_grades", lambda worth: "")
    found = measure_abilities(run := open_run("demo"), asking(folder, capability_items=3))
    *_, grade = found.benchmarks
    assert grade.title == "mt_bench grade by logits" and "the expected value of 1 to 10" in grade.setting
    base, dpo = grade.arms
    assert base.note == "mean grade 8.65 of 10 (turn 1 7.75, turn 2 9.55)"
    grades = [line.score.detail["grade"] for line in read_rows(run.path("benchmarks.jsonl"), BenchmarkItem)
              if line.measure == "grade by logits" and line.arm == "dpo"]
    assert len(grades) == 6 and dpo.share.mean == pytest.approx(sum(grade - 1 for grade in grades) / 54)
    assert dpo.change.lost == 6 and "mean grade" in " ".join(benchmark_words([grade]))


def test_grades_are_withheld_below_the_bar_and_the_other_figures_stand(graded, folder, runs):
    single, _, grade = measure_abilities(open_run("demo"), asking(folder, capability_items=3)).benchmarks
    assert single.title == "mt_bench share of plain qualities by logits" and grade.arms == ()
    assert grade.unmeasured[0].startswith(f"grades from 1 to 10 are withheld: {UNCALIBRATED} on grades of data/calib")


def test_ties_and_unscored_comparisons_are_neither_won_nor_lost():
    values = [1.0, 0.5, 0.0, 0.5, None, 1.0, 1.0]
    wins = [ItemScore(id=str(i), cluster=str(i), value=value) for i, value in enumerate(values)]
    change = win_change("x", wins, 0.1)
    assert (change.n, change.gained, change.lost, change.unpaired) == (6, 3, 1, 1)
    assert change.difference.mean == pytest.approx(4 / 6 - 0.5) and change.after == pytest.approx(4 / 6)


def silent_half():
    "Base's scores, and those of an arm that answers every second item with nothing."
    base = [ItemScore(id=str(i), cluster=str(i), value=float(i % 4 > 0)) for i in range(400)]
    return base, [one.model_copy(update={"value": None, "unscored": "the answer is empty"}) if i % 2 else one
                  for i, one in enumerate(base)]


def test_an_arm_that_is_silent_is_not_told_to_have_kept_what_it_was_not_scored_on():
    base, arm = silent_half()
    keys = {"base": "m@1", "dpo": "m@1+a"}
    one = score_benchmark("x", "share", "asked", "0", {"base": base, "dpo": arm}, keys, 0.2).benchmark
    row = score_of(one, "dpo")
    assert (row.change.n, row.change.unpaired, row.change.difference.mean) == (200, 200, 0.0)
    assert row.kept.verdict == "not shown" and "with 200 unscored set against it" in row.kept.words
    assert benchmark_levels([one])[0]["n"] == "200 to 400"
    assert benchmark_changes([one])[0]["n"] == "200 (200 unscored)"
    assert "dpo: 200 of 400 items unscored, the first: the answer is empty" in benchmark_words([one])[0]


def test_a_few_that_are_unscored_leave_a_verdict_that_stands_with_them_set_against_the_arm():
    base, _ = silent_half()
    arm = [one.model_copy(update={"value": None}) if i < 3 else one for i, one in enumerate(base)]
    assert score_change("x", base, arm, 0.1).kept.verdict == "kept"
    tied = [ItemScore(id=str(i), cluster=str(i), value=0.5 if i % 3 else None) for i in range(300)]
    assert win_change("x", [one for one in tied if one.value], 0.1).kept.verdict == "kept"
    assert win_change("x", tied, 0.1).kept.words.startswith("not shown to be kept: by what was scored it is; with 100")
