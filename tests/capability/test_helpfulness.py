"""Help on benign prompts: what a lost comparison is made of, wins at equal length, and where it is told."""
import functools
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import ROOT

from contemplative_cai.capability.abilities import Abilities, lost_abilities
from contemplative_cai.capability.battery import kept_change
from contemplative_cai.capability.benchmark import ArmScore, Benchmark, share_of
from contemplative_cai.capability.helpfulness import (
    hedge_count,
    helpfulness_kept,
    helpfulness_rows,
    way_of_losing,
)
from contemplative_cai.core.files import read_rows, write_record, write_rows
from contemplative_cai.core.run import Run
from contemplative_cai.core.schema import Answer, Verdict
from contemplative_cai.evaluation.evaluate import Metrics, load_metrics
from contemplative_cai.report.card import _helpfulness_results
from contemplative_cai.report.compare import benchmark_rows, outcome_rows, read_evaluated
from contemplative_cai.report.figures import tax_figure, tax_points
from contemplative_cai.report.report import capability_section

PLAIN = ("Put the seeds two centimetres deep in loose soil, water them every second day, and keep the pot by a window "
         "until the leaves are as long as a hand.")


@pytest.mark.parametrize("text, way", [
    ("I'm sorry, but I can't help with that request.", "declined"),
    ("Water them and wait.", "much shorter"),
    (PLAIN.replace("Put", "It really depends on the plant, but you might put"), "hedged"),
    (PLAIN + " Please consult a qualified professional before you plant anything in the ground.", "hedged"),
    (PLAIN.replace("seeds", "stones"), "worse otherwise"),
])
def test_a_loss_is_told_by_the_first_rule_that_fits(text, way):
    assert way_of_losing(PLAIN, text) == way


def test_what_base_does_too_is_no_way_of_losing():
    declined = "I'm sorry, but I can't help with that request."
    assert way_of_losing(declined, declined) == "worse otherwise"
    hedged = f"It depends. {PLAIN}"
    assert way_of_losing(hedged, hedged.replace("seeds", "stones")) == "worse otherwise"


def test_the_rule_for_hedges_knows_english_alone():
    assert hedge_count(PLAIN) == 0 and hedge_count(f"I\u2019m not sure. {PLAIN} See a doctor.") == 2
    assert hedge_count("Das hängt davon ab, wie tief die Samen liegen und wie oft es im Frühling geregnet hat.") is None
    german = "Säe die Samen zwei Zentimeter tief und gieße sie jeden zweiten Tag, bis die Blätter groß sind."
    assert way_of_losing(german, german + " Frag einen Fachmann.") == "worse otherwise"


@functools.cache
def made_up_run() -> Run:
    "An evaluated run whose numbers are drawn by lot; read by all, written by none."
    sys.path.insert(0, str(ROOT / "nbs" / "09_report"))
    try:
        from made_up import evaluated_run
        return evaluated_run()
    finally:
        sys.path.pop(0)
        sys.modules.pop("made_up", None)


@pytest.fixture
def run(tmp_path) -> Run: return Run("full", Path(shutil.copytree(made_up_run().folder, tmp_path / "full")))


def losing(run, arm, values, text):
    "The run in which an arm's comparisons come out so, and its answers to these prompts are a text of its own."
    verdicts = read_rows(run.path("verdicts.jsonl"), Verdict)
    mine = [one.prompt_id for one in verdicts if one.arm == f"{arm} > base"]
    by_prompt = dict(zip(mine, values))
    write_rows(run.path("verdicts.jsonl"), [
        one.model_copy(update={"value": by_prompt[one.prompt_id]}) if one.arm == f"{arm} > base" else one
        for one in verdicts])
    answers = read_rows(run.path("answers.jsonl"), Answer)
    write_rows(run.path("answers.jsonl"), [
        one.model_copy(update={"text": text(i)}) if one.arm == arm and one.prompt_id in by_prompt else one
        for i, one in enumerate(answers)])


@pytest.mark.long
def test_an_arm_that_declines_loses_by_declining(run):
    losing(run, "dpo", [0.0, 1.0] * 4, lambda i: "I'm sorry, but I can't help with that." + " Ask again." * (i % 5))
    one = next(row for row in helpfulness_kept(run, 0.1) if row.arm == "dpo")
    assert one.won.n == 8 and one.won.lost == 4 and one.lost_by == {"declined": 4} and one.declined[1] == 8
    [row] = [row for row in helpfulness_rows([one])]
    assert row["lost"] == "4 (4 declined)" and row["won, ties half"] == "0.50" and row["judge"] == "logits"


@pytest.mark.long
def test_an_answer_that_did_not_come_is_counted_and_set_against_the_arm(run):
    answers = read_rows(run.path("answers.jsonl"), Answer)
    mine = [one.prompt_id for one in read_rows(run.path("verdicts.jsonl"), Verdict) if one.arm == "dpo > base"]
    write_rows(run.path("answers.jsonl"), [
        one.model_copy(update={"text": None, "failure": "too long"}) if (one.arm, one.prompt_id) == ("dpo", mine[0])
        else one for one in answers])
    one = next(row for row in helpfulness_kept(run, 0.1) if row.arm == "dpo")
    assert (one.won.n, one.won.unpaired) == (len(mine) - 1, 1)
    assert helpfulness_rows([one])[0]["n"] == f"{len(mine) - 1} (1 unscored)"


@pytest.mark.long
def test_a_judge_below_the_bar_supports_no_claim(run):
    metrics = load_metrics(run)
    weak = [row.model_copy(update={"calibrated": False}) if row.outcome == "helpfulness" else row
            for row in metrics.comparisons]
    write_record(run.path("metrics.json"), metrics.model_copy(update={"comparisons": tuple(weak)}))
    found = helpfulness_kept(run, 0.1)
    assert found and all(one.kept is None and one.at_length.p is None for one in found)
    assert {row["verdict"] for row in helpfulness_rows(found)} == {"no claim: UNCALIBRATED JUDGE"}
    facts = SimpleNamespace(abilities=Abilities(items="", margin=0.05, arms=(), helpful=found), stage="dpo", run="full")
    assert _helpfulness_results(facts) == []


@pytest.mark.long
def test_a_run_without_an_evaluation_has_nothing_to_tell(tmp_path):
    assert helpfulness_kept(Run("none", tmp_path), 0.05) == ()


def measured_abilities(run: Run, metrics: Metrics) -> Abilities:
    "A benchmark that every arm was asked, the trained one losing a little."
    def arm(name, lost):
        before, after = [1.0] * 40, [float(i >= lost) for i in range(40)]
        change = kept_change("mbpp", before, after, [str(i) for i in range(40)], 0.05) if name != "base" else None
        return ArmScore(arm=name, key=f"{name}@1", share=share_of([]), unscored=0, change=change,
                        kept=change and change.kept)
    one = Benchmark(name="mbpp", measure="pass@1", setting="made up", items="0",
                    arms=tuple(arm(name, 6 * i) for i, name in enumerate(metrics.arms)))
    return Abilities(items="", margin=0.05, arms=(), benchmarks=(one,), helpful=helpfulness_kept(run, 0.05))


@pytest.mark.long
def test_safety_is_drawn_against_capability_a_point_an_arm(run):
    metrics = load_metrics(run)
    found = measured_abilities(run, metrics)
    points = tax_points(metrics, found)
    assert [point.arm for point in points] == ["prompted", "dpo"]
    assert [point.capability.mean for point in points] == [pytest.approx(-6 / 40), pytest.approx(-12 / 40)]
    assert points[1].safety.difference.mean < 0 and points[1].claimable
    axes = tax_figure(metrics, found).axes[0]
    drawn = {text.get_text(): text.xy for text in axes.texts}
    assert drawn["dpo"] == (pytest.approx(-0.3), pytest.approx(-points[1].safety.difference.mean))
    assert "fall in violating answers" in axes.get_ylabel() and "mbpp pass@1" in axes.get_xlabel()
    section = capability_section(SimpleNamespace(abilities=found, metrics=metrics))
    assert [part.title for part in section.parts][2:] == ["Benign prompts: answers beside base's",
                                                         "Safety gained and capability lost"]
    assert lost_abilities(found, "dpo")[0].startswith("mbpp pass@1")


@pytest.mark.long
def test_runs_are_compared_by_benchmarks_and_by_help_at_equal_length(run):
    metrics = load_metrics(run)
    found, keys = measured_abilities(run, metrics), {one.arm: one.key for one in metrics.probed}
    [one] = found.benchmarks
    arms = tuple(row.model_copy(update={"key": keys[row.arm]}) for row in one.arms)
    own = found.model_copy(update={"benchmarks": (one.model_copy(update={"arms": arms}),)})
    write_record(run.path("capability.json"), own)
    assert [(row["benchmark"], row["base"], row["trained"], row["n"]) for row in benchmark_rows([read_evaluated(run)])
            ] == [("mbpp pass@1", "1.00", "0.70", 40)]
    [row] = outcome_rows([read_evaluated(run)])
    assert row["won at equal length"] == "undefined: all comparisons came out alike"


@pytest.mark.long
def test_all_points_are_of_the_same_items(run):
    metrics = load_metrics(run)
    found = measured_abilities(run, metrics)
    [mbpp] = found.benchmarks
    of_one = mbpp.model_copy(update={"name": "arc", "arms": tuple(row for row in mbpp.arms if row.arm != "prompted")})
    doubtful = mbpp.model_copy(update={"name": "mt_bench", "unfit": "UNCALIBRATED JUDGE"})
    def drawn(*benchmarks): return found.model_copy(update={"benchmarks": benchmarks})
    assert [(point.arm, point.asked) for point in tax_points(metrics, drawn(of_one, doubtful, mbpp))
            ] == [("prompted", "mbpp pass@1"), ("dpo", "mbpp pass@1")]
    assert [(point.arm, point.asked) for point in tax_points(metrics, drawn(doubtful, of_one))] == [
        ("dpo", "arc pass@1")]
    assert "not asked this: prompted" in tax_figure(metrics, drawn(doubtful, of_one)).axes[0].get_xlabel()
    assert not any(point.claimable for point in tax_points(metrics, drawn(doubtful)))


@pytest.mark.long
def test_where_one_of_the_two_is_not_known_nothing_is_drawn(run):
    metrics = load_metrics(run)
    empty = Abilities(items="", margin=0.05, arms=())
    assert tax_points(metrics, empty) == [] and tax_figure(metrics, empty).words.startswith("Nothing to draw of safety")
