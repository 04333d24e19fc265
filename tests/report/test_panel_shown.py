"""What several judges find stands beside the primary claim, in the headline, the first sentences and the tables."""
import pytest
from support import visible
from test_report import SECOND, drawn, evaluate_by_hand, generated, numbers, trained_by_hand, verdicts  # noqa: F401

from contemplative_cai.core.files import read_json
from contemplative_cai.evaluation.claims import Comparison, columns
from contemplative_cai.evaluation.evaluate import load_metrics
from contemplative_cai.evaluation.panel import judge_panel, panel_difference
from contemplative_cai.measure.stats import Estimate
from contemplative_cai.report.panel import panel_agreement_rows, panel_rows, panel_sentence, primary_by_judge
from contemplative_cai.report.report import write_report
from contemplative_cai.report.summary import collect, headline, verdict


def with_panel(run, calibrated=True):
    "An evaluation of two judges, the second of whom finds the primary difference the other way round."
    trained_by_hand(run)
    evaluate_by_hand(run, calibrated)
    metrics, calibrations, items = numbers(calibrated)
    rows = load_metrics(run).comparisons
    turned = [row.model_copy(update={"difference": row.difference.model_copy(update={
        "mean": -row.difference.mean, "low": -row.difference.high, "high": -row.difference.low})})
              if row.judge == SECOND and row.outcome == "violation" and row.difference.low is not None else row
              for row in rows]
    panel = judge_panel(columns(verdicts(items), items, calibrations), turned, 50)
    evaluate_by_hand(run, calibrated, comparisons=[row.model_dump() for row in turned],
                     panel=[one.model_dump() for one in panel])
    return load_metrics(run)


@pytest.mark.long
def test_the_panel_stands_beside_the_primary_claim(generated):  # noqa: F811
    run = generated
    metrics, facts = with_panel(run), collect(run)
    primary = next(figure for figure in headline(facts) if figure.what == "Primary outcome")
    assert "the sign holds under 1 of 2 judges (1 of the 2 above the bar)" in primary.basis
    assert verdict(facts)[1].startswith("The sign holds under 1 of 2 judges")
    rows = primary_by_judge(metrics)
    assert [row["judge"] for row in rows] == ["logits", "reasoned"] and rows[0]["difference [95 %]"].startswith("−")
    assert rows[1]["difference [95 %]"].startswith("+")
    first = panel_rows(metrics)[0]
    assert (first["outcome"], first["the sign holds under"]) == ("violation", "1 of 2 judges")
    assert " to +" in first["lowest to highest"] and first["of those above the bar"] == "1 of 2"
    assert {row["outcome"] for row in panel_rows(metrics, False)} >= {"harmfulness", "over_refusal"}
    assert panel_agreement_rows(metrics) == [], "two are a pair, which has a table"
    three = metrics.panel[0].model_copy(update={"judges": ("a", "b", "c")})
    [agreed] = panel_agreement_rows(metrics.model_copy(update={"panel": (three,)}))
    assert agreed["judges"] == "3" and agreed["alpha of all"].endswith(" answers") and agreed["above the bar"] == "2"
    assert agreed["alpha of those above"] == "-"
    page = visible(write_report(run).read_text())
    for words in ("The primary difference under each judge", "The range over judges", "1 of 2 judges"):
        assert words in page
    assert read_json(run.path("metrics.json"))["panel"][0]["differences"][0]["hold"] == 1


@pytest.mark.long
def test_judges_below_the_bar_are_no_claim_and_one_judge_is_no_panel(generated):  # noqa: F811
    metrics, facts = with_panel(generated, calibrated=False), collect(generated)
    primary = next(figure for figure in headline(facts) if figure.what == "Primary outcome")
    assert "sign holds" not in primary.basis and not any("sign holds" in words for words in verdict(facts))
    rows = [row for row in panel_rows(metrics) if row["outcome"] == "violation"]
    assert rows[0]["of those above the bar"] == "none is" and rows[0]["the sign holds under"] == "1 of 2 judges"
    assert not [row for row in panel_rows(metrics) if row["outcome"] == "composite"], "of nobody below the bar"
    alone = metrics.model_copy(update={"panel": ()})
    assert panel_rows(alone) == [] == panel_agreement_rows(alone) and panel_rows(alone, False) == []


@pytest.mark.parametrize("means, words", [((-0.2, -0.2), "their differences: −0.20"),
                                          ((-0.2, None), "−0.20; 1 could score too little"),
                                          ((-0.2, 0.1), "−0.20 to +0.10")])
def test_a_range_is_told_by_its_ends(means, words):
    some = [Comparison(outcome="violation", set="safety", unit="share", better="lower", arm="dpo", against="base",
                       before=0.4, after=0.2, judge="a", calibrated=True,
                       difference=Estimate(mean=mean, n=40, clusters=40)) for mean in means]
    assert words in panel_sentence(panel_difference(some))
