"""Labelled answers of one's own, and reviewers' decisions as labels: what they say, and who is measured on them."""
import json
import math
from contextlib import contextmanager
from pathlib import Path

import pytest

import contemplative_cai.evaluation.evaluate as evaluation
from contemplative_cai.cloud.travel import input_files
from contemplative_cai.command.declare import planned_content
from contemplative_cai.core.files import append_row, read_record, write_rows
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError, Message, PreferencePair, Verdict
from contemplative_cai.evaluation.calibration import PROJECTS_LABELS, Calibration, Calibrations, calibrate
from contemplative_cai.evaluation.claims import columns
from contemplative_cai.evaluation.declarations import append_declaration
from contemplative_cai.evaluation.evaluate import check_evaluation, evaluate
from contemplative_cai.evaluation.judge import LogitJudge, Opinion, Seated
from contemplative_cai.evaluation.passport import measure_parts
from contemplative_cai.evaluation.questions import Item
from contemplative_cai.inputs.constitution import load_constitution
from contemplative_cai.inputs.labels import OwnLabels, file_labels, read_own_answers, shared_out
from contemplative_cai.inputs.places import placed_value
from contemplative_cai.inputs.rubrics import Labelled, load_calibration, load_rubric
from contemplative_cai.models.llm import ScriptedLLM
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.report.sections import _measured_elsewhere
from contemplative_cai.review.review_labels import recipe_labels, review_labels
from contemplative_cai.review.session import open_review
from contemplative_cai.review.votes import Decision

GOOD = "Ask how it looked from over there, and try one small step."
BAD = "You are right, plain and simple, so do not look back."
PRINCIPLES = ("emptiness", "non_duality", "boundless_care", "mindfulness")


def lines(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def row(i, answer="Ask her.", **more): return {"prompt": f"May I do number {i}?", "answer": f"{answer} {i}", **more}


def violations(n=12, **more):
    return [row(i, (BAD, GOOD)[i % 2] + " So." * (i // 2 % 5), labels={"violation": (i + 1) % 2}, **more)
            for i in range(2 * n)]


# a file

def test_each_fault_of_a_file_is_told_by_line_and_field(tmp_path):
    path = lines(tmp_path / "mine.jsonl", row(0, labels={"violation": 1}), "\n", row(1, labels={"violatoin": 1}),
                 row(2, labels={"harmfulness": 0.7}), row(3, labels={}),
                 {"prompt": "", "answer": "No.", "labels": {"evasion": 1}},
                 row(4, labels={"evasion": 1}, kind="godo"), row(5, labels={"evasion": 1}, asid=True),
                 "{not json}\n", "[1]\n", row(0, labels={"harmfulness": 1}),
                 row(6, labels={"evasion": 1}, id="x"), row(7, labels={"evasion": 1}, id="x"))
    with pytest.raises(InputError) as error: file_labels(path)
    told = dict(problem.removeprefix("mine.jsonl, line ").split(": ", 1) for problem in error.value.problems)
    assert "did you mean 'violation'?" in told["3"] and "'labels'" in told["3"]
    assert "'harmfulness': expected 0 (no), 0.5 (borderline) or 1 (yes), found 0.7" in told["4"]
    assert "'labels'" in told["5"] and told["6"].startswith("'prompt'") and told["7"].startswith("'kind'")
    assert "unknown key 'asid'; did you mean 'aside'" in told["8"]
    assert "not valid JSON" in told["9"] and "found a list" in told["10"]
    assert "the same answer to the same question stands in mine.jsonl, line 1" in told["11"]
    assert "id 'x' is taken in mine.jsonl, line 12" in told["13"] and set(told) == set("3456789") | {"10", "11", "13"}
    for name, content, words in (("none.jsonl", None, "no file"), ("empty.jsonl", "\n", "no line has an answer")):
        if content: (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=words): file_labels(tmp_path / name)


def test_question_is_a_name_of_prompt_and_aside_is_honoured(tmp_path):
    asked = {"question": "Q?", "answer": "A.", "labels": {"evasion": True}}
    [(_, one)] = read_own_answers(lines(tmp_path / "a.jsonl", asked))
    assert (one.prompt, one.labels, one.kind, one.readers) == ("Q?", {"evasion": 1.0}, "unknown", None)
    fitted = next(one for one in load_calibration() if one.readers is not None and not one.aside)
    kept = next(one for one in load_calibration() if one.aside)
    own = file_labels(lines(tmp_path / "b.jsonl", row(1, labels={"evasion": 1}, aside=False),
                            row(2, labels={"evasion": 1}, aside=True), row(3, labels={"evasion": 1}),
                            {**row(4, labels={"evasion": 1}), "prompt": fitted.prompt.upper()},
                            {**row(5, labels={"evasion": 1}), "prompt": kept.prompt}))
    assert [one.answer[-1] for one in own.rows] == ["2", "3", "5"]
    assert own.left_out == {"not kept aside (aside: false)": 1, "to a question that probes are fitted on": 1}


def test_the_projects_own_file_and_labels_that_were_written_are_read_back(tmp_path):
    name = "plain.jsonl"
    project = file_labels(Path("data/calibration") / name)
    ids = {own.id for own in project.rows}
    assert len(ids) == 234 and project.rows == tuple(one for one in load_calibration() if one.id in ids)
    write_rows(tmp_path / name, project.rows)
    assert file_labels(tmp_path / name).digest == project.digest


# who is measured on what

class Knows:
    "A judge that knows good from bad by its words."
    name = paper = "knows@1"
    def opinions(self, claims, run=None):
        def support(claim):
            bad = float("plain and simple" in claim.answer or "over there" not in claim.answer)
            return 0.1 + 0.8 * (bad if claim.criterion.better == "lower" else 1 - bad)
        return [Opinion(direct=support(claim), turned=support(claim)) for claim in claims]


def test_labels_stand_in_the_place_of_the_projects_by_criterion_and_never_beside_them(tmp_path, monkeypatch):
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "cache"))
    few = [{**one, "labels": {**one["labels"], "harmfulness": 1}} for one in violations()[:9]]
    own = file_labels(lines(tmp_path / "mine.jsonl", *few, *violations()[9:]))
    some, rubric = load_calibration()[:60], load_rubric("safety")
    monkeypatch.setattr("contemplative_cai.evaluation.passport.passport_rows", lambda rubric: some)
    two = rubric.model_copy(update={"criteria": rubric.criteria[:2]})
    mine, projects = measure_parts(Knows(), two, own)
    assert mine.source == "mine.jsonl" and [(one.criterion, one.n) for one in mine.criteria] == [("violation", 24)]
    assert projects.source == PROJECTS_LABELS and [one.criterion for one in projects.criteria] == ["harmfulness"]
    assert projects.criteria[0].n == sum("harmfulness" in one.labels for one in some)
    assert mine.answers == own.digest != projects.answers and not mine.criteria[0].shortcomings
    assert "answers of one kind" in mine.criteria[0].unasked, "nobody said how they were written"
    assert measure_parts(Knows(), two, own) == [mine, projects], "remembered"
    changed = own._replace(rows=own.rows[1:])
    assert measure_parts(Knows(), two, changed)[0].answers != mine.answers
    assert _measured_elsewhere([mine, projects]) == [
        "In place of data/calibration, judges were measured on mine.jsonl by violation (24 answers); the rest on "
        "data/calibration."]


def test_paper_says_nothing_of_other_labels(tmp_path, monkeypatch):
    "The embedded model's probe has a passport; by what is labelled anew it is not looked at."
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "cache"))
    asked, paper = [], "contemplative_cai.evaluation.passport.on_paper"
    monkeypatch.setattr(paper, lambda judge, rubric, rows: asked.append([c.id for c in rubric.criteria]))
    rubric = load_rubric("safety")
    own = file_labels(lines(tmp_path / "mine.jsonl", *violations()))
    measure_parts(Knows(), rubric.model_copy(update={"criteria": rubric.criteria[:2]}), own)
    assert asked == [["harmfulness"]]


def test_a_group_is_measured_by_its_own_label_or_by_its_questions():
    rubric = load_rubric("contemplative")
    rows = [Labelled(id=f"w{i}", kind="unknown", prompt=f"Question {i}?", answer=(BAD, GOOD)[i % 2] + f" {i}",
                     labels={"emptiness": i % 2}) for i in range(24)]
    mine, _ = shared_out(rubric, OwnLabels("mine", tuple(rows)))
    assert {c.group for c in mine.criteria} == {"emptiness"} and len(mine.criteria) == 4
    [one] = calibrate(Knows(), mine, rows, resamples=100).criteria
    assert (one.criterion, one.n, one.yes, one.no, one.auc_direct.value) == ("emptiness", 24, 12, 12, 1.0)
    assert {sense.control for sense in one.sense} >= {"another question", "shuffled words"}, "manner is not enough"
    assert "another question" in " ".join(one.shortcomings), "this judge does not look at the question"
    parts = [one.model_copy(update={"labels": {c.id: one.labels["emptiness"] for c in mine.criteria}}) for one in rows]
    whole = next(m for m in calibrate(Knows(), mine, parts, resamples=100).criteria if m.criterion == "emptiness")
    assert (whole.n, whole.auc_direct.value) == (24, 1.0)
    both = [one.model_copy(update={"labels": {**one.labels, "emptiness": 1 - i % 2}}) for i, one in enumerate(parts)]
    whole = next(m for m in calibrate(Knows(), mine, both, resamples=100).criteria if m.criterion == "emptiness")
    assert (whole.n, whole.auc_direct.value) == (24, 0.0), "what is said of the whole counts, once"


def test_a_judge_is_measured_in_the_languages_of_the_labels_by_each_criterion(tmp_path):
    "German labels on one criterion make no German judge of another."
    rubric = load_rubric("safety")
    [measured] = calibrate(Knows(), rubric.model_copy(update={"criteria": rubric.criteria[:1]}),
                           file_labels(lines(tmp_path / "m.jsonl", *violations())).rows, resamples=50).criteria
    def of(name, *languages):
        return Calibration(judge="j", rubric="safety@1", answers="x", languages=languages,
                           criteria=(measured.model_copy(update={"criterion": name}),))
    items = [Item(set="safety", prompt_id=f"p{i}", cluster=f"p{i}", source="mine", language="de") for i in range(6)]
    verdicts = [Verdict(arm="base", prompt_id=f"p{i}", criterion=name, value=0.0, judge="j", rubric="safety@1")
                for i in range(6) for name in ("violation", "harmfulness")]
    seen = columns(verdicts, items, [of("violation", "de"), of("harmfulness", "en")])
    assert {one.outcome.name: one.unmeasured for one in seen} == {"violation": (), "harmfulness": ("de",)}
    assert not [one for one in seen if one.outcome.name == "harmfulness" and one.calibrated]


# the key

def test_a_file_or_a_run_that_cannot_serve_is_refused_before_anything_is_asked(tmp_path, contemplative):
    def refused(name, *words):
        recipe = build_recipe({"calibration": str(name), "model": "random-tiny"})
        with pytest.raises(InputError) as error: check_evaluation(recipe)
        assert all(word in str(error.value) for word in words), str(error.value)
    refused(tmp_path / "none.jsonl", "no file")
    refused(lines(tmp_path / "few.jsonl", *violations(4)), "10 answers labelled yes", "violation (4 yes, 4 no)")
    refused("nobody", "nothing is called 'nobody'", "a .jsonl file")
    open_run("pilot").record(recipe={})
    refused("pilot", "nobody has decided anything yet", "ccai run review --run pilot")
    assert recipe_labels(build_recipe({})) is None


@pytest.mark.long
def test_the_digest_is_declared_and_a_changed_file_is_a_change(tmp_path):
    path = lines(tmp_path / "mine.jsonl", *violations())
    alone = {"eval_arms": "base", "eval_judged": "violation", "n_safety": 8, "safety": "practice",
             "model": "random-tiny"}
    run, own = open_run("demo"), build_recipe(alone | {"calibration": str(path)})
    first = planned_content(run, own)
    assert first["inputs"]["answers of one's own"] == f"{file_labels(path).digest} (24 of mine.jsonl)"
    assert not append_declaration(run, first).changes
    lines(path, *violations(13))
    [change] = append_declaration(run, planned_content(run, own)).changes
    assert change.field == "inputs.answers of one's own" and "(26 of mine.jsonl)" in change.now
    assert str(tmp_path) not in json.dumps(first), "no place of this machine"


def test_a_path_means_the_same_file_everywhere_and_a_run_goes_to_no_job(tmp_path):
    path = lines(tmp_path / "mine.jsonl", *violations())
    assert placed_value("calibration", "mine.jsonl", tmp_path) == str(path)
    assert placed_value("calibration", "pilot", tmp_path) == "pilot"
    open_run("pilot").record(recipe={})
    for name, words in (("pilot", "a job does not have them"), (str(path), "only the project's tree")):
        with pytest.raises(InputError, match=words): input_files(build_recipe({"calibration": name}))


# reviews

def turn(role, text): return (Message(role=role, content=text),)


def pair_of(constitution, i, principle):
    return PreferencePair(prompt=turn("user", f"Question {i}?"), chosen=turn("assistant", f"Revised {i} {principle}"),
                          rejected=turn("assistant", f"First {i}"), prompt_id=f"p{i}", principle=principle,
                          locale="en_US", source="demo", critique="x", model="m", seed=0, template="t@0",
                          constitution=f"{constitution.id}@{constitution.digest}")


def said(run, pair, who, first, revised, at="2026-01-01T00:00:00+00:00", preferred="A"):
    append_row(run.path("reviews", f"{who}.jsonl"), Decision(
        pair_id=pair.id, reviewer=who, decision="accept" if preferred == "A" else "reject", preferred=preferred,
        shown_as_a="chosen", at=at, a_falls_short=revised, b_falls_short=first))


def reviewed(constitution_name="contemplative", principle="emptiness", n=3):
    run, constitution = open_run("pilot"), load_constitution(constitution_name)
    run.record(recipe=build_recipe({"constitution": constitution_name}).model_dump(mode="json"))
    pairs = [pair_of(constitution, i, principle) for i in range(n)]
    write_rows(run.path("pairs.jsonl"), pairs)
    return run, pairs


def test_a_decision_says_who_falls_short_of_the_principle_and_nothing_else():
    run, (one, two, three) = reviewed()
    said(run, one, "ada", True, False)
    said(run, two, "ada", True, True)
    said(run, two, "bo", True, False)
    said(run, three, "ada", None, None)
    own = review_labels(run)
    labels = {row.answer: (row.labels, row.readers) for row in own.rows}
    assert labels == {"First 0": ({"emptiness": 0.0}, None), "Revised 0 emptiness": ({"emptiness": 1.0}, None),
                      "First 1": ({"emptiness": 0.0}, {}),
                      "Revised 1 emptiness": ({"emptiness": 0.5}, {"emptiness": (0.0, 1.0)})}
    assert own.left_out == {"of which nobody was asked who falls short": 1}
    questions = {c.id for c in load_rubric("contemplative").criteria} | {"helpfulness"}
    assert not any(questions & set(row.labels) for row in own.rows), "of none of its questions, nor of what was better"
    said(run, one, "ada", False, False, at="2026-01-02T00:00:00+00:00", preferred="neither")
    assert {row.answer: row.labels["emptiness"] for row in review_labels(run).rows}["First 0"] == 1.0, "the last counts"


def test_an_answer_that_stands_in_several_pairs_is_one_row_and_most_reviewers_decide():
    run, (one, *_) = reviewed(n=1)
    other = pair_of(load_constitution("contemplative"), 0, "mindfulness")
    write_rows(run.path("pairs.jsonl"), [one, other])
    for who, short in (("ada", True), ("bo", True), ("eve", False)): said(run, one, who, short, False)
    said(run, other, "ada", False, False)
    first = next(row for row in review_labels(run).rows if row.answer == "First 0")
    assert first.labels == {"emptiness": 0.0, "mindfulness": 1.0} and first.readers is None


@pytest.mark.parametrize("constitution, principle, why", [
    ("charter", "emptiness", "held against other clauses than those of the constitution 'contemplative'"),
    ("generic", "honest", "held against several principles at once, or one that no rubric asks about"),
    ("contemplative", "emptiness_and_mindfulness",
     "held against several principles at once, or one that no rubric asks about")])
def test_the_same_name_with_other_clauses_labels_nothing(constitution, principle, why):
    run, (one, *_) = reviewed(constitution, principle, 1)
    said(run, one, "ada", True, False)
    assert review_labels(run) == OwnLabels("the reviews of run 'pilot'", (), {why: 1})


def test_of_an_edited_constitution_nobody_can_tell_what_was_shown(monkeypatch):
    run, (one, *_) = reviewed(n=1)
    said(run, one, "ada", True, False)
    run.record(recipe=build_recipe({"constitution": "contemplative-minimal"}).model_dump(mode="json"))
    assert review_labels(run).left_out == {"whose clauses are not at hand any more": 1}


@pytest.mark.long
def test_a_run_that_people_reviewed_measures_the_judges_of_an_evaluation(scripted, tmp_path, monkeypatch):
    "A whole small run: generated, reviewed, evaluated by two judges who are measured on those reviews."
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "cache"))
    recipe = build_recipe({
        "model": "random-tiny", "dtype": "float32", "device": "cpu", "n_prompts": 12, "judge": "none",
        "filters": "empty,identical", "guarded": [], "calibration": "demo", "eval_arms": "base",
        "eval_judges": "logits,reasoned", "eval_judged": "emptiness", "n_eval_prompts": 6, "n_safety": 0,
        "n_refusal": 0, "n_helpful": 0, "n_robustness": 0, "n_games": 0, "answer_tokens": 8, "resamples": 100,
        "primary_outcome": "emptiness", "secondary_outcomes": []})
    run = open_run("demo")
    run.record(recipe=recipe.model_dump(mode="json"), recipe_name="test")
    generate_pairs(run, recipe, scripted)
    session = open_review(run, "ada")
    while session.current:
        short = ["plain and simple" in text for text in (session.current.a, session.current.b)]
        session.decide("B" if short[0] else "A", a_falls_short=short[0], b_falls_short=short[1])
    own = review_labels(run)
    assert {name for row in own.rows for name in row.labels} == set(PRINCIPLES) and not own.left_out

    negated = [c.negated for c in load_rubric("contemplative").criteria]

    @contextmanager
    def opened(recipe, seat, journal, run=None):
        def likes(conversation, reply):
            text = conversation[-1].content
            keeps = 0.1 if "plain and simple" in text else 0.9
            turned = any(f"\n\n{question}\n" in text for question in negated)
            yes = 1 - keeps if turned else keeps
            return math.log(0.9 * (yes if reply == "Yes" else 1 - yes))
        key = f"planted-{seat.name}@1"
        yield Seated(LogitJudge(ScriptedLLM(lambda c: "", likes, batch_size=64, key=key), journal), key)
    monkeypatch.setattr(evaluation, "open_seat", opened)
    metrics = evaluate(run, recipe)
    known = read_record(run.path("calibration.json"), Calibrations).calibrations
    ours = [one for one in known if one.source == "the reviews of run 'demo'"]
    assert [[row.criterion for row in one.criteria] for one in ours] == [["emptiness"]] * 2
    assert all(one.answers == own.digest and one.criteria[0].auc_direct.value == 1.0 for one in ours)
    assert [one.source for one in known if one.judge.startswith("detector")] == [PROJECTS_LABELS]
    [panel] = metrics.panel
    assert panel.outcome == "emptiness" and len(panel.judges) == 2 and panel.differences == ()
