"""A whole evaluation: declared before it answers,
resumed where it was killed, and no number that its rows do not bear out."""
import math
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from model_server import Server, completion
from support import RULES_ONLY, borrowed_prompts, journalled, play, wait_for

import contemplative_cai.evaluation.evaluate as evaluation
from contemplative_cai.command.declare import planned_content
from contemplative_cai.core.files import append_row, read_json, read_record, read_rows, write_json
from contemplative_cai.core.journal import read_ledger
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import Run, open_run, refuse_busy
from contemplative_cai.core.schema import Answer, InputError, Verdict, digest
from contemplative_cai.core.sessions import Session
from contemplative_cai.evaluation.arms import recipe_arms
from contemplative_cai.evaluation.calibration import Calibration, Calibrations
from contemplative_cai.evaluation.claims import all_comparisons, columns, compare_arms, contrasts, known_outcomes
from contemplative_cai.evaluation.declarations import append_declaration, read_declarations
from contemplative_cai.evaluation.evaluate import (
    Metrics,
    check_evaluation,
    declare_evaluation,
    evaluate,
    load_metrics,
)
from contemplative_cai.evaluation.judge import DETECTOR_VERSION, LogitJudge, Seated, read_seats
from contemplative_cai.evaluation.passport import refusals_found
from contemplative_cai.evaluation.questions import Item, evaluation_suites
from contemplative_cai.evaluation.verdicts import mask_vocabulary
from contemplative_cai.inputs.rubrics import APPLIES, judged_rubrics, load_calibration, load_rubric
from contemplative_cai.measure.outcomes import declare
from contemplative_cai.measure.power import detectable_change
from contemplative_cai.measure.recall import reach_words
from contemplative_cai.models.llm import ScriptedLLM
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.report.limits import limits
from contemplative_cai.report.page import Table
from contemplative_cai.report.sections import safety_section
from contemplative_cai.report.summary import collect
from contemplative_cai.review.votes import Decision
from contemplative_cai.training.train import train

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "model": "random-tiny",
    "dtype": "float32",
    "device": "cpu",
    "constitution": "contemplative-minimal",
    "n_prompts": 12,
    "filters": "empty,identical",
    "epochs": 1,
    "max_steps": 3,
    "learning_rate": 0.01,
    "max_length": 256,
    "test_share": 0.4,
    "n_eval_prompts": 6,
    "answer_tokens": 10,
    "resamples": 200,
    "guarded": [],
    "n_safety": 48,
    "n_refusal": 12,
    "n_helpful": 8,
    "n_robustness": 2,
    "n_games": 1,
    "eval_judged": "safety, emptiness, helpfulness",
}
SOME = {"eval_judged": "violation", "n_robustness": 0, "n_games": 0, "n_helpful": 0}
CRITERIA = [c for name in APPLIES for c in load_rubric(name).criteria if c.negated]
NEGATED = [c.negated for c in CRITERIA]


def recipe_with(**changes): return build_recipe(TINY | changes)


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory): return borrowed_prompts(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory, contemplative):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCAI_RUNS", str(tmp_path_factory.mktemp("runs")))
        run, recipe = open_run("demo"), recipe_with()
        run.record(recipe=recipe.model_dump(mode="json"), recipe_name="test")
        generate_pairs(run, recipe, play(contemplative))
        train(run, recipe)
        return run.folder


@pytest.fixture
def run(trained_folder, runs, benchmarks, monkeypatch):
    monkeypatch.setenv("CCAI_BENCHMARKS", str(benchmarks))
    shutil.copytree(trained_folder, runs / "demo")
    return open_run("demo")


# planted judges

LABELS = {(hide(row.prompt), hide(row.answer)): row.labels
          for row in load_calibration() for hide in (str, mask_vocabulary)}
ANSWERS = {answer for _, answer in LABELS}


def chance(*names): return int(digest(list(names), 12), 16) / 16**12


WORDS = {frozenset(answer.split()) for answer in ANSWERS}


def ruined(answer): return frozenset(answer.split()) in WORDS  # under another question, or in another order


def opinion(text: str, effect: dict, arms: dict) -> float:
    "Support for yes, or for B: by the labels where there are any, else by the arm the answer came from."
    if "\n\nAnswer A: " in text:
        first, second = text.split("\n\nAnswer A: ")[1].split("\n\nWhich answer")[0].split("\n\nAnswer B: ")
        asked = text.removeprefix("Question: ").split("\n\nAnswer A: ")[0]
        if (asked, first) in LABELS and (asked, second) in LABELS:
            one, other = LABELS[asked, first]["helpfulness"], LABELS[asked, second]["helpfulness"]
        else: one, other = (chance(side) - effect.get(arms.get(side), 0) for side in (first, second))
        return 0.5 + 0.4 * (other > one) - 0.4 * (one > other)
    question, shown = text.split("\n\nAnswer: ", 1)
    criterion, turned = next((c, asked == c.negated)
                             for c in CRITERIA for asked in (c.question, c.negated) if f"\n\n{asked}\n" in shown)
    answer = shown.split(f"\n\n{criterion.negated if turned else criterion.question}\n")[0]
    bad = float(chance(question, criterion.id) + 0.2 * chance(answer) < 0.1 + effect.get(arms.get(answer), 0.3))
    known = LABELS.get((question.removeprefix("Question: "), answer))
    value = (known.get(criterion.id, 0.5) if known else float(criterion.better == "lower") if ruined(answer)
             else bad if criterion.better == "lower" else 1 - bad)
    return 0.1 + 0.8 * (1 - value if turned else value)


HOW = {"honest": lambda p, text: p, "inverted": lambda p, text: 1 - p, "constant": lambda p, text: 0.8,
       "always the same side": lambda p, text: 0.3 if any(negated in text for negated in NEGATED) else 0.7}


def whole_answers(*asked, answers=evaluation.answer_arms, **more):
    "The arms' answers as if they had an end: random weights write on until they are cut."
    return [answer.model_copy(update={"finish_reason": "stop"}) for answer in answers(*asked, **more)]


def plant(monkeypatch, run, how="honest", effect=None, whole=True):
    """Put a judge in the recipe's seats that is honest, or is not, on labelled answers, and sees an effect of the arms;
    the answers it sees are whole, or cut as they came."""
    if whole: monkeypatch.setattr(evaluation, "answer_arms", whole_answers)
    effect = effect or {"base": 0.5, "prompted": 0.35, "careful": 0.4, "dpo": 0.1}

    @contextmanager
    def opened(recipe, seat, journal, run=run):
        arms = {text: row.arm for row in read_rows(run.path("answers.jsonl"), Answer)
                if row.text for text in (row.text, mask_vocabulary(row.text))}
        def likes(conversation, reply):
            p = HOW[how](opinion(conversation[-1].content, effect, arms), conversation[-1].content)
            return math.log(0.9 * (p if reply in ("Yes", "B") else 1 - p))
        key = f"planted-{how.replace(' ', '-')}-{seat.name}@2"
        yield Seated(LogitJudge(ScriptedLLM(lambda c: "", likes, batch_size=64, key=key), journal), key)
    monkeypatch.setattr(evaluation, "open_seat", opened)


def comparison(metrics, outcome, arm="dpo", against="base", judge=0):
    rows = [c for c in metrics.comparisons if (c.outcome, c.arm, c.against) == (outcome, arm, against)]
    return rows[judge] if rows else None


def calibrations_of(run): return read_record(run.path("calibration.json"), Calibrations).calibrations


@pytest.fixture(scope="module")
def planted_folder(trained_folder, benchmarks, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCAI_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("CCAI_BENCHMARKS", str(benchmarks))
        shutil.copytree(trained_folder, os.path.join(os.environ["CCAI_RUNS"], "demo"))
        plant(patch, open_run("demo"))
        evaluate(open_run("demo"), recipe_with())
        return open_run("demo").folder


@pytest.fixture
def planted(planted_folder, runs, benchmarks, monkeypatch):
    "An evaluated run, and its numbers."
    monkeypatch.setenv("CCAI_BENCHMARKS", str(benchmarks))
    shutil.copytree(planted_folder, runs / "demo")
    return open_run("demo"), load_metrics(open_run("demo"))


def test_a_file_that_does_not_fit_is_refused_by_file_and_key(planted):
    run, metrics = planted
    assert isinstance(metrics, Metrics)
    written = read_json(run.path("metrics.json"))
    write_json(run.path("metrics.json"), {key: value for key, value in written.items() if key != "schema_version"})
    assert load_metrics(run) == metrics, "a file of before there were versions"
    for change, words in (({"levels": [{}]}, "levels.0.outcome"), ({"schema_version": 99}, "schema_version"),
                          ({"margin": "wide"}, "margin"), ({"surprise": 1}, "surprise")):
        write_json(run.path("metrics.json"), written | change)
        with pytest.raises(InputError) as caught: load_metrics(run)
        assert words in str(caught.value) and "metrics.json" in str(caught.value)


# what an honest judge lets one claim

def test_the_primary_claim_and_the_family_get_a_p_and_nothing_else_does(planted):
    _, metrics = planted
    primary = comparison(metrics, "violation")
    assert not any(row.withheld for row in metrics.comparisons) and not any(one.cut for one in metrics.cut)
    assert (primary.role == "primary" and primary.p < 0.01
            and primary.difference.high < 0 and primary.calibrated)
    roles = {c.role: [row.p is not None for row in metrics.comparisons if row.role == c.role]
             for c in metrics.comparisons}
    assert (set(roles) == {"primary", "secondary", "exploratory"}
            and any(roles["secondary"]) and not any(roles["exploratory"]))
    assert ({c.claim for c in metrics.comparisons if c.role == "secondary"}
            <= set(metrics.declared.family))
    raw = {c.outcome + c.against: c.difference.p
           for c in metrics.comparisons if c.role == "secondary" and c.p is not None}
    assert all(c.p >= raw[c.outcome + c.against] for c in metrics.comparisons
               if c.role == "secondary" and c.p is not None), "Holm only ever raises p"


@pytest.mark.long
def test_claims_from_answers_that_were_cut_are_withheld(run, monkeypatch):
    "Random weights end no answer: the judge above the bar is heard, and nothing is claimed."
    plant(monkeypatch, run, whole=False)
    metrics = evaluate(run, recipe_with(**SOME))
    assert {one.arm for one in metrics.cut} == set(metrics.arms)
    assert all(one.cut > one.answers / 2 and one.unrecorded == 0 for one in metrics.cut)
    primary = comparison(metrics, "violation")
    assert primary.role == "primary" and primary.calibrated and primary.difference.mean is not None
    assert primary.p is None is primary.difference.p and "were cut, at most 10% may be" in primary.withheld
    assert comparison(metrics, "refusal").withheld == "", "a rule looks at the opening"


def test_every_number_is_borne_out_by_the_rows(planted):
    "The share of violating answers and its difference, counted again from verdicts.jsonl and items.jsonl alone."
    run, metrics = planted
    safety = {item.prompt_id for item in read_rows(run.path("items.jsonl"), Item) if item.set == "safety"}
    rows = {arm: {v.prompt_id: v.value for v in read_rows(run.path("verdicts.jsonl"), Verdict)
                  if v.criterion == "violation" and v.arm == arm and v.prompt_id in safety}
            for arm in ("base", "dpo")}
    assert len(safety) == 48 and all(set(values) == safety for values in rows.values())
    both = [id for id in safety if rows["base"][id] is not None and rows["dpo"][id] is not None]
    primary = comparison(metrics, "violation")
    assert primary.unscored == 48 - len(both) and primary.difference.n == len(both)
    assert (primary.before == pytest.approx(sum(rows["base"][id] for id in both) / len(both))
            and primary.after == pytest.approx(sum(rows["dpo"][id] for id in both) / len(both)))
    hazards = [c for c in metrics.breakdowns if c.outcome == "violation" and c.part.startswith("hazard")]
    assert (len(hazards) == 4 and sum(c.difference.n for c in hazards) == len(both)
            and all(c.p is None for c in hazards))


def test_each_outcome_comes_with_what_belongs_to_it(planted):
    run, metrics = planted
    assert (metrics.arms == ("base", "prompted", "careful", "dpo")
            and {p.arm for p in metrics.probed} == set(metrics.arms))
    assert (comparison(metrics, "refusal").kept.margin == 0.05 and comparison(metrics, "helpfulness").before == 0.5
            and comparison(metrics, "helpfulness", against="prompted") is None)
    assert (comparison(metrics, "violation", against="prompted").role == "secondary"
            and comparison(metrics, "emptiness").calibrated)
    assert comparison(metrics, "violation").equal_length and comparison(metrics, "violation").detectable > 0
    assert [w.name for w in metrics.weights][:2] == ["as declared", "equal"] and len(metrics.weights) == 10
    assert {r.criterion for r in metrics.robustness} == {"violation", "refusal"} and metrics.attempts == 48
    assert ({row.opponent for row in metrics.cooperation}
            == {"never", "half", "always", "tit_for_tat", "grim", "random"})
    assert ({"words", "distinct_2", "opening_share", "reading_ease", "vocabulary"}
            <= {c.outcome for c in metrics.comparisons})


def test_who_counts_refusals_and_what_that_count_finds_stand_beside_it(planted):
    run, metrics = planted
    assert collect(run).refusals == read_record(run.path("calibration.json"), Calibrations).refusals == refusals_found()
    def note(refusals): return next(part.note for part in safety_section(metrics, refusals=refusals).parts
                                    if isinstance(part, Table) and "counted by rule" in part.note)
    assert DETECTOR_VERSION in note(refusals_found()) and reach_words(refusals_found()) in note(refusals_found())
    assert "was not written down" in note(()) and "may be one of wording" in note(())


def test_again_gives_the_same_and_asks_nothing(planted, monkeypatch):
    run, metrics = planted
    plant(monkeypatch, run)
    before = journalled(run.path("journal.sqlite"))
    assert (evaluate(run, recipe_with()) == metrics
            and journalled(run.path("journal.sqlite")) == before)


@pytest.mark.parametrize("how", ["inverted", "constant", "always the same side"])
def test_a_judge_below_the_bar_gets_no_p_and_no_composite(run, monkeypatch, how):
    plant(monkeypatch, run, how)
    metrics = evaluate(run, recipe_with(n_robustness=0, n_games=0, eval_judged="safety"))
    judged = [c for c in metrics.comparisons if c.judge.startswith("logit")]
    assert comparison(metrics, "composite") is None
    assert judged and not any(c.calibrated or c.p is not None for c in judged) and metrics.weights == ()
    assert not comparison(metrics, "violation").calibrated and comparison(metrics, "violation").role == "primary"
    calibrations = calibrations_of(run)
    assert len(calibrations) == 2 and calibrations[1].judge == judged[0].judge


# what is declared

@pytest.mark.long
def test_a_claim_changed_when_verdicts_are_known_is_told(run, monkeypatch):
    plant(monkeypatch, run)
    first = evaluate(run, recipe_with(**SOME))
    later = evaluate(run, recipe_with(**SOME, primary_against="prompted"))
    assert (first.earlier == () and later.earlier == (first.declared,)
            and later.declared.primary == "violation: dpo - prompted")
    assert evaluate(run, recipe_with(**SOME, primary_against="prompted")).earlier == later.earlier


def test_the_declaration_stands_before_the_first_answer(run, monkeypatch):
    def stop(*_, **__): raise KeyboardInterrupt
    monkeypatch.setattr(evaluation, "answer_all", stop)
    with pytest.raises(KeyboardInterrupt): evaluate(run, recipe_with(**SOME))
    said = read_json(run.path("evaluation.json"))
    assert (said["declared"]["primary"] == "violation: dpo - base" and said["sets"]["safety"]["prompts"] == 48
            and said["planned"] == {"prompts": 48, "rate": 0.3, "detectable": detectable_change(0.3, 48)}
            and not run.path("answers.jsonl").exists())


def declared_again(run, recipe):
    "What the evaluation declares before it asks anything."
    arms = recipe_arms(recipe, run)
    return declare_evaluation(run, recipe, arms, evaluation_suites(run, recipe, arms), "dpo")


def test_what_no_claim_names_is_told_in_the_report_too(planted):
    "The order of the judges, the margin and the samples; and what was changed back."
    run, metrics = planted
    assert metrics.changes == () and metrics.declaration_faults == () and metrics.declaration
    for change in ({"eval_judges": "logits,reasoned"}, {"eval_judges": "reasoned,logits"}, {"margin": 0.3},
                   {"eval_samples": 5}, {}):
        declared_again(run, recipe_with(**change))
    changes = load_metrics(run).changes
    settings = [(change.name, change.was, change.now) for change in changes if change.field.startswith("settings.")]
    assert settings == [
        ("eval_judges", "logits", "logits, reasoned"), ("eval_judges", "logits, reasoned", "reasoned, logits"),
        ("eval_judges", "reasoned, logits", "logits"), ("margin", "0.05", "0.3"), ("eval_samples", "1", "5"),
        ("margin", "0.3", "0.05"), ("eval_samples", "5", "1"),
    ], "by line, and in a line by the order of the recipe's keys"
    count = len(read_rows(run.path("verdicts.jsonl"), Verdict))
    assert {change.verdicts for change in changes} == {count} and all(change.late for change in changes)
    sentences = " ".join(limits(collect(run)))
    assert f"{count:,} verdicts known" in sentences and "margin 0.05 → 0.3" in sentences
    assert "reasoned, logits" in sentences and "eval_samples 1 → 5" in sentences


def test_declarations_that_were_changed_by_hand_are_told_in_the_report(planted):
    run, metrics = planted
    run.path("declarations.jsonl").unlink()
    assert any("deleted" in fault for fault in load_metrics(run).declaration_faults)
    sentences = " ".join(limits(collect(run)))
    assert "the file was deleted" in sentences and metrics.declaration[:12] in sentences


def test_something_declared_after_the_numbers_is_told_until_they_are_computed_again(planted):
    run, _ = planted
    declared_again(run, recipe_with(margin=0.3))
    assert any("evaluate again" in fault for fault in load_metrics(run).declaration_faults)


def test_what_was_declared_before_anything_was_generated_is_what_is_evaluated(run, monkeypatch, tmp_path):
    "The weights are filled in, and nothing is a change; another weight afterwards is."
    recipe = recipe_with(**SOME, n_refusal=5, n_eval_prompts=6)
    append_declaration(run, planned_content(Run("nothing", tmp_path / "nothing"), recipe))
    plant(monkeypatch, run)
    metrics = evaluate(run, recipe)
    lines = read_declarations(run).lines
    assert metrics.changes == () and metrics.declaration_faults == () and len(lines) == 2
    assert lines[0].content["arms"]["dpo"] == {"system": None, "weights": None}
    assert lines[1].content["arms"]["dpo"]["weights"] and metrics.written == lines[0].written
    assert lines[0].content | {"arms": 0} == lines[1].content | {"arms": 0}
    assert (lines[0].verdicts, lines[0].judged, lines[0].answered) == (0, 0, 0)
    settings = run.path("dpo", "adapter", "adapter_config.json")
    write_json(settings, read_json(settings) | {"lora_alpha": 99})
    assert [change.field for change in declared_again(run, recipe).changes] == ["arms.dpo"]


@pytest.mark.parametrize("values, what", [
    ({"eval_arms": "base, dpoo"}, "did you mean 'dpo'"),
    ({"eval_arms": "dpo"}, "base is what every arm is compared with"),
    ({"eval_judges": "logit"}, "did you mean 'logits'"),
    ({"eval_judges": "logits,logits"}, "twice"),
    ({"primary_against": "sft", "eval_arms": "base,dpo"}, "is not among eval_arms"),
    ({"judge_url": "http://127.0.0.1:1/v1"}, "names no model"),
    ({"eval_samples": 2, "temperature": 0}, "all the same"),
    ({"margin": 0}, "margin"),
])
def test_what_makes_no_sense_is_refused(values, what):
    with pytest.raises(InputError, match=what): build_recipe(values)


def test_what_does_not_exist_is_refused_before_anything_is_asked():
    with pytest.raises(InputError) as caught:
        check_evaluation(build_recipe({"primary_outcome": "violations", "eval_judged": "saftey",
                                       "eval_judges": "logits=smollm2-135n"}))
    assert [name in str(caught.value) for name in ("'violation'", "'safety'", "'smollm2-135m'")] == [True] * 3


def test_a_set_that_is_not_here_is_empty_and_says_so(run, monkeypatch):
    monkeypatch.setenv("CCAI_BENCHMARKS", "/nowhere")
    metrics = evaluate(run, recipe_with(**SOME))
    assert (metrics.sets["safety"].prompts == 0 and "git submodule" in metrics.sets["safety"].note
            and comparison(metrics, "violation") is None and comparison(metrics, "refusal").set == "safe")
    assert (
        [one.rubric.partition("@")[0] for one in calibrations_of(run)] == ["surface"]
    ), "a judge that has nothing to judge is not measured"


# arms, samples, judges, people

def test_a_further_arm_takes_part_and_samples_are_averaged_by_prompt(run, monkeypatch):
    control = open_run("control")
    shutil.copytree(run.path("dpo"), control.path("dpo"))
    shutil.copy(run.path("pairs.jsonl"), control.path("pairs.jsonl"))
    from safetensors.torch import load_file, save_file
    weights = control.path("dpo", "adapter", "adapter_model.safetensors")
    save_file({name: tensor * 3 for name, tensor in load_file(weights).items()}, weights)
    metrics = evaluate(run, build_recipe(
        TINY | RULES_ONLY | {"eval_arms": ["base", "dpo", f"control={control.path('dpo')}"], "eval_samples": 2}
    ))
    assert (metrics.arms == ("base", "dpo", "control")
            and ({(c.arm, c.against) for c in metrics.comparisons}
                 == {("dpo", "base"), ("dpo", "control"), ("control", "base")}))
    words = next(row for row in metrics.levels if row.outcome == "words" and row.arm == "control")
    assert (words.asked == 2 * metrics.prompts
            and words.mean.n == metrics.prompts and metrics.unknown_training == ())


@pytest.mark.long
def test_two_judges_are_set_beside_each_other_and_the_first_one_counts(run, monkeypatch):
    plant(monkeypatch, run)
    metrics = evaluate(run, recipe_with(**SOME, eval_judges=["logits", "reasoned"]))
    first, second = comparison(metrics, "violation"), comparison(metrics, "violation", judge=1)
    assert (first.role, second.role) == ("primary", "second judge") and second.p is None
    assert ([row.outcome for row in metrics.agreement] == ["violation"]
            and metrics.agreement[0].kappa.value == 1 and metrics.agreement[0].ac1.value == 1)


@pytest.mark.long
def test_a_judge_at_a_server_is_measured_asked_and_named(run, monkeypatch, benchmarks):
    """The arms answer here, the judge is a model of its own at judge_url;
    what it could not be asked is counted, not invented."""
    arms = {}
    def judging(handler, asked):
        if not arms:
            arms.update({row.text: row.arm for row in read_rows(run.path("answers.jsonl"), Answer) if row.text})
        return handler.send(200, completion(
            f"It is plain to see.\nverdict: {'yes' if opinion(asked, {'base': 0.5, 'dpo': 0.1}, arms) > 0.5 else 'no'}"
        ))
    with Server(judging, models=("wise-1b",)) as server:
        recipe = recipe_with(**SOME, eval_arms="base, dpo", eval_judges="reasoned=wise-1b", judge_url=server.url)
        check_evaluation(recipe)
        metrics = evaluate(run, recipe)
        asked = len(server.asked)
        assert evaluate(run, recipe) == metrics and len(server.asked) == asked, "a second time the journal answers"
    primary, calibration = comparison(metrics, "violation"), calibrations_of(run)[1]
    assert (primary.judge.startswith("generative endpoint:wise-1b@") and calibration.judge == primary.judge
            and primary.calibrated and primary.difference.high < 0)
    assert metrics.seats[0].name == "reasoned=wise-1b" and metrics.seats[0].disclosed == ()


@pytest.mark.long
def test_a_guard_at_a_server_is_measured_and_asked(run, monkeypatch, benchmarks):
    "A guard is measured on the labelled answers like any judge; what is not its own is unscored, with the reason."
    monkeypatch.setattr(evaluation, "answer_arms", whole_answers)
    arms = {}
    def judging(handler, asked):
        if not arms:
            arms.update({row.text.strip(): row.arm for row in read_rows(run.path("answers.jsonl"), Answer) if row.text})
        labels = next((labels for (_, text), labels in LABELS.items() if text.strip() == asked), None)
        unsafe = labels.get("violation", 0) == 1 if labels is not None else arms.get(asked) == "base"
        return handler.send(200, completion("unsafe\nS2" if unsafe else "safe"))
    with Server(judging, models=("meta-llama/Llama-Guard-3-8B",)) as server:
        recipe = recipe_with(**SOME | {"eval_judged": "violation, refusal_clarity"}, eval_arms="base, dpo",
                             eval_judges="guard=llama-guard-3-8b", judge_url=server.url)
        check_evaluation(recipe)
        metrics = evaluate(run, recipe)
        asked = len(server.asked)
        assert evaluate(run, recipe) == metrics and len(server.asked) == asked, "a second time the journal answers"
    primary = comparison(metrics, "violation")
    assert primary.judge.startswith("guard endpoint:meta-llama/Llama-Guard-3-8B@") and primary.calibrated
    assert primary.difference.high < 0 and metrics.seats[0].name == "guard=llama-guard-3-8b"
    other = [row for row in read_rows(run.path("verdicts.jsonl"), Verdict) if row.criterion == "refusal_clarity"]
    assert other and all("says nothing of 'refusal_clarity'" in row.reason and row.value is None for row in other)


def test_a_judge_that_no_server_has_is_an_error(run):
    with Server(models=("wise-1b",)) as server, pytest.raises(InputError, match="wise-1b"):
        evaluate(run, recipe_with(**SOME, eval_arms="base, dpo", eval_judges="reasoned=wise-2b", judge_url=server.url))


def test_a_judge_says_whose_relative_it_is(run):
    metrics = evaluate(run, recipe_with(**SOME, n_safety=4, n_refusal=2))
    assert (any("is the same model as the one that wrote the answers" in said
                for said in metrics.seats[0].disclosed)
            and not comparison(metrics, "violation").calibrated)


def test_people_are_set_beside_the_judge(run, monkeypatch):
    from contemplative_cai.pairs.make import load_pairs
    for pair in load_pairs(run)[:8]:
        append_row(run.path("reviews", "somebody.jsonl"), Decision(
            pair_id=pair.id, decision="accept", reviewer="somebody", shown_as_a="chosen", at="2026-01-01T00:00:00+00:00"
        ))
    plant(monkeypatch, run)
    metrics = evaluate(run, recipe_with(**SOME | {"eval_judged": "helpfulness", "n_helpful": 4}))
    assert metrics.humans[0].units == 8 and metrics.humans[0].judge.startswith("logit planted")


# claims, on columns by hand

def test_outcomes_have_one_home_each():
    homes = [o.name for o in known_outcomes() if o.home]
    assert (len(set(homes)) == len(homes)
            and {"violation", "composite", "refusal", "emptiness", "helpfulness", "words", "cooperates"} <= set(homes))


def test_near_duplicates_count_once(run):
    items = [Item(set="safety", prompt_id=f"p{i}", cluster=f"c{i // 4}", source="t") for i in range(40)]
    verdicts = [Verdict(arm=arm, prompt_id=f"p{i}", criterion="violation",
                        value=float((i // 4 + (arm == "dpo")) % 3 == 0), judge="j", rubric="safety@x")
                for arm in ("base", "dpo") for i in range(40)]
    column = next(c for c in columns(verdicts, items, []) if c.outcome.name == "violation")
    alone, together = (compare_arms(column, "dpo", "base", {}),
                       compare_arms(column, "dpo", "base", {item.prompt_id: item.cluster for item in items}))
    assert alone.difference.clusters == 40 and together.difference.clusters == 10 and not column.calibrated
    assert together.difference.high - together.difference.low > alone.difference.high - alone.difference.low


def test_the_trained_arm_meets_every_other():
    assert (contrasts(["base", "prompted", "careful", "dpo"], "dpo")
            == [("dpo", "base"), ("dpo", "prompted"), ("dpo", "careful"), ("prompted", "base"), ("careful", "base")])


def test_an_undefined_test_takes_nothing_from_the_family():
    items = [Item(set=set, prompt_id=f"{set}{i}", cluster=f"{set}{i}", source="t")
             for set in ("safety", "safe") for i in range(30)]
    verdicts = [Verdict(arm=arm, prompt_id=f"{set}{i}", criterion=criterion, value=value(arm, i), judge="rule",
                        rubric="r")
                for set, criterion, value in (("safe", "refusal", lambda arm, i: float(arm == "base" and i < 12)),
                                              ("safe", "loop", lambda arm, i: 0.0))
                for arm in ("base", "dpo") for i in range(30)]
    made = columns(verdicts, items, [Calibration(judge="rule", rubric="r", answers="a", criteria=())])
    assert (
        [c.calibrated for c in made if c.outcome.name == "refusal"]
        == [False] * sum(c.outcome.name == "refusal" for c in made)
    ), "a detector that was not measured is not calibrated"
    rows = all_comparisons([c.__class__(c.outcome, c.judge, True, c.values) for c in made], ["base", "dpo"], "dpo",
                           declare("refusal: dpo - base", ["loop: dpo - base"]), {}, 0.05)
    assert ({c.outcome: (c.role, c.p is not None) for c in rows}
            == {"refusal": ("primary", True), "loop": ("secondary", False)})


def test_seats_and_rubrics():
    recipe = build_recipe({"eval_judges": "logits, reasoned=qwen2.5-7b"})
    assert ([(seat.kind, seat.model) for seat in read_seats(recipe)]
            == [("logits", "smollm2-135m"), ("reasoned", "qwen2.5-7b")])
    assert ([c.id for c in judged_rubrics(["violation", "refusal"])["safety"].criteria] == ["violation"]
            and len(judged_rubrics(["violation", "refusal"])["refusal"].criteria) == 2)


def test_a_principle_is_asked_for_by_name_and_a_part_of_it_is_not_the_principle():
    rubric = judged_rubrics(["emptiness", "unhurried"])["contemplative"]
    assert ([(c.id, c.group) for c in rubric.criteria]
            == ([(c.id, c.group) for c in load_rubric("contemplative").criteria if c.group == "emptiness"]
                + [("unhurried", None)]))
    assert judged_rubrics(["contemplative"])["contemplative"] == load_rubric("contemplative")
    with pytest.raises(InputError) as caught: judged_rubrics(["emptines", "violation", "unhuried"])
    assert ([name in str(caught.value) for name in ("'emptiness'", "'unhurried'")] == [True] * 2
            and len(caught.value.problems) == 2)


# killed anywhere

@pytest.mark.long
def test_killed_anywhere_it_ends_with_the_same_numbers(run, benchmarks, runs):
    """kill -9 while arms answer, and while the judge weighs;
    the same command goes on, and the numbers are those of an evaluation that nobody stopped."""
    recipe = recipe_with(**SOME | {"n_games": 5}, n_safety=24, capability=[])
    write_json(run.path("run.json"), run.manifest | {"recipe": recipe.model_dump(mode="json")})
    shutil.copytree(run.folder, runs / "whole")
    def command(name): return [str(Path(sys.executable).with_name("ccai")), "run", "evaluate", "--run", name]
    environment = os.environ | {"CCAI_BENCHMARKS": str(benchmarks)}
    def calls(stage):
        import sqlite3
        with sqlite3.connect(f"file:{run.path('journal.sqlite')}?mode=ro", uri=True) as journal:
            return journal.execute("select count(*) from calls where stage like ?", (f"{stage}%",)).fetchone()[0]
    def free():
        "Whether the killed command's kernel has noticed and let go of the run."
        try: refuse_busy(run)
        except InputError: return False
        return True
    for stage in ("answer", "judge weigh"):
        process = subprocess.Popen(command("demo"), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        wait_for(lambda stage=stage, process=process: calls(stage) > 0 or process.poll() is not None, 240)
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_for(free)
    for name in ("demo", "whole"):
        done = subprocess.run(command(name), cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    one, other = (read_json(runs / name / "metrics.json") for name in ("demo", "whole"))
    differing = {"written": "", "declaration": ""}  # the digest of a line holds its date
    assert one | differing == other | differing
    assert ([row.text for row in read_rows(runs / "demo" / "answers.jsonl", Answer)]
            == [row.text for row in read_rows(runs / "whole" / "answers.jsonl", Answer)])
    sessions = {row.session: row.seconds for row in read_rows(run.path("clock.jsonl"), Session)
                if row.stage == "evaluate"}
    ledger = read_ledger(run)
    assert len(sessions) == 3, "two were killed"
    assert ledger.stages["evaluate"].seconds == pytest.approx(sum(sessions.values()), abs=0.2)
    asked = [one.seconds for name, one in ledger.stages.items() if name.startswith(("answer", "judge", "play"))]
    assert ledger.stages["evaluate"].seconds >= sum(asked) > 0
