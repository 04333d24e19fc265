"""Damage that was planted: noise on the weights at three strengths, an answer to everything, and an adapter that does
nothing. The figures stand in data/capability/README.md; CCAI_SHOW=1 with -s prints them."""
import os

import pytest
import torch

from contemplative_cai.capability.battery import battery_kept, battery_table, measure_battery
from contemplative_cai.capability.collapse import (
    collapse_figures,
    collapse_findings,
    plain_paragraphs,
    plain_perplexity,
)
from contemplative_cai.capability.items import CHOICE_KINDS, battery_items
from contemplative_cai.core.schema import Answer, Message
from contemplative_cai.inputs.sources import load_prompts
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.llm import Sampling
from contemplative_cai.models.local import load_llm
from contemplative_cai.models.weights import model_source

pytestmark = pytest.mark.slow
REFUSAL = "I'm sorry, but I can't help with that."
NOISE = {"weak noise": 0.02, "noise": 0.1, "strong noise": 0.3}  # of a weight's own spread


def wrapped():
    "The embedded model under a LoRA adapter of rank 8 that does nothing yet."
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model_source(model_spec("smollm2-135m"))[0], dtype=torch.float32)
    return get_peft_model(base, LoraConfig(r=8, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))


def noisy(model, strength):
    "Noise of this share of each weight's spread; the product of two factors has rank 8."
    for module in model.modules():
        if not hasattr(module, "lora_A"): continue
        a, b = module.lora_A["default"].weight.data, module.lora_B["default"].weight.data
        a.normal_()
        b.normal_().mul_(strength * module.base_layer.weight.std() / a.shape[0] ** 0.5)
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


@pytest.fixture(scope="module")
def asked(): return [prompt.text for prompt in load_prompts("practice")]


@pytest.fixture(scope="module")
def found(tmp_path_factory, asked):
    "By adapter: outcomes on the items with ends, and what 24 answers look like."
    folder = tmp_path_factory.mktemp("adapters")
    made = {"nothing": wrapped(), "refusing": refusing(wrapped(), asked[:48]),
            **{name: noisy(wrapped(), strength) for name, strength in NOISE.items()}}
    for name, model in made.items(): model.save_pretrained(folder / name)
    llm = load_llm(model_spec("smollm2-135m"), "auto", "cpu", {name: folder / name for name in made})
    return {name: looked_at(llm.with_adapter(name), asked[64:88]) for name in (None, *made)}


def looked_at(llm, prompts):
    came = llm.chat([(Message(role="user", content=text),) for text in prompts], Sampling(max_tokens=128))
    answers = [Answer(arm="x", prompt_id=str(n), source="practice", text=one.text, model=llm.key,
                      finish_reason=one.finish_reason) for n, one in enumerate(came)]
    return (measure_battery(llm, battery_items(kinds=CHOICE_KINDS)),
            collapse_figures(answers, plain_perplexity(llm, plain_paragraphs())))


def test_planted_damage_is_found_and_nothing_is_kept(found):
    (base, before), told = found[None], {}
    for name, (items, seen) in found.items():
        if name is None: continue
        share = next(row.share for row in battery_table(items) if row.kind == "choices")
        told[name] = battery_kept(base, items).kept.verdict, [one.sign for one in collapse_findings(before, seen)]
        if os.environ.get("CCAI_SHOW"): print(f"\n{name}: {share.value:.3f} {told[name]} {seen}")
    assert told["nothing"] == ("kept", [])
    assert "distinct" in told["refusing"][1] and "words" in told["refusing"][1]
    assert told["strong noise"][0] == "worse" and "perplexity" in told["strong noise"][1]
    assert told["noise"][0] != "kept" or told["noise"][1], "seen by one of the two"
