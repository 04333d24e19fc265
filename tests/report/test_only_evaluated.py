"""A run that only evaluated says of each arm what it is, and nothing of pairs or of a training that it has not."""
from types import SimpleNamespace

import pytest

from contemplative_cai.evaluation.arms import Arm
from contemplative_cai.report import summary
from contemplative_cai.report.report import whole_row

BASE = Arm(name="base", description="the model as it came")
TOLD = Arm(name="prompted", description="told", system="Be kind.")
MINE = Arm(name="mine", description="as it is in elsewhere", adapter="elsewhere/adapter")
OTHER = Arm(name="other", description="as it is in other", model="smollm2-135m")


def facts(*arms, split=None, training=None):
    manifest = SimpleNamespace(constitution=None, recipe={"judge": "auto"}, gate=None, given=None)
    return SimpleNamespace(arms=(BASE, *arms), split=split, training=training, model="tiny", given=None, kept=[],
                           dropped=[], reviewed=[], run="demo", manifest=manifest, metrics=None)


@pytest.mark.parametrize("arms, number, words", [
    ((), "nothing", "tiny answered as it came"),
    ((TOLD,), "nothing", "tiny answered as it came, told something first as prompted"),
    ((MINE,), "not in this run", "tiny answered as it came, mine with an adapter that was trained elsewhere"),
    ((TOLD, OTHER), "not in this run",
     "tiny answered as it came, told something first as prompted, other with a model of its own"),
])
def test_who_was_trained_elsewhere_is_not_the_model_as_it_came(arms, number, words):
    "'Nothing was trained: the model answered as it came' stood beside a trained adapter."
    assert summary.learned(facts(*arms)) == f"Nothing was trained in this run: {words}."
    figure = summary._trained(facts(*arms))
    assert figure.number == number and figure.basis.startswith(f"{words}; this run has no pairs")


def test_a_run_without_pairs_is_not_asked_to_be_reviewed():
    "'The pairs were made before there was a gate. People can say: ccai run review' stood in a run that has none."
    figure = summary.pairs_checked(facts())
    assert (figure.number, figure.basis) == ("none", "this run has no pairs")
    assert whole_row(facts()).words == "This run has no pairs, so there is no row to show."
    assert "ccai run review" in summary.pairs_checked(facts(split=object())).basis


def test_pairs_that_nobody_trained_on_yet_beside_an_adapter_of_another_run():
    assert summary.learned(facts(split=object())) == "Nothing has been trained yet."
    assert summary.learned(facts(MINE, split=object())) == (
        "Nothing has been trained in this run yet; mine with an adapter that was trained elsewhere answered.")
