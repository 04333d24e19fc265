"""An adapter at another weight: 0 is base, 1 what was trained, and in between what lies in between."""
import json

import pytest

from contemplative_cai.core.files import read_json, write_json
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError, Message
from contemplative_cai.evaluation.arms import open_arms, recipe_arms, standard_arms
from contemplative_cai.evaluation.dependencies import planned_arms
from contemplative_cai.evaluation.scaled import scaled_adapter

QUESTION = (Message(role="user", content="What do you see?"),)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    import torch
    from peft import LoraConfig, get_peft_model

    from contemplative_cai.models.catalog import model_spec
    from contemplative_cai.models.weights import load_model
    folder = tmp_path_factory.mktemp("trained") / "dpo" / "adapter"
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = get_peft_model(load_model(model_spec("random-tiny"), "float32", "cpu"),
                               LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights=False,
                                          task_type="CAUSAL_LM"))
        model.save_pretrained(folder)
    return folder


def weighed(recipe, run, arms):
    with open_arms(recipe, run, arms) as opened:
        return {name: one.llm.logprobs([QUESTION], ["A tree."])[0].total for name, one in opened.items()}


@pytest.mark.long
def test_no_dose_is_base_and_a_whole_one_what_was_trained(adapter):
    recipe = build_recipe({"model": "random-tiny", "dtype": "float32", "device": "cpu"})
    places = {name: str(scaled_adapter(adapter, weight)) for name, weight in
              {"none": 0.0, "some": 0.5, "whole": 1.0, "twice": 2.0}.items()}
    more = [f"{name}={place}" for name, place in {"trained": adapter, **places}.items()]
    found = weighed(recipe, open_run("mine"), standard_arms(recipe, open_run("mine"), more, ["base"]))
    assert found["none"] == found["base"] and found["whole"] == found["trained"]
    assert len({round(found[name], 6) for name in ("base", "some", "trained", "twice")}) == 4


def test_a_dose_is_an_arm_beside_its_stage_as_planned(adapter):
    recipe = build_recipe({"model": "random-tiny", "eval_arms": "base,dpo,dpo*0.5,dpo*1.25"})
    run = open_run("mine")
    names = ["base", "dpo", "dpo-at-50", "dpo-at-125"]
    assert [arm.name for arm in planned_arms(recipe, run)] == names
    run.path("dpo").symlink_to(adapter.parent)
    arms = recipe_arms(recipe, run)
    assert [arm.name for arm in arms] == [arm.name for arm in planned_arms(recipe, run)] == names
    assert [read_json(run.path("dpo", f"adapter-at-{share}", "adapter_config.json"))["lora_alpha"]
            for share in (50, 125)] == [2.0, 5.0]


def test_what_cannot_be_scaled_is_told(tmp_path):
    for name, words in {"dpo*1": "is dpo itself", "sft*0": "is base itself", "dpo*half": "unknown arm"}.items():
        with pytest.raises(InputError, match=words): build_recipe({"eval_arms": f"base,{name}"})
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match="all weights were trained"): scaled_adapter(tmp_path / "model", 0.5)


def test_a_new_training_makes_new_doses(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    write_json(folder / "adapter_config.json", {"lora_alpha": 8})
    for content in (b"first", b"second"):
        (folder / "adapter_model.safetensors").write_bytes(content)
        assert (scaled_adapter(folder, 0.5) / "adapter_model.safetensors").read_bytes() == content


def test_settings_that_changed_under_the_same_weights_are_scaled_anew(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    def settings(at): return json.loads((at / "adapter_config.json").read_text())
    for alpha in (16, 32):
        (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha, "alpha_pattern": {"q_proj": 4}}))
        assert settings(scaled_adapter(folder, 0.5)) == {"lora_alpha": alpha / 2, "alpha_pattern": {"q_proj": 2}}
    (tmp_path / "adapter-at-50" / "adapter_config.json").write_text("{")
    assert settings(scaled_adapter(folder, 0.5))["lora_alpha"] == 16
