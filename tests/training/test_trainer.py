"""Every way a recipe can train: right, repeatable, resumable, and honest when it goes wrong."""
import json
import math
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import RULES_ONLY, TRAIN, play, visible, wait_for

from contemplative_cai.command.commands import main
from contemplative_cai.core.files import read_json, read_lines
from contemplative_cai.core.recipe import LOSSES, build_recipe
from contemplative_cai.core.run import open_run, trained_folder
from contemplative_cai.core.schema import InputError
from contemplative_cai.evaluation.evaluate import evaluate
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.weights import load_model, load_tokenizer, model_source
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.make import load_split
from contemplative_cai.report.card import write_card
from contemplative_cai.report.report import write_report
from contemplative_cai.report.summary import collect, learned, training_words
from contemplative_cai.training import extensions, trainer
from contemplative_cai.training.checkpoints import is_whole, latest_checkpoint
from contemplative_cai.training.extensions import ByLength
from contemplative_cai.training.heldout import preference_accuracy
from contemplative_cai.training.logs import rewind
from contemplative_cai.training.rows import training_data
from contemplative_cai.training.train import check_training, launch_names, train
from contemplative_cai.training.trainer import Halted, check_base, watched_answers
from contemplative_cai.training.watch import LN2, read_metrics

pytestmark = pytest.mark.long  # whole trainings
RECIPE = {
    "model": "random-tiny",
    "dtype": "float32",
    "device": "cpu",
    "n_prompts": 12,
    "filters": "empty,identical",
    "epochs": 2,
    "learning_rate": 0.01,
    "sft_learning_rate": 0.01,
    "max_length": 256,
    "train_batch_size": 2,
    "accumulation": 2,
    "save_steps": 2,
    "validation_share": 0.2,
    "test_share": 0.3,
    "n_eval_prompts": 2,
    "answer_tokens": 12,
    "resamples": 200,
} | RULES_ONLY


def recipe_with(**changes): return build_recipe(RECIPE | changes)


@pytest.fixture(scope="module")
def generated_folder(tmp_path_factory, contemplative):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCAI_RUNS", str(tmp_path_factory.mktemp("runs")))
        run = open_run("demo")
        generate_pairs(run, recipe_with(), play(contemplative))
        run.record(recipe=recipe_with().model_dump(mode="json"), recipe_name="test")
        return run.folder


@pytest.fixture
def run(generated_folder, runs):
    shutil.copytree(generated_folder, runs / "demo")
    return open_run("demo")


def losses(folder): return [row["loss"] for row in read_metrics(folder) if "loss" in row]


# what a recipe can ask for

@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "sft"])
def test_every_loss_of_trl_trains(run, loss):
    smoothing = {"label_smoothing": 0.1} if loss in ("robust", "exo_pair") else {}
    train(run, recipe_with(loss=loss, max_steps=3, beta=1.0 if loss == "sigmoid_norm" else 0.1, **smoothing))
    assert len(losses(run.path("dpo"))) == 3 and losses(run.path("dpo"))[-1] != losses(run.path("dpo"))[0]


def test_a_weighted_list_of_losses_is_their_weighted_sum(run):
    model, found = load_model(model_spec("random-tiny"), "float32", "cpu"), {}
    for name in ("sigmoid", "robust=1", "sigmoid=1, sft=0.5", "sigmoid=2"):
        train(run, recipe_with(loss=name, max_steps=1, **({"label_smoothing": 0.1} if "robust" in name else {})))
        found[name] = losses(run.path("dpo"))[0]
    assert found["sigmoid"] == pytest.approx(LN2, abs=1e-4) and found["sigmoid=2"] == pytest.approx(2 * LN2, abs=1e-3)
    assert found["sigmoid=1, sft=0.5"] - found["sigmoid"] == pytest.approx(
        0.5 * math.log(model.config.vocab_size), abs=0.1
    ), "half of what a model without knowledge loses a token"


def test_sft_then_dpo_starts_and_is_measured_from_the_sft_adapter(run):
    recipe = recipe_with(training="sft+dpo", sft_epochs=3)
    summary = train(run, recipe)
    assert summary.stage == "dpo" and losses(run.path("sft"))[-1] < losses(run.path("sft"))[0] - 0.5
    first = next(row for row in read_metrics(run.path("dpo")) if "loss" in row)
    assert (first["loss"] == pytest.approx(LN2, abs=1e-3)
            and abs(first["gain/chosen"]) < 1e-2), "the reference is where DPO starts, not the base"
    assert read_json(run.path("sft", "training.json"))["adapter"] != summary.adapter
    assert (sorted(path.name for path in run.path("dpo", "adapter").iterdir())
            == ["adapter_config.json", "adapter_model.safetensors"]), "the reference's copy is not part of the result"
    again = train(run, recipe.model_copy(update={"beta": 0.5}))
    assert (again.digest != summary.digest and read_json(run.path("sft", "training.json"))["seconds"]
            and len(list(run.folder.glob("sft*"))) == 1), "SFT was done again"


def test_sft_alone_is_evaluated_and_reported_as_such(run):
    recipe = recipe_with(training="sft", sft_epochs=3)
    run.record(recipe=recipe.model_dump(mode="json"))
    train(run, recipe)
    assert trained_folder(run) == run.path("sft")
    evaluate(run, recipe)
    facts = collect(run)
    assert "SFT on" in training_words(facts) and "beta" not in training_words(facts) and "ln 2" not in learned(facts)
    assert "trained by SFT on" in visible(write_report(run).read_text())


def test_all_weights_of_a_small_model_can_be_trained(run):
    from transformers import AutoModelForCausalLM
    recipe = recipe_with(adapter="none", learning_rate=0.001, eval_steps=4)
    run.record(recipe=recipe.model_dump(mode="json"))
    summary = train(run, recipe)
    assert summary.loss_last < summary.loss_first and not run.path("dpo", "adapter").exists()
    base, tuned = (AutoModelForCausalLM.from_pretrained(path)
                   for path in (model_source(model_spec("random-tiny"))[0], run.path("dpo", "model")))
    assert not torch.equal(base.model.layers[0].mlp.up_proj.weight, tuned.model.layers[0].mlp.up_proj.weight)
    assert evaluate(run, recipe).probed[1].nats != 0
    assert ("from_pretrained(\"path/to/this/folder\")" in write_card(run).read_text()
            and "training all weights" in write_card(run).read_text())


def test_a_merged_model_says_what_model_and_adapter_say(run):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    train(run, recipe_with(merge=True))
    ids = torch.arange(3, 20)[None]
    merged = AutoModelForCausalLM.from_pretrained(run.path("dpo", "merged"), dtype=torch.float32).eval()
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(model_source(model_spec("random-tiny"))[0], dtype=torch.float32),
        run.path("dpo", "adapter"),
    ).eval()
    assert (torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)
            and load_tokenizer(model_spec(str(run.path("dpo", "merged")))))


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_quantized_weights_of_the_embedded_model_are_trained_over(run, bits):
    recipe = recipe_with(model="smollm2-135m", train_quantization=bits, max_steps=2, train_batch_size=1, accumulation=1,
                         max_length=128, learning_rate=0.001)
    trainer._quiet()
    folder = run.path("q")
    from contemplative_cai.training.train import prepare_stage
    prepare_stage(run, recipe, training_data(run, recipe), "dpo", folder)
    result = trainer.train_stage(run, recipe, "dpo", folder)
    assert (result["base_exact"] and losses(folder)[0] == pytest.approx(LN2, abs=1e-4)
            and (folder / "adapter" / "adapter_model.safetensors").exists())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_quantized_weights_begin_at_the_reference_and_stay_the_base(run, bits, precision):
    "Trained and validated in batches: neither neighbours nor the model's mode move policy and reference apart."
    recipe = recipe_with(train_quantization=bits, dtype=precision, warmup=1, max_steps=2, eval_steps=1)
    summary, rows = train(run, recipe), read_metrics(run.path("dpo"))
    close = 1e-5 if bits == "int8" else 1e-3  # the same batch; in 4 bits another one, and bfloat16 has 8 bits
    for key in ("loss", "eval_loss"):  # the first step of a warm-up has no length
        assert next(row[key] for row in rows if key in row) == pytest.approx(LN2, abs=close)
    assert summary.base_exact


def test_helpful_data_is_mixed_in_where_the_stage_can_learn_from_it(run, tmp_path):
    talks, preferences = tmp_path / "talks.jsonl", tmp_path / "preferences.jsonl"
    talks.write_text("".join(json.dumps({"messages": [{"role": "user", "content": f"How do I fold a letter in {n}?"},
                                                      {"role": "assistant", "content": f"Fold it {n} times."}]}) + "\n"
                             for n in range(40)))
    preferences.write_text("".join(
        json.dumps({"prompt": f"What is {n} and {n}?", "chosen": f"It is {2 * n}.", "rejected": "I cannot say."}) + "\n"
        for n in range(40)
    ))
    both = train(run, recipe_with(training="sft+dpo", helpful=str(talks), helpful_share=0.25, max_steps=1))
    rows = [json.loads(line) for line in run.path("sft", "rows", "train.jsonl").read_text().splitlines()]
    assert sum("fold a letter" in row["prompt"][-1]["content"] for row in rows) == round(len(rows) * 0.25)
    assert both.helpful == 0 and both.rows == both.pairs, "there is nothing for DPO to compare"
    assert train(run, recipe_with(helpful=str(preferences), helpful_share=0.25, max_steps=1)).helpful > 0
    with pytest.raises(InputError, match="no rejected answers, and training is dpo"):
        check_training(run, recipe_with(helpful=str(talks)))
    with pytest.raises(InputError, match="needs .* rows of helpful data, and there are 40"):
        check_training(run, recipe_with(helpful=str(preferences), helpful_share=0.9))


def test_helpful_data_that_asks_what_is_tested_is_a_leak(run, tmp_path):
    from contemplative_cai.inputs.sources import own_prompts
    test = own_prompts()[load_split(run).test[0]].text
    path = tmp_path / "leak.jsonl"
    path.write_text("".join(json.dumps({"prompt": text, "completion": "Yes."}) + "\n"
                            for text in [test, *(f"Is {n} even?" for n in range(40))]))
    with pytest.raises(InputError, match=r"leak: .*helpful data"):
        check_training(run, recipe_with(training="sft", helpful=str(path)))


# right, to the last bit

def test_scoring_learned_tokens_only_changes_no_loss(run, monkeypatch):
    import trl.trainer.utils
    theirs = trl.trainer.utils._use_triton
    train(run, recipe_with(loss="sigmoid=1, sft=0.3"))
    ours = losses(run.path("dpo"))
    monkeypatch.setattr(trainer, "score_learned_only",
                        lambda: setattr(trl.trainer.utils, "_use_triton", lambda device: False))
    shutil.rmtree(run.path("dpo"))
    train(run, recipe_with(loss="sigmoid=1, sft=0.3"))
    trl.trainer.utils._use_triton = theirs
    assert ours == pytest.approx(losses(run.path("dpo")), abs=1e-5)


def test_the_first_losses_are_those_of_plain_trl(run, tmp_path):
    "The same pairs through TRL with nothing of ours, one batch of all rows a step: order and padding cannot matter."
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer
    n = len(training_data(run, recipe_with()).train)
    train(run, recipe_with(train_batch_size=n, accumulation=1, max_steps=4, warmup=0.0, schedule="constant"))
    rows = Dataset.from_json(str(run.path("dpo", "rows", "train.jsonl")))
    settings = DPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", seed=0,
                         learning_rate=0.01, lr_scheduler_type="constant", max_length=256,
                         per_device_train_batch_size=n, max_steps=4, logging_steps=1, save_strategy="no",
                         disable_tqdm=True)
    plain = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_source(model_spec("random-tiny"))[0], dtype=torch.float32),
        args=settings, train_dataset=rows, processing_class=load_tokenizer(model_spec("random-tiny")),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    plain.train()
    assert (losses(run.path("dpo"))
            == pytest.approx([row["loss"] for row in plain.state.log_history if "loss" in row], abs=2e-4))


def test_two_trainings_of_one_seed_are_the_same_adapter_and_another_seed_is_not(run):
    first = train(run, recipe_with())
    shutil.rmtree(run.path("dpo"))
    assert train(run, recipe_with()).adapter == first.adapter
    other = run.path("other")
    assert (train(run, recipe_with(), root=other).adapter == first.adapter
            and train(run, recipe_with(lora_alpha=16)).adapter != first.adapter)


def test_a_base_that_was_touched_is_noticed():
    from peft import LoraConfig, get_peft_model
    tokenizer, model = (load_tokenizer(model_spec("random-tiny")),
                        load_model(model_spec("random-tiny"), "float32", "cpu"))
    before = trainer._logits(model, tokenizer)
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    check_base(adapted, tokenizer, before)
    with torch.no_grad(): model.model.layers[0].mlp.up_proj.base_layer.weight[0, 0] += 0.5
    with pytest.raises(RuntimeError, match="is not the base"): check_base(adapted, tokenizer, before)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, 9), st.integers(0, 5), st.integers(0, 3))
def test_sorting_by_length_loses_no_row_and_depends_on_seed_and_epoch_alone(lengths, together, seed, epoch):
    first, second = ByLength(lengths, together, seed), ByLength(lengths, together, seed)
    first.set_epoch(epoch)
    second.set_epoch(epoch)
    assert list(first) == list(second) and sorted(first) == list(range(len(lengths)))


def test_two_processes_have_the_losses_of_one(run):
    train(run, recipe_with())
    one = losses(run.path("dpo"))
    summary = train(run, recipe_with(launch="cpu2", train_batch_size=1))
    assert summary.processes == 2 and losses(run.path("dpo")) == pytest.approx(one, abs=1e-4)
    assert "cpu2" in launch_names() and {"ddp", "fsdp2", "zero2", "zero3"} <= set(launch_names())


# ends that nobody planned

def started(recipe):
    return subprocess.Popen([sys.executable, "-c", TRAIN, json.dumps(recipe)], env=os.environ,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_sft_then_dpo_goes_on_after_kill_9_with_the_same_losses(run):
    recipe = RECIPE | {"training": "sft+dpo", "epochs": 8, "sft_epochs": 2, "save_steps": 5, "watch_steps": 6,
                       "eval_steps": 5}
    whole = train(run, build_recipe(recipe), root=run.path("whole"))
    process = started(recipe)
    wait_for(lambda: (process.poll() is not None
                      or any(run.path("dpo", "checkpoints").glob("checkpoint-*/trainer_state.json"))))
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the process was done before it could be killed"
    resumed = train(run, build_recipe(recipe))
    for stage in ("sft", "dpo"):
        assert losses(run.path("whole", stage)) == pytest.approx(losses(run.path(stage)), abs=1e-5)
        assert (run.path("whole", stage, "watched.jsonl").read_text()
                == run.path(stage, "watched.jsonl").read_text()), "a step is told twice, or not at all"
    assert (resumed.resumed_from > 0 and resumed.adapter == whole.adapter
            and resumed.best_step == whole.best_step)


def test_logs_go_back_to_the_checkpoint(tmp_path):
    for name in ("metrics.jsonl", "findings.jsonl"):
        (tmp_path / name).write_text("".join(f'{{"step": {step}, "kind": "{kind}"}}\n'
                                             for step, kind in ((2, "é"), (5, "b"), (5, "c"), (7, "d")))
                                     + '{"step": 8, "ki')
    rewind(tmp_path, 5)
    assert (([[row["kind"] for row in read_lines(tmp_path / name)] for name in ("metrics.jsonl", "findings.jsonl")]
             == [["é", "b", "c"]] * 2)
            and not (tmp_path / "watched.jsonl").exists())
    rewind(tmp_path, 0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


SIGNALS = [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]  # handled by the same lines


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_the_step_it_is_in_and_ends_badly(run, number):
    recipe = RECIPE | {"epochs": 40, "save_steps": 1000, "save_minutes": None}
    process = started(recipe)
    wait_for(lambda: process.poll() is not None or len(losses(run.path("dpo"))) > 2)
    process.send_signal(number)
    assert process.wait(timeout=60) != 0, process.stderr.read()
    saved = latest_checkpoint(run.path("dpo", "checkpoints"))
    assert saved is not None and int(saved.name.split("-")[1]) >= losses(run.path("dpo")).__len__() - 1
    assert read_json(run.path("dpo", "training.json"))["status"] == "running"
    resumed = train(run, build_recipe(recipe | {"epochs": 40}))
    assert resumed.resumed_from == int(saved.name.split("-")[1]) and resumed.steps == resumed.max_steps


@pytest.fixture
def saved(monkeypatch):
    "The checkpoints that were written, and what was in their folder when each one was on the disk."
    seen, real = {}, extensions.flush_files
    monkeypatch.setattr(extensions, "flush_files", lambda folder: (
        real(folder), seen.update({folder: {path.name for path in folder.iterdir()}})))
    return seen


def stop_after(monkeypatch, steps):
    "Let a training be asked to end after so many steps, once."
    asked = []
    def anywhere(stop):
        asked.append(1)
        if len(asked) == steps: stop.reason = "SIGTERM"
        return len(asked) == steps
    monkeypatch.setattr(trainer, "_anywhere", anywhere)


def test_a_checkpoint_holds_what_no_other_place_has_and_only_the_last_one_stays(run, saved, monkeypatch):
    recipe = recipe_with(training="sft+dpo", save_steps=1, epochs=3)
    stop_after(monkeypatch, 8)
    with pytest.raises(KeyboardInterrupt): train(run, recipe)
    assert not run.path("sft", "checkpoints").exists(), "a stage that is done has no use for them"
    kept = [path for path in run.path("dpo", "checkpoints").iterdir() if path.is_dir()]
    assert [path.name for path in kept] == [list(saved)[-1].name] and len(saved) > 4
    for names in saved.values():
        assert {"adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"} <= names
        assert not [name for name in names if "tokenizer" in name or name in ("ref", "chat_template.jinja")]
    summary = train(run, recipe)
    assert summary.resumed_from > 0 and not run.path("dpo", "checkpoints").exists()
    whole = train(run, recipe, root=run.path("whole"))
    assert summary.adapter == whole.adapter and losses(run.path("dpo")) == losses(run.path("whole", "dpo"))


def test_a_run_begun_with_fuller_checkpoints_goes_on(run, monkeypatch):
    "With the tokenizer and the reference's adapter in them, and two of them."
    recipe = recipe_with(training="sft+dpo", save_steps=1, epochs=3)
    with monkeypatch.context() as before:
        before.setattr(trainer, "lean_trainer", lambda base: base)
        stop_after(before, 8)
        with pytest.raises(KeyboardInterrupt): train(run, recipe)
    checkpoint = latest_checkpoint(run.path("dpo", "checkpoints"))
    assert (checkpoint / "ref").is_dir() and (checkpoint / "tokenizer.json").exists()
    summary = train(run, recipe)
    assert summary.resumed_from == int(checkpoint.name.split("-")[1])
    assert summary.adapter == train(run, recipe, root=run.path("whole")).adapter


def test_checkpoints_left_beside_a_stage_that_is_done_go(run):
    train(run, recipe_with(max_steps=1))
    run.path("dpo", "checkpoints", "checkpoint-1").mkdir(parents=True)
    assert train(run, recipe_with(max_steps=1)).steps == 1 and not run.path("dpo", "checkpoints").exists()


def test_a_checkpoint_is_saved_by_the_clock(run, saved):
    train(run, recipe_with(save_steps=1000, save_minutes=1e-6, max_steps=4))
    assert [checkpoint.name for checkpoint in saved][-2:] == ["checkpoint-3", "checkpoint-4"]


@pytest.mark.parametrize("damage", ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json",
                                    "rng_state.pth"])
def test_a_checkpoint_that_lost_a_part_is_not_whole(run, damage, monkeypatch):
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt): train(run, recipe_with())
    checkpoint = latest_checkpoint(run.path("dpo", "checkpoints"))
    assert is_whole(checkpoint)
    content = (checkpoint / damage).read_bytes()
    (checkpoint / damage).write_bytes(content[:0] if damage != "adapter_model.safetensors"
                                      else content[:len(content) // 2])
    assert not is_whole(checkpoint)


def test_the_reference_is_computed_once_and_kept(run, monkeypatch):
    from trl import DPOTrainer
    asked = []
    real = DPOTrainer.compute_ref_log_probs
    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", lambda self, *args: asked.append(1) or real(self, *args))
    train(run, recipe_with())
    first = len(asked)
    train(run, recipe_with(beta=0.3))
    train(run, recipe_with(), root=run.path("search", "trial"))
    assert first > 0 and len(asked) == first, "another training on the same pairs computed the reference again"
    train(run, recipe_with(max_length=90, max_cut=1.0))
    assert len(asked) > first, "what is cut elsewhere has another reference"


def test_a_reference_that_was_interrupted_goes_on(run, monkeypatch):
    from trl import DPOTrainer
    asked, real = [], DPOTrainer.compute_ref_log_probs
    def counted(self, *args):
        asked.append(1)
        if len(asked) == 3: raise KeyboardInterrupt
        return real(self, *args)
    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", counted)
    with pytest.raises(KeyboardInterrupt): train(run, recipe_with())
    resumed = train(run, recipe_with())
    batches = math.ceil(resumed.rows / 2)
    assert len(asked) == batches + 1, "the two batches that were done were computed again"
    shutil.rmtree(run.path("cache"))
    assert train(run, recipe_with(), root=run.path("whole")).adapter == resumed.adapter


def windowed_copy(folder):
    "The random model's folder as a Mistral that looks back 16 tokens."
    shutil.copytree(model_source(model_spec("random-tiny"))[0], folder)
    config = read_json(folder / "config.json")
    (folder / "config.json").write_text(json.dumps(config | {
        "model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 16}))
    return str(folder)


def test_a_model_with_a_window_is_read_as_trl_pads_it_and_the_run_says_so(run, tmp_path, capsys):
    recipe = recipe_with(model=windowed_copy(tmp_path / "windowed"), max_steps=2)
    summary = train(run, recipe)
    assert "the attention of 'mistral' is more than softmax" in summary.padded
    assert "dpo: rows are read padded, as TRL lays them out" in capsys.readouterr().out
    assert losses(run.path("dpo"))[0] == pytest.approx(LN2, abs=1e-5)
    assert train(run, recipe_with(max_steps=2)).padded is None


# watched

def test_early_stopping_keeps_the_best_checkpoint(run):
    summary = train(run, recipe_with(epochs=30, learning_rate=0.02, eval_steps=2, early_stopping=2))
    looks = {row["step"]: row["eval_rewards/accuracies"]
             for row in read_metrics(run.path("dpo")) if "eval_rewards/accuracies" in row}
    assert summary.stopped_early and summary.steps < summary.max_steps
    assert (looks[summary.best_step] == max(looks.values())
            and summary.best_step == min(step for step, value in looks.items() if value == max(looks.values())))


def test_what_it_writes_is_watched_and_disturbs_nothing(run):
    plain = train(run, recipe_with())
    watched = train(run, recipe_with(watch_steps=2), root=run.path("watched"))
    rows = [row for row in read_metrics(run.path("watched", "dpo")) if "watch/kl" in row]
    assert watched.adapter == plain.adapter and [row["step"] for row in rows][:3] == [0, 2, 4]
    assert rows[0]["watch/kl"] == 0 and rows[-1]["watch/kl"] > 0 and rows[-1]["watch/words"] > 0


def test_the_kl_estimate_agrees_with_the_exact_divergence():
    """A model with an adapter and a vocabulary small enough to sum over:
    the estimate from samples against the sum, a token ahead."""
    from peft import LoraConfig, get_peft_model

    from contemplative_cai.core.schema import Message
    torch.manual_seed(0)
    tokenizer = load_tokenizer(model_spec("random-tiny"))
    model = get_peft_model(load_model(model_spec("random-tiny"), "float32", "cpu"),
                           LoraConfig(r=8, lora_alpha=64, target_modules="all-linear", init_lora_weights=False)).eval()
    prompt = (Message(role="user", content="How late is it?"),)
    estimates = [watched_answers(model, tokenizer, [prompt], seed, tokens=1)[1]["watch/kl"] for seed in range(1500)]
    ids = tokenizer.apply_chat_template([prompt[0].model_dump()], add_generation_prompt=True, return_tensors="pt",
                                        return_dict=True)["input_ids"]
    with torch.no_grad():
        policy = torch.log_softmax(model(ids).logits[0, -1], -1)
        with model.disable_adapter(): reference = torch.log_softmax(model(ids).logits[0, -1], -1)
    exact = (policy.exp() * (policy - reference)).sum().item()
    mean, error = torch.tensor(estimates).mean().item(), torch.tensor(estimates).std().item() / len(estimates) ** 0.5
    assert exact > 0.01 and abs(mean - exact) < 4 * error, (mean, exact, error)


def test_a_loss_that_is_no_number_stops_the_training_and_says_so(run, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "metrics_row", lambda step, logs, beta=None: __import__(
        "contemplative_cai.training.watch", fromlist=["x"]
    ).metrics_row(step, logs | ({"loss": float("nan")} if step == 3 and "loss" in logs else {}), beta))
    with pytest.raises(Halted, match=r"step 3: loss is nan.*stop_on names it"): train(run, recipe_with(epochs=10))
    assert "stopped: dpo, step 3" in capsys.readouterr().out and len(losses(run.path("dpo"))) == 3
    assert json.loads(run.path("dpo", "findings.jsonl").read_text().splitlines()[0])["kind"] == "nan"


def test_saturation_happens_and_warns_or_stops(run, capsys):
    train(run, recipe_with(epochs=25, learning_rate=0.05, beta=1.0))
    kinds = {json.loads(line)["kind"] for line in run.path("dpo", "findings.jsonl").read_text().splitlines()}
    assert "saturation" in kinds and "warning: dpo" in capsys.readouterr().out
    with pytest.raises(Halted, match="saturation"):
        train(run, recipe_with(epochs=25, learning_rate=0.05, beta=1.0, stop_on="nan,saturation"),
              root=run.path("stopped"))


@pytest.mark.parametrize("name", ["trackio", "tensorboard"])
def test_a_tracker_is_told(run, name, monkeypatch):
    pytest.importorskip(name)
    for variable in ("TRACKIO_DIR", "TENSORBOARD_LOGGING_DIR"): monkeypatch.delenv(variable, raising=False)
    out = subprocess.run([sys.executable, "-c", TRAIN, json.dumps(RECIPE | {"trackers": name, "max_steps": 2})],
                         capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-2000:]
    written = [path for path in run.path("trackers", name).rglob("*") if path.is_file()]
    assert written and sum(path.stat().st_size for path in written) > 0


# said before a model is loaded

@pytest.mark.parametrize("changes,message", [
    ({"trackers": "trackio"}, "tracker 'trackio' is not installed.*track"),
    ({"train_quantization": "int4"}, "train_quantization: int4 needs bitsandbytes"),
    ({"dtype": "float16"}, "float16 cannot be trained in on a CPU"),
    ({"training": "sft", "packing": True}, "packing keeps joined rows apart with flash attention"),
    ({"launch": "dpp"}, "no configuration 'dpp'; did you mean 'ddp'"),
    ({"launch": "mine.yaml"}, "mine.yaml: no such file"),
    ({"max_length": 90}, "max_length 90 cuts"),
    ({"max_length": 20, "max_cut": 1.0}, "0 pairs have anything to learn from"),
    ({"helpful": "nowhere.jsonl", "training": "sft"}, "nowhere.jsonl: no such file"),
    ({"helpful": "essay.docx", "training": "sft"}, "neither a .jsonl or .parquet file nor hub"),
    ({"base_url": "http://127.0.0.1:1/v1"}, "training needs the weights"),
])
def test_what_cannot_be_trained_is_said_before_a_model_is_loaded(run, monkeypatch, changes, message):
    monkeypatch.setattr(trainer, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setattr(trainer, "_installed", lambda name: False)
    with pytest.raises(InputError, match=message): train(run, recipe_with(**changes))


def test_modules_that_the_model_does_not_have_are_named(run):
    with pytest.raises(InputError, match="no module 'w_pack'; it has down_proj, gate_proj"):
        train(run, recipe_with(lora_targets="w_pack"))


def test_the_command_refuses_before_it_starts_a_notebook(run, capsys):
    assert main(["run", "train", "--run", "demo", "-p", "max_length=90"]) == 2
    assert ("max_length 90 cuts" in capsys.readouterr().err
            and not run.path("notebooks").exists() and not run.path("dpo").exists())


@pytest.mark.parametrize("values,message", [
    ({"loss": "sigmod"}, "unknown los"),
    ({"loss": {"sigmoid": -1}}, "greater than 0"),
    ({"loss": "sft"}, "never looks at rejected"),
    ({"loss": "hinge", "label_smoothing": 0.1}, "a matter of sigmoid"),
    ({"loss": "robust"}, "say how many"),
    ({"early_stopping": 2}, "none without eval_steps"),
    ({"eval_steps": 2, "validation_share": 0}, "validation_share is 0"),
    ({"watch_steps": 2, "validation_share": 0}, "validation_share is 0"),
    ({"packing": True}, "packing joins rows of SFT"),
    ({"adapter": "none", "train_quantization": "int8"}, "cannot be trained"),
    ({"adapter": "none", "merge": True}, "whole already"),
    ({"stop_on": "Nan"}, "did you mean 'nan'"),
    ({"trackers": "neptune"}, "unknown tracker"),
    ({"training": "dpo+sft"}, "training"),
    ({"watch_steps": 2, "launch": "fsdp2"}, "keeps a part of it"),
    ({"training": "sft", "early_stopping": 1, "eval_steps": 2}, "training is sft"),
])
def test_a_training_that_cannot_be_meant_is_refused(values, message):
    with pytest.raises(InputError, match=message): build_recipe(values)


def test_a_beta_that_means_something_else_is_said(run):
    assert ("per token in sigmoid_norm" in build_recipe({"loss": "sigmoid_norm"}).beta_words
            and build_recipe({}).beta_words is None
            and build_recipe({"loss": "ipo", "training": "sft"}).beta_words is None)
    recipe = recipe_with(loss="ipo", max_steps=1)
    run.record(recipe=recipe.model_dump(mode="json"))
    train(run, recipe)
    assert "not comparable" in training_words(collect(run))


# nothing was learned

def test_a_training_that_moved_nothing_is_said_to_have_learned_nothing(run):
    recipe = recipe_with(learning_rate=1e-8)
    run.record(recipe=recipe.model_dump(mode="json"))
    assert abs(train(run, recipe).loss_last - LN2) < 1e-3
    preference_accuracy(run)
    assert "Nothing was learned" in learned(collect(run)) and "Nothing was learned" in write_card(run).read_text()


@pytest.mark.parametrize("number", SIGNALS)
def test_ccai_told_to_end_lets_the_training_save_its_step(run, number):
    settings = [word
                for key, value in {"epochs": 60, "save_steps": 1000, "save_minutes": 1000, "max_length": 256}.items()
                for word in ("-p", f"{key}={value}")]
    process = subprocess.Popen([
        sys.executable, "-c",
        "import sys; from contemplative_cai.command.commands import main; sys.exit(main(sys.argv[1:]))", "run", "train",
        "--run", "demo", *settings
    ], env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: process.poll() is not None or len(losses(run.path("dpo"))) > 2)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1 and "run the same command again to go on" in said.splitlines()[-1], said
    saved = latest_checkpoint(run.path("dpo", "checkpoints"))
    assert saved is not None and run.manifest["steps"]["train"]["status"] == "interrupted"


@pytest.mark.long
def test_a_program_counts_its_own_memory_and_not_that_of_who_started_it():
    "A process begun by a large one is told by the system to have held as much."
    ballast = b"x" * 600_000_000
    ask = ("from contemplative_cai.training.trainer import _own_peak_mb as peak; "
           "before = peak(); more = b'x' * 10**8; print(before, peak())")
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    before, after = map(float, told)
    assert before < len(ballast) / 1e6 - 200 and after - before == pytest.approx(100, abs=10)


def test_an_adapter_that_is_trained_further_names_its_base_where_it_lies(tmp_path):
    "Seen: a warning at each checkpoint of the second stage, for PEFT looked for the base on the hub."
    import warnings

    from peft import get_peft_model
    recipe = recipe_with(training="sft+dpo")
    first = get_peft_model(trainer.load_trainable(recipe), trainer._lora(recipe))
    first.save_pretrained(start := tmp_path / "adapter")
    trainer._name_base(start / "adapter_config.json", recipe)
    continued = trainer.load_trainable(recipe, start)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        continued.save_pretrained(tmp_path / "again")
