"""What is declared is what the evaluation would measure: base alone, arms of others, or a training to come."""
import pytest
from support import RULES_ONLY

from contemplative_cai.command.commands import main
from contemplative_cai.core.files import write_json
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import Run, open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.evaluation.arms import evaluated_arm, recipe_arms
from contemplative_cai.evaluation.declarations import read_declarations
from contemplative_cai.evaluation.dependencies import planned_arms, planned_stage

SMALL = [word for key in ("n_safety", "n_refusal", "n_helpful", "n_robustness", "n_games")
         for word in ("-p", f"{key}=0")] + ["-p", "primary_outcome=refusal", "-p", "secondary_outcomes=violation"]


def declared(name, *words, recipe=("--recipe", "smoke")):
    "The claims and the order of the arms of a declaration."
    assert main(["declare", name, *recipe, *SMALL, *words]) == 0
    content = read_declarations(open_run(name)).lines[-1].content
    return content["claims"]["primary"], content["claims"]["trained"], content["arms"]["order"]


def adapter(runs):
    "What looks like an adapter that another run trained."
    place = runs.parent / "elsewhere" / "adapter"
    write_json(place / "adapter_config.json", {"peft_type": "LORA", "r": 2, "base_model_name_or_path": "x"})
    (place / "adapter_model.safetensors").write_bytes(b"")
    return place


@pytest.mark.parametrize("arms, claims", [
    ("base", ("refusal: base", "base", ["base"])),
    ("base,prompted", ("refusal: prompted - base", "prompted", ["base", "prompted"])),
    ("base,prompted,mine=ADAPTER", ("refusal: mine - base", "mine", ["base", "prompted", "mine"])),
    ("base,mine=smollm2-135m", ("refusal: mine - base", "mine", ["base", "mine"])),
    ("base,dpo", ("refusal: dpo - base", "dpo", ["base", "dpo"])),
])
def test_arms_without_a_training_are_declared_as_they_are_evaluated(runs, monkeypatch, arms, claims):
    "'the run is trained by dpo, which is not among them' was said of a run that trains nothing."
    module = "contemplative_cai.evaluation.arms.adapter_faults"
    monkeypatch.setattr(module, lambda place: [])
    monkeypatch.setattr("contemplative_cai.evaluation.dependencies.weights_digest", lambda *_: "a digest")
    arms = arms.replace("ADAPTER", str(adapter(runs)))
    assert declared("solo", "-p", f"eval_arms={arms}") == claims
    if claims[1] != "dpo":
        recipe, run = build_recipe(open_run("solo").manifest["recipe"]), open_run("solo")
        assert evaluated_arm(recipe, run, recipe_arms(recipe, run)) == claims[1], "as evaluate picks it"


def test_a_run_that_base_answered_alone_is_declared_as_that_again(runs):
    "Declared as 'violation: dpo - base', and what is evaluated there are levels of base."
    run = open_run("solo")
    assert declared("solo")[1] == "dpo", "a training may still come"
    write_json(run.path("evaluation.json"), {"trained": "base"})
    assert declared("solo", recipe=()) == ("refusal: base", "base", ["base"])
    run.path("pairs.jsonl").write_text("")
    recipe = build_recipe(run.manifest["recipe"])
    assert planned_stage(recipe, run) == "dpo" and planned_arms(recipe, run)[-1].name == "dpo", "pairs to train on"


def test_whoever_declares_a_training_to_come_is_told_what_comes_before_it(runs, capsys):
    declared("mine")
    assert "note: claimed of arm dpo, which is still to be trained" in capsys.readouterr().out
    run = open_run("mine")
    declared("alone", "-p", "eval_arms=base")
    assert "still to be trained" not in capsys.readouterr().out
    run.path("dpo", "adapter").mkdir(parents=True)
    from contemplative_cai.command.declare import still_to_come
    assert still_to_come(run, read_declarations(run)) == []


def test_what_the_evaluation_would_refuse_is_not_declared(runs):
    new = Run("new", runs / "new")
    def planned(run=new, **keys): return planned_stage(build_recipe(RULES_ONLY | keys), run)
    with pytest.raises(InputError, match="training ends with sft, which is not among them; add sft, or take dpo away"):
        planned(training="sft", eval_arms="base,dpo")
    with pytest.raises(InputError, match="cannot be compared with itself"):
        planned(eval_arms="base,dpo", primary_against="dpo")
    trained = open_run("trained")
    trained.path("dpo", "adapter").mkdir(parents=True)
    with pytest.raises(InputError, match="trained by dpo, which is not among them; add dpo"):
        planned(trained, eval_arms="base,prompted")
