"""Model folders as people have them: what names their content, what is wrong with them, and what becomes of both."""
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import user

from contemplative_cai.command.plan import plan_memory
from contemplative_cai.core.recipe import build_recipe, check_model
from contemplative_cai.core.schema import InputError
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.folders import (
    adapter_digest,
    config_sizes,
    content_digest,
    folder_faults,
    loading_error,
    parameter_count,
)
from contemplative_cai.models.llm import Sampling
from contemplative_cai.models.local import load_llm
from contemplative_cai.models.weights import load_model, load_tokenizer, model_key, model_source, row_bytes

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 12345\n"
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def folder(tmp_path):
    "A copy of the random model, whole and untied from the package."
    return Path(shutil.copytree(model_source(model_spec("random-tiny"))[0], tmp_path / "final"))


def in_torch_format(folder, seed):
    "The folder's weights as pytorch_model.bin, drawn anew."
    model = load_model(model_spec(str(folder)), "float32", "cpu")
    torch.manual_seed(seed)
    for weights in model.parameters(): torch.nn.init.normal_(weights, std=0.05)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


DECIDING = ("model.safetensors", "pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "weights.gguf", "config.json",
            "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json",
            "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
            "adapter_config.json", "adapter_model.bin", "model.safetensors.index.json", "spiece.model",
            "additional_chat_templates/tools.jinja")


@pytest.mark.parametrize("name", DECIDING)
@given(content=st.binary(min_size=1, max_size=8))
@many
def test_any_change_of_what_answers_depend_on_is_another_model(name, content, folder):
    before, path = content_digest(folder), folder / name
    path.parent.mkdir(exist_ok=True)
    held = path.read_bytes() if path.exists() else b""
    path.write_bytes(held + content)
    after = content_digest(folder)
    path.write_bytes(held)
    if not held: path.unlink()
    assert before != after and content_digest(folder) == before


@pytest.mark.parametrize("name",
                         ["README.md", "training_args.bin", "optimizer.pt", "trainer_state.json", ".gitattributes"])
def test_what_decides_nothing_is_no_part_of_the_name(name, folder):
    before = content_digest(folder)
    (folder / name).write_bytes(b"more")
    assert content_digest(folder) == before == content_digest(folder.rename(folder.with_name("elsewhere")))


def test_two_models_in_folders_of_one_name_have_two_keys_and_two_answers(folder, tmp_path):
    keys, texts = set(), set()
    for seed in (1, 2):
        place = Path(shutil.copytree(folder, tmp_path / str(seed) / "final"))
        in_torch_format(place, seed)
        llm = load_llm(model_spec(str(place)), "float32", "cpu")
        keys.add(llm.key)
        texts.add(llm.chat([user("Is it late?")], Sampling(max_tokens=8))[0].text)
    assert len(keys) == len(texts) == 2


def test_the_packages_own_models_and_those_of_the_hub_keep_their_keys():
    assert model_key(model_spec("random-tiny"), "float32").startswith("random-tiny@")
    assert model_key(model_spec("qwen2.5-0.5b"), "bfloat16") == "qwen2.5-0.5b@7ae557604adf/bfloat16"
    from contemplative_cai.core.schema import digest
    from contemplative_cai.models.folders import file_digest
    for name in ("random-tiny", "smollm2-135m"):
        files = sorted(Path(model_source(model_spec(name))[0]).glob("*.safetensors"))
        weights = digest([[path.name, file_digest(path)] for path in files], 12)
        assert model_key(model_spec(name), "float32") == f"{name}@{weights}/float32"


def test_an_adapters_settings_are_in_its_name(tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    names = []
    for alpha in (8, 64):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
        names.append(adapter_digest(tmp_path))
    assert names[0] != names[1] and names[0].partition(".")[0] == names[1].partition(".")[0]


DAMAGES = {"a pointer": lambda content: POINTER, "nothing": lambda content: b"", "half": lambda c: c[:len(c) // 2],
           "a page": lambda content: b"<html><title>404</title></html>", "one byte": lambda content: content[:1]}
FILES = ("model.safetensors", "pytorch_model.bin", "config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_with_what_to_do(name, damage, folder):
    if name.endswith(".bin"): in_torch_format(folder, 0)
    (folder / name).write_bytes(DAMAGES[damage]((folder / name).read_bytes()))
    with pytest.raises(InputError) as refused: load_llm(model_spec(str(folder)), "float32", "cpu")
    assert str(folder) in str(refused.value) and len(str(refused.value)) < 2000


@given(share=st.floats(0, 0.999), tail=st.sampled_from([b"", b"\0", b"more than there was"]))
@many
def test_a_cut_download_is_seen_wherever_it_was_cut(share, tail, folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:int(share * len(whole))] + tail)
    faults = folder_faults(folder)
    path.write_bytes(whole)
    assert faults and "model.safetensors" in faults[0] and not folder_faults(folder)


@given(content=st.one_of(st.binary(max_size=40), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["hidden_size", "text_config", "model_type", "x"]), inner, max_size=3)
).map(lambda value: json.dumps(value).encode())))
@many
def test_no_content_of_config_json_is_a_traceback(content, folder):
    path = folder / "config.json"
    whole = path.read_bytes()
    path.write_bytes(content)
    try: plan_memory(build_recipe({"model": str(folder)}))
    except InputError as error: assert "config.json" in str(error)
    finally: path.write_bytes(whole)


def test_a_folder_without_weights_and_an_index_without_its_parts_are_refused(folder):
    shutil.move(folder / "model.safetensors", folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="model-00002-of-00002"): load_model(model_spec(str(folder)), "float32", "cpu")
    for path in folder.glob("*.safetensors*"): path.unlink()
    for act in (lambda spec: model_key(spec, "float32"), lambda spec: load_model(spec, "float32", "cpu")):
        with pytest.raises(InputError, match="no weights"): act(model_spec(str(folder)))


@given(lost=st.sets(st.integers(0, 19), min_size=1, max_size=6))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_checkpoint_that_lacks_layers_is_refused(lost, folder):
    from safetensors.torch import load_file, save_file
    path = folder / "model.safetensors"
    whole, weights = path.read_bytes(), load_file(path)
    names = [name for i, name in enumerate(sorted(weights)) if i not in lost]
    assert len(names) < len(weights), "tied weights are stored once, and their copy is not missed"
    save_file({name: weights[name] for name in names}, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="not in the checkpoint"): load_model(model_spec(str(folder)), "float32", "cpu")
    path.write_bytes(whole)
    load_model(model_spec(str(folder)), "float32", "cpu")


@pytest.mark.parametrize("more, what", [
    ({"model_type": "llama9", "architectures": ["Llama9"]}, "model_type"),
    ({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}},
     "trust_remote_code=False"),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "GPTQ or AWQ"),
    ({"quantization_config": {"quant_method": "awq", "bits": 4, "version": "gemm", "zero_point": True}}, "GPTQ or AWQ"),
    ({"hidden_size": 96}, "sizes"), ({"num_attention_heads": 0}, "count"),
])
def test_a_configuration_that_cannot_be_loaded_says_why_and_asks_nothing(more, what, folder, monkeypatch):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on stdin"))
    with pytest.raises(InputError) as refused: load_llm(model_spec(str(folder)), "float32", "cpu")
    assert what in str(refused.value)


@given(kind=st.sampled_from([ValueError, ImportError, KeyError, RuntimeError, OSError, TypeError, AssertionError]),
       words=st.text(max_size=300))
@many
def test_every_error_of_loading_is_one_for_people(kind, words):
    told = loading_error("mine", "owner/mine", kind(words))
    assert "mine" in str(told) and len(told.problems) == 1 and "\n" not in told.problems[0]


def test_a_model_of_the_hub_needs_no_entry(monkeypatch, folder):
    name = "someone/some-model@" + "0123456789" * 4
    spec = model_spec(name)
    assert (spec.kind, spec.hub_id, spec.shape) == ("hub", "someone/some-model", None)
    check_model(build_recipe({"model": name}))
    with pytest.raises(InputError, match="no shape to plan with"): plan_memory(build_recipe({"model": name}))
    monkeypatch.setattr("contemplative_cai.models.catalog._cached_config", lambda *_: folder / "config.json")
    assert model_spec(name).shape.layers == 2 and plan_memory(build_recipe({"model": name})).weights > 0
    for revision in ("main", "", "v1.0", "0123"):
        with pytest.raises(InputError, match="commit"): model_spec(f"someone/some-model@{revision}")


def test_shape_and_memory_of_a_folder_are_those_of_its_files(folder):
    spec = model_spec(str(folder))
    model = load_model(spec, "float32", "cpu")
    assert (spec.parameters * 1e9 == parameter_count(folder) == model.num_parameters()
            and spec.shape.hidden == 64 and spec.context == 2048)


def architectures():
    "Small models of other makes: their configurations, with a vocabulary of 300."
    import transformers as made
    plain = {"vocab_size": 300, **SMALL}
    grouped = plain | {"intermediate_size": 64, "num_key_value_heads": 2}
    text = grouped | {"head_dim": 8, "sliding_window": 32}
    return {"gpt2": made.GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=512),
            "mpt": made.MptConfig(vocab_size=300, d_model=32, n_layers=2, n_heads=4, max_seq_len=512),
            "bloom": made.BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4),
            "qwen3": made.Qwen3Config(**grouped, head_dim=8), "gemma2": made.Gemma2Config(**text),
            "mixtral": made.MixtralConfig(**grouped, num_local_experts=2),
            "lfm2": made.Lfm2Config(**grouped, layer_types=["conv", "full_attention"]),
            "mamba": made.MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=8),
            "gemma3": made.Gemma3Config(text_config=text, mm_tokens_per_image=4, image_token_index=299,
                                        boi_token_index=5, eoi_token_index=6,
                                        vision_config={"hidden_size": 32, "intermediate_size": 64, "image_size": 28,
                                                       "num_hidden_layers": 1, "num_attention_heads": 2,
                                                       "patch_size": 14})}


@pytest.mark.parametrize("name", ["gpt2", "mpt", "bloom", "qwen3", "gemma2", "mixtral", "lfm2", "mamba", "gemma3"])
def test_models_of_other_makes_answer_alike_alone_and_together(name, tmp_path):
    from transformers import AutoModelForCausalLM
    tokenizer = load_tokenizer(model_spec("random-tiny"))
    config = architectures()[name]
    for part in (config, config.get_text_config()): part.vocab_size = len(tokenizer)
    config.eos_token_id, config.bos_token_id = tokenizer.eos_token_id, tokenizer.bos_token_id
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    llm = load_llm(model_spec(str(tmp_path)), "float32", "cpu")
    asked = [user("Is it late?"), user("My brother borrows and never gives back. What now?"), user("Why?")]
    together, short = llm.chat(asked, Sampling(max_tokens=6)), Sampling(max_tokens=6)
    assert [answer.text for answer in together] == [llm.chat([one], short)[0].text for one in asked]
    assert row_bytes(llm.model.config, 100, 4) > 0
    if name != "mamba": assert config_sizes(json.loads((tmp_path / "config.json").read_text()))["layers"] == 2


def test_an_adapters_name_is_that_of_its_settings_in_any_order(tmp_path):
    "PEFT writes `target_modules`, a set, in another order in each process."
    names = set()
    for modules, base in ((["q_proj", "v_proj"], "/one"), (["v_proj", "q_proj"], "/other")):
        (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
        written = {"target_modules": modules, "base_model_name_or_path": base}
        (tmp_path / "adapter_config.json").write_text(json.dumps(written))
        names.add(adapter_digest(tmp_path))
    assert len(names) == 1
