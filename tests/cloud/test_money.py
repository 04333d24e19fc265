"""A price is written down or refused; hours rest on measured rates; a job that could cost too much is not sent."""
import pytest
from hypothesis import given, strategies

from contemplative_cai.cloud import money
from contemplative_cai.cloud.machines import known_instances
from contemplative_cai.cloud.money import MEASURED, Phase, check_budget, cost_bound, hourly_price, phase_costs
from contemplative_cai.command.commands import main
from contemplative_cai.core.project import read_config
from contemplative_cai.core.schema import InputError

JOB = ["run", "generate", "--run", "cloud", "--recipe", "smoke", "--on", "sagemaker", "--yes"]


def test_every_shipped_price_is_of_a_known_instance_and_a_number():
    table = read_config("prices")
    for region, prices in {"us-east-1": table["training_usd_per_hour"],
                           **table["training_usd_per_hour_elsewhere"]}.items():
        assert set(prices) <= {*known_instances(), "ml.m5.2xlarge"}
        assert all(0.1 < hourly_price(name, region) < 100 for name in prices)


@pytest.mark.parametrize("instance, region, price", [
    ("ml.g5.16xlarge", "us-east-1", None), ("ml.g5.2xlarge", "eu-west-1", None), ("a", "us-east-1", "dear"),
    ("a", "us-east-1", True), ("a", "us-east-1", 0), ("a", "us-east-1", -1),
])
def test_a_price_that_is_not_there_is_refused_with_where_to_write_it(monkeypatch, instance, region, price):
    if price is not None:
        monkeypatch.setattr(money, "read_config", lambda _: {"training_usd_per_hour": {instance: price}})
    with pytest.raises(InputError, match="look it up .* write it under training_usd_per_hour"):
        hourly_price(instance, region)


def test_the_bound_is_the_clock_at_the_price(where):
    bound = cost_bound(where.model_copy(update={"max_hours": 2.0}))
    assert (bound.usd_per_hour, bound.usd) == (1.515, 3.03)
    assert check_budget(where.model_copy(update={"max_usd": 12.12})).usd == 12.12
    with pytest.raises(InputError, match="set max_hours to 6.6 or less, or max_usd to 13"):
        check_budget(where.model_copy(update={"max_usd": 10.0}))
    with pytest.raises(InputError, match="can cost 12.12 USD; set max_usd to 13"):  # no time is short enough
        check_budget(where.model_copy(update={"max_usd": 0.1}))


@pytest.mark.parametrize("words", [JOB, JOB[:-1]])
def test_max_usd_stops_a_submission_and_the_dry_run_says_that_it_will(account, monkeypatch, capsys, words):
    from contemplative_cai.command import sagemaker
    monkeypatch.setattr(sagemaker, "submit", lambda *_: pytest.fail("it was sent"))
    settings = sagemaker.cloud_settings({"max_usd": 1})
    monkeypatch.setattr(sagemaker, "cloud_settings", lambda _: settings)
    assert main(words) == 2
    shown = capsys.readouterr()
    assert "max_usd is 1" in shown.err and "Nothing was submitted" in shown.err
    assert "ml.g5.2xlarge" in shown.out and "add --yes" not in shown.out


POSITIVE = strategies.floats(0.1, 1e6)


@given(strategies.lists(strategies.tuples(POSITIVE, strategies.lists(POSITIVE, min_size=1, max_size=5)), min_size=1,
                        max_size=3), POSITIVE)
def test_low_is_below_middle_is_below_high_and_the_whole_is_the_sum(rows, price):
    *parts, whole = phase_costs([Phase(str(i), tokens, tuple(rates)) for i, (tokens, rates) in enumerate(rows)], price)
    assert all(part.usd[0] <= part.usd[1] <= part.usd[2] for part in parts)
    assert [sum(part.usd[i] for part in parts) for i in range(3)] == pytest.approx(whole.usd)


def test_what_was_not_measured_has_no_hours_and_no_sum():
    phases = [Phase("a", 3600.0, (1.0,), MEASURED), Phase("b", 10.0, ()), Phase("c", 0.0, ())]
    assert [cost.hours for cost in phase_costs(phases, 2.0)] == [(1.0, 1.0, 1.0), None, (0.0, 0.0, 0.0), None]
