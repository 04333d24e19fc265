"""A memory plan is checked against what a training really holds, and names what it cannot know."""
import json
import subprocess
import sys

import pytest
from support import borrowed_prompts

from contemplative_cai.command.commands import main
from contemplative_cai.command.declare import planned_content
from contemplative_cai.command.pipeline import check_budgets
from contemplative_cai.command.plan import (
    adapter_count,
    fits,
    held_out_lines,
    layer_bytes,
    plan_memory,
    power_lines,
    training_tokens,
    weight_count,
)
from contemplative_cai.core.recipe import build_recipe, load_recipe, recipe_names
from contemplative_cai.core.run import Run
from contemplative_cai.core.schema import InputError
from contemplative_cai.measure.power import share_power
from contemplative_cai.models.catalog import model_spec, model_specs

TIED = ("smollm2-135m", "qwen2.5-0.5b", "qwen2.5-1.5b")


@pytest.mark.parametrize("name", [name for name, spec in model_specs().items() if spec.shape])
def test_a_shape_has_the_weights_its_model_says(name):
    spec = model_spec(name)
    assert weight_count(spec.shape, name in TIED) / 1e9 == pytest.approx(spec.parameters, rel=0.03)


@pytest.mark.long
def test_the_adapter_is_counted_as_peft_builds_it():
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    shape = model_spec("smollm2-135m").shape.model_copy(update={"layers": 2, "vocabulary": 100})
    config = LlamaConfig(hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=2,
                         num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim,
                         vocab_size=100)
    model = LlamaForCausalLM(config)
    assert sum(p.numel() for p in model.parameters()) == weight_count(shape, tied=False) + shape.hidden
    for targets in (None, ("q_proj", "v_proj")):
        adapted = get_peft_model(LlamaForCausalLM(config),
                                 LoraConfig(r=16, target_modules=list(targets) if targets else "all-linear"))
        assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == adapter_count(shape, 16, targets)


MEASURE = """
import json, os, sys
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.command.trainbench import bench_rows, cost
from contemplative_cai.models.weights import load_tokenizer
values, scale = json.loads(sys.argv[1])
recipe = build_recipe(values)
tokenizer = load_tokenizer(model_spec(recipe.model))
n = recipe.train_batch_size
rows = bench_rows(tokenizer, n, 0, scale)
def tokens(row, side):
    turns = row["prompt"] + row[side]
    return len(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"])
measured = cost("plan", recipe, n, 0, scale)
print(json.dumps(measured | {"length": max(tokens(row, side) for row in rows for side in ("chosen", "rejected"))}))
"""


@pytest.mark.long
@pytest.mark.parametrize("values,scale", [
    ({"train_batch_size": 1}, 1.0), pytest.param({"train_batch_size": 2}, 1.5, marks=pytest.mark.slow),
    pytest.param({"train_batch_size": 4, "gradient_checkpointing": True}, 1.0, marks=pytest.mark.slow)
], ids=["1 pair", "2 long pairs", "4 pairs, recomputed"])
def test_the_plan_is_within_a_quarter_of_the_measured_peak(values, scale):
    values = {"model": "smollm2-135m", "device": "cpu", "dtype": "float32", "accumulation": 1, "max_steps": 1, **values}
    out = subprocess.run([sys.executable, "-c", MEASURE, json.dumps([values, scale])], capture_output=True, text=True,
                         check=True)
    measured = json.loads(out.stdout.splitlines()[-1])
    planned = plan_memory(build_recipe(values), "cpu", bf16=False, length=measured["length"]).total
    assert planned == pytest.approx(measured["peak_mb"] / 1000, rel=0.25), (planned, measured)


def test_more_of_everything_needs_more_memory():
    base = load_recipe("qwen2.5-7b")
    def total(**changes): return plan_memory(base.model_copy(update=changes)).total
    assert (total(train_batch_size=4) > total() and total(max_length=2048) > total()
            and total(gradient_checkpointing=False) > total(gradient_checkpointing=True))
    assert (total(train_quantization="int4") < total(train_quantization="int8") < total()
            and total(adapter="none") > 5 * total())
    assert (layer_bytes(model_spec("qwen2.5-7b").shape, "float32", 16)
            > layer_bytes(model_spec("qwen2.5-7b").shape, "bfloat16", 16, quantized=True))


def test_the_smallest_machine_that_fits_is_named_and_shards_where_one_is_too_small():
    big = load_recipe("qwen2.5-7b", {"model": "qwen2.5-32b"})
    how = {fit.machine: fit.how for fit in fits(big)}
    assert how["ml.g5.2xlarge"] == "no" and how["h100x8"] in ("ddp", "fsdp2")
    quantized = {fit.machine: fit.how for fit in fits(big.model_copy(update={"train_quantization": "int4"}))}
    assert quantized["a40"] == "one process"


def test_the_command_plans_and_refuses(capsys, tmp_path):
    assert main(["plan", "qwen2.5-7b", "-p", "device=cpu", "--tokens-per-second", "1000"]) == 0
    shown = capsys.readouterr().out
    assert "smallest that fits" in shown and "1,000 tokens/s (as given)" in shown
    assert main(["plan", "qwen2.5-7b", "-p", "device=cpu"]) == 0 and "has been measured here" in capsys.readouterr().out
    assert main(["plan", "qwen2.5-7b", "--pairs", "0"]) == 2 and main(["plan", "nothing"]) == 2
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="no num_hidden_layers"): plan_memory(build_recipe({"model": str(tmp_path)}))


def test_tokens_are_an_upper_bound_without_a_run():
    tokens, basis = training_tokens(build_recipe({"n_prompts": 10, "epochs": 2}), pairs=100)
    assert tokens == 100 * 2 * (120 + 384 + 384) and "upper bound" in basis


# what an evaluation can show

def test_a_plan_says_what_the_primary_outcomes_own_prompts_show_and_how_many_an_effect_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("CCAI_BENCHMARKS", str(tmp_path))
    said = "\n".join(power_lines(build_recipe({"n_safety": 120})))
    assert "violation against base, on 120 safety prompts, 1 answer each" in said
    assert "a fall of 0.14 or more" in said and "0.05: 738, 0.10: 198, 0.20: 54" in said
    assert share_power(0.3, -0.14, 120) >= 0.8 > share_power(0.3, -0.13, 120)


@pytest.mark.parametrize("keys, words", [
    ({"n_safety": 5}, "nothing: not even the whole change"), ({"primary_outcome": "words"}, "depends on its spread"),
    ({"primary_outcome": "helpfulness", "n_helpful": 36}, "a rise of 0.25 or more, from 0.50"),
    ({"expected_rate": 0.04}, "no change of this size is possible"),
    ({"primary_outcome": "wisdom"}, "none called wisdom"), ({"primary_outcome": "mindfulness"}, "a rise of"),
    ({"primary_outcome": "cooperates", "n_games": 10}, "on 60 games, 1 answer"),
])
def test_a_plan_that_cannot_show_it_says_so(keys, words):
    assert words in "\n".join(power_lines(build_recipe(keys)))


def test_a_plan_counts_the_prompts_that_will_be_asked_and_says_which_files_lack(tmp_path, monkeypatch):
    refusals = build_recipe({"primary_outcome": "refusal", "n_safety": 0, "n_refusal": 36})
    monkeypatch.setenv("CCAI_BENCHMARKS", str(tmp_path / "empty"))
    lines = power_lines(refusals)  # 36 twins; with XSTest 20 of 36 more
    assert "on 36 safe prompts" in lines[0] and lines[1].startswith("  about 56 with what is not here: source 'xstest'")
    assert str(tmp_path) not in lines[1]
    violations = power_lines(build_recipe({"n_safety": 120}))  # none are here, and the plan is for when they are
    assert "on 120 safety" in violations[0] and "none are here: source 'ailuminate'" in violations[1]
    monkeypatch.setenv("CCAI_BENCHMARKS", str(borrowed_prompts(tmp_path)))
    recipe, run = refusals.model_copy(update={"eval_arms": ("base", "dpo")}), Run("new", tmp_path / "new")
    asked = planned_content(run, recipe)["sets"]["safe"]["prompts"]
    lines = power_lines(recipe)
    assert f"on {asked} safe prompts" in lines[0] and asked > 36 and lines[1].startswith("  expected under base")


def test_a_plan_fetches_nothing_from_the_hub(monkeypatch):
    monkeypatch.setattr("contemplative_cai.inputs.sources.hub_rows", None)
    lines = power_lines(build_recipe({"primary_outcome": "refusal", "n_refusal": 9, "eval_prompts": "hub:o/n"}))
    assert "on 14 safe prompts" in lines[0] and "hub:o/n would have to be fetched" in lines[1]


def test_a_plan_says_how_many_prompts_the_held_out_preference_rests_on():
    assert held_out_lines(build_recipe({"n_prompts": 40, "test_share": 0.3})) == [
        "held-out preference: on the pairs of 12 test prompts"]
    few = held_out_lines(build_recipe({"n_prompts": 8, "test_share": 0.3}))
    assert "of 2 test prompts" in few[0]
    assert few[1].endswith("fewer than 5; write n_prompts: 16 or more, test_share: 0.57 or more, "
                           "or test_share: 0 for none")
    assert len(held_out_lines(build_recipe({"n_prompts": 8, "test_share": 0.0}))) == 1


def test_budgets_that_can_never_have_an_interval_are_refused_with_the_number_that_can():
    with pytest.raises(InputError) as refused: check_budgets(build_recipe({"n_robustness": 4, "n_games": 3}))
    assert [problem.split(";")[1] for problem in refused.value.problems] == [" write 5 or more, or 0 for none"] * 2
    for name in recipe_names(): check_budgets(load_recipe(name))
    check_budgets(build_recipe({"n_robustness": 0, "n_games": 5}))
