"""Models of every kind of memory, tiny and random:
what they answer is what transformers generates, or they are refused."""
import pytest
import torch
import transformers as made
from support import user

from contemplative_cai.core.schema import InputError
from contemplative_cai.models.attention import install_attention, keeps_state
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.llm import Sampling
from contemplative_cai.models.local import load_llm, reads_padded
from contemplative_cai.models.weights import load_tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = SIZES | {"intermediate_size": 64, "num_key_value_heads": 2}
PLACED = GROUPED | {"max_position_embeddings": 512}
STATE = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8}
LINEAR = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
          "layer_types": ["linear_attention", "full_attention"]}
KINDS = {
    "gpt2": (made.GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}),
    "bloom": (made.BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "gemma3": (made.Gemma3TextConfig, PLACED | {"head_dim": 8, "sliding_window": 16}),
    "gpt_oss": (made.GptOssConfig, PLACED | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2,
                                             "sliding_window": 16}),
    "glm4": (made.Glm4Config, PLACED | {"head_dim": 8}),
    "phi3": (made.Phi3Config, PLACED),
    "granite": (made.GraniteConfig, PLACED),
    "mamba": (made.MambaConfig, {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "mamba2": (made.Mamba2Config, {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8,
                                   "head_dim": 8, "n_groups": 1}),
    "falcon_mamba": (made.FalconMambaConfig, {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "jamba": (made.JambaConfig, GROUPED | {"num_experts": 2, "mamba_d_state": 8, "use_mamba_kernels": False,
                                           "attn_layer_period": 2, "attn_layer_offset": 1}),
    "bamba": (made.BambaConfig, GROUPED | STATE | {"attn_layer_indices": [1]}),
    "qwen3_5": (made.Qwen3_5TextConfig, PLACED | LINEAR | {"head_dim": 8}),
    # these give otherwise, without a word, when rows are filled up on the left
    "bart": (made.BartConfig, {"d_model": 32, "decoder_layers": 2, "encoder_layers": 2, "decoder_attention_heads": 4,
                               "encoder_attention_heads": 4, "decoder_ffn_dim": 64, "encoder_ffn_dim": 64,
                               "is_decoder": True, "is_encoder_decoder": False}),
    # these have their memory elsewhere than they are handed one, or number positions in their own way
    "rwkv": (made.RwkvConfig, {"hidden_size": 32, "num_hidden_layers": 2}),
    "roberta": (made.RobertaConfig, SIZES | {"intermediate_size": 64, "is_decoder": True}),
    "minimax": (made.MiniMaxConfig, PLACED | {"head_dim": 8, "num_local_experts": 2,
                                              "layer_types": ["linear_attention", "full_attention"]}),
}
REFUSED = ("rwkv", "roberta", "minimax")
QUESTIONS = [user("Is it late?"), user("My brother borrows and never gives back. What now?"), user("Why?")]


@pytest.fixture(scope="module")
def tokenizer(): return load_tokenizer(model_spec("random-tiny"))


def built(kind, tokenizer):
    "A random model of a kind, with the vocabulary of a tokenizer."
    config, values = KINDS[kind]
    torch.manual_seed(0)
    return made.AutoModelForCausalLM.from_config(config(**values, vocab_size=len(tokenizer), bos_token_id=1,
                                                        eos_token_id=2, pad_token_id=0)).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_transformers_or_the_model_is_refused(kind, tokenizer, tmp_path):
    "In a batch of rows of unlike length, greedily, beside transformers' own loop on each row alone."
    model = built(kind, tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    if kind in REFUSED:
        with pytest.raises(InputError, match="cannot generate here"):
            load_llm(model_spec(str(tmp_path)), "float32", "cpu")
        return
    llm = load_llm(model_spec(str(tmp_path)), "float32", "cpu", batch_size=3)
    assert llm.batch_size == (1 if kind == "bart" else 3)
    for question, answer in zip(QUESTIONS, llm.chat(QUESTIONS, Sampling(max_tokens=8))):
        ids = torch.tensor([llm._encode(question)])
        own = llm.model.generate(ids, max_new_tokens=8, do_sample=False, repetition_penalty=1.0)[0, ids.shape[1]:]
        kept = [token for token in own.tolist() if token != 2]
        assert answer.text == tokenizer.decode(kept, skip_special_tokens=True).strip()
    weighed = llm.logprobs(QUESTIONS, ["Yes.", "Ask him kindly.", "No."])
    alone = [llm.logprobs([question], [text])[0]
             for question, text in zip(QUESTIONS, ["Yes.", "Ask him kindly.", "No."])]
    assert [each.total for each in weighed] == pytest.approx([each.total for each in alone], abs=1e-3)


# these are continued from a cache by many tokens at once; the others keep a state, or read one row at a time
BRANCHING = ("gpt2", "bloom", "gemma3", "gpt_oss", "glm4", "phi3", "granite")
JUDGED = [(user(f"Answer: {answer}\n\n{asked}"), reply)
          for answer in ("It was late when he came, and she said so. " * 6, "He said no, and meant it. " * 8)
          for asked in ("Is it kind?", "Is it true, and is it needed?", "Is it short?") for reply in ("Yes", "No")]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(REFUSED)))
def test_plain_texts_go_on_as_likely_as_one_pass_over_the_whole_finds(kind, tokenizer, tmp_path):
    "Four ends of one beginning, one of another, and a whole text; in a batch, beside each row alone."
    model = built(kind, tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    llm = load_llm(model_spec(str(tmp_path)), "float32", "cpu", batch_size=3)
    shown = ["The old river runs down to the wide sea, and the boats"] * 4 + ["Why", ""]
    ends = [" sail.", " lie in the harbour.", " wait", ".", " not?", "Nobody knows."]
    for before, after, came in zip(shown, ends, llm.text_logprobs(shown, ends), strict=True):
        row, first = tokenizer(before + after)["input_ids"], max(len(tokenizer(before)["input_ids"]), 1)
        with torch.inference_mode(): scores = torch.log_softmax(model(torch.tensor([row])).logits[0].float(), -1)
        plain = sum(scores[i - 1, row[i]].item() for i in range(first, len(row)))
        assert (came.tokens, came.total) == (len(row) - first, pytest.approx(plain, abs=2e-2))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in REFUSED])
def test_questions_about_an_answer_are_weighed_behind_one_reading_of_it(kind, tokenizer, tmp_path, monkeypatch):
    "In any order, beside a row that begins like no other: the numbers of a plain pass for each row."
    built(kind, tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    llm, read = load_llm(model_spec(str(tmp_path)), "float32", "cpu"), []
    rows = [*JUDGED[::-2], *JUDGED[::2], (QUESTIONS[1], "Ask him kindly.")]
    encoded = [(llm._encode(context), llm._encode(context, reply)) for context, reply in rows]
    with torch.inference_mode():
        plain = [torch.log_softmax(llm.model(torch.tensor([whole])).logits[0], -1) for _, whole in encoded]
    expected = [sum(scores[i - 1, whole[i]].item() for i in range(len(context), len(whole)))
                for scores, (context, whole) in zip(plain, encoded)]
    forward = llm.model.forward
    monkeypatch.setattr(llm.model, "forward", lambda input_ids, **options: read.append(input_ids.numel()) or forward(
        input_ids=input_ids, **options))
    weighed = llm.logprobs(*zip(*rows))
    assert [each.total for each in weighed] == pytest.approx(expected, abs=1e-4)
    assert llm.branches == (kind in BRANCHING)
    assert (sum(read) < 0.5 * sum(len(whole) for _, whole in encoded)) == llm.branches


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in REFUSED])
def test_rounding_is_not_taken_for_a_fault(kind, tokenizer):
    "In bfloat16 scores differ by what rounding does, and a model that fits is not refused or slowed for it."
    model = built(kind, tokenizer).to(torch.bfloat16)
    assert not install_attention(model) and reads_padded(model, kind) == (kind != "bart")


def test_a_state_goes_by_its_own_name(tokenizer):
    assert [kind for kind in KINDS if keeps_state(built(kind, tokenizer))] == ["mamba", "mamba2", "falcon_mamba"]
