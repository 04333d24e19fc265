"""Model folders as people have them: what names their content, what is wrong with them, and what becomes of both."""
import gzip
import json
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import user, within

from contemplative_cai.command.plan import plan_memory
from contemplative_cai.core.recipe import build_recipe, check_model
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.choose import choose_engine, open_llm
from contemplative_cai.models.folders import (
    adapter_digest,
    config_sizes,
    content_digest,
    folder_faults,
    loaded_files,
    loading_error,
    parameter_count,
    safetensors_digest,
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


@pytest.fixture
def adapter(tmp_path):
    "A LoRA adapter for the random model that changes what it says."
    from peft import LoraConfig, get_peft_model
    torch.manual_seed(3)
    model = get_peft_model(load_model(model_spec("random-tiny"), "float32", "cpu"),
                           LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("base", ["random-tiny", "folder"])
def test_a_run_that_knows_a_model_by_fewer_files_goes_on_under_that_key(base, folder, adapter, runs):
    """Runs were begun when an adapter's key had no settings and a folder's key its safetensors alone."""
    name = str(folder) if base == "folder" else base
    recipe = build_recipe({"model": name, "device": "cpu", "dtype": "float32"})
    now = model_key(model_spec(name), "float32")
    then = f"{model_spec(name).name}@{safetensors_digest(Path(model_source(model_spec(name))[0]))}/float32"
    weights = adapter_digest(adapter).partition(".")[0]
    begun = open_run("begun")
    begun.record(model=then, arms={"probed": [{"arm": "dpo", "key": f"{then}+{weights}"}]})
    known_by = [(begun, [then, f"{then}+{weights}"]), (open_run("new"), [now, f"{now}+{adapter_digest(adapter)}"])]
    for run, keys in known_by:
        with open_llm(recipe, run, {"dpo": adapter}) as llm:
            adapted = llm.with_adapter("dpo")
            assert [llm.key, adapted.key] == keys
            assert [who.chat([user("Why?")], Sampling(max_tokens=3))[0].completion_tokens for who in (llm, adapted)]
    from safetensors.torch import load_file, save_file
    other = {name: 2 * weight for name, weight in load_file(adapter / "adapter_model.safetensors").items()}
    save_file(other, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with open_llm(recipe, begun, {"dpo": adapter}) as llm:
        assert llm.with_adapter("dpo").key == f"{now}+{adapter_digest(adapter)}"


@pytest.mark.parametrize("index, kind", [("model.safetensors.index.json", "safetensors"),
                                         ("pytorch_model.bin.index.json", "bin")])
@given(parts=st.lists(st.sampled_from(["a", "part one", "sub/a", "sub/deep/b", "consolidated.00", "model-1"]),
                      min_size=1, max_size=4, unique=True), changed=st.integers(0, 3))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_weights_in_parts_of_any_name_are_in_the_models_name(index, kind, parts, changed, tmp_path):
    shutil.rmtree(tmp_path / "cut", ignore_errors=True)
    paths = [tmp_path / "cut" / f"{part}.{kind}" for part in parts]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    named = {f"w{i}": f"{part}.{kind}" for i, part in enumerate(parts)}
    (tmp_path / "cut" / index).write_text(json.dumps({"weight_map": named}))
    (tmp_path / "cut" / "beside.safetensors").write_bytes(b"other")
    before = content_digest(tmp_path / "cut")
    paths[changed % len(paths)].write_bytes(b"other weights")
    assert content_digest(tmp_path / "cut") != before
    assert loaded_files(tmp_path / "cut")[1:] == sorted(paths)


def test_a_model_in_parts_of_any_name_answers_as_it_did_in_one(folder, tmp_path):
    from safetensors.torch import load_file, save_file
    weights = load_file(folder / "model.safetensors")
    whole = load_llm(model_spec(str(folder)), "float32", "cpu").chat([user("Why?")], Sampling(max_tokens=6))
    (folder / "parts").mkdir()
    save_file(weights, folder / "parts" / "all.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    index, named = folder / "model.safetensors.index.json", dict.fromkeys(weights, "parts/all.safetensors")
    index.write_text(json.dumps({"weight_map": named}))
    with pytest.raises(InputError, match="metadata"): load_llm(model_spec(str(folder)), "float32", "cpu")
    index.write_text(json.dumps({"metadata": {}, "weight_map": named}))
    assert load_llm(model_spec(str(folder)), "float32", "cpu").chat([user("Why?")], Sampling(max_tokens=6)) == whole


@pytest.mark.parametrize("name, content", [
    ("pytorch_model.bin.index.json", json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}).encode()),
    ("tf_model.h5.index.json", b'{"weight_map": {"a": "tf_model-00001-of-00002.h5"}}'), ("pytorch_model.bin", POINTER),
    ("consolidated.safetensors", POINTER), ("consolidated.safetensors", b"cut"), ("model.gguf", b"GGUF"),
])
def test_a_file_that_nobody_loads_refuses_nothing(name, content, folder):
    "A download of the safetensors alone leaves the index, or a pointer, of the other format behind."
    (folder / name).write_bytes(content)
    assert not folder_faults(folder)
    load_model(model_spec(str(folder)), "float32", "cpu")


@given(header=st.one_of(st.binary(max_size=60), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), lambda inner: st.lists(
        inner, max_size=3) | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "w"]),
                                             inner, max_size=4), max_leaves=8).map(lambda value: json.dumps(
                                                 {"w": value, "v": {"dtype": "F32", "shape": [1],
                                                                    "data_offsets": [0, 4]}}).encode()),
    st.sampled_from([b"[" * 50_000, b'{"a":' * 50_000, b"9" * 6000])))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_header_of_a_file_of_weights_is_a_traceback(header, folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    try: assert parameter_count(folder) is None or not folder_faults(folder) or "bytes" in folder_faults(folder)[0]
    finally: path.write_bytes(whole)


def test_a_header_without_an_end_in_sight_is_not_read(folder):
    with open(folder / "model.safetensors", "wb") as file:
        file.write((90_000_000).to_bytes(8, "little"))
        file.truncate(100_000_000)
    with within(2): assert "header of 90 MB" in folder_faults(folder)[0] and parameter_count(folder) is None


PLACES = {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": lambda path: path.mkdir(),
          "loop": lambda path: path.symlink_to(path), "nowhere": lambda path: path.symlink_to("/no/such/place")}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "model.safetensors.index.json"])
def test_what_is_no_file_hangs_nothing(name, place, folder):
    (folder / name).unlink(missing_ok=True)
    PLACES[place](folder / name)
    for act in (lambda: plan_memory(build_recipe({"model": str(folder)})),
                lambda: load_llm(model_spec(str(folder)), "float32", "cpu")):
        with within(10):
            try: act()
            except InputError: pass


@given(ends=st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3),
                         lambda inner: st.lists(inner, max_size=3), max_leaves=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_end_of_a_turn_is_a_number_or_refused(ends, folder):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    numbers = ends if isinstance(ends, list) else [ends]
    fine = all(end is None or type(end) is int for end in numbers)
    assert bool(folder_faults(folder)) != fine
    if not fine:
        with pytest.raises(InputError): load_llm(model_spec(str(folder)), "float32", "cpu")


@pytest.mark.parametrize("name, what", [("tokenizer.json", "tokenizer.json"),
                                        ("special_tokens_map.json", "special_tokens_map.json")])
@pytest.mark.parametrize("content", [b"", b"null", b"<html>", b'{"cut": [1, 2', gzip.compress(b"{}", mtime=0)])
def test_a_file_of_the_tokenizer_is_named(name, what, content, folder):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=what): load_llm(model_spec(str(folder)), "float32", "cpu")


@pytest.mark.parametrize("part", ["../elsewhere.safetensors", "/etc/hostname", "/dev/zero", "sub/../../up.bin", ".."])
def test_an_index_stays_in_its_folder(part, folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": part}}))
    for act in (content_digest, lambda place: load_model(model_spec(str(place)), "float32", "cpu")):
        with within(10), pytest.raises(InputError, match="own folder"): act(folder)


class _Order:
    def __reduce__(self): return os.system, ("touch was-run",)


@pytest.mark.parametrize("whose", ["model", "adapter"])
def test_weights_that_would_run_code_do_not_and_no_advice_to_let_them_is_given(whose, folder, adapter, monkeypatch):
    monkeypatch.chdir(folder)
    place, name = (folder, "pytorch_model.bin") if whose == "model" else (adapter, "adapter_model.bin")
    next(place.glob("*.safetensors")).unlink()
    (place / name).write_bytes(pickle.dumps(_Order(), protocol=2))
    with pytest.raises(InputError, match="take its safetensors"):
        if whose == "model": load_llm(model_spec(str(folder)), "float32", "cpu")
        else: load_llm(model_spec("random-tiny"), "float32", "cpu", {"x": adapter})
    assert not (folder / "was-run").exists()


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_an_adapter_that_puts_tokens_before_a_row_is_refused(kind, tmp_path):
    import peft
    make = peft.PromptTuningConfig if kind == "prompt" else peft.PrefixTuningConfig
    peft.get_peft_model(load_model(model_spec("random-tiny"), "float32", "cpu"),
                        make(task_type="CAUSAL_LM", num_virtual_tokens=4)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="such as LORA"):
        load_llm(model_spec("random-tiny"), "float32", "cpu", {"x": tmp_path})


@pytest.mark.parametrize("more", [{"use_dora": True}, {"target_modules": ["q_proj", "embed_tokens"]},
                                  {"modules_to_save": ["norm"]}, {"trainable_token_indices": [1, 2]}, {"bias": "all"},
                                  {"rank_pattern": {"v_proj": 8}}, {"layers_to_transform": [1]}])
def test_adapters_of_other_settings_are_whole(more, tmp_path):
    from peft import LoraConfig, get_peft_model
    settings_of = LoraConfig(**({"r": 4, "target_modules": ["q_proj", "v_proj"]} | more))
    get_peft_model(load_model(model_spec("random-tiny"), "float32", "cpu"), settings_of).save_pretrained(tmp_path)
    assert adapted(tmp_path).chat([user("Why?")], Sampling(max_tokens=3))


def test_a_gguf_file_alone_and_an_adapter_in_a_models_folder_say_what_to_do(folder, adapter):
    shutil.copy(adapter / "adapter_config.json", folder)
    with pytest.raises(InputError, match="take it away"): load_llm(model_spec(str(folder)), "float32", "cpu")
    (folder / "adapter_config.json").unlink()
    (folder / "model.safetensors").rename(folder / "model-Q8_0.gguf")
    with pytest.raises(InputError, match="serve it, and name the server"):
        load_llm(model_spec(str(folder)), "float32", "cpu")


def test_the_order_of_repeated_layers_is_in_an_adapters_name(tmp_path):
    names = set()
    for layers in ([[0, 2], [1, 2]], [[1, 2], [0, 2]]):
        (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
        (tmp_path / "adapter_config.json").write_text(json.dumps({"layer_replication": layers}))
        names.add(adapter_digest(tmp_path))
    assert len(names) == 2


def adapted(adapter):
    "The random model with the adapter."
    return load_llm(model_spec("random-tiny"), "float32", "cpu", {"x": adapter}).with_adapter("x")


@pytest.mark.parametrize("damage", [*DAMAGES, "gone", *PLACES])
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_damaged_adapter_is_named_with_what_to_do(name, damage, adapter):
    path = adapter / name
    content = path.read_bytes()
    path.unlink()
    if damage in DAMAGES: path.write_bytes(DAMAGES[damage](content))
    elif damage in PLACES: PLACES[damage](path)
    with within(10), pytest.raises(InputError) as refused: adapted(adapter)
    assert str(adapter) in str(refused.value) and re.search(r"expected|fetch|cut", str(refused.value))


@pytest.mark.parametrize("more", [
    {"peft_type": "MAGIC"}, {"peft_type": 5}, {"peft_type": "PROMPT_TUNING"}, {"target_modules": ["nothing"]},
    {"target_modules": 5}, {"r": 16}, {"r": "many"}, {"r": 0}, {"r": -4}, {"r": None}, {"r": [4]},
    {"lora_alpha": "much"}, {"rank_pattern": {"q_proj": 7}}, {"modules_to_save": ["embed_tokens"]},
])
def test_settings_that_do_not_fit_an_adapter_are_refused(more, adapter):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    with pytest.raises(InputError) as refused: adapted(adapter)
    assert str(adapter) in str(refused.value)


@given(lost=st.sets(st.integers(0, 27), max_size=5), renamed=st.booleans(), broken=st.booleans())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_adapter_that_lacks_weights_is_refused(lost, renamed, broken, adapter):
    from safetensors.torch import load_file, save_file
    path = adapter / "adapter_model.safetensors"
    whole, weights = path.read_bytes(), load_file(path)
    kept = {name: weight for i, (name, weight) in enumerate(sorted(weights.items())) if i not in lost}
    if renamed: kept = {name.replace("layers.1", "layers.7"): weight for name, weight in kept.items()}
    if broken: kept = {name: weight * float("nan") for name, weight in kept.items()}
    save_file(kept, path, metadata={"format": "pt"})
    try:
        if lost or renamed or broken:
            with pytest.raises(InputError, match="adapter 'x'"): adapted(adapter)
        else: assert adapted(adapter).chat([user("Why?")], Sampling(max_tokens=3))
    finally: path.write_bytes(whole)


@pytest.mark.parametrize("engine", [None, {}, {"engine": None}, {"engine": 5, "why": []}, {"template": None}])
def test_a_run_that_does_not_say_its_engine_is_opened(engine):
    run = open_run("before")
    run.record(engine=engine)
    recipe = build_recipe({"model": "random-tiny", "device": "cpu", "dtype": "float32"})
    assert choose_engine(recipe, run).engine == "transformers"
    with open_llm(recipe, run) as llm: assert llm.key.startswith("random-tiny@")


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_arm_with_damaged_weights_is_told_before_anything_runs(damage, folder, adapter):
    from contemplative_cai.evaluation.arms import read_arm
    recipe = build_recipe({"model": "random-tiny"})
    for place in (folder, adapter):
        assert read_arm(f"x={place}", recipe)
        path = next(place.glob("*.safetensors"))
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
        with pytest.raises(InputError, match="arm 'x': .*safetensors"): read_arm(f"x={place}", recipe)
