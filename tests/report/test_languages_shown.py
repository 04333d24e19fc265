"""What a report says of rules and judges in a language they do not know."""
import pytest
from test_report import JUDGE, drawn, evaluate_by_hand, generated, numbers, trained_by_hand  # noqa: F401  (fixtures)

from contemplative_cai.evaluation.evaluate import load_metrics
from contemplative_cai.report import limits, summary
from contemplative_cai.report.evidence import claim_rows, strange_languages, uncalibrated
from contemplative_cai.report.report import write_report
from contemplative_cai.report.tables import level_rows

NO_RULE = "not measured: no rule for de"


@pytest.fixture
def silent(generated):  # noqa: F811
    "A run whose refusals are of German answers: the rule has no number for any."
    trained_by_hand(generated)
    nothing = {"mean": None, "low": None, "high": None, "p": None, "undefined": NO_RULE, "n": 0, "clusters": 0}
    metrics = numbers(True)[0]
    levels = [row | ({"mean": row["mean"] | nothing, "unscored": row["asked"]} if row["outcome"] == "refusal" else {})
              for row in metrics["levels"]]
    comparisons = [row | ({"difference": row["difference"] | nothing, "before": None, "after": None, "p": None,
                           "kept": None} if row["outcome"] == "refusal" else {}) for row in metrics["comparisons"]]
    evaluate_by_hand(generated, levels=levels, comparisons=comparisons)
    return generated


def test_a_rule_without_a_number_is_no_0(silent):
    metrics = load_metrics(silent)
    row = next(row for row in level_rows(metrics, ["refusal"]) if row["outcome"] == "refusal")
    assert {row[arm] for arm in metrics.arms} == {NO_RULE}
    assert {row["difference [95 %]"] for row in claim_rows(metrics) if row["claim"].startswith("refusal")} == {NO_RULE}
    assert any("Not measured: no rule for de (refusal). That is no 0." in line for line in uncalibrated(metrics))
    page = write_report(silent).read_text()
    assert NO_RULE in page and NO_RULE in silent.path("report.md").read_text()
    assert NO_RULE in summary.why_missing(metrics, "refusal")


@pytest.fixture
def strange(generated):  # noqa: F811
    "A run whose first judge looked at French prompts, and was measured on English ones."
    trained_by_hand(generated)
    metrics = numbers(True)[0]
    def changed(row):
        if row["judge"] != JUDGE or row["set"] != "safety" or row["outcome"] == "composite": return row
        return row | {"calibrated": False, "unmeasured": ["fr"]} | ({"p": None} if "p" in row else {})
    def kept(rows): return [changed(row) for row in rows if (row["judge"], row["outcome"]) != (JUDGE, "composite")]
    evaluate_by_hand(generated, levels=kept(metrics["levels"]), comparisons=kept(metrics["comparisons"]), weights=[])
    return generated


def test_a_judge_that_was_not_measured_in_a_language_says_so_beside_the_table(strange):
    metrics = load_metrics(strange)
    assert {key: set(names) >= {"violation"} for key, names in strange_languages(metrics).items()} == {
        ("logits", ("fr",)): True}
    words = uncalibrated(metrics, ["violation"])
    assert len(words) == 1 and words[0].startswith("Not measured in fr") and "supports no claim" in words[0]
    assert not uncalibrated(metrics, ["emptiness"])
    row = next(row for row in level_rows(metrics, ["violation"]) if row["outcome"] == "violation")
    assert row["judge"] == "logits (not measured in fr)"
    page = write_report(strange).read_text()
    assert "not measured in fr" in page and "Not measured in fr" in page
    assert any("in which it was not measured" in line for line in limits._judge_limits(metrics))
    figure = summary._claimed("Primary outcome", metrics, "violation: dpo - base", "metrics.json")
    assert figure.value == "no claim" if hasattr(figure, "value") else "no claim" in figure
