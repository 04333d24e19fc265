"""Published scores: a file that is checked, what is asked for them, and how far they are from what was found."""
import pytest

from contemplative_cai.capability import published
from contemplative_cai.capability.battery import ItemResult
from contemplative_cai.capability.field import FIELD_BENCHMARKS
from contemplative_cai.capability.harness import Benchmarked
from contemplative_cai.capability.harness_tasks import BenchmarkSetting, HarnessSetting
from contemplative_cai.capability.published import (
    PublishedScore,
    check_plans,
    check_published,
    compared_with_published,
    published_scores,
)
from contemplative_cai.core.schema import InputError
from contemplative_cai.models.catalog import model_specs
from contemplative_cai.models.llm import ModelCallError

LIGHT = {"here": ["arc acc_norm", "arc_easy acc_norm"], "score": 0.4, "shots": 0, "chat_template": None,
         "by": "lighteval", "setting": "zero-shot", "source": "https://example.org/card"}


def came(**shares):
    "What a model makes of 200 items of each benchmark."
    benchmarks = tuple(BenchmarkSetting(name=name, source="file", digest="d", n=200, available=200, shots=0,
                                        figure="acc") for name in shares)
    return Benchmarked(setting=HarnessSetting(harness="0.4.13", chat_template=False, seed=0, limit=None,
                                              benchmarks=benchmarks), results=(), shares=shares)


def test_every_score_is_of_a_known_model_with_a_source_and_of_a_known_benchmark():
    scores = published_scores()
    assert set(scores) <= set(model_specs())
    for score in (one for some in scores.values() for one in some):
        assert score.source.startswith("https://") and set(score.benchmarks) <= set(FIELD_BENCHMARKS)
        for place in score.here: assert place.partition(" ")[2], place


@pytest.mark.parametrize(("change", "message"), [
    ({"here": ["acr acc"]}, "configs/published.yaml: smollm2-135m, entry 1: no benchmark 'acr'; did you mean 'arc'"),
    ({"score": 40}, "entry 1: 'score'"), ({"sauce": "x"}, "'sauce'"), ({"source": " "}, "'source'"),
])
def test_a_damaged_entry_is_told_by_model_and_field(monkeypatch, change, message):
    monkeypatch.setattr(published, "read_config", lambda name: {"smollm2-135m": [LIGHT | change]})
    with pytest.raises(InputError, match=message): published_scores()


def test_scores_are_asked_together_where_they_are_asked_alike(monkeypatch):
    asked = []
    def plan(names, folder, limit, seed, shots, chat):
        asked.append((tuple(names), shots, chat))
        return (names, shots)
    monkeypatch.setattr(published, "harness_plan", plan)
    plans = check_plans("smollm2-135m")
    assert asked == [(("arc", "arc_easy", "hellaswag", "gsm8k"), 0, False), (("ifeval",), 0, True),
                     (("gsm8k",), 5, False)]
    assert sum(len(scores) for _, scores in plans) == len(published_scores()["smollm2-135m"])
    asked.clear()
    check_plans("smollm2-135m", ["arc", "hellaswag"])
    assert asked == [(("arc", "hellaswag"), 0, False)], "an average of arc and arc_easy needs both"


@pytest.mark.parametrize(("model", "names", "message"), [
    ("smolm2-135m", None, "no published score of it is in configs/published.yaml; did you mean 'smollm2-135m'"),
    ("qwen2.5-7b", ["mmlu"], "qwen2.5-7b: no published score on mmlu alone; there are some on ifeval"),
])
def test_what_was_not_published_is_refused(model, names, message):
    with pytest.raises(InputError, match=message): check_plans(model, names)


def test_a_score_is_compared_with_its_interval_and_its_setting():
    score = PublishedScore(**LIGHT | {"here": ["arc acc_norm"], "by": "lm-evaluation-harness", "chat_template": False})
    one = compared_with_published(score, came(arc={"acc_norm": 0.35, "acc": 0.3}))
    assert one.difference == pytest.approx(-0.05) and one.low < 0.35 < one.high and one.n == 200
    assert one.words == ("arc acc_norm: 0.350 [0.287, 0.418] here on 200 items, 0.400 published (zero-shot, "
                         "lm-evaluation-harness; https://example.org/card): -0.050, inside the interval.")
    far = compared_with_published(score, came(arc={"acc_norm": 0.2}))
    assert "-0.200, outside the interval." in far.words


def test_an_average_has_no_interval_and_what_the_source_does_not_say_is_said():
    one = compared_with_published(PublishedScore(**LIGHT, quoted_by="a page"),
                                  came(arc={"acc_norm": 0.3}, arc_easy={"acc_norm": 0.5}))
    assert one.low is None and one.n == 400
    assert one.words == ("arc acc_norm and arc_easy acc_norm: 0.400 here on 400 items, 0.400 published (zero-shot, "
                         "lighteval, chat template or not unsaid; https://example.org/card, as quoted by a page): "
                         "+0.000.")


def test_a_metric_that_there_is_none_of_is_refused():
    with pytest.raises(InputError, match="arc: no metric 'acc_norm'; did you mean 'acc'"):
        compared_with_published(PublishedScore(**LIGHT), came(arc={"acc": 0.3}, arc_easy={"acc": 0.3}))


def test_the_model_is_opened_once_and_asked_every_plan(monkeypatch):
    opened, asked = [], []
    def results(llm, plan, label, journal):
        asked.append((llm, plan))
        return came(arc={"acc_norm": 0.3}, arc_easy={"acc_norm": 0.5})
    monkeypatch.setattr(published, "harness_results", results)
    plans = [("one", [PublishedScore(**LIGHT)]), ("two", [PublishedScore(**LIGHT)] * 2)]
    compared = check_published(plans, lambda: opened.append(1) or "llm")
    assert opened == [1] and asked == [("llm", "one"), ("llm", "two")] and len(compared) == 3


@pytest.mark.parametrize("names, alone", [(["arc", "mmlu"], "mmlu"), (["hellaswag", "acr"], "acr"),
                                          (["acr", "mmlu"], "acr, mmlu")])
def test_a_benchmark_that_nothing_was_published_of_is_not_passed_over(names, alone):
    with pytest.raises(InputError, match=rf"^smollm2-135m: no published score on {alone} alone; there are some on arc"):
        check_plans("smollm2-135m", names)


def test_an_interval_is_of_a_mean_of_items_alone_and_of_those_that_were_scored():
    def score(here): return PublishedScore(**LIGHT | {"here": here})
    found = came(ifeval={"inst_level_strict_acc": 0.5, "prompt_level_strict_acc": 0.5})
    compared = [compared_with_published(score([f"ifeval {level}_level_strict_acc"]), found)
                for level in ("inst", "prompt")]
    assert compared[0].low is None and compared[1].low < 0.5 < compared[1].high
    silent = found.model_copy(update={"results": tuple(
        ItemResult(id=f"ifeval/{i}", kind="ifeval", subject="", right=None, unscored="too long") for i in range(200))})
    fewer = silent.model_copy(update={"results": silent.results[:150]})
    assert compared_with_published(score(["ifeval prompt_level_strict_acc"]), fewer).n == 50
    with pytest.raises(ModelCallError, match="ifeval: not one item could be scored"):
        compared_with_published(score(["ifeval prompt_level_strict_acc"]), silent)
