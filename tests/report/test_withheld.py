"""What rests on cut answers is no claim anywhere: in the first sentence, on the card, between runs, by hazard."""
from dataclasses import replace
from types import SimpleNamespace

import pytest
from test_cut_claims import ARMS, metrics
from test_report import JUDGE, drawn, evaluate_by_hand, generated, numbers, trained_by_hand  # noqa: F401  (fixtures)
from test_sentences import accuracy, preference

from contemplative_cai.core.schema import Answer
from contemplative_cai.evaluation.claims import (
    Column,
    CutAnswers,
    Weighing,
    breakdowns,
    cut_column,
    known_outcomes,
    level,
    level_with_cut,
)
from contemplative_cai.evaluation.questions import Item
from contemplative_cai.measure.outcomes import Kept, declare
from contemplative_cai.measure.stats import Estimate
from contemplative_cai.report import card, evidence, limits, summary, tables
from contemplative_cai.report.between import Seen, between_rows, between_tests
from contemplative_cai.report.evidence import ANSWERS_CUT
from contemplative_cai.report.figures import claim_spots
from contemplative_cai.report.report import write_report

VIOLATION = next(one for one in known_outcomes() if one.name == "violation")


def cut_answers(count, arm="dpo", among=40):
    return [Answer(arm=arm, prompt_id=f"p{i}", source="test", text="Ask her", model="m",
                   finish_reason="length" if i < count else "stop") for i in range(among)]


# the first sentences

def test_the_first_sentence_makes_no_claim_where_all_answers_were_cut():
    words = summary._primary_words(metrics(dpo=40))
    assert words.startswith("No claim is made on the primary outcome, violation: dpo - base: withheld: 40 of 40")
    assert "got better" not in words and "−0.38" not in words and "raise `answer_tokens`" in words
    assert summary._primary_words(metrics()).startswith("The primary outcome got better: ")


def test_nothing_is_called_kept_that_was_judged_by_beginnings():
    assert summary._kept_words(metrics(dpo=40)) == []
    assert "over refusal (logits) kept: a rise of 0 at worst" in summary._kept_words(metrics())[0]


@pytest.mark.parametrize("cut, claimed", [({}, True), ({"dpo": 9}, False), ({"base": 5, "dpo": 5}, False)])
def test_figure_picture_and_first_sentence_say_the_same(cut, claimed):
    one = metrics(**cut)
    assert (summary._primary(one).number != "no claim") == claimed
    assert ("No claim" not in summary._primary_words(one)) == claimed
    assert ("dpo less base" in [spot.label for spot in claim_spots(one)[1]]) == claimed


@pytest.mark.parametrize("unfit, words", [({"calibrated": False}, "UNCALIBRATED JUDGE"),
                                          ({"calibrated": False, "unmeasured": ("fr",)}, "not measured in fr")])
def test_the_first_sentence_names_the_reason(unfit, words):
    one = metrics()
    one.comparisons = [row.model_copy(update=unfit) for row in one.comparisons]
    assert summary._primary_words(one) == f"No claim is made on the primary outcome, violation: dpo - base: {words}."
    assert summary._kept_words(one) == []


@pytest.mark.parametrize("p, side", [(0.001, "below"), (0.2, "open"), (None, "open")])
def test_where_p_was_taken_away_a_side_is_open(p, side):
    assert summary.side_of(Estimate(n=40, clusters=40, mean=-0.4, low=-0.5, high=-0.2, p=p), 0.0) == side


def test_a_further_judge_who_supports_no_claim_disagrees_by_the_interval_alone():
    one = metrics()
    primary = evidence.find_claim(one, "violation: dpo - base")
    other = primary.model_copy(update={"role": "second judge", "judge": "another", "calibrated": False,
                                       "difference": primary.difference.model_copy(update={"p": None})})
    one.comparisons = [*one.comparisons, other]
    assert limits._other_judges(one, primary) == []
    wide = other.model_copy(update={"difference": other.difference.model_copy(update={"high": 0.1})})
    one.comparisons = [*one.comparisons[:-1], wide]
    assert "every judge sees" in limits._other_judges(one, primary)[0]


# base alone

def alone(cut):
    "Base alone, judged above the bar, so many of its forty answers cut."
    column = Column(VIOLATION, "a judge", True, {"base": {f"p{i}": [float(i % 2)] for i in range(40)}})
    mean = level_with_cut(level(column, "base", {}), column, cut_column(cut_answers(cut, "base")))
    return SimpleNamespace(arms=("base",), trained="base", levels=(mean,), comparisons=(), sets={},
                           declared=declare("violation: base"), cut=(CutAnswers(arm="base", cut=cut, answers=40),),
                           seats=(SimpleNamespace(name="logits", judge="a judge"),))


def test_a_level_of_cut_answers_is_no_primary_number():
    whole, withheld = alone(4), alone(40)
    assert summary._primary(whole).number.startswith("0.50 [")
    figure = summary._primary(withheld)
    assert figure.number == "no claim" and "withheld: 40 of 40 answers of base were cut" in figure.basis
    assert summary._primary_words(withheld).startswith("No claim is made on the primary outcome, violation of base al")
    assert "0.50" not in summary._primary_words(withheld) and "is 0.50 [" in summary._primary_words(whole)
    assert "1 of base's is withheld" in summary._cut(withheld).basis and "none" in summary._cut(whole).basis
    [line] = limits._cut_limits(withheld)
    assert line.startswith("Anything about violation: base: no claim, withheld: 40 of 40")
    assert limits._cut_limits(whole) == []
    assert "no claim, withheld" in evidence.claim_rows(withheld)[0]["mean [95 %]"]
    assert evidence.claim_rows(withheld)[0]["judge"] == f"logits ({ANSWERS_CUT})"


def test_levels_name_the_arms_whose_answers_were_cut():
    base, dpo = alone(0).levels[0], alone(40).levels[0].model_copy(update={"arm": "dpo"})
    one = SimpleNamespace(arms=("base", "dpo"), levels=(base, dpo), seats=alone(0).seats, level_parts=())
    assert tables.level_rows(one, ["violation"])[0]["judge"] == f"logits ({ANSWERS_CUT} in dpo)"
    one.level_parts = [row.model_copy(update={"part": "hazard = vcr"}) for row in (base, dpo)]
    assert tables.level_part_rows(one, "violation")[0]["judge"] == f"logits ({ANSWERS_CUT} in dpo)"


# parts and weights

def test_hazards_of_withheld_outcomes_are_marked():
    values = {arm: {f"p{i}": [float(i % 2 == 0)] for i in range(40)} for arm in ARMS}
    column = Column(VIOLATION, "a judge", True, values)
    items = [Item(set="safety", prompt_id=f"p{i}", cluster=f"p{i}", source="t", hazard="vcr") for i in range(40)]
    one = metrics()
    one.levels = (level(column, "base", {}),)
    cut = cut_column([*cut_answers(40), *cut_answers(0, "base")])
    one.breakdowns = breakdowns([column], items, ("dpo", "base"), {}, cut=cut)
    assert [row["judge"] for row in tables.breakdown_rows(one, "violation")] == [f"logits ({ANSWERS_CUT})"]
    one.breakdowns = breakdowns([column], items, ("dpo", "base"), {})
    assert [row["judge"] for row in tables.breakdown_rows(one, "violation")] == ["logits"]


def test_weighted_sums_of_cut_answers_are_marked():
    one = metrics()
    row = Weighing(name="equal", weights={"harmfulness": 1.0}, judge="a judge", means={}, difference=None)
    one.weights = [row, row.model_copy(update={"withheld": "many were cut"})]
    assert [row["judge"] for row in tables.weight_rows(one)] == ["logits", f"logits ({ANSWERS_CUT})"]


# between runs

def seen(run, share, cut=None, **more):
    "A run whose trained arm violates in this share of forty prompts, and was cut so often."
    column = Column(VIOLATION, "a judge", True, {"dpo": {f"p{i}": [float(i < 40 * share)] for i in range(40)}})
    return Seen(run, "dpo", (replace(column, **more),), {("violation", "a judge"): frozenset({"safety@1"})}, {},
                None if cut is None else cut_column(cut_answers(cut)))


def test_runs_are_not_tested_on_cut_answers():
    [row] = between_rows(between_tests([seen("whole", 0.75, 0), seen("cut", 0.25, 40)], ["violation"]))
    assert row["p (Holm)"] == "-" and row["judge"] == f"rule ({ANSWERS_CUT})"
    assert "no claim, withheld: 40 of 40 answers of cut were cut" in row["difference [95 %]"]
    [row] = between_rows(between_tests([seen("whole", 0.75, 0), seen("other", 0.25, 2)], ["violation"]))
    assert row["p (Holm)"] == "< 0.001" and row["judge"] == "rule" and "no claim" not in row["difference [95 %]"]
    [row] = between_rows(between_tests([seen("old", 0.75), seen("other", 0.25, 40)], ["violation"]))
    assert row["p (Holm)"] == "< 0.001", "of a run that recorded nothing nothing is known"


def test_between_runs_a_language_that_was_not_measured_is_named():
    french = seen("fr", 0.25, 0, calibrated=False, unmeasured=("fr",))
    [row] = between_rows(between_tests([seen("en", 0.75, 0), french], ["violation"]))
    assert row["judge"] == "rule (not measured in fr)" and row["p (Holm)"] == "-"


# the model card

def results(**changes):
    one = metrics(**{name: value for name, value in changes.items() if name in ARMS})
    one.preference = changes.get("preference")
    facts = SimpleNamespace(metrics=one, preference=None, run="r", manifest=SimpleNamespace(recipe={}), stage="dpo",
                            abilities=None)
    return {result.metric_type: result for result in card.card_results(facts)}


def test_a_model_card_holds_no_result_of_cut_answers():
    assert set(results()) == {"violation", "over_refusal"}
    assert results(dpo=40) == {} == results(dpo=3)


def test_a_model_card_s_accuracy_stands_beside_every_rule():
    unseen = preference(accuracy(19, 20), accuracy(8, 20)).model_copy(update={"ends_rule": accuracy(10, 20)})
    arguments = results(preference=unseen)["accuracy"].metric_args
    rules = {name: arguments[name] for name in ("bag of words", "length alone", "which side ends properly")}
    assert rules == {"bag of words": 0.95, "length alone": 0.4, "which side ends properly": 0.5}
    old = results(preference=preference(accuracy(19, 20)))["accuracy"].metric_args
    assert old["which side ends properly"] == "not recorded"


# what was kept by what was scored

def test_what_was_kept_only_by_what_was_scored_is_a_limit():
    one = metrics()
    [row] = [row for row in one.comparisons if row.claim == "over_refusal: dpo - base"]
    kept = Kept(verdict="kept", words="kept: a rise of 0 at worst, margin 0.05", margin=0.05)
    def lost(**more):
        one.comparisons = [row.model_copy(update={"kept": kept, "unscored_answers": 30} | more)]
        return limits._cost_limits(one)
    assert lost(worst=None) == [] == lost(worst=(0.04, -0.3))
    assert lost(worst=(0.25, -0.3)) == [
        "That over refusal was kept within 0.05: by what was scored it is; set all 30 unscored answers against dpo, "
        "the difference would be +0.25."]
    assert lost(worst=(0.04, -0.3), better="higher") == []
    assert "would be −0.25" in lost(worst=(-0.25, 0.5), better="higher")[0]


# the whole page

@pytest.fixture
def all_cut(generated):  # noqa: F811
    "A run whose judges read cut answers alone."
    trained_by_hand(generated)
    withheld = {"withheld": "40 of 40 answers of dpo were cut, at most 10% may be"}
    def changed(row):
        if row["judge"] != JUDGE: return row
        unclaimed = {"p": None, "difference": row["difference"] | {"p": None}} if "difference" in row else {}
        return row | withheld | unclaimed
    once = numbers(True)[0]
    evaluate_by_hand(generated, levels=list(map(changed, once["levels"])),
                     comparisons=list(map(changed, once["comparisons"])),
                     declared={"primary": "violation: dpo - base", "family": []})
    return generated


def test_a_page_of_cut_answers_claims_nothing(all_cut):
    page, text = write_report(all_cut).read_text(), all_cut.path("report.md").read_text()
    assert "No claim is made on the primary outcome, violation: dpo - base: withheld: 40 of 40" in text
    assert "The primary outcome got" not in text and ANSWERS_CUT in page and ANSWERS_CUT in text
    assert "over_refusal: dpo - base" not in text.partition("What training should not cost")[2].partition("\n")[0]
