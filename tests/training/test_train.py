"""Training: the adapter is a real one, the base stays what it was, and a kill costs at most a few steps."""
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from support import RULES_ONLY, TRAIN, play

from contemplative_cai.core.journal import read_ledger
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError, Message
from contemplative_cai.core.sessions import session_seconds
from contemplative_cai.evaluation.evaluate import evaluate
from contemplative_cai.evaluation.questions import evaluation_prompts
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.llm import ScriptedLLM
from contemplative_cai.models.local import load_llm
from contemplative_cai.models.weights import model_source
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.make import load_split
from contemplative_cai.report.report import write_report
from contemplative_cai.training.checkpoints import latest_checkpoint
from contemplative_cai.training.rows import training_pairs
from contemplative_cai.training.train import train
from contemplative_cai.training.watch import metrics_row, read_metrics

pytestmark = pytest.mark.long  # whole trainings
RECIPE = ({"model": "random-tiny", "dtype": "float32", "device": "cpu", "n_prompts": 10, "filters": "empty,identical",
           "epochs": 2, "learning_rate": 0.01, "max_length": 256, "train_batch_size": 4, "accumulation": 1,
           "save_steps": 2, "test_share": 0.4, "n_eval_prompts": 4, "answer_tokens": 12, "resamples": 200}
          | RULES_ONLY)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, contemplative):
    "One trained run, made once; tests work on copies."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCAI_RUNS", str(tmp_path_factory.mktemp("runs")))
        run, recipe = open_run("demo"), build_recipe(RECIPE)
        generate_pairs(run, recipe, play(contemplative))
        return run.folder, train(run, recipe)


@pytest.fixture
def trained(finished, runs):
    shutil.copytree(finished[0], runs / "demo")
    return open_run("demo"), build_recipe(RECIPE), finished[1]


def fingerprint(model):
    "A digest of the base weights, in order, the adapter's left out."
    return hashlib.sha256(b"".join(
        p.detach().float().numpy().tobytes()
        for name, p in sorted(model.named_parameters(),
                              key=lambda item: item[0].replace("base_model.model.", "").replace(".base_layer", ""))
        if "lora" not in name
    )).hexdigest()


def test_the_adapter_loads_with_plain_peft_and_changes_the_model_not_the_base(trained):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    run, _, _ = trained
    source = model_source(model_spec("random-tiny"))[0]
    ids = torch.arange(5, 25)[None]
    fresh = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    before, weights = fresh(ids).logits.detach(), fingerprint(fresh)
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32),
                                      run.path("dpo", "adapter")).eval()
    assert not torch.allclose(tuned(ids).logits, before) and fingerprint(tuned) == weights
    with tuned.disable_adapter(): assert torch.equal(tuned(ids).logits, before)


def test_base_and_tuned_are_told_apart_and_base_is_the_bare_model(trained):
    run, _, _ = trained
    base, bare = (load_llm(model_spec("random-tiny"), "float32", "cpu", {"tuned": run.path("dpo", "adapter")}),
                  load_llm(model_spec("random-tiny"), "float32", "cpu"))
    tuned, question = base.with_adapter("tuned"), [(Message(role="user", content="Is it late?"),)]
    assert base.key == bare.key != tuned.key
    assert base.logprobs(question, ["No."]) == bare.logprobs(question, ["No."]) != tuned.logprobs(question, ["No."])


def test_training_learns_an_obvious_rule(trained):
    run, _, summary = trained
    assert summary.loss_first == pytest.approx(0.6931, abs=2e-3) and summary.loss_last < 0.6
    assert summary.accuracy["test"].reward_before == 0.5 and summary.accuracy["test"].reward_after > 0.8
    assert ([row["step"] for row in read_metrics(run.path("dpo")) if "loss" in row]
            == list(range(1, summary.steps + 1)))


def test_no_test_prompt_reaches_training(trained):
    run, recipe, summary = trained
    split = load_split(run)
    train, held_out = training_pairs(run, recipe)
    assert (set(summary.prompts) <= set(split.train)
            and not {p.prompt_id for p in train} & {p.prompt_id for p in held_out})
    assert not set(summary.prompts) & {prompt.id for prompt in evaluation_prompts(run, recipe)}


def test_other_settings_train_anew_and_keep_the_old(trained):
    run, recipe, summary = trained
    again = train(run, build_recipe(RECIPE | {"beta": 0.3}))
    assert (again.digest != summary.digest
            and (run.path(f"dpo-{summary.digest}") / "adapter" / "adapter_config.json").exists())


def test_evaluation_is_repeatable_and_its_report_escapes_what_models_say(trained):
    run, recipe, _ = trained
    first = evaluate(run, recipe)
    assert evaluate(run, recipe).comparisons == first.comparisons
    rows = run.path("answers.jsonl").read_text().splitlines()
    row = json.loads(rows[0]) | {"text": "<script>alert(1)</script> [ERROR]"}
    run.path("answers.jsonl").write_text("\n".join([json.dumps(row), *rows[1:]]) + "\n")
    run.record(recipe=recipe.model_dump(mode="json"), recipe_name="test")
    page = write_report(run).read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "What this run does not show" in page


def test_a_tie_is_not_a_defeat():
    assert metrics_row(1, {"rewards/margins": 0.0, "rewards/accuracies": 0.0})["rewards/accuracies"] == 0.5
    assert metrics_row(2, {"rewards/margins": -0.1, "rewards/accuracies": 0.0})["rewards/accuracies"] == 0.0


def checkpoint_of(folder, step):
    "A checkpoint as it is when it is whole."
    import torch
    from safetensors.torch import save_file
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir()
    save_file({"weight": torch.ones(2)}, checkpoint / "adapter_model.safetensors")
    (checkpoint / "adapter_config.json").write_text("{}")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"): (checkpoint / name).write_bytes(b"state")
    (checkpoint / "trainer_state.json").write_text(f'{{"global_step": {step}}}')
    return checkpoint


def test_half_written_checkpoints_are_passed_over_and_renamed(tmp_path):
    older, newest = checkpoint_of(tmp_path, 4), checkpoint_of(tmp_path, 8)
    assert latest_checkpoint(tmp_path) == newest
    broken = tmp_path / "checkpoint-99"
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"global_step": 99}')
    (newest / "adapter_model.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) == older and not broken.exists() and not newest.exists()
    assert len(list(tmp_path.glob("broken-*"))) == 2


def test_training_goes_on_after_kill_9_with_the_same_losses(scripted, contemplative, runs):
    recipe = RECIPE | {"epochs": 6, "save_steps": 5}
    for name in ("whole", "demo"): generate_pairs(open_run(name), build_recipe(recipe), scripted)
    whole = train(open_run("whole"), build_recipe(recipe))
    process = subprocess.Popen([sys.executable, "-c", TRAIN, json.dumps(recipe)], env=os.environ,
                               stderr=subprocess.DEVNULL)
    folder = runs / "demo" / "dpo" / "checkpoints"
    deadline = time.monotonic() + 120
    while (not any(folder.glob("checkpoint-*/trainer_state.json"))
           and process.poll() is None and time.monotonic() < deadline):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the process was done before it could be killed"
    resumed = train(open_run("demo"), build_recipe(recipe))
    losses = [[round(row["loss"], 4) for row in read_metrics(runs / name / "dpo") if "loss" in row]
              for name in ("whole", "demo")]
    assert losses[0] == losses[1] and resumed.steps == whole.steps and resumed.adapter == whole.adapter
    spent = read_ledger(open_run("demo")).stages["train"].seconds
    assert spent == session_seconds(open_run("demo"))["train"]
    assert spent >= resumed.seconds_in_all + 1, "the killed session counts"


def test_too_few_pairs_is_said(contemplative):
    run, recipe = open_run("demo"), build_recipe(RECIPE)
    generate_pairs(run, recipe, ScriptedLLM(lambda c: "The same.", batch_size=64))
    with pytest.raises(InputError, match="0 pairs to train on, at least 2 are needed"): train(run, recipe)
