"""Grades from 1 to 10: read from what is weighed, measured on labelled answers, withheld below the bar."""
import math
import re

import pytest

from contemplative_cai.capability.mtgrade import (
    SCALES,
    below_grades,
    expected_grade,
    grade_answers,
    graded_rows,
    labelled_good,
    measure_grades,
)
from contemplative_cai.core.journal import Journal
from contemplative_cai.evaluation.judge import LogitJudge
from contemplative_cai.evaluation.probe import Reading
from contemplative_cai.inputs.labels import OwnLabels
from contemplative_cai.models.llm import ModelCallError, ScriptedLLM

ROWS, SOURCE = graded_rows(None)
GOOD = {(row.prompt, row.answer) for row in ROWS if labelled_good(row) == 1}
SHOWN = re.compile(r"Question: (.*)\n\nAnswer: (.*)\n\nHow good is this answer\?", re.DOTALL)


def weighing(wanted, mass=1.0, key="weighing"):
    "A script that gives nearly all of this probability to one number, by question, answer and scale."
    def likes(conversation, reply):
        text = conversation[0].content
        grade = wanted(*SHOWN.match(text).groups(), text)
        return math.log(mass * (0.91 if int(reply) == grade else 0.01))
    return ScriptedLLM(lambda conversation: "", likes, key=key)


def knowing(good=9, bad=3):
    "Who finds good what is labelled so, by either scale."
    def wanted(question, answer, text):
        grade = good if (question, answer) in GOOD else bad
        return grade if SCALES[0] in text else 11 - grade
    return wanted


@pytest.fixture
def seat(tmp_path):
    "A judge that weighs by a script."
    with Journal(tmp_path / "journal.sqlite") as journal: yield lambda llm: LogitJudge(llm, journal)


def graded(judge, answer="Four.", question="How many legs has a cat?"):
    [grade] = grade_answers(judge, [Reading(question, answer)])
    return grade


def test_a_grade_is_the_expected_value_of_ten_numbers_and_ten_is_one_of_them():
    assert expected_grade([math.log(0.1)] * 10) == pytest.approx(5.5)
    assert expected_grade([-50.0] * 9 + [0.0]) == pytest.approx(10.0)
    assert expected_grade([math.log(0.3), math.log(0.1), *[-50.0] * 8]) == pytest.approx(1.25), "of what they share"


def test_the_second_scale_is_turned_back(seat):
    grade = graded(seat(weighing(lambda question, answer, text: 9 if SCALES[0] in text else 2)))
    assert grade.direct == pytest.approx(grade.turned) == pytest.approx(0.91 * 9 + 0.01 * 46)
    assert grade.share == pytest.approx((grade.value - 1) / 9) and grade.mass == pytest.approx(1.0)
    fond = graded(seat(weighing(lambda question, answer, text: 8, key="fond")))
    assert fond.value == pytest.approx(5.5), "a liking for a number is no opinion"


def test_what_cannot_be_read_is_unscored_with_its_reason(seat):
    few = graded(seat(weighing(lambda *given: 5, mass=0.2, key="few")))
    assert few.value is None and few.share is None
    assert "the numbers from 1 to 10 have 0.2 of the probability" in few.reason
    assert graded(seat(weighing(lambda *given: 5)), " ").reason == "the answer is empty"
    def likes(conversation, reply):
        if "Two." in conversation[0].content: raise ModelCallError("too long")
        return math.log(0.1)
    one, other = grade_answers(seat(ScriptedLLM(lambda conversation: "", likes, key="shaky")),
                               [Reading("a?", "One."), Reading("a?", "Two.")])
    assert one.value == pytest.approx(5.5) and other.reason == "the judge's call failed: too long"


def test_a_judge_that_knows_is_above_the_bar_also_where_its_grades_lie_on_one_side_of_the_middle(seat):
    kind = measure_grades(seat(weighing(knowing(10, 7))), ROWS)
    assert kind.below and below_grades(kind) == "", "grades are compared as they stand, and not cut"


@pytest.mark.parametrize("wanted, words", [
    (lambda question, answer, text: min(10, len(answer.split())) if SCALES[0] in text else
     11 - min(10, len(answer.split())), "above what the number of words reaches"),
    (lambda question, answer, text: 9 if (answer in {one for _, one in GOOD}) == (SCALES[0] in text) else 2,
     "another question: AUC"),
    (lambda question, answer, text: knowing()(question, answer, SCALES[0]), "turned round"),
], ids=["by length", "blind to the question", "deaf to the scale"])
def test_who_does_not_know_is_below_the_bar_and_it_is_said_where(seat, wanted, words):
    assert words in below_grades(measure_grades(seat(weighing(wanted)), ROWS))


def test_answers_are_good_where_nothing_is_missing_and_ones_own_count_where_they_are_enough():
    assert SOURCE == "data/calibration" and min(map([labelled_good(row) for row in ROWS].count, (0.0, 1.0))) >= 10
    def row(i, **labels):
        return ROWS[0].model_copy(update={"id": f"own-{i}", "answer": f"Answer {i}.", "labels": labels})
    assert labelled_good(row(0, correctness=1)) == 0.5 and labelled_good(row(0, clarity=0)) == 0.0
    assert labelled_good(row(0, correctness=1, clarity=1, on_topic=0.5)) == 0.5
    invented = dict.fromkeys(("correctness", "on_topic", "clarity", "completeness"), 1) | {"candour": 0}
    assert labelled_good(row(0, **invented)) == 0.0, "what is made up is no good answer"
    assert not [row.id for row in ROWS if labelled_good(row) == 1 and row.kind == "bad"]
    own = [row(i, **dict.fromkeys(("correctness", "on_topic", "clarity", "completeness"), i % 2)) for i in range(20)]
    assert graded_rows(OwnLabels("mine.jsonl", tuple(own))) == (own, "mine.jsonl")
    assert graded_rows(OwnLabels("mine.jsonl", tuple(own[:10])))[1] == SOURCE
    names = ("correctness", "on_topic", "clarity", "completeness")
    scattered = [row(i, **{names[i % 4]: i // 4 % 2}) for i in range(80)]
    assert graded_rows(OwnLabels("mine.jsonl", tuple(scattered)))[1] == SOURCE, "one label tells no good answer"
