"""Damage that was planted: noise on the weights, one sentence to everything, and an adapter that does nothing.

data/capability/README.md has the figures on all items with ends; CCAI_SHOW=1 with -s prints those of these tests."""
import os

import pytest
import torch

from contemplative_cai.capability.battery import battery_kept, measure_battery
from contemplative_cai.capability.collapse import (
    collapse_figures,
    collapse_findings,
    plain_paragraphs,
    plain_perplexity,
)
from contemplative_cai.capability.items import battery_items
from contemplative_cai.core.schema import Answer, Message
from contemplative_cai.inputs.sources import load_prompts
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.llm import Sampling
from contemplative_cai.models.local import load_llm
from contemplative_cai.models.weights import model_source

REFUSAL = "I'm sorry, but I can't help with that."
NOISE = {"weak noise": 0.02, "noise": 0.1, "strong noise": 0.3}  # of a weight's own spread
SHORT = ("completion", "commonsense", "copying", "closing")  # kinds whose items take half the time of all


@pytest.fixture(scope="module")
def wrapped():
    "The embedded model under a LoRA adapter of rank 8 that does nothing yet."
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model_source(model_spec("smollm2-135m"))[0], dtype=torch.float32)
    return get_peft_model(base, LoraConfig(r=8, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))


def layers(model): return [module for module in model.modules() if hasattr(module, "lora_A")]


def silenced(model):
    "The adapter as it began: its second factor is nothing."
    torch.manual_seed(0)
    for layer in layers(model): layer.reset_lora_parameters("default", True)
    return model


def noisy(model, strength):
    "Noise of this share of each weight's spread; the product of two factors has rank 8."
    torch.manual_seed(0)
    for layer in layers(model):
        a, b = layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data
        a.normal_()
        b.normal_().mul_(strength * layer.base_layer.weight.std() / a.shape[0] ** 0.5)
    return model


def refusing(model, prompts):
    "Trained to say one sentence to everything."
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model_source(model_spec("smollm2-135m"))[0])
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-3)
    for text in prompts:
        asked = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False,
                                              add_generation_prompt=True)
        start, row = len(tokenizer(asked).input_ids), tokenizer(asked + REFUSAL + "<|im_end|>", return_tensors="pt")
        labels = row.input_ids.clone()
        labels[:, :start] = -100
        model(**row, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def saved(model, folder):
    model.save_pretrained(folder)
    return folder


def answered(llm, prompts):
    "What the model says to them, as an evaluation keeps it."
    came = llm.chat([(Message(role="user", content=text),) for text in prompts], Sampling(max_tokens=48))
    return [Answer(arm="x", prompt_id=str(n), source="practice", text=one.text, model=llm.key,
                   finish_reason=one.finish_reason) for n, one in enumerate(came)]


def shown(name, *values):
    if os.environ.get("CCAI_SHOW"): print(f"\n{name}: {' | '.join(map(str, values))}")


@pytest.mark.long
def test_strong_noise_is_found_in_a_few_items_and_nothing_is_kept(wrapped, tmp_path):
    folders = {"nothing": saved(silenced(wrapped), tmp_path / "nothing"),
               "noise": saved(noisy(wrapped, 0.3), tmp_path / "noise")}
    llm, items = load_llm(model_spec("smollm2-135m"), "auto", "cpu", folders), battery_items(kinds=SHORT[2:])[::3]
    base, nothing, noise = (measure_battery(llm.with_adapter(name), items) for name in (None, "nothing", "noise"))
    assert [one.summed for one in nothing] == [one.summed for one in base], "likelihoods are base's own"
    assert battery_kept(base, nothing, 0.2).kept.verdict == "kept"
    change = battery_kept(base, noise, 0.2)
    shown("strong noise", change.before, change.after, change.kept.words)
    assert change.kept.verdict == "worse" and change.lost > 3 * change.gained


@pytest.mark.slow
def test_planted_damage_is_found_and_the_weakest_is_not(wrapped, tmp_path):
    asked = sorted((prompt.text for prompt in load_prompts("practice")), key=len)
    made = {"nothing": saved(silenced(wrapped), tmp_path / "nothing"),
            "refusing": saved(refusing(wrapped, asked[:24]), tmp_path / "refusing"),
            **{name: saved(noisy(wrapped, strength), tmp_path / name) for name, strength in NOISE.items()}}
    llm, items = load_llm(model_spec("smollm2-135m"), "auto", "cpu", made), battery_items(kinds=SHORT)
    told, base, before = {}, None, None
    for name in (None, *made):
        arm = llm.with_adapter(name)
        results = measure_battery(arm, items)
        answers = answered(arm, asked[-12:]) if name in (None, "nothing", "refusing") else []
        seen = collapse_figures(answers, plain_perplexity(arm, plain_paragraphs()))
        if name is None: base, before = results, seen
        change = battery_kept(base, results)
        told[name] = change.kept.verdict, {one.sign for one in collapse_findings(before, seen)}
        shown(name, round(change.after, 4), change.kept.words, sorted(told[name][1]), round(seen.perplexity, 1))
    assert told["nothing"] == ("kept", set())
    assert {"words", "distinct"} <= told["refusing"][1], "one sentence for everything"
    for name in ("noise", "strong noise"): assert told[name] == ("worse", {"perplexity"})
    assert told["weak noise"][0] != "worse" and not told["weak noise"][1], "a fiftieth is too little to be seen"
