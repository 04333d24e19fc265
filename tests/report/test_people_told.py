"""What people's labels correct is told first, what they take back is told, and without labels one sentence is new."""
import functools
import os
import shutil
import sys
from pathlib import Path

import pytest
from support import ROOT

from contemplative_cai.command.commands import main
from contemplative_cai.core.derived import rests_on, stale_files
from contemplative_cai.core.files import read_json
from contemplative_cai.core.run import Run, open_run
from contemplative_cai.evaluation import labels
from contemplative_cai.evaluation.evaluate import load_metrics
from contemplative_cai.measure.corrected import labels_sentence
from contemplative_cai.report import page
from contemplative_cai.report.card import card_results
from contemplative_cai.report.compare import read_evaluated, scaling_rows
from contemplative_cai.report.corrected import NO_LABELS
from contemplative_cai.report.evidence import ERRS_APART, claim_rows, declared_rows, why_unfit
from contemplative_cai.report.limits import limits
from contemplative_cai.report.rebuild import rebuild
from contemplative_cai.report.summary import collect, headline, verdict
from contemplative_cai.report.tables import breakdown_rows

pytestmark = pytest.mark.long  # two evaluations of many prompts are made up, and their reports written
MADE_UP = ROOT / "nbs" / "09_report"


@functools.cache
def made_up():
    sys.path.insert(0, str(MADE_UP))
    try:
        import made_up as module
        return module
    finally:
        sys.path.remove(str(MADE_UP))
        sys.modules.pop("made_up", None)


@functools.cache
def folders() -> dict[str, Path]:
    "Made-up evaluations: without labels, with some, and with those of a person who sees one arm otherwise."
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        plain, both = made_up().evaluated_run().folder, ("violation", "refusal")
        places = {name: Path(shutil.copytree(plain, plain.parent / name)) for name in ("labelled", "apart")}
        made_up().add_labels(Run("labelled", places["labelled"]), both, 15, questions=questions())
        made_up().add_labels(Run("apart", places["apart"]), both, 40, {"base": 0.0, "dpo": 0.7}, questions=questions())
        return {"plain": plain} | places
    finally: os.chdir(before)


def questions(): return {prompt.id: prompt for prompt in made_up().evaluation().suites.prompts}


@pytest.fixture
def copied(runs, monkeypatch):
    "A copy of one of them; figures are made and not painted."
    monkeypatch.setattr(page, "png", lambda figure: b"a picture")
    def copy(name) -> Run:
        shutil.copytree(folders()[name], runs / name)
        return open_run(name)
    return copy


def test_the_corrected_value_stands_first_and_the_judges_own_beside_it(copied):
    run = copied("labelled")
    facts, plain = collect(run), collect(copied("plain"))
    row = next(one for one in facts.metrics.comparisons if one.claim == facts.metrics.declared.primary)
    own = next(one for one in plain.metrics.comparisons if one.claim == row.claim)
    assert row.alone == own.difference != row.difference and row.corrected.first.labels == 15
    shown, before = f"{row.difference.mean:+.2f}".replace("-", "−"), f"{own.difference.mean:+.2f}".replace("-", "−")
    figure = next(one for one in headline(facts) if one.what == "Primary outcome")
    assert figure.number.startswith(shown) and f"the judge alone says {before}" in figure.basis
    assert figure.source.endswith("comparisons; corrected.json") and "(corrected by people)" in figure.basis
    assert f"is {shown}" in verdict(facts)[0] and f"the judge alone says {before}" in verdict(facts)[0]
    cell = claim_rows(facts.metrics)[0]["difference [95 %]"]
    assert cell.startswith(shown) and f"; the judge alone says {before}" in cell


def test_open_differences_say_how_many_more_labels_would_decide(copied):
    facts = collect(copied("labelled"))
    row = next(one for one in facts.metrics.comparisons if one.claim == "refusal: dpo - base")
    assert row.corrected.low < 0 < row.corrected.high
    words = labels_sentence(row.corrected)
    assert words in next(one for one in headline(facts) if one.what == "Over-refusal").basis
    assert words in next(one for one in claim_rows(facts.metrics) if one["claim"] == row.claim)["difference [95 %]"]


def test_a_judge_that_errs_differently_on_two_arms_is_told_and_what_rests_on_it_supports_no_claim(copied):
    run = copied("apart")
    facts = collect(run)
    told = [line for line in limits(facts) if line.startswith("What judge logits alone says of violation: dpo - base:")]
    assert len(told) == 1 and "errs differently on the two arms (false no 0.00" in told[0]
    assert "its own comparison of them is withheld" in told[0] and "hazards and personas" in told[0]
    figure = next(one for one in headline(facts) if one.what == "Primary outcome")
    assert figure.number.startswith("+0.25") and "withheld, for it errs differently on the two arms" in figure.basis
    parts = [row for row in facts.metrics.breakdowns if row.outcome == "violation"]
    assert parts and not any(row.claimable or row.difference.p for row in parts)
    assert "errs differently" in why_unfit(parts[0])
    assert all(ERRS_APART in row["judge"] for row in breakdown_rows(facts.metrics, "violation"))
    assert all(table.transfer and not table.claimable and table.shift.p is None for table in facts.metrics.robustness
               if table.criterion == "violation")
    assert all(row.claimable for row in facts.metrics.breakdowns if row.outcome == "refusal"), "no label says so"


def test_labels_that_arrive_after_the_report_make_it_stale_and_change_no_metrics(copied):
    run = copied("plain")
    rebuild(run)
    before, rests = run.path("metrics.json").read_bytes(), rests_on(run, "report")
    text = run.path("report.md").read_text()
    assert stale_files(run) == {} and load_metrics(run).corrections is None
    assert text.count(NO_LABELS) == 1 and "corrected by people" not in text.lower(), "without labels, one sentence"
    assert not run.path("corrected.json").exists() and "verdicts.jsonl" not in rests
    made_up().add_labels(run, ("violation",), 15, questions=questions())
    assert "labels.jsonl" in stale_files(run)["report"]
    rebuild(run)
    text, metrics = run.path("report.md").read_text(), load_metrics(run)
    assert stale_files(run) == {} and "## Corrected by people" in text and NO_LABELS not in text
    assert run.path("metrics.json").read_bytes() == before
    assert read_json(run.path("corrected.json"))["people"] == {"ann": 45}
    row = next(row for row in declared_rows(metrics) if row["declared"].startswith("not declared: answers drawn"))
    assert f"{metrics.corrections.rounds[0].verdicts:,} verdicts known" in row["as"]
    assert "none of it was declared" in text and "Labels are of one person (ann 45)" in text
    run.path("labels.jsonl").unlink()
    assert "labels.jsonl" in stale_files(run)["report"] and load_metrics(run).corrections is None


def test_a_second_draw_is_told_as_made_when_corrected_numbers_were_known(copied):
    run = copied("labelled")
    made_up().add_labels(run, ("violation",), 5, questions=questions())
    facts = collect(run)
    assert facts.metrics.corrections.arms[0].level.labels == 20
    told = "That nobody chose what was labelled. Draw 2 was made when 90 labels"
    assert any(line.startswith(told) for line in limits(facts))


def test_card_and_comparison_of_runs_tell_it_too(copied):
    run = copied("labelled")
    facts, row = collect(run), scaling_rows([read_evaluated(run)])[0]
    result = next(one for one in card_results(facts) if one.metric_type == "violation")
    one = next(one for one in facts.metrics.comparisons if one.claim == facts.metrics.declared.primary)
    assert result.metric_args["difference"] == round(one.difference.mean, 4)
    assert result.metric_args["judge_alone"] == round(one.alone.mean, 4) and "corrected by people" in result.metric_name
    assert "(corrected by people)" in row["primary difference"]


def test_the_command_draws_and_reads_and_writes_the_report(copied, monkeypatch, capsys):
    run, rebuilt = copied("plain"), []
    monkeypatch.setattr("contemplative_cai.report.rebuild.rebuild",
                        lambda run: rebuilt.append(run.name) or {"report": run.path("report.html")})
    monkeypatch.setattr(labels, "asked_prompts", lambda run: questions())
    assert main(["labels", "draw", "plain", "--per-arm", "6", "--outcomes", "violation, refusal"]) == 0
    shown, sheet = capsys.readouterr().out, run.path("labels-1.csv")
    assert "36 questions about 36 answers, drawn by lot (independent prompts: violation 40, refusal 30)" in shown
    sheet.write_text("\n".join(f"{line[:-1]}1," if line.endswith(",,") else line
                               for line in sheet.read_text("utf-8-sig").split("\n")))
    assert main(["labels", "read", "plain", str(sheet), "--who", "ann"]) == 0
    shown = capsys.readouterr().out
    assert "36 labels kept" in shown and "violation: dpo - base: corrected by 6 labels per arm" in shown
    assert rebuilt == ["plain"]
    sheet.write_text(sheet.read_text().replace(",1,\n", ",,\n", 3))
    assert main(["labels", "read", "plain", str(sheet), "--who", "ann"]) == 0
    assert "0 labels kept (0 in place of others), 3 withdrawn, 33 were known, 3 lines" in capsys.readouterr().out


@pytest.mark.parametrize("words, message", [
    (["draw", "nobody"], "no run 'nobody'"),
    (["draw", "plain", "--outcomes", "violations"], "outcome 'violations': people are not asked about it; "),
    (["draw", "plain", "--outcomes", ","], "--outcomes: expected names separated by commas"),
    (["draw", "plain", "--per-arm", "0"], "per_arm: expected 1 or more answers of each arm"),
    (["read", "plain", "nothing.csv", "--who", "ann"], "no answers were drawn yet"),
])
def test_wrong_input_is_one_line_and_nothing_is_written(copied, capsys, words, message):
    run = copied("plain")
    assert main(["labels", *words]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1 and not run.path("labels_drawn.jsonl").exists()


def test_a_run_that_was_not_evaluated_says_so(copied, capsys):
    open_run("begun")
    assert main(["labels", "draw", "begun"]) == 2
    assert capsys.readouterr().err == ("ccai: run 'begun' has not been evaluated; do it with: "
                                       "ccai run evaluate --run begun\n")
