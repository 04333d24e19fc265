"""What a step need not compute is not computed, and nothing else changes: TRL's losses, rewards and gradients."""
import json
from contextlib import contextmanager
from itertools import accumulate

import pytest
import torch
import trl.kernels
import trl.trainer.utils
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from contemplative_cai.core.files import write_text
from contemplative_cai.core.recipe import LOSSES, build_recipe
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.weights import load_model, load_tokenizer, model_source
from contemplative_cai.training import packed
from contemplative_cai.training.packed import CPUScores, PackedBatch, learned_scores, read_packed, why_padded
from contemplative_cai.training.trainer import build_trainer, load_trainable

LONG = "It may help to say what you saw, to ask how it looked from over there, and to leave the rest for tomorrow."
PAIRS = [("How do I tell her?", LONG, "Just tell her."), ("May I be angry?", "You may.", LONG + " " + LONG),
         ("How do I tell her?", "Slowly.", "Slowly, and at once.")]  # one prompt twice; answers that begin alike
SETTINGS = {"model": "random-tiny", "dtype": "float32", "device": "cpu", "train_batch_size": 3, "accumulation": 1,
            "max_length": 96, "max_steps": 2, "watch_steps": None, "learning_rate": 0.01}


# the batch

def padded_batch(rows):
    "Token ids padded at their end, and the mask."
    longest = max(map(len, rows))
    return (torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
            torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]))


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=9), min_size=1, max_size=6))
def test_a_packed_batch_holds_every_token_at_its_place_and_no_padding(rows):
    ids, mask = padded_batch(rows)
    batch, text = PackedBatch(ids, mask), mask.bool()
    assert torch.equal(batch.ids[0][batch.places][text], ids[text])
    assert torch.equal(batch.positions[0][batch.places][text], (mask.cumsum(-1) - 1)[text])
    assert batch.ids.numel() == batch.spans[-1][1] <= sum(map(len, rows))
    assert [start for start, _ in batch.spans] == [0, *accumulate(end - start for start, end in batch.spans)][:-1]


@given(st.lists(st.lists(st.integers(1, 3), min_size=2, max_size=9), min_size=1, max_size=4))
def test_hidden_states_are_those_of_the_padded_batch(rows):
    ids, mask = padded_batch(rows)
    with torch.no_grad():
        plain, ours = (model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                       for model in MODELS)
    assert torch.allclose(plain[mask.bool()], ours[mask.bool()], atol=1e-5)


MODELS = [load_model(model_spec("random-tiny"), "float32", "cpu").eval() for _ in range(2)]
read_packed(MODELS[1])


def test_passes_that_are_no_training_stay_what_they_are():
    ids, mask = torch.tensor([[5, 6, 7, 8], [0, 0, 5, 6]]), torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    plain, ours = MODELS
    assert torch.equal(plain(ids, attention_mask=mask).logits, ours(ids, attention_mask=mask).logits)
    assert torch.equal(*(model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0)
                         for model in MODELS))


# TRL's numbers

@contextmanager
def trl_alone():
    "TRL's fused head as it comes."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", trl.kernels.ChunkedLogProbFunction)
        patch.setattr(trl.trainer.utils, "_use_triton", trl.kernels.chunked_logprob._use_triton)
        yield


def rows_of(stage):
    def turn(role, text): return [{"role": role, "content": text}]
    return [{"prompt": turn("user", prompt), "chosen": turn("assistant", chosen),
             "rejected": turn("assistant", rejected)} if stage == "dpo" else
            {"prompt": turn("user", prompt), "completion": turn("assistant", chosen)}
            for prompt, chosen, rejected in PAIRS]


def plain_trainer(stage, folder, **options):
    "TRL's trainer with nothing of ours."
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
    kind, settings = (DPOTrainer, DPOConfig) if stage == "dpo" else (SFTTrainer, SFTConfig)
    return kind(
        model=AutoModelForCausalLM.from_pretrained(model_source(model_spec("random-tiny"))[0], dtype=torch.float32),
        args=settings(output_dir=str(folder / "plain"), use_cpu=True, bf16=False, report_to="none", max_length=96,
                      per_device_train_batch_size=3, disable_tqdm=True, gradient_checkpointing=False, **options),
        train_dataset=Dataset.from_list(rows_of(stage)), processing_class=load_tokenizer(model_spec("random-tiny")),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))


def our_trainer(stage, folder, **changes):
    recipe = build_recipe(SETTINGS | {"training": stage} | changes)
    write_text(folder / stage / "rows" / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows_of(stage)))
    return build_trainer(recipe, stage, folder / stage, load_trainable(recipe), folder / "cache")


def step(trainer):
    "Loss, figures and gradients of the rows in file order, with an adapter that has learned something."
    torch.manual_seed(1)
    for weights in trainer.model.parameters():
        if weights.requires_grad: weights.data.normal_(0, 0.05)
    trainer.model.train()
    rows = [{name: row[name] for name in row if "ids" in name or "logps" in name or name == "labels"}
            for row in trainer.train_dataset]
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    loss.backward()
    gradients = {name: weights.grad for name, weights in trainer.model.named_parameters() if weights.requires_grad}
    return loss.item(), {name: values[-1] for name, values in trainer._metrics["train"].items()}, gradients


def same(ours, theirs):
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4, abs=1e-6)
    assert ours[1] == pytest.approx(theirs[1], rel=1e-3, abs=2e-5)
    assert ours[2].keys() == theirs[2].keys()
    for name, gradient in theirs[2].items():
        assert gradient.abs().max() > 0, name
        assert (ours[2][name] - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-9, name


@pytest.mark.long
@pytest.mark.parametrize("changes", [*({"loss": name} for name in LOSSES if name != "sft"),
                                     {"loss": "sigmoid=1, sft=0.5"}, {"ld_alpha": 0.5},
                                     {"gradient_checkpointing": True}], ids=str)
def test_losses_rewards_and_gradients_are_trls(tmp_path, changes):
    smoothing = {"label_smoothing": 0.1} if changes.get("loss") in ("robust", "exo_pair") else {}
    ours = our_trainer("dpo", tmp_path, **changes, **smoothing)
    assert ours.why_padded is None
    losses = build_recipe(changes | smoothing).loss
    options = {name: changes[name] for name in ("ld_alpha",) if name in changes}
    with trl_alone():
        theirs = step(plain_trainer("dpo", tmp_path, loss_type=list(losses), loss_weights=list(losses.values()),
                                    **smoothing, **options))
    same(step(ours), theirs)


@pytest.mark.long
def test_sft_is_trls(tmp_path):
    ours = our_trainer("sft", tmp_path)
    with trl_alone(): theirs = step(plain_trainer("sft", tmp_path))
    assert ours.why_padded is None
    same(step(ours), theirs)


@pytest.mark.parametrize("most", [packed.SCORES_KEPT, 300])
def test_scores_are_trls_with_their_gradients(monkeypatch, most):
    "Also where a vocabulary's scores are too many to keep, and are computed again."
    monkeypatch.setattr(packed, "SCORES_KEPT", most)
    monkeypatch.setattr(packed, "SCORES_TOGETHER", 120)
    torch.manual_seed(0)
    states, vocabulary = torch.randn(11, 16), torch.randn(101, 16)
    vocabulary[7] = vocabulary[3]  # the first of equals is the first
    states[2] = vocabulary[3] * 9
    targets, weights = torch.randint(0, 101, (11,)), torch.randn(11)
    targets[2] = 7
    outputs, gradients = [], []
    for function in (CPUScores(trl.kernels.ChunkedLogProbFunction), trl.kernels.ChunkedLogProbFunction):
        hidden = states.clone().requires_grad_()
        outputs.append(function.apply(hidden, vocabulary, None, targets, 1.0, 64, None, 1.0,
                                      ("log_probs", "entropy", "mean_logits", "is_top1")))
        (outputs[-1][0] * weights).sum().backward()
        gradients.append(hidden.grad)
    assert torch.allclose(*gradients, atol=1e-5) and outputs[0][4].tolist() == outputs[1][4].tolist()
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(outputs[0][:2], outputs[1][:2]))
    assert torch.allclose(outputs[0][3], outputs[1][3], atol=1e-6)


def test_a_batch_without_anything_learned_has_a_loss_to_go_back_from():
    hidden = torch.randn(0, 8, requires_grad=True)
    logprobs, *_ = learned_scores().apply(hidden, torch.randn(50, 8), torch.empty(0, dtype=torch.long))
    logprobs.sum().backward()
    assert tuple(hidden.grad.shape) == (0, 8)


def test_a_vocabulary_that_is_trained_is_trls_matter():
    vocabulary = torch.randn(20, 8, requires_grad=True)
    function = CPUScores(trl.kernels.ChunkedLogProbFunction)
    function.apply(torch.randn(3, 8), vocabulary, None, torch.tensor([1, 2, 3]), 1.0, 20)[0].sum().backward()
    assert vocabulary.grad.abs().sum() > 0


# models that go TRL's way

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "vocab_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@pytest.mark.parametrize("kind,settings,because", [
    ("llama", SMALL, None), ("qwen2", SMALL, None), ("mistral", SMALL | {"sliding_window": None}, None),
    ("mistral", SMALL | {"sliding_window": 8}, "more than softmax"),
    ("qwen2", SMALL | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "more than softmax"),
    ("gemma2", SMALL | {"head_dim": 8}, "more than softmax"),
    ("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 32}, "more than softmax"),
    ("mamba", {"hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 32}, "more than softmax"),
    ("llama", SMALL | {"attention_dropout": 0.1}, "dropout"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_model_that_looks_elsewhere_is_read_padded(kind, settings, because):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
    assert (why_padded(model) is None) if because is None else because in why_padded(model)


def test_dropout_of_the_adapter_and_fewer_bits_are_read_padded():
    model = load_model(model_spec("random-tiny"), "float32", "cpu")
    assert "dropout" in why_padded(model, 0.1) and why_padded(model) is None
    model.is_quantized = True
    assert "bits" in why_padded(model)
    assert "CPU" in why_padded(load_model(model_spec("random-tiny"), "float32", "cpu").to("meta"))
