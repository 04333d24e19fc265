"""People's labels on an evaluation's answers: drawn by lot and blind, read back line by line, and what they correct."""
import csv
import io
import json
import random

import pytest

from contemplative_cai.core.files import read_rows, write_rows
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Answer, InputError, Prompt, Verdict
from contemplative_cai.evaluation.claims import Comparison, Level, known_outcomes
from contemplative_cai.evaluation.corrections import (
    claims_to_label,
    load_corrections,
    transfer_of,
    with_people,
    without_transfer,
)
from contemplative_cai.evaluation.labels import (
    LABEL_FILE,
    LabelDraw,
    PersonsLabel,
    asked_criteria,
    criteria_of,
    current_labels,
    draw_answers,
    draw_labels,
    labelled_outcome,
    read_labels,
    usually_labelled,
)
from contemplative_cai.evaluation.questions import Item
from contemplative_cai.measure.corrected import JudgedArm, audit_transfer, corrected_difference, corrected_levels
from contemplative_cai.measure.outcomes import declare, holm
from contemplative_cai.measure.recall import RuleCase, rule_recall
from contemplative_cai.measure.stats import Estimate

ARMS = ("base", "dpo")
TWIN = {"p1": "p0"}  # near duplicates


def prompts(many): return [f"p{i}" for i in range(many)]


def made(many=60, set="safety", texts=None, samples=1, arms=ARMS):
    "A run whose arms answered so many questions."
    run = open_run("people")
    answers = [Answer(arm=arm, prompt_id=id, source="made up", sample=sample, model="m@1",
                      text=(texts or {}).get((arm, id), f"To {id}, answer {sample} in the manner {len(arm)}."))
               for arm in arms for id in prompts(many) for sample in range(samples)]
    write_rows(run.path("answers.jsonl"), answers)
    write_rows(run.path("items.jsonl"), [Item(set=set, prompt_id=id, cluster=TWIN.get(id, id), source="made up")
                                         for id in prompts(many)])
    return run, {id: Prompt(text=f"Question {id}?", source="made up") for id in prompts(many)}


def rows_of(sheet): return list(csv.DictReader(io.StringIO(sheet.read_text("utf-8-sig"))))


def fill(sheet, label, **more):
    "Write the sheet as a spreadsheet would, with a label a line."
    rows = [row | {"label": label(row)} | more for row in rows_of(sheet)]
    with open(sheet, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


# by lot, and blind

def test_every_arm_has_as_many_answers_to_the_same_prompts_and_near_duplicates_count_once(runs):
    run, questions = made()
    draw, _ = draw_labels(run, ["violation"], 20, questions=questions)
    chosen = {arm: [one.prompt_id for one in draw.answers if one.arm == arm] for arm in ARMS}
    assert len(chosen["base"]) == 20 and sorted(chosen["base"]) == sorted(chosen["dpo"])
    assert draw.pools == {"violation": 59} and not {"p0", "p1"} <= set(chosen["base"])
    assert draw.how and draw.seed == 0 and draw.per_arm == 20


def test_the_lot_does_not_look_at_what_was_answered(runs):
    "Who is drawn is the same whatever was said, and every prompt is as likely."
    run, questions = made()
    draw, _ = draw_labels(run, ["violation"], 10, questions=questions)
    longer = {(arm, id): "A wholly different answer. " * 9 for arm in ARMS for id in prompts(60)}
    run, questions = made(texts=longer)
    run.path("labels_drawn.jsonl").unlink()
    again, _ = draw_labels(run, ["violation"], 10, questions=questions)
    assert {one.prompt_id for one in draw.answers} == {one.prompt_id for one in again.answers}
    answers, items = read_rows(run.path("answers.jsonl"), Answer), read_rows(run.path("items.jsonl"), Item)
    outcome, counts = labelled_outcome("violation"), dict.fromkeys(prompts(60), 0)
    criteria = criteria_of(outcome, asked_criteria())
    for seed in range(200):
        for one in draw_answers(answers, items, outcome, criteria, 10, seed)[0]:
            counts[one.prompt_id] += one.arm == "base"
    expected = 200 * 10 / 59
    alone = [count for id, count in counts.items() if id not in ("p0", "p1")]
    assert abs(sum(counts.values()) - 2000) == 0 and max(abs(count - expected) for count in alone) < 4 * expected ** 0.5
    assert abs(counts["p0"] + counts["p1"] - expected) < 4 * expected ** 0.5


def test_a_further_draw_goes_on_and_at_last_there_is_nothing_left(runs):
    run, questions = made(12)
    drawn = [draw_labels(run, ["violation"], 4, questions=questions).draw for _ in range(3)]
    chosen = [one.prompt_id for draw in drawn for one in draw.answers if one.arm == "base"]
    assert len(chosen) == len(set(chosen)) == 11 and [draw.number for draw in drawn] == [1, 2, 3]
    whole, _ = made(12), run.path("labels_drawn.jsonl").unlink()
    assert {one.id for one in draw_labels(whole[0], ["violation"], 12, questions=questions).draw.answers} == {
        one.id for draw in drawn for one in draw.answers}, "in pieces or whole, the same answers"
    with pytest.raises(InputError, match=r"every answer was drawn already \(independent prompts: violation 11\)"):
        draw_labels(run, ["violation"], 1, questions=questions)


def test_what_was_not_answered_is_not_asked_about(runs):
    run, questions = made(10, texts={("dpo", "p3"): " ", ("base", "p4"): ""})
    draw, _ = draw_labels(run, ["violation"], 10, questions=questions)
    asked = {(one.arm, one.prompt_id) for one in draw.answers}
    assert ("dpo", "p3") not in asked and ("base", "p4") not in asked and ("base", "p3") in asked


def test_the_sheet_does_not_say_who_answered(runs):
    run, questions = made(30)
    _, sheet = draw_labels(run, ["violation"], 20, questions=questions)
    rows, text = rows_of(sheet), sheet.read_text("utf-8-sig")
    assert len(rows) == len({row["id"] for row in rows}) == 40 and "base" not in text and "dpo" not in text
    order = [row["answer"].split()[-1] for row in rows]
    assert order != sorted(order) and order != sorted(order, reverse=True) and not any(row["label"] for row in rows)
    assert {row["question"] for row in rows} <= {f"Question {id}?" for id in prompts(30)}
    assert "0: Nobody is hurt" in rows[0]["asked"] and "1: Following the answer" in rows[0]["asked"]


def test_a_principle_is_asked_about_by_its_questions_without_its_words(runs):
    run, questions = made(8, set="contemplative", texts={("dpo", "p5"): "Emptiness is a mindful word."})
    draw, sheet = draw_labels(run, ["mindfulness"], 8, questions=questions)
    criteria = list(dict.fromkeys(one.criterion for one in draw.answers))
    assert len(criteria) == 4 and len(draw.answers) == 4 * 7 * 2
    assert not any("mindful" in row["answer"].lower() for row in rows_of(sheet))


def test_of_several_answers_to_a_prompt_one_is_drawn_and_by_the_same_lot_in_every_arm(runs):
    run, questions = made(20, samples=3)
    draw, _ = draw_labels(run, ["violation"], 20, questions=questions)
    chosen = {arm: {(one.prompt_id, one.sample) for one in draw.answers if one.arm == arm} for arm in ARMS}
    assert chosen["base"] == chosen["dpo"] and {sample for _, sample in chosen["base"]} == {0, 1, 2}


def test_outcomes_nobody_can_be_asked_about_are_refused(runs):
    run, questions = made()
    for name in ("composite", "helpfulness", "words", "exploited", "vocabulary", "violations"):
        with pytest.raises(InputError, match=f"outcome '{name}': people are not asked about it"):
            draw_labels(run, [name], 5, questions=questions)
    with pytest.raises(InputError, match="per_arm: expected 1 or more"):
        draw_labels(run, ["violation"], 0, questions=questions)
    with pytest.raises(InputError, match="no longer give 5[89] of the questions"):
        draw_labels(run, ["violation"], 60, questions={"p1": questions["p1"], "p0": questions["p0"]})
    assert not run.path("labels_drawn.jsonl").exists()
    family = [f"{name}: dpo - base" for name in ("composite", "refusal", "emptiness")]
    declared = declare("harmfulness: dpo - base", family)
    assert usually_labelled(declared) == ["harmfulness", "refusal", "emptiness"]


# read back

def test_a_sheet_comes_back_whatever_answers_look_like(runs):
    odd = {("base", "p2"): "=1+1", ("dpo", "p3"): "- first\n- then, \"quoted\"; é\tü", ("base", "p4"): "'tis so",
           ("dpo", "p5"): "a\u202eb\r\nc"}
    run, questions = made(8, texts=odd)
    draw, sheet = draw_labels(run, ["harmfulness"], 8, questions=questions)
    assert not any(row["answer"].startswith(("=", "-")) for row in rows_of(sheet)), "no spreadsheet computes it"
    values = iter(["1", "0", "0.5", "yes", "No", "partly", "0,5", " 1.0 ", "", ""] + ["0"] * 20)
    fill(sheet, lambda _: next(values))
    brought = read_labels(run, sheet, "ann")
    assert [row.label for row in brought.added[:8]] == [1, 0, 0.5, 1, 0, 0.5, 0.5, 1] and brought.empty == 2
    added = [row.id for row in brought.added]
    assert added == [one.id for one in draw.answers if one.id in added]
    assert all(row.who == "ann" and row.at for row in read_rows(run.path(LABEL_FILE), PersonsLabel))


def test_a_label_that_is_given_again_replaces_the_same_persons_and_nobody_elses(runs):
    run, questions = made(8)
    _, sheet = draw_labels(run, ["violation"], 4, questions=questions)
    fill(sheet, lambda _: "0")
    read_labels(run, sheet, "ann"), read_labels(run, sheet, "ben")
    again = read_labels(run, sheet, "ann")
    assert (len(again.added), again.changed, again.same) == (0, 0, 8)
    fill(sheet, lambda _: "1")
    changed = read_labels(run, sheet, "ann")
    assert (len(changed.added), changed.changed, changed.same) == (8, 8, 0)
    now = {(row.who, row.label) for row in current_labels(run).labels}
    assert now == {("ann", 1.0), ("ben", 0.0)} and len(read_rows(run.path(LABEL_FILE), PersonsLabel)) == 24


def test_an_emptied_label_is_withdrawn_and_a_line_that_is_left_out_is_not(runs):
    run, questions = made(8)
    _, sheet = draw_labels(run, ["violation"], 4, questions=questions)
    fill(sheet, lambda _: "1")
    read_labels(run, sheet, "ann"), read_labels(run, sheet, "ben")
    ids = [row["id"] for row in rows_of(sheet)]
    fill(sheet, lambda row: "" if row["id"] in ids[:3] else "1")
    sheet.write_text("".join(sheet.read_text().splitlines(keepends=True)[:-1]))
    brought = read_labels(run, sheet, "ann")
    assert (len(brought.added), brought.withdrawn, brought.same, brought.empty) == (0, 3, 4, 3)
    assert {row.id for row in current_labels(run).labels if row.who == "ann"} == set(ids[3:])
    assert sum(row.who == "ben" for row in current_labels(run).labels) == 8, "nobody else's"
    assert len(read_rows(run.path(LABEL_FILE), PersonsLabel)) == 8 + 8 + 3, "nothing is taken away"
    assert read_labels(run, sheet, "ann").withdrawn == 0, "only once"
    fill(sheet, lambda _: "0")
    again = read_labels(run, sheet, "ann")
    assert (len(again.added), again.changed, again.withdrawn) == (7, 4, 0)
    assert load_corrections(run, [], []).people == {"ann": 8, "ben": 8}


def test_a_note_that_comes_later_is_kept(runs):
    run, questions = made(8)
    _, sheet = draw_labels(run, ["violation"], 4, questions=questions)
    fill(sheet, lambda _: "1")
    read_labels(run, sheet, "ann")
    fill(sheet, lambda _: "1", note="It says so twice.")
    brought = read_labels(run, sheet, "ann")
    assert (len(brought.added), brought.changed, brought.same) == (8, 8, 0)
    assert {row.note for row in current_labels(run).labels} == {"It says so twice."}
    bare = sheet.with_suffix(".jsonl")
    bare.write_text("\n".join(json.dumps({"id": row["id"], "label": "1"}) for row in rows_of(sheet)))
    assert read_labels(run, bare, "ann").same == 8, "a column that was taken out says nothing"


def test_a_draw_of_before_questions_were_noted_is_read(runs):
    run, questions = made(8)
    draw, sheet = draw_labels(run, ["violation"], 4, questions=questions)
    write_rows(run.path("labels_drawn.jsonl"), [draw.model_copy(update={"answers": tuple(
        one.model_copy(update={"question": ""}) for one in draw.answers)})])
    fill(sheet, lambda _: "1", question="Shown otherwise then?")
    assert len(read_labels(run, sheet, "ann").added) == 8


FAULTS = {
    "a word": (lambda rows: rows[1].update(label="maybe"), "line 3, label: expected 0 or 1 .* came 'maybe'"),
    "a number between": (lambda rows: rows[0].update(label="0.7"), "line 2, label: expected 0 or 1"),
    "half where there are two levels": (lambda rows: rows[0].update(label="0.5"), "line 2, label: expected 0 or 1 "),
    "no number": (lambda rows: rows[0].update(label="nan"), "line 2, label: expected 0 or 1"),
    "an unknown id": (lambda rows: rows[2].update(id="123456789abc"), "line 4, id: expected one of a drawn answer"),
    "no id": (lambda rows: rows[2].update(id=""), "line 4, id: expected one of a drawn answer"),
    "a line twice": (lambda rows: rows.append(dict(rows[0])), "line 10, id: stands in line 2 already"),
    "another answer": (lambda rows: rows[0].update(answer="Something else."), "line 2, answer: expected the one"),
    "ids sorted alone": (lambda rows: [row.update(id=id) for row, id in zip(rows, sorted(row["id"] for row in rows))],
                         "line 2, answer: expected the one that was drawn under this id.*sort whole lines"),
    "questions moved down": (lambda rows: [row.update(question=text) for row, text in zip(rows, [
        rows[-1]["question"], *(row["question"] for row in rows[:-1])])],
                             "line [23], question: expected the one that was drawn under this id.*sort whole lines"),
    "asked something else": (lambda rows: rows[1].update(asked="Is it kind?"), "line 3, asked: expected the one"),
    "another criterion": (lambda rows: rows[3].update(criterion="empathy"), "line 5, criterion: expected 'violation'"),
}


@pytest.mark.parametrize("spoil, message", FAULTS.values(), ids=FAULTS)
def test_what_does_not_fit_is_said_by_line_and_field_and_nothing_is_kept(runs, spoil, message):
    run, questions = made(8)
    _, sheet = draw_labels(run, ["violation"], 4, questions=questions)
    rows = [row | {"label": "1"} for row in rows_of(sheet)]
    spoil(rows)
    for place, text in ((sheet, None), (sheet.with_suffix(".jsonl"), "\n".join(map(json.dumps, rows)))):
        if text is None:
            with open(place, "w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        else: place.write_text(text)
        expected = message if text is None else message.replace("line ", "line ").replace("line", ".*line")
        if text is not None: expected = expected.partition(", ")[2]  # lines of JSON have no first line of columns
        with pytest.raises(InputError, match=f"{place.name}, .*{expected}".replace("line 2 already", "line . already")):
            read_labels(run, place, "ann")
    assert not run.path(LABEL_FILE).exists()


def test_all_faults_are_told_at_once_up_to_a_bound(runs):
    run, questions = made(40)
    _, sheet = draw_labels(run, ["violation"], 30, questions=questions)
    fill(sheet, lambda _: "?")
    with pytest.raises(InputError) as caught: read_labels(run, sheet, "ann")
    assert len(caught.value.problems) == 21 and caught.value.problems[-1] == "labels-1.csv: 40 more lines do not fit"


def test_a_sheet_without_its_columns_a_name_that_is_none_and_a_run_without_a_draw_are_refused(runs, tmp_path):
    run, questions = made(8)
    other = tmp_path / "other.csv"
    other.write_text("id,label\nx,1\n")
    with pytest.raises(InputError, match="no answers were drawn yet.*ccai labels draw people"):
        read_labels(run, other, "ann")
    draw_labels(run, ["violation"], 4, questions=questions)
    with pytest.raises(InputError, match="reviewer's name"): read_labels(run, other, "ann/../ben")
    other.write_text("id,value\nx,1\n")
    with pytest.raises(InputError, match="other.csv, line 1: column 'label' is missing"): read_labels(run, other, "ann")


def test_an_answer_that_has_changed_is_drawn_anew_and_its_label_is_not_used(runs):
    run, questions = made(8)
    draw, sheet = draw_labels(run, ["violation"], 4, questions=questions)
    fill(sheet, lambda _: "1")
    read_labels(run, sheet, "ann")
    made(8, texts={("dpo", id): f"Trained again, {id}." for id in prompts(8)})
    with pytest.raises(InputError, match="answer: the run no longer has the answer that was drawn"):
        read_labels(run, sheet, "ben")
    again, _ = draw_labels(run, ["violation"], 4, questions=questions)
    assert {(one.arm, one.prompt_id) for one in again.answers} == {
        ("dpo", one.prompt_id) for one in draw.answers if one.arm == "dpo"}, "the same places, for the arm that changed"
    assert load_corrections(run, [], []).lost == 4


# what they correct

def estimate(mean): return Estimate(n=9, clusters=9, mean=mean, low=mean - 0.1, high=mean + 0.1, p=0.01)


def simulated(many, rates, errors, labelled, outcome="violation", seed=1):
    """A run of two arms whose judge errs on these shares of no and of yes, arm by arm, and a person who is right;
    returns it with its levels, its comparison, and what is true."""
    lot = random.Random(seed)
    known = labelled_outcome(outcome)
    run, questions = made(many, set=known.set)
    hard = {id: lot.random() for id in prompts(many)}
    truth = {(arm, id): hard[id] < rate for arm, rate in zip(ARMS, rates) for id in prompts(many)}
    judged = {key: fault ^ (lot.random() < errors[key[0]][fault]) for key, fault in truth.items()}
    write_rows(run.path("verdicts.jsonl"), [
        Verdict(arm=arm, prompt_id=id, criterion=known.name, value=float(value), judge="j@1", rubric="r@1")
        for (arm, id), value in judged.items()])
    draw, sheet = draw_labels(run, [outcome], labelled, questions=questions)
    labels = {one.id: str(int(truth[one.arm, one.prompt_id])) for one in draw.answers}
    fill(sheet, lambda row: labels[row["id"]])
    read_labels(run, sheet, "ann")
    means = {arm: sum(value for (name, _), value in judged.items() if name == arm) / many for arm in ARMS}
    levels = [Level(outcome=outcome, set=known.set, arm=arm, judge="j@1", calibrated=False, mean=estimate(means[arm]),
                    unscored=0, asked=many) for arm in ARMS]
    own = Comparison(outcome=outcome, set=known.set, unit="share", better="lower", arm="dpo", against="base",
                     before=means["base"], after=means["dpo"], judge="j@1", calibrated=False,
                     difference=estimate(means["dpo"] - means["base"]))
    return run, levels, own, judged, truth


ALIKE = {arm: (0.355, 0.355) for arm in ARMS}  # a judge of AUC .70 whose cut errs as often on either kind


def test_a_weak_judges_difference_shrinks_and_the_corrected_one_does_not(runs):
    run, levels, own, judged, truth = simulated(2000, (0.6, 0.2), ALIKE, 400)
    corrections = load_corrections(run, levels, [own])
    one, = corrections.comparisons
    true = (sum(v for (arm, _), v in truth.items() if arm == "dpo")
            - sum(v for (arm, _), v in truth.items() if arm == "base")) / 2000
    assert abs(own.difference.mean - 0.29 * true) < 0.05 and abs(one.difference.mean - true) < 0.06
    assert one.difference.low < true < one.difference.high and not one.withheld and one.audit.p > 0.05


def test_numbers_are_those_of_direct_calls(runs):
    run, levels, own, judged, truth = simulated(80, (0.5, 0.3), ALIKE, 30)
    draw, = read_rows(run.path("labels_drawn.jsonl"), LabelDraw)
    labelled = {(one.arm, one.prompt_id) for one in draw.answers}
    arms = [JudgedArm(name=arm, values=tuple(float(judged[arm, id]) for id in prompts(80)),
                      labels=tuple(float(truth[arm, id]) if (arm, id) in labelled else None for id in prompts(80)),
                      clusters=tuple(TWIN.get(id, id) for id in prompts(80))) for arm in ARMS]
    corrections = load_corrections(run, levels, [own])
    assert corrections.comparisons[0].difference == corrected_difference(*arms)
    assert corrections.comparisons[0].audit == audit_transfer(*arms)
    for row, arm in zip(corrections.arms, arms):
        assert row.level == corrected_levels(arm.values, arm.labels, arm.clusters) and row.level.labels == 30


def test_corrected_values_stand_first_with_the_judges_own_beside_and_holm_over_each_claim_once(runs):
    run, levels, own, *_ = simulated(200, (0.6, 0.2), ALIKE, 100)
    corrections = load_corrections(run, levels, [own])
    other = own.model_copy(update={"outcome": "empathy", "calibrated": True, "difference": estimate(0.2)})
    declared = declare("harmfulness: dpo - base", [own.claim, other.claim])
    by_people, (first, second) = with_people(levels, [own, other], corrections, declared, 0.05)
    assert first.difference.mean == corrections.comparisons[0].difference.mean and first.alone == own.difference
    assert first.claimable and not own.claimable, "a judge below the bar is corrected like any other"
    expected = holm({own.claim: corrections.comparisons[0].difference.p, other.claim: 0.01})
    assert (first.p, second.p) == (expected[own.claim], expected[other.claim]) and first.role == "secondary"
    assert [row.mean.mean for row in by_people] == [row.level.mean for row in corrections.arms]
    assert [row.alone for row in by_people] == [row.mean for row in levels]
    assert "corrected" not in first.model_dump() and first.model_dump_json().count("alone") == 0


def test_a_judge_that_errs_more_on_one_arm_is_told_and_its_own_comparison_withheld(runs):
    run, levels, own, *_ = simulated(300, (0.5, 0.5), {"base": (0.0, 0.0), "dpo": (0.0, 0.6)}, 120, "harmfulness")
    corrections = load_corrections(run, levels, [own])
    one, = corrections.comparisons
    assert "errs differently on the two arms (false no 0.00" in one.withheld and own.difference.mean < -0.2
    assert abs(one.difference.mean) < 0.1 and one.difference.low < 0 < one.difference.high
    whole = own.model_copy(update={"outcome": "composite", "calibrated": True})
    part = own.model_copy(update={"calibrated": True, "part": "hazard = vcr"})
    _, (first, composite) = with_people(levels, [own, whole], corrections, declare(own.claim, [whole.claim]), 0.05)
    assert first.claimable and first.alone is None and first.transfer == ""
    assert not composite.claimable and composite.p is None and composite.difference.p is None
    assert composite.transfer.startswith("on harmfulness the judge errs differently")
    alone = without_transfer(part, corrections)
    assert not alone.claimable and alone.difference.p is None
    assert not transfer_of(corrections, "empathy", "j@1", "dpo", "base")
    assert not transfer_of(corrections, "harmfulness", "another@1", "dpo", "base")


def test_the_rule_for_refusals_is_a_judge_like_any_other_with_its_recall_arm_by_arm(runs):
    run, levels, own, judged, truth = simulated(200, (0.5, 0.5), {"base": (0.0, 0.1), "dpo": (0.0, 0.9)}, 80, "refusal")
    corrections = load_corrections(run, levels, [own])
    draw, = read_rows(run.path("labels_drawn.jsonl"), LabelDraw)
    places = [(one.arm, one.prompt_id) for one in draw.answers]
    direct = rule_recall([RuleCase(group=arm, label=float(truth[arm, id]), verdict=judged[arm, id])
                          for arm, id in places])
    mine = {row.group: row for row in corrections.rules[0].rows}
    assert mine == {row.group: row for row in direct}
    assert mine["base"].recall.value > 0.8 > 0.3 > mine["dpo"].recall.value
    assert own.difference.mean < -0.3 and abs(corrections.comparisons[0].difference.mean) < 0.1


def test_the_claim_that_labels_would_narrow_most_is_told_with_the_command(runs):
    "By labels alone half of them leave 0.71 of an interval; where nobody labelled, or all is decided, nothing is told."
    run, levels, own, *_ = simulated(60, (0.5, 0.4), ALIKE, 20)
    corrections = load_corrections(run, levels, [own])
    line, = claims_to_label(corrections, "people", 20)
    one = corrections.comparisons[0].difference
    assert line.startswith("violation: dpo - base: ")
    assert f"by {(one.high - one.low) * (1 - 0.5 ** 0.5):.2f} at most" in line
    assert line.endswith("ccai labels draw people --outcomes violation --per-arm 20")
    wide = one.model_copy(update={"low": -1.0, "high": 1.0})
    both = corrections.model_copy(update={"comparisons": (
        corrections.comparisons[0], corrections.comparisons[0].model_copy(update={
            "outcome": "refusal on edge cases", "difference": wide}))})
    first, _ = claims_to_label(both, "people", 20)
    assert first.startswith("refusal on edge cases") and "--outcomes 'refusal on edge cases' --per-arm 20" in first
    decided = both.model_copy(update={"comparisons": (corrections.comparisons[0].model_copy(update={
        "difference": one.model_copy(update={"labels_needed": 0})}),)})
    assert claims_to_label(None, "people") == claims_to_label(decided, "people") == []


def test_too_few_labels_change_nothing_and_say_why(runs):
    run, levels, own, *_ = simulated(40, (0.5, 0.5), ALIKE, 3)
    corrections = load_corrections(run, levels, [own])
    assert corrections.comparisons[0].difference.undefined.startswith("labels on 3 independent units")
    by_people, (row,) = with_people(levels, [own], corrections, declare(own.claim, []), 0.05)
    assert list(by_people) == levels and row.difference.mean == own.difference.mean and row.corrected is None


def test_labels_of_several_people_count_as_their_mean_and_lines_passed_over_are_counted(runs):
    run, levels, own, *_ = simulated(40, (0.5, 0.5), ALIKE, 10)
    sheet = run.path("labels-1.csv")
    rows = rows_of(sheet)
    fill(sheet, lambda row: "" if row["id"] in (rows[0]["id"], rows[-1]["id"]) else "1")
    read_labels(run, sheet, "ben")
    corrections = load_corrections(run, levels, [own])
    assert corrections.people == {"ann": 20, "ben": 18} and corrections.agreement.units == 18
    run.path(LABEL_FILE).write_text("".join(line for line in run.path(LABEL_FILE).open() if '"ben"' in line))
    alone = load_corrections(run, levels, [own]).rounds[0]
    assert (alone.questions, alone.labelled, alone.passed_over) == (20, 18, 1), "the last was not reached"


def test_verdicts_that_nobody_gives_are_named(runs):
    run, levels, own, *_ = simulated(20, (0.5, 0.5), ALIKE, 10)
    path = run.path("verdicts.jsonl")
    path.write_text(path.read_text().replace('"value":1.0', '"value":7.0'))
    with pytest.raises(InputError, match="verdicts.jsonl: expected values of violation by j@1 between 0 and 1, came 7"):
        load_corrections(run, levels, [own])


def test_lines_that_cannot_be_read_are_told_and_cost_themselves(runs):
    run, levels, own, *_ = simulated(20, (0.5, 0.5), ALIKE, 10)
    with open(run.path(LABEL_FILE), "a") as file: file.write('{"id": "x", "label": 3}\n')
    corrections = load_corrections(run, levels, [own])
    assert corrections.people == {"ann": 20} and len(corrections.damage) == 1
    assert "labels.jsonl, line 21" in corrections.damage[0]


def test_without_labels_there_is_nothing(runs):
    run, questions = made(8)
    assert load_corrections(run, [], []) is None
    draw_labels(run, ["violation"], 4, questions=questions)
    assert load_corrections(run, [], []) is None


def test_every_judged_outcome_of_one_answer_can_be_labelled():
    asked = asked_criteria()
    lacking = [one.label for one in known_outcomes() if one.judged and one.set not in ("all", "games")
               and not criteria_of(one, asked)]
    assert lacking == ["composite", "helpfulness"]
