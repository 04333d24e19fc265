"""Runs against each other: tested where they share prompts and judges, every setting told, every cost counted."""
import math

import pytest

from contemplative_cai.core import run as run_module
from contemplative_cai.core.files import write_json, write_rows
from contemplative_cai.core.journal import Ledger, LedgerEntry
from contemplative_cai.core.recipe import Recipe, build_recipe
from contemplative_cai.core.run import Manifest, open_run, step
from contemplative_cai.core.schema import InputError, Verdict
from contemplative_cai.evaluation.calibration import Calibration, Figure, Measured
from contemplative_cai.evaluation.questions import Item
from contemplative_cai.inputs.rubrics import load_rubric
from contemplative_cai.measure.outcomes import risk_difference
from contemplative_cai.report import spent
from contemplative_cai.report.between import between_rows, between_tests, compare_between, read_seen
from contemplative_cai.report.settings import recorded_settings, setting_rows, setting_words
from contemplative_cai.report.spent import Prices, Spent, entry_models, for_each, load_prices, step_dollars, together

JUDGE = "logit judge@1"


def measured(name, good):
    value = Figure(value=0.95 if good else 0.5, low=0.4, high=1.0)
    return Measured(criterion=name, n=40, yes=20, no=20, prompts=20, auc_direct=value, auc_turned=value,
                    flip_rate=Figure(value=0.0), kappa=value, unscored=Figure(value=0.0), unread=0.0, auc_length=0.5)


def seen(name, values, judge=JUDGE, good=True, rubric="safety@1", clusters=None):
    "A run whose judge said these values of its trained arm's answers, by prompt."
    run = open_run(name)
    write_rows(run.path("items.jsonl"), [Item(set="safety", prompt_id=id, cluster=(clusters or {}).get(id, id),
                                              source="ailuminate") for id in values])
    write_rows(run.path("verdicts.jsonl"), [
        Verdict(arm=arm, prompt_id=id, criterion=criterion, value=value if arm == "dpo" else 1.0, judge=judge,
                rubric=rubric, reason="" if value is not None else "unread")
        for arm in ("base", "dpo") for id, value in values.items() for criterion in ("violation", "harmfulness")])
    names = [one.id for one in load_rubric("safety").criteria]
    one = Calibration(judge=judge, rubric=rubric, answers="labels",
                      criteria=tuple(measured(name, good) for name in names))
    write_json(run.path("calibration.json"), [one.model_dump(mode="json")])
    return read_seen(run, "dpo")


FIRST = {f"p{i}": float(i % 2) for i in range(40)}  # half of the answers violate
LATER = {f"p{i}": float(i % 2 and i >= 24) for i in range(40)}  # twelve of them do not any more


# tests


def test_runs_that_share_prompts_are_tested_by_the_projects_own_statistics():
    "Twelve discordant pairs, all one way: exact McNemar p is 2 * 0.5 ** 12, and Tango's interval stands beside."
    row = compare_between(seen("old", FIRST), seen("new", LATER), "violation").comparison
    by_hand = risk_difference(list(FIRST.values()), list(LATER.values()))
    assert row.difference.mean == pytest.approx(-0.3) and row.difference.p == pytest.approx(2 * 0.5**12)
    assert (row.difference.low, row.difference.high) == (by_hand.low, by_hand.high)
    assert by_hand.method == "exact McNemar p, Tango interval" == row.difference.method
    assert (row.before, row.after) == (0.5, 0.2) and row.difference.n == 40


def test_p_is_corrected_over_all_tests_and_helpfulness_is_none():
    rows = between_tests([seen("old", FIRST), seen("new", LATER), seen("same", FIRST)],
                         ["violation", "harmfulness", "helpfulness"])
    assert len(rows) == 6
    known = sum(row.comparison is not None and row.comparison.difference.p is not None for row in rows)
    assert [row.p for row in rows[:2]] == [pytest.approx(known * 2 * 0.5**12)] * 2 and known in (2, 4)
    assert rows[2].comparison is None and "own base" in rows[2].why
    assert rows[3].comparison.difference.mean == 0.0 and rows[3].p in (None, 1.0), "the same answers"


def test_only_the_shared_prompts_count_and_it_is_said_of_how_many():
    later = {id: value for id, value in LATER.items() if int(id[1:]) < 30} | {"q1": 1.0, "q2": 1.0}
    rows = between_tests([seen("old", FIRST), seen("new", later)], ["violation"])
    assert rows[0].comparison.difference.n == 30 and rows[0].asked == (40, 32)
    assert between_rows(rows)[0]["on"] == "30 prompts of 40 and 32"
    assert rows[0].comparison.difference.mean == pytest.approx(-12 / 30)


@pytest.mark.parametrize("changes, why", [
    (dict(judge="another@1"), "the judges differ (logit judge@1; another@1)"),
    (dict(rubric="safety@2"), "the judge was asked by different rubrics"),
    (dict(values={f"q{i}": 1.0 for i in range(40)}), "no prompt is in both (40 and 40)"),
])
def test_what_cannot_be_compared_is_not_and_says_why(changes, why):
    rows = between_tests([seen("old", FIRST), seen("new", **{"values": LATER, **changes})], ["violation"])
    assert rows[0].comparison is None and rows[0].p is None
    assert between_rows(rows)[0]["difference [95 %]"] == f"not comparable: {why}"


def test_a_run_without_verdicts_is_named():
    rows = between_tests([seen("old", FIRST), read_seen(open_run("empty"), "dpo")], ["violation"])
    assert rows[0].why == "no verdicts on it in empty"


def test_a_judge_below_the_bar_in_one_run_gives_no_p():
    rows = between_tests([seen("old", FIRST), seen("new", LATER, good=False)], ["violation"])
    shown = between_rows(rows, {JUDGE: "logits"})[0]
    assert rows[0].p is None and shown["p (Holm)"] == "-" and shown["judge"] == "logits (UNCALIBRATED JUDGE)"


def test_near_duplicates_are_one_unit_between_runs_too():
    twins = {id: f"p{int(id[1:]) // 2 * 2}" for id in FIRST}
    runs = [seen(name, values, clusters=twins) for name, values in (("old", FIRST), ("new", LATER))]
    row = compare_between(*runs, "violation").comparison
    assert row.difference.n == 40 and row.difference.clusters == 20
    assert row.difference.method.startswith("cluster means")


def test_unscored_answers_are_left_out_and_counted():
    later = LATER | {"p1": None, "p3": None}
    row = compare_between(seen("old", FIRST), seen("new", later), "violation").comparison
    assert row.difference.n == 38 and row.unscored == 2


# settings


def manifest(**changes):
    recipe = build_recipe(changes.pop("recipe", {})).model_dump(mode="json")
    return Manifest(recipe=recipe, seed=0, surroundings={"versions": {"torch": "2.13.0"}}, **changes)


OTHER = {str: "another", int: 7, float: 0.123, bool: True, type(None): "another", list: ["another"], dict: {"a": 1},
         tuple: [{"source": "another"}]}


@pytest.mark.parametrize("key", list(Recipe.model_fields))
def test_every_key_of_the_recipe_is_told_when_it_differs(key):
    "Seen: training settings, prompt sources and token limits were left out."
    one = manifest()
    value = Recipe().model_dump(mode="json").get(key, Recipe.model_fields[key].default)
    changed = (not value) if isinstance(value, bool) else OTHER[type(value)]
    two = one.model_copy(update={"recipe": one.recipe | {key: changed}})
    both = {"a": one, "b": two}
    rows = setting_rows(both, {name: recorded_settings(it) for name, it in both.items()})
    assert [row["setting"] for row in rows] == [key] and rows[0]["of"].startswith("recipe, ")
    assert any(f"differ in {key} (" in line for line in setting_words("a", "b", rows))


@pytest.mark.parametrize("entry, value", [
    ("constitution", "other@1"), ("prompts", "digest"), ("template", "t@2"), ("seed", 3), ("drawn", {"practice": 9}),
    ("mended", {"bom": 2}), ("critic", "big@1"), ("ensemble", {"charter": "big@1"}), ("kept_by_a_later_step", 4),
    ("model", "other@1"), ("recipe_name", "mine"), ("trained", "sft")])
def test_everything_recorded_in_the_manifest_is_told_when_it_differs(entry, value):
    both = {"a": manifest(), "b": manifest(**{entry: value} if entry != "seed" else {})}
    if entry == "seed": both["b"] = both["b"].model_copy(update={"seed": value})
    rows = setting_rows(both, {name: recorded_settings(it) for name, it in both.items()})
    name = f"recorded {entry}" if entry in Recipe.model_fields else entry
    assert rows and all(row["setting"].partition(".")[0] == name for row in rows)
    assert any(f"differ in {name}" in line for line in setting_words("a", "b", rows))


def test_machines_are_told_in_one_sentence_and_names_and_times_not_at_all():
    here, there = manifest(run="a"), manifest(run="b", steps={"train": {"status": "done", "started": "now"}})
    there = there.model_copy(update={"surroundings": {"versions": {"torch": "2.12.0"}, "commit": "abc"}})
    rows = setting_rows({"a": here, "b": there}, {"a": recorded_settings(here), "b": recorded_settings(there)})
    assert setting_words("a", "b", rows) == [
        "a and b ran in other surroundings: surroundings.versions.torch, surroundings.commit."]


def test_a_recipe_of_before_a_key_has_its_default_and_no_place_is_named():
    old = manifest()
    old = old.model_copy(update={"recipe": {key: value for key, value in old.recipe.items() if key != "margin"}})
    far = manifest(recipe={"helpful": "/home/ann/client/rows.jsonl"})
    rows = setting_rows({"a": old, "b": far}, {"a": recorded_settings(old), "b": recorded_settings(far)})
    assert [(row["setting"], row["a"], row["b"]) for row in rows] == [("helpful", "none", "rows.jsonl")]


# costs

PRICES = Prices("2025-06", {"ml.g5.2xlarge": 1.515}, {"served": (0.5, 1.5), "dear": (10.0, 30.0)})


def spending(**entries):
    "A ledger with these tokens read and written, by entry; `_` stands for a space."
    return Ledger(stages={name.replace("_", " "): LedgerEntry(calls=9, tokens_in=read, tokens_out=written)
                          for name, (read, written) in entries.items()})


def test_an_hour_of_an_instance_and_a_million_tokens_have_their_price():
    run = Manifest(recipe={"model": "served"}, steps={"train": {"status": "done", "instance": "ml.g5.2xlarge"},
                                                      "evaluate": {"status": "done", "instance": "ml.unknown"}})
    calls = spending(respond=(2_000_000, 1_000_000), answer_base=(2_000_000, 1_000_000))
    assert step_dollars(run, "train", Ledger(), 7200.0, PRICES) == pytest.approx(3.03)
    assert step_dollars(run, "generate", calls, 5.0, PRICES) == pytest.approx(2.5)
    assert step_dollars(run, "evaluate", calls, 5.0, PRICES) is None, "an instance without a price"
    assert step_dollars(run.model_copy(update={"steps": {}}), "train", calls, 7200.0, PRICES) is None


@pytest.mark.parametrize("recipe, step, calls, dollars", [
    ({"critic": "dear"}, "generate", dict(respond=(10**6, 0), critique=(10**6, 0), revise=(0, 10**6)), 0.5 + 10 + 1.5),
    ({"reviser": "dear"}, "generate", dict(respond=(10**6, 0), critique=(10**6, 0), revise=(0, 10**6)), 0.5 + 0.5 + 30),
    ({"eval_judges": ["reasoned=dear"]}, "evaluate", dict(answer_base=(10**6, 0), judge_reason=(10**6, 10**5)),
     0.5 + 10 + 3),
    ({"eval_judges": ["reasoned"], "critic": "dear"}, "evaluate", dict(judge_reason=(10**6, 0), play_dpo=(0, 10**6)),
     0.5 + 1.5),
    ({"ensemble": ["generic", "mine.md"]}, "generate", dict(prefer=(10**6, 0)), 0.5),
    ({"eval_arms": ["base", "other=dear"]}, "evaluate", dict(answer_base=(10**6, 0), answer_other=(10**6, 0)), 10.5),
    ({"eval_judges": ["reasoned", "reasoned=dear"]}, "evaluate", dict(judge_reason=(10**6, 0)), None),
    ({"eval_judges": ["logits=dear"]}, "evaluate", dict(answer_base=(10**6, 0), judge_weigh=(None, 0)), None),
    ({"ensemble": ["dear"]}, "generate", dict(prefer=(10**6, 0)), None),
    ({"critic": "unknown"}, "generate", dict(respond=(10**6, 0), critique=(10**6, 0)), None),
    ({}, "generate", {}, None),
])
def test_each_call_has_the_price_of_the_model_that_was_asked(recipe, step, calls, dollars):
    "Judge's and critic's tokens were priced as the answering model's: 0.3 where 12 and more was spent."
    run = Manifest(recipe={"model": "served", **recipe})
    cost = step_dollars(run, step, spending(**calls), 10.0, PRICES)
    assert cost == (None if dollars is None else pytest.approx(dollars))


def test_every_entry_that_a_run_writes_has_a_model():
    recipe = {"model": "served", "eval_judges": ["logits", "logits=dear", "reasoned=dear"],
              "eval_arms": ["base", "mine=dear"], "critic": "critic", "reviser": "reviser"}
    asked = {entry: sorted(entry_models(recipe, entry)) for entry in (
        "respond", "paraphrase", "critique", "violates", "route", "prefer", "revise", "distil", "answer base",
        "answer mine", "play dpo", "judge weigh", "judge reason")}
    assert asked == {
        "respond": ["served"], "paraphrase": ["served"], "critique": ["critic"], "violates": ["critic"],
        "route": ["critic"], "prefer": ["critic"], "revise": ["reviser"], "distil": ["reviser"],
        "answer base": ["served"], "answer mine": ["dear"], "play dpo": ["served"], "judge weigh": ["dear", "served"],
        "judge reason": ["dear"]}


def test_a_sum_that_lacks_a_part_is_none_and_nothing_is_shared_among_no_pairs():
    one = Spent(100.0, 50.0, 10.0, 0.5)
    assert together([one, one]) == Spent(200.0, 100.0, 20.0, 1.0)
    assert together([one, one._replace(dollars=None)]).dollars is None
    assert for_each(one, 4) == Spent(25.0, 12.5, 2.5, 0.125)
    assert for_each(one, 0) == for_each(one, None) == Spent(None, None, None, None)
    assert spent.dollar_words(None) == "no price" and spent.dollar_words(1234.5) == "$1,234.50"
    assert spent.kept_pairs(Ledger(stages={"generate": {"kept_pairs": 28}})) == 28


def test_the_shipped_prices_can_be_read_and_a_wrong_one_is_named(monkeypatch):
    assert load_prices().hour["ml.m5.xlarge"] == 0.23 and load_prices().as_of == "2026-07"
    monkeypatch.setattr(spent, "read_config", lambda name: {"usd_per_million_tokens": {"m": 3}})
    with pytest.raises(InputError, match="configs/prices.yaml: expected a number"): load_prices()


def test_a_step_records_the_instance_it_was_told_of(monkeypatch, tmp_path):
    run = open_run("mine")
    with step(run, "train"): pass
    assert "instance" not in run.manifest["steps"]["train"]
    monkeypatch.setenv("CCAI_INSTANCE", "ml.g5.2xlarge")
    with step(run, "train"): pass
    assert run.manifest["steps"]["train"]["instance"] == "ml.g5.2xlarge"
    monkeypatch.delenv("CCAI_INSTANCE")
    write_json(tmp_path / "resourceconfig.json", {"current_instance_type": "ml.p4d.24xlarge"})
    monkeypatch.setattr(run_module, "_SAGEMAKER", tmp_path / "resourceconfig.json")
    assert run_module.instance_name() == "ml.p4d.24xlarge"


def test_a_step_on_several_instances_costs_as_much_as_they_do_together(monkeypatch, tmp_path):
    write_json(tmp_path / "resourceconfig.json", {"current_instance_type": "ml.g5.2xlarge",
                                                   "hosts": ["algo-1", "algo-2"]})
    monkeypatch.setattr(run_module, "_SAGEMAKER", tmp_path / "resourceconfig.json")
    run = open_run("mine")
    with step(run, "generate"): pass
    assert run.manifest["steps"]["generate"]["machines"] == 2
    one = Manifest(steps={"generate": {"status": "done", "instance": "ml.g5.2xlarge"}})
    two = run_module.read_manifest(run)
    alone, shared = (step_dollars(manifest, "generate", Ledger(), 3600.0, PRICES) for manifest in (one, two))
    assert alone and shared == 2 * alone


def test_cost_rows_show_seconds_tokens_money_and_the_share_of_a_kept_pair(monkeypatch):
    from contemplative_cai.report import compare
    from contemplative_cai.report.compare import cost_rows
    class Run: pass
    run = Run()
    run.name, run.training = "mine", None
    run.manifest = Manifest(recipe={"model": "served"}, steps={
        name: {"status": "done", "instance": "ml.g5.2xlarge"} for name in ("generate", "train", "evaluate")})
    run.ledger = Ledger(stages={
        "respond": {"tokens_in": 4000, "tokens_out": 2000, "seconds": 90.0},
        "generate": {"kept_pairs": 20, "seconds": 100.0},
        "train": {"seconds": 3600.0, "tokens_in": 10, "tokens_out": 0},
        "evaluate": {"seconds": 318.0}, "answer base": {"tokens_in": 10, "tokens_out": 10, "seconds": 840.0}})
    monkeypatch.setattr(compare, "load_prices", lambda: PRICES)
    rows = {row["step"]: row for row in cost_rows([run])}
    assert rows["generate"]["seconds"] == "100" and rows["generate"]["tokens written"] == "2,000"
    assert rows["train"]["money"] == "$1.51" and rows["evaluate"]["time"] == "14 min 00 s"
    each = rows["generate, for each of 20 kept pairs"]
    assert (each["seconds"], each["tokens read"], each["money"]) == ("5.00", "200", "$0.0021")
    whole = (100 + 3600 + 840) / 3600 * 1.515
    assert rows["all steps"]["money"] == f"${whole:,.2f}"
    assert math.isclose(float(rows["all steps, for each of 20 kept pairs"]["money"][1:]), whole / 20, abs_tol=1e-4)


def test_a_comparison_without_prices_says_no_price():
    from contemplative_cai.report.compare import _cost_row
    row = _cost_row(type("R", (), {"name": "a", "training": None})(), "generate", Spent(None, None, 5.0))
    assert row["money"] == "no price" and row["tokens read"] == "-"
