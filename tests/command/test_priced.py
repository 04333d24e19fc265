"""What a run takes is told phase by phase, machine by machine and model by model; what was measured is told apart from
what was extrapolated, and nothing without a rate gets hours."""
import pytest

from contemplative_cai.cloud.machines import CloudSettings
from contemplative_cai.cloud.money import phase_costs
from contemplative_cai.command import pace, priced
from contemplative_cai.command.abilities_asked import abilities_asked
from contemplative_cai.command.commands import main
from contemplative_cai.command.pace import Rate, pace_on
from contemplative_cai.command.plan import paced, run_work
from contemplative_cai.command.priced import cheapest, machine_rows, model_rows, offers, price_on
from contemplative_cai.core import journal
from contemplative_cai.core.recipe import build_recipe, load_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.evaluation.arms import Arm

ARMS = [Arm(name=name, description="an arm") for name in ("base", "prompted", "dpo")]


@pytest.fixture(scope="module")
def work(): return run_work(seven())


@pytest.fixture
def where(): return CloudSettings()


def here(work, known): return phase_costs(paced(work, seven(), None, known), 0.0)


def seven(**keys): return load_recipe("qwen2.5-7b", keys)


# what abilities ask


@pytest.mark.parametrize("keys, counts", [
    ({"capability": ["battery"]}, [("battery", 460, 2, 120, 3200, 0)]),
    ({"capability": ["battery", "choices"]}, [("battery", 460, 2, 120, 3200, 0)]),
    ({"capability": ["choices", "arc"], "capability_items": 50},
     [("choices", 400, 2, 0, 3200, 0), ("arc", 50, 2, 0, 400, 0)]),
    ({"capability": ["humaneval"], "capability_samples": 5}, [("humaneval", 164, 3, 2460, 0, 0)]),
    ({"capability": ["mt_bench"], "eval_judges": ["logits", "reasoned"]}, [("mt_bench", 80, 3, 480, 0, 1600)]),
    ({"capability": []}, []),
])
def test_a_measure_is_counted_by_items_arms_answers_ends_and_verdicts(keys, counts):
    asked = abilities_asked(build_recipe(keys), ARMS)
    assert [(one.name, one.items, one.arms, one.answers, one.ends, one.verdicts) for one in asked] == counts


def test_abilities_are_phases_of_an_evaluation_and_only_of_it():
    recipe = seven(capability=["mmlu", "gsm8k"])
    assert [(work.name, work.step) for work in run_work(recipe)] == [
        ("generation", "generate"), ("training", "train"), ("evaluation", "evaluate"),
        ("abilities, written", "evaluate"), ("abilities, read", "evaluate")]
    assert [work.name for work in run_work(seven(capability=[]))] == ["generation", "training", "evaluation"]
    assert run_work(seven(capability=["mmlu"]))[-1].tokens > 10 * run_work(seven(capability=["battery"]))[-1].tokens


# measured, or extrapolated


def test_what_a_run_measured_counts_on_its_machine_alone(runs):
    run = open_run("mine")
    run.record(recipe={"model": "qwen2.5-7b"}, steps={"generate": {"status": "done", "instance": "ml.g5.2xlarge"}})
    journal.write_ledger(run, respond={"tokens_out": 1000, "seconds": 10.0})
    [rate] = pace.known_rates()
    assert rate == Rate("qwen2.5-7b", "generate", "ml.g5.2xlarge", 100.0, "mine")
    assert pace_on(seven(), "generate", "ml.g5.2xlarge", [rate]) == ((100.0,), "measured")
    assert pace_on(seven(), "generate", "ml.p4d.24xlarge", [rate]).basis == "extrapolated"
    assert pace_on(seven(), "generate", None, [rate]) == ((), "")
    small = pace_on(seven(model="qwen2.5-0.5b"), "generate", "ml.g5.2xlarge", [rate])
    assert small.basis == "extrapolated from qwen2.5-7b" and small.rates[1] == pytest.approx(100 * 7.616 / 0.494)


def test_machines_that_share_a_step_take_their_part_of_the_time_and_the_same_money(runs, work, where):
    run = open_run("two")
    run.record(recipe={"model": "qwen2.5-7b"},
               steps={"generate": {"status": "done", "instance": "ml.g5.2xlarge", "machines": 2}})
    journal.write_ledger(run, respond={"tokens_out": 1000, "seconds": 10.0})
    known = pace.known_rates()
    assert known[0].tokens_per_second == 50  # of each
    alone, shared = (price_on(seven(), work[:1], "ml.g5.2xlarge", known, where.model_copy(update={"count": count}))[0]
                     for count in (1, 2))
    assert shared.hours[1] == pytest.approx(alone.hours[1] / 2) and shared.usd == pytest.approx(alone.usd)
    assert (alone.basis, shared.basis) == ("measured", "extrapolated")


def test_a_larger_machine_is_never_slower_and_a_larger_model_never_faster():
    for step in ("generate", "train", "read"):
        on = {name: pace_on(seven(), step, name, []).rates for name in ("ml.g5.2xlarge", "ml.p4d.24xlarge")}
        assert all(slow <= fast for slow, fast in zip(*on.values()))
        sizes = [pace_on(seven(model=f"qwen2.5-{size}"), step, "ml.p4d.24xlarge", []).rates
                 for size in ("0.5b", "7b", "32b")]
        assert all(a >= b >= c for a, b, c in zip(*sizes))


def test_a_computer_of_ones_own_costs_hours_and_no_money_and_none_without_a_rate(work):
    rate = [Rate("qwen2.5-7b", step, None, 50.0, "mine") for step in ("generate", "train", "evaluate")]
    *parts, whole = here(work, rate)
    assert whole.hours[0] > 0 and whole.usd == (0.0, 0.0, 0.0) and whole.basis == "extrapolated and measured"
    assert {part.name: part.basis for part in parts} == {
        "generation": "measured", "training": "measured", "evaluation": "measured", "abilities, written": "measured",
        "abilities, read": "extrapolated"}
    assert here(work, [])[-1].hours is None


def test_the_whole_is_the_sum_of_its_phases_with_storage(where, work):
    *parts, whole = price_on(seven(), work, "ml.g5.2xlarge", [], where)
    assert parts[-1].name == "storage" and parts[-1].hours is None
    for i in range(3):
        assert whole.usd[i] == pytest.approx(sum(part.usd[i] for part in parts))
        assert whole.usd[i] > whole.hours[i] * 1.515


def test_machines_are_those_with_a_price_that_can_run_it(where, work):
    names = [offer.machine for offer in offers(seven(), work, [], where)]
    assert "ml.g4dn.xlarge" not in names and {"ml.g5.2xlarge", "ml.g6e.2xlarge", "ml.p4d.24xlarge"} <= set(names)
    middles = [offer.whole.usd[1] for offer in offers(seven(), work, [], where)]
    assert middles == sorted(middles)
    assert offers(seven(), work, [], where.model_copy(update={"region": "nowhere-1"})) == []
    assert [row[0] for row in machine_rows([], here(work, [])[-1])] == ["machine", "this computer"]


def test_every_size_of_the_method_has_a_line_and_what_was_made_easier_is_told(where, work):
    rows = model_rows(seven(), work, [], where)
    assert [row[0] for row in rows[1:]] == [f"qwen2.5-{size}" for size in ("0.5b", "1.5b", "7b", "14b", "32b")]
    assert all(row[-1] == "extrapolated" for row in rows[1:])
    offer, easier = cheapest(seven(model="qwen2.5-32b", train_batch_size=12), work, [], where)
    assert offer.machine and "gradient_checkpointing: true" in easier
    assert model_rows(seven(), work, [], where.model_copy(update={"region": "nowhere-1"}))[1][1].startswith("none of")


@pytest.mark.long
def test_the_command_tells_all_of_it(runs, capsys):
    assert main(["plan", "qwen2.5-7b", "--models"]) == 0
    shown = capsys.readouterr().out
    for words in ("capability, beside the evaluation", "no money", "storage", "this computer", "ml.p4d.24xlarge",
                  "qwen2.5-32b", "extrapolated", "USD: low - middle - high"):
        assert words in shown, words


def test_a_price_of_storage_that_is_no_number_is_refused(monkeypatch, where):
    from contemplative_cai.cloud import money
    monkeypatch.setattr(money, "read_config", lambda _: {"storage_usd_per_gb_month": {"disk": "dear"}})
    with pytest.raises(InputError, match="write it under storage_usd_per_gb_month"): money.storage_price("disk")
    assert priced.kept_gb(seven())[0] < priced.kept_gb(seven())[2]
