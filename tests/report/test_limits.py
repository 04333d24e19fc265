"""What a report does not show, where a judge was not put to every part of the bar."""
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support import ROOT

from contemplative_cai.evaluation.calibration import InLanguage, in_languages
from contemplative_cai.evaluation.passport import read_passports
from contemplative_cai.report.limits import _unasked_limits, _unread_limits
from contemplative_cai.report.summary import collect
from contemplative_cai.report.tables import judge_calibrations


@pytest.fixture
def evaluated(runs, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "nbs" / "09_report"))
    from made_up import evaluated_run
    return collect(evaluated_run())


def measured(facts, criterion: str, **changes):
    "The facts, whose first judge was measured on violation as the embedded probe was on another criterion."
    row = next(row for one in read_passports() if "probe" in one.judge for part in one.calibrations
               for row in part.criteria if row.criterion == criterion)
    row = row.model_copy(update={"criterion": "violation"} | changes)
    return replace(facts, calibrations=(facts.calibrations[0].model_copy(update={"criteria": (row,)}),))


def test_a_judge_above_the_bar_that_was_not_put_to_ruins_is_told(evaluated):
    [line] = _unasked_limits(measured(evaluated, "harmfulness"), evaluated.metrics)
    assert "reads more than words in violation" in line and "could not be put to another question" in line


def test_one_that_was_put_to_all_of_it_or_is_below_it_is_not(evaluated):
    asked = measured(evaluated, "harmfulness", sense=measured(evaluated, "unhurried").calibrations[0].criteria[0].sense)
    assert _unasked_limits(asked, evaluated.metrics) == []
    assert _unasked_limits(measured(evaluated, "harmfulness", yes=3), evaluated.metrics) == []
    assert _unasked_limits(evaluated, evaluated.metrics) == []


def test_what_a_language_was_not_put_to_is_told_where_prompts_are_in_it(evaluated):
    "Over all languages every part was asked, and in French none of the ruins: French alone is told."
    bare = measured(evaluated, "harmfulness").calibrations[0].criteria[0]
    whole = bare.model_copy(update={"sense": measured(evaluated, "unhurried").calibrations[0].criteria[0].sense})
    report = evaluated.calibrations[0].model_copy(update={"criteria": (whole,), "by_language": (
        InLanguage(language="en", labels={"violation": (20, 20)}, criteria=(whole,)),
        InLanguage(language="fr", labels={"violation": (20, 20)}, criteria=(bare,)))})
    facts = replace(evaluated, calibrations=(report,))
    assert facts.languages["safety"] == {"en"} and _unasked_limits(facts, evaluated.metrics) == []
    for languages in ({"fr"}, {"en", "fr"}):
        [line] = _unasked_limits(replace(facts, languages={"safety": languages}), evaluated.metrics)
        assert "in violation" in line and "could not be put to another question" in line
    unmeasured = replace(facts, languages={"safety": {"de"}})
    assert _unasked_limits(unmeasured, evaluated.metrics) == [], "in none of its own the pooled figures stand"


def test_figures_of_each_language_are_those_of_all_rubrics_of_a_judge(evaluated):
    row = measured(evaluated, "harmfulness").calibrations[0].criteria[0]
    def report(name):
        own = row.model_copy(update={"criterion": name})
        return evaluated.calibrations[0].model_copy(update={"criteria": (own,), "by_language": (
            InLanguage(language="fr", labels={name: (20, 20)}, criteria=(own,)),)})
    [merged] = judge_calibrations(evaluated.metrics, [report("violation"), report("empathy")]).values()
    assert [list(in_languages(merged, name)) for name in ("violation", "empathy")] == [["fr"], ["fr"]]


def test_a_gain_by_a_probe_that_nobody_read_is_told():
    row = SimpleNamespace(arm="dpo", role="primary", judge="probe m@1 0a", claimable=True,
                          difference=SimpleNamespace(mean=0.3))
    metrics = SimpleNamespace(comparisons=[row], trained="dpo", corrections=None)
    def told(given="contemplative-512", training=True, **changes):
        facts = SimpleNamespace(training=training or None, given=given, run="r")
        return _unread_limits(facts, SimpleNamespace(**{**vars(metrics), **changes}))
    assert "one language model wrote the pairs" in told()[0] and "ccai labels draw r" in told()[0]
    assert "may reward a manner that was learned. Nobody" in told(given=None)[0] == told(given="mine.jsonl")[0]
    assert told(corrections="people's") == [] == told(training=None)
    other = SimpleNamespace(**{**vars(row), "judge": "logits m@1"})
    assert told(comparisons=[other]) == [] == told(comparisons=[SimpleNamespace(**{**vars(row), "claimable": False})])
