"""Base and every arm with weights of its own are asked once, compared item by item, and the report says what came."""
import json
from types import SimpleNamespace

import pytest

from contemplative_cai.capability import measured as module
from contemplative_cai.capability.abilities import (
    Abilities,
    abilities_of,
    ability_changes,
    ability_figure,
    ability_rows,
    collapse_words,
    current_abilities,
    lost_abilities,
)
from contemplative_cai.capability.collapse import CollapseFinding, plain_paragraphs
from contemplative_cai.capability.items import battery_items
from contemplative_cai.capability.measured import asked_arms, measure_abilities
from contemplative_cai.core.files import read_record, write_rows
from contemplative_cai.core.recipe import build_recipe, load_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Answer
from contemplative_cai.evaluation.arms import Arm, OpenArm, Probed
from contemplative_cai.models.llm import Completion, Logprob, ModelCallError
from contemplative_cai.report.limits import _capability_limits
from contemplative_cai.report.report import capability_section

ITEMS = [item for item in battery_items() if item.kind in ("closing", "arithmetic", "instruction")]
RIGHT = {(item.shown, item.ends[item.answer]) for item in ITEMS if item.kind != "instruction"}


class Able:
    "It knows every `every`-th right end, and writes what follows some instructions."

    def __init__(self, key, every=1, text="yes"):
        self.key, self.every, self.text, self.calls = key, every, text, 0

    def text_logprobs(self, contexts, continuations):
        self.calls += len(contexts)
        def total(context, end):
            knows = len(context) % self.every == 0
            return -1.0 if ((context, end) in RIGHT) == knows else -2.0
        return [Logprob(total=total(*one), tokens=3) for one in zip(contexts, continuations)]

    def batches(self, conversations): return [list(range(len(conversations)))]

    def stream(self, conversations, sampling):
        self.calls += len(conversations)
        yield {i: Completion(text=self.text, prompt_tokens=1, completion_tokens=1, finish_reason="stop")
               for i in range(len(conversations))}


@pytest.fixture
def opened(monkeypatch):
    "Arms that are planted in the place of the recipe's."
    def plant(**models):
        arms = [Arm(name=name, description=name, adapter=None if name == "base" else "somewhere") for name in models]
        monkeypatch.setattr(module, "asked_arms", lambda recipe, run: arms)
        class Opened:
            def __init__(self, *given): pass
            def __enter__(self): return {arm.name: OpenArm(arm, models[arm.name]) for arm in arms}
            def __exit__(self, *error): return False
        monkeypatch.setattr(module, "open_arms", Opened)
    return plant


def test_an_arm_that_lost_half_is_worse_and_one_that_does_nothing_is_kept(opened, runs):
    opened(base=Able("m@1"), same=Able("m@1+a"), half=Able("m@1+b", every=2))
    found = measure_abilities(open_run("demo"), build_recipe({"capability_margin": 0.1}), ITEMS)
    same, half = abilities_of(found, "same"), abilities_of(found, "half")
    assert [one.kind for one in half.changes] == ["choices", "instruction", "all"] and not found.arms[0].changes
    assert same.changes[0].kept.verdict == "kept" and (same.changes[0].gained, same.changes[0].lost) == (0, 0)
    assert half.changes[0].kept.verdict == "worse" and half.changes[0].difference.high < 0
    assert half.changes[1].difference.mean == 0, "it writes what base writes"
    number, basis = ability_figure(found, "half")
    assert number.startswith("−0.") and "worse: a loss of" in basis and "no answers to look at" in basis
    assert {row["arm"] for row in ability_changes(found)} == {"same", "half"}
    assert "half [95 %]" in ability_rows(found)[0]
    assert {row["items"] for row in ability_rows(found)} == {"closing", "arithmetic", "instruction", "choices", "all"}


def test_nothing_is_measured_twice_and_a_broken_run_goes_on(opened, runs):
    class Dying(Able):
        "It gives up after the first calls."
        def text_logprobs(self, contexts, continuations):
            if self.calls > 150: raise KeyboardInterrupt
            return super().text_logprobs(contexts, continuations)
    run, recipe = open_run("demo"), build_recipe({})
    opened(base=Dying("m@1"))
    with pytest.raises(KeyboardInterrupt): measure_abilities(run, recipe, ITEMS)
    opened(base=(base := Able("m@1")))
    found = measure_abilities(run, recipe, ITEMS)
    whole = open_run("whole")
    opened(base=(fresh := Able("m@1")))
    assert measure_abilities(whole, recipe, ITEMS) == found and 0 < base.calls < fresh.calls
    opened(base=(again := Able("m@1")))
    assert measure_abilities(run, recipe, ITEMS) == found and again.calls == len(plain_paragraphs())
    lines = [json.loads(line) for line in run.path("capability.jsonl").read_text().splitlines() if "result" in line]
    assert len(lines) == len(ITEMS) and read_record(run.path("capability.json"), Abilities) == found


def test_a_model_at_a_server_is_told_and_nothing_is_made_up(opened, runs):
    opened(base=(far := Able("far@1")))
    recipe = build_recipe({"base_url": "http://127.0.0.1:9/v1", "model": "far"})
    found = measure_abilities(open_run("demo"), recipe, ITEMS)
    assert found.arms == () and "engine endpoint has the models in another process" in found.unmeasured
    assert far.calls == 0, "nothing is asked and thrown away"
    number, basis = ability_figure(found, "base")
    assert number == "not measured" and basis == f"base was not asked: {found.unmeasured}" and ability_rows(found) == []
    assert capability_section(SimpleNamespace(abilities=found, metrics=None)) is None
    assert [line for line in collapse_words(found)] == [f"Not all were asked: {found.unmeasured}."]


def test_choices_alone_are_asked_where_a_recipe_says_so(opened, runs):
    opened(base=Able("m@1"))
    found = measure_abilities(open_run("demo"), build_recipe({"capability": "choices"}))
    assert [row["items"] for row in ability_rows(found)][-1] == "choices" and found.arms[0].rows[-1].n == 400


def test_signs_of_collapse_are_looked_for_where_the_battery_is_not_asked(opened, runs, monkeypatch, tmp_path):
    class Muddled(Able):
        def text_logprobs(self, contexts, continuations):
            return [Logprob(total=2 * one.total, tokens=one.tokens)
                    for one in super().text_logprobs(contexts, continuations)]
    opened(base=Able("m@1"), dpo=Muddled("m@1+a"), sft=Able("m@1+s"))
    monkeypatch.setitem(module.MEASURES, "humaneval", module.BenchmarkMeasure(lambda recipe: None, lambda given: list))
    run = open_run("demo")
    write_rows(run.path("answers.jsonl"), [
        Answer(arm=arm, prompt_id=str(i), source="practice", text=text, model="m", finish_reason="stop")
        for arm, text in (("base", "The boat is in the harbour."), ("sft", ""), ("dpo", "The boat is at sea."))
        for i in range(4)])
    found = measure_abilities(run, build_recipe({"capability": "humaneval"}))
    assert found.arms == () and [one.arm for one in found.signs] == ["base", "dpo", "sft"]
    assert [[one.sign for one in arm.findings] for arm in found.signs] == [[], ["perplexity"], ["empty", "words"]]
    assert "perplexity of plain paragraphs" in lost_abilities(found, "dpo")[0]
    words = " ".join(collapse_words(found))
    assert "dpo: perplexity of plain paragraphs" in words and "sft: answers without a word: 0% in the base" in words
    assert read_record(run.path("capability.json"), Abilities) == found
    def probed(dpo): return [Probed(arm=arm, key=key, system=None, nats=0.1)
                             for arm, key in (("base", "m@1"), ("dpo", dpo), ("sft", "m@1+s"))]
    assert current_abilities(found, probed("m@1+a")) is found and current_abilities(found, probed("m@1+b")) is None


def test_who_wants_nothing_measured_gets_nothing(runs):
    run = open_run("demo")
    assert measure_abilities(run, build_recipe({"capability": []}), ITEMS) is None
    assert not run.path("capability.json").exists() and ability_figure(None, "dpo")[0] == "not measured"


def test_what_was_measured_of_another_training_is_not_told(opened, runs):
    opened(base=Able("m@1"), dpo=Able("m@1+a"))
    run = open_run("demo")
    found = measure_abilities(run, build_recipe({}), ITEMS)
    def probed(**keys): return [Probed(arm=arm, key=key, system=None, nats=0.1) for arm, key in keys.items()]
    assert current_abilities(found, probed(base="m@1", prompted="m@1", dpo="m@1+a")) is found
    assert current_abilities(found, probed(base="m@1", dpo="m@1+b")) is None is current_abilities(None, [])
    assert measure_abilities(run, build_recipe({"capability": []}), ITEMS) is None
    assert not run.path("capability.json").exists() and not run.path("capability.jsonl").exists()


def test_an_arm_that_could_not_be_asked_does_not_get_the_number_of_base(opened, runs):
    class Broken(Able):
        def text_logprobs(self, contexts, continuations): raise ModelCallError("scores that are no numbers")
    opened(base=Able("m@1"), dpo=Broken("m@1+a", text=""))
    run = open_run("demo")
    found = measure_abilities(run, build_recipe({}), ITEMS)
    assert [one.arm for one in found.arms] == ["base"] and "no numbers" in found.unmeasured
    assert ability_figure(found, "dpo")[0] == "not measured" and "no numbers" in ability_figure(found, "dpo")[1]
    [line] = _capability_limits(SimpleNamespace(abilities=found, stage="dpo", training=True))
    assert line.startswith("That abilities were kept: dpo was not asked") and "no numbers" in line


def test_a_loss_beside_what_was_kept_is_told(opened, runs):
    opened(base=Able("m@1"), dpo=Able("m@1+a"))
    found = measure_abilities(open_run("demo"), build_recipe({"capability_margin": 0.2}), ITEMS)
    base, own = found.arms
    assert own.changes[0].kept.verdict == "kept" and lost_abilities(found, "dpo") == []
    part = own.changes[1]
    kept = part.kept.model_copy(update={"verdict": "worse", "words": "worse: a loss"})
    worse = part.model_copy(update={"kept": kept})
    sign = CollapseFinding(sign="empty", before=0.0, after=0.9, words="answers without a word: 0% and 90%")
    own = own.model_copy(update={"changes": (own.changes[0], worse, own.changes[2]), "findings": (sign,)})
    found = found.model_copy(update={"arms": (base, own)})
    assert lost_abilities(found, "dpo") == [f"instruction ({part.n} items): worse: a loss", sign.words]
    assert "kept: " in (basis := ability_figure(found, "dpo")[1]) and "instruction worse: a loss" in basis
    [line] = _capability_limits(SimpleNamespace(abilities=found, stage="dpo", training=True))
    assert line.startswith("That abilities were kept: instruction (") and sign.words in line and sign.words in basis


def test_arms_that_are_told_something_have_the_weights_of_base(runs):
    recipe = load_recipe("smoke", {"eval_arms": "base,prompted,other=random-tiny"})
    assert [arm.name for arm in asked_arms(recipe, open_run("demo"))] == ["base", "other"]


@pytest.mark.parametrize("every, words", [(1, "That all abilities were kept: beyond"), (2, "worse: a loss of"),
                                          (29, "not shown to be kept")])
def test_what_is_not_known_follows_the_verdict(opened, runs, every, words):
    opened(base=Able("m@1"), dpo=Able("m@1+a", every=every))
    if every == 29: opened(base=Able("m@1", every=7), dpo=Able("m@1+a", every=7, text="A dog. A cat."))
    found = measure_abilities(open_run("demo"), build_recipe({"capability_margin": 0.1 if every < 9 else 0.001}), ITEMS)
    [line] = _capability_limits(SimpleNamespace(abilities=found, stage="dpo", training=True))
    assert words in line
    section = capability_section(SimpleNamespace(abilities=found, metrics=None))
    assert section is not None and len(section.parts[0].rows) == 3 and collapse_words(found)[0] in section.words


def test_a_call_that_fails_leaves_an_item_unscored_and_is_tried_again(opened, runs):
    class Shaky(Able):
        def text_logprobs(self, contexts, continuations):
            if self.text == "shaky" and any("Question" in one for one in contexts): raise ModelCallError("too long")
            return super().text_logprobs(contexts, continuations)
    run = open_run("demo")
    opened(base=Shaky("m@1", text="shaky"))
    first = measure_abilities(run, build_recipe({}), ITEMS)
    assert next(row for row in first.arms[0].rows if row.kind == "arithmetic").unscored == 60
    opened(base=Shaky("m@1"))
    again = measure_abilities(run, build_recipe({}), ITEMS)
    assert next(row for row in again.arms[0].rows if row.kind == "arithmetic").unscored == 0
