"""The engine in this process, whole, quantised, adapted and spread;
and which engine answers, and that nothing is opened without need."""
import shutil
from collections import Counter
from importlib.util import find_spec
from itertools import zip_longest

import pytest
import torch
from support import RULES_ONLY, play, user
from test_endpoint import Server, hurried  # noqa: F401  (a fixture)

from contemplative_cai.core.journal import Journal, read_ledger
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError, Message
from contemplative_cai.inputs.constitution import load_constitution
from contemplative_cai.models import choose as opening
from contemplative_cai.models import weights
from contemplative_cai.models.ask import ask
from contemplative_cai.models.attention import PackedRows
from contemplative_cai.models.catalog import ModelSpec, model_spec
from contemplative_cai.models.choose import choose_engine, open_llm
from contemplative_cai.models.llm import CallFailed, ModelCallError, Sampling, ScriptedLLM
from contemplative_cai.models.local import load_llm
from contemplative_cai.models.weights import fitting_rows, load_tokenizer, memory_bytes, model_source, row_bytes
from contemplative_cai.pairs.generate import generate_pairs

GREEDY = Sampling(max_tokens=10)
HEAD = (Message(role="user", content="We spoke of rivers and of the stones in them. " * 9),
        Message(role="assistant", content="We did."))


def texts(completions): return [completion.text for completion in completions]


@pytest.fixture(scope="module")
def tiny(): return load_llm(model_spec("random-tiny"), "float32", "cpu", batch_size=4)


@pytest.fixture(scope="module")
def two_adapters(tmp_path_factory):
    "Two LoRA adapters that change what the model says, saved by PEFT itself."
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    folders = {}
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(model_source(model_spec("random-tiny"))[0], dtype=torch.float32),
            LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
        )
        folders[name] = tmp_path_factory.mktemp("adapters") / name
        model.save_pretrained(folders[name])
    return folders


def test_several_adapters_on_one_base_are_each_what_peft_makes_of_them(two_adapters, tiny):
    "Switched from request to request; against a fresh base with that adapter alone, loaded by PEFT."
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    both = load_llm(model_spec("random-tiny"), "float32", "cpu", two_adapters, 4)
    views = {None: both, **{name: both.with_adapter(name) for name in two_adapters}}
    asked, replies = ([user("Is it late?"), (*HEAD, *user("And now?")), (*HEAD, *user("Then?"))],
                      ["No.", "Yes, it is.", "Wait."])
    said = {name: [texts(views[name].chat(asked, GREEDY))] for name in (None, "first", "second")}
    # in another order: nothing of the last request is left
    for name in ("second", None, "first", "second"): said[name].append(texts(views[name].chat(asked, GREEDY)))
    assert (all(found == each[0] for each in said.values() for found in each)
            and said[None][0] == texts(tiny.chat(asked, GREEDY)))
    assert len({view.key for view in views.values()}) == 3 and both.key == tiny.key
    for name, folder in two_adapters.items():
        plain = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(model_source(model_spec("random-tiny"))[0], dtype=torch.float32),
            folder,
        ).eval()
        for conversation, reply, ours, text in zip(asked, replies, views[name].logprobs(asked, replies), said[name][0]):
            context, whole = both._encode(conversation), both._encode(conversation, reply)
            with torch.inference_mode():
                scores = torch.log_softmax(plain(torch.tensor([whole])).logits[0], -1)
                theirs = plain.generate(input_ids=torch.tensor([context]),
                                        attention_mask=torch.ones(1, len(context), dtype=torch.long), max_new_tokens=10,
                                        do_sample=False)[0, len(context):]
            assert (
                abs(ours.total - sum(scores[i - 1, whole[i]].item() for i in range(len(context), len(whole)))) < 1e-3
                and text == both.tokenizer.decode(theirs, skip_special_tokens=True).strip()
            )
    with pytest.raises(KeyError): both.with_adapter("third")


def test_replies_of_several_adapters_grow_in_turns_and_are_what_each_says_alone(two_adapters):
    "A token of each in turn: every step is taken under its own adapter, and keys and values are never another's."
    both = load_llm(model_spec("random-tiny"), "float32", "cpu", two_adapters, 4)
    views = [both, *map(both.with_adapter, two_adapters)]
    sampling = Sampling(max_tokens=12, temperature=0.8, repetition_penalty=1.1, seed=2)
    alone = [view.chat([user("Is it late?")], sampling)[0] for view in views]
    rounds = list(zip_longest(*(view.grow(user("Is it late?"), sampling) for view in views)))
    last = [[reply for reply in growth if reply][-1] for growth in zip(*rounds)]
    assert last == alone and len({reply.text for reply in alone}) == 3
    assert [reply.completion_tokens for reply in rounds[4]] == [5, 5, 5]
    with pytest.raises(ModelCallError, match="do not fit"): next(both.grow(user("word " * 3000), sampling))


def test_logprobs_share_the_prefix(tiny, monkeypatch):
    "The same numbers as without sharing, and the common beginning is read once."
    from contemplative_cai.models import local as engine
    read, read_prefix = [], engine.read_prefix
    monkeypatch.setattr(engine, "read_prefix", lambda model, ids: read.append(len(ids)) or read_prefix(model, ids))
    asked, replies = ([(*HEAD, *user(text)) for text in ("And then?", "What of the sea?", "Why?")],
                      ["It ends.", "Far.", "Nobody knows; ask it."])
    tiny._prefixes.clear()
    together = tiny.logprobs(asked, replies)
    alone = [tiny.logprobs([conversation], [reply])[0] for conversation, reply in zip(asked, replies)]
    assert len(read) == 1 and read[0] >= 64
    assert all(abs(a.total - b.total) < 1e-3 and a.tokens == b.tokens for a, b in zip(together, alone))
    tiny.chat(asked, GREEDY)
    assert len(read) == 1, "the next batch should find the prefix of the last"


def plainly(llm, conversation, reply):
    "The log-probability by one forward pass of the model's own, nothing packed, padded or shared."
    context, whole = llm._encode(conversation), llm._encode(conversation, reply)
    with torch.inference_mode(): scores = torch.log_softmax(llm.model(torch.tensor([whole])).logits[0].float(), -1)
    return sum(scores[i - 1, whole[i]].item() for i in range(len(context), len(whole)))


QUESTIONED = [(*HEAD, *user(f"Answer: {answer}\n\n{question}"))
              for answer in ("It ends in the sea.", "It ends where the rain begins, and the rain in the hills.")
              for question in ("Is it kind?", "Is it true?", "Is it kind to her?")]


@pytest.mark.parametrize("batch_size, tokens", [("auto", 8192), (5, 8192), ("auto", 200)])
def test_what_rows_begin_with_is_read_once_for_all_of_them(batch_size, tokens, monkeypatch):
    """Replies of one context, questions about one answer, one row twice, in any order and in passes of a few tokens:
    the numbers of one row at a time, which are a plain pass's."""
    llm, read = load_llm(model_spec("random-tiny"), "float32", "cpu", batch_size=batch_size), []
    rows = ([(context, reply) for reply in ("Yes", "No", "Yes, it is.") for context in QUESTIONED[::-1]]
            + [(QUESTIONED[0], "Yes"), (user("Is it late?"), "No")])
    alone = [llm.logprobs([context], [reply])[0] for context, reply in rows]
    monkeypatch.setattr("contemplative_cai.models.attention.PACKED_TOKENS", tokens)
    forward = llm.model.forward
    monkeypatch.setattr(
        llm.model, "forward",
        lambda input_ids, **options: read.append(input_ids.shape[1]) or forward(input_ids=input_ids, **options)
    )
    together = llm.logprobs(*zip(*rows))
    if (batch_size, tokens) == ("auto", 8192):
        assert len(read) == 1 and read[0] < 0.1 * sum(len(llm._encode(*row)) for row in rows)
    else: assert len(read) > 2
    assert [found.tokens for found in together] == [found.tokens for found in alone]
    assert [found.total for found in together] == pytest.approx([found.total for found in alone], abs=1e-4)
    assert [found.total for found in alone] == pytest.approx([plainly(llm, *row) for row in rows], abs=1e-4)


def test_replies_are_weighed_the_same_where_nothing_can_be_shared():
    "Padded rows: several replies of one context, in batches of like length."
    llm = load_llm(model_spec("random-tiny"), "float32", "cpu", batch_size=4)
    rows = [(context, reply) for context in QUESTIONED for reply in ("Yes", "No, it is not.")]
    shared, llm.shares_prefix = llm.logprobs(*zip(*rows)), False
    llm.model.set_attn_implementation("sdpa")  # as such a model is loaded: with an attention that knows of padding
    padded = llm.logprobs(*zip(*rows))
    assert ([found.total for found in padded] == pytest.approx([found.total for found in shared], abs=1e-4)
            and [found.tokens for found in padded] == [found.tokens for found in shared])
    assert llm.logprobs([], []) == []


@pytest.mark.parametrize("flows", [False, True])
def test_questions_about_several_answers_are_one_batch_that_reads_each_answer_once(flows, monkeypatch):
    "Too few of a kind for a batch of their own: the texts of one row at a time, a third of the tokens, one batch."
    llm, read = load_llm(model_spec("random-tiny"), "float32", "cpu", batch_size=32), []
    asked = [user(f"{text}\n\n{question}") for text in (f"It was {word} when he came, and she said so. " * 9
                                                        for word in ("late", "cold", "dark"))
             for question in ("Is it kind?", "Is it true, and is it needed?", "Is it kind to her?", "Is it short?")]
    alone = [llm.chat([conversation], GREEDY)[0] for conversation in asked]
    passes, llm.flows = PackedRows._forward, flows
    monkeypatch.setattr(PackedRows, "_forward", lambda rows, ids, *more: read.append(ids.numel()) or passes(rows, ids,
                                                                                                           *more))
    assert sorted(map(sorted, llm.batches(asked))) == [list(range(12))]
    together = llm.chat(asked, GREEDY)
    assert texts(together) == texts(alone) and read[0] == max(read)
    if not flows: assert read[0] == sum(one.prompt_tokens - (one.cached_tokens or 0) for one in together)
    assert read[0] < 0.4 * sum(one.prompt_tokens for one in together)


def test_nothing_is_weighed_where_nothing_is_asked(tiny): assert tiny.logprobs([], []) == []


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_eight_and_four_bits(quantization, tiny):
    "Smaller matrices, nearly the same scores, and a key of its own."
    if find_spec("bitsandbytes") is None: pytest.skip("needs the extra 'quantize'")
    small = load_llm(model_spec("random-tiny"), "float32", "cpu", None, 4, quantization)
    assert small.key == f"{tiny.key}/{quantization}"
    matrix = small.model.model.layers[0].mlp.up_proj.weight
    assert matrix.element_size() == 1 and matrix.numel() <= 128 * 64
    asked, replies = [user("Is it late?"), user("Why?")], ["No.", "Nobody knows."]
    for whole, less in zip(tiny.logprobs(asked, replies), small.logprobs(asked, replies)):
        assert 0 < abs(whole.total - less.total) < 0.1 * abs(whole.total)
    assert all(completion.completion_tokens for completion in small.chat(asked, GREEDY))


def test_quantization_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"int4 needs bitsandbytes.*\[quantize\]"):
        load_llm(model_spec("random-tiny"), "float32", "cpu", quantization="int4")


def test_layers_spread_by_device_map_say_the_same(tiny):
    asked = [user("Is it late?"), (*HEAD, *user("And now?")), (*HEAD, *user("Then?"))]
    assert (texts(load_llm(model_spec("random-tiny"), "float32", "cpu", device_map="auto").chat(asked, GREEDY))
            == texts(tiny.chat(asked, GREEDY)))


@pytest.mark.parametrize("architecture", ["gpt_neox", "qwen3", "windowed"])
def test_other_architectures_go_through_transformers_cache(architecture, tmp_path):
    """Greedy texts and log-probabilities of models whose attention is left to transformers,
    row by row against generate and a plain pass."""
    from transformers import (
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )
    load_tokenizer(model_spec("random-tiny")).save_pretrained(tmp_path)
    shape = dict(vocab_size=1024, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                 max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    grouped = shape | dict(num_key_value_heads=2, head_dim=8)
    torch.manual_seed(0)
    model = {"gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**shape)),
             "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**grouped)),
             "windowed": lambda: MistralForCausalLM(MistralConfig(**grouped, sliding_window=16))}[architecture]()
    model.save_pretrained(tmp_path)
    llm = load_llm(ModelSpec(name="other", kind="folder", hub_id=str(tmp_path)), "float32", "cpu", batch_size=3)
    assert not llm.shares_prefix
    asked, replies = [user("Is it late?"),
                      user("My brother borrows and never gives back, and I am tired of asking him."), user("Why?"),
                      user("Why?")], ["No.", "Tell him once.", "Nobody knows.", "Yes"]
    for conversation, reply, completion, found in zip(asked, replies, llm.chat(asked, GREEDY),
                                                      llm.logprobs(asked, replies)):
        context, whole = llm._encode(conversation), llm._encode(conversation, reply)
        with torch.inference_mode():
            theirs = llm.model.generate(torch.tensor([context]),
                                        attention_mask=torch.ones(1, len(context), dtype=torch.long), max_new_tokens=10,
                                        do_sample=False)[0, len(context):]
            scores = torch.log_softmax(llm.model(torch.tensor([whole])).logits[0], -1)
        assert completion.text == llm.tokenizer.decode(theirs, skip_special_tokens=True).strip()
        assert abs(found.total - sum(scores[i - 1, whole[i]].item() for i in range(len(context), len(whole)))) < 1e-3


@pytest.mark.slow
def test_compiled_says_the_same(tiny):
    asked = [user("Is it late?"), (*HEAD, *user("And now?")), (*HEAD, *user("Then?"))]
    assert (texts(load_llm(model_spec("random-tiny"), "float32", "cpu", compiled=True).chat(asked, GREEDY))
            == texts(tiny.chat(asked, GREEDY)))


class Qwen7B:
    hidden_size, num_attention_heads, num_key_value_heads, num_hidden_layers, vocab_size = 3584, 28, 4, 28, 152064


def test_batches_are_as_large_as_memory_allows_and_no_larger(monkeypatch):
    # two numbers a layer, head and place, and the scores
    assert row_bytes(Qwen7B, 1000, 2) == 2 * 28 * 4 * 128 * 1000 * 2 + 152064 * 7
    found = []
    for memory in (16e9, 24e9, 40e9, 80e9, 1e12):
        monkeypatch.setattr(weights, "memory_bytes", lambda device, memory=memory: memory)
        found.append(fitting_rows(Qwen7B, "cuda", 15.2e9, 1000, 2))
        assert found[-1] == 1 or 15.2e9 + found[-1] * row_bytes(Qwen7B, 1000, 2) < memory
    assert found == sorted(found) and found[0] == 1 and found[-1] == 256
    assert memory_bytes("cpu") > 1e8


def test_a_batch_too_large_for_memory_is_halved(tmp_path):
    "Four rows fail together; two go through; one row fails whatever its company."
    asked = []
    class Small(ScriptedLLM):
        def chat(self, conversations, sampling):
            asked.append(len(conversations))
            if len(conversations) > 2 or any(c[-1].content == "row 5" for c in conversations):
                raise ModelCallError("out of memory")
            return super().chat(conversations, sampling)
    with Journal(tmp_path / "j.sqlite") as journal:
        found = ask(Small(lambda c: c[-1].content, batch_size=8), journal, "respond",
                    [user(f"row {i}") for i in range(8)], GREEDY)
    assert (([c.reason if isinstance(c, CallFailed) else c.text for c in found]
             == [*(f"row {i}" for i in range(5)), "out of memory", "row 6", "row 7"])
            and asked == [8, 4, 2, 2, 4, 2, 1, 1, 2])


# Which engine, and nothing opened without need.
SERVED = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}


def test_the_engine_is_chosen_by_what_is_there(monkeypatch, tmp_path, runs):
    def of(**values): return choose_engine(build_recipe(values)).engine
    here = tmp_path / "python"
    monkeypatch.setattr(
        opening, "find_vllm",
        lambda python: here if python else (_ for _ in ()).throw(InputError("no python for vllm; run 'make vllm'"))
    )
    assert (of(device="cpu") == "transformers" and of(**SERVED) == "endpoint"
            and of(engine="vllm", vllm_python="x") == "vllm")
    with pytest.raises(InputError, match="make vllm"): of(engine="vllm")
    monkeypatch.setattr(opening, "pick_device", lambda wanted: "cuda")
    assert (of() == "transformers" and of(vllm_python="x") == "vllm"
            and of(vllm_python="x", quantization="int4") == "transformers")
    run = open_run("begun")
    run.record(engine={"engine": "transformers", "why": "it was so"})
    assert (choose_engine(build_recipe({"vllm_python": "x"}), run).engine
            == "transformers"), "a run goes on with the engine it was begun with"


@pytest.mark.parametrize("values, what", [
    ({"engine": "endpoint"}, "needs base_url"), ({**SERVED, "engine": "vllm"}, "take one of the two away"),
    ({"engine": "vlm"}, "engine"), ({"batch_size": 0}, "batch_size"), ({"batch_size": "many"}, "batch_size"),
    ({"quantization": "int2"}, "quantization")
])
def test_engines_that_make_no_sense_are_refused(values, what):
    with pytest.raises(InputError, match=what): build_recipe(values)


def test_a_run_on_a_server_and_its_rerun_without_one(runs, contemplative):
    "All calls go to the server; afterwards the server may be gone: a finished step asks for nothing."
    recipe, run = (build_recipe({"model": "m", "n_prompts": 3, "filters": "empty", "n_eval_prompts": 0, "guarded": [],
                                 "judge": "none"}), open_run("served"))
    with Server() as server:
        recipe = recipe.model_copy(update={"base_url": server.url})
        made = generate_pairs(run, recipe)
        assert len(server.asked) == 3 + 2 * 3 * 4 and len(made.kept) == 12
    assert generate_pairs(run, recipe) == made
    assert (run.manifest["model"].startswith(f"endpoint:m@127.0.0.1:{server.url.split(':')[2]}")
            and run.manifest["engine"] == {"engine": "endpoint", "why": "base_url names a server"})
    spent = read_ledger(run).stages["critique"]
    assert spent.calls == 12 and spent.tokens_in == 84


def test_a_rerun_of_finished_steps_loads_no_model(runs, contemplative, monkeypatch):
    "Generation and evaluation again, with a loader that must not be called."
    from contemplative_cai.evaluation.evaluate import evaluate
    from contemplative_cai.training.train import train
    recipe, run = build_recipe(
        {"model": "random-tiny", "device": "cpu", "dtype": "float32", "n_prompts": 10, "filters": "empty,identical",
         "answer_tokens": 8, "critique_tokens": 8, "revision_tokens": 8, "n_few_shot": 0, "n_eval_prompts": 2,
         "resamples": 200, "guarded": [], "epochs": 1}
        | RULES_ONLY | {"eval_judged": "helpfulness", "n_helpful": 2}
    ), open_run("again")
    made = generate_pairs(run, recipe)
    train(run, recipe)
    metrics = evaluate(run, recipe)
    def forbidden(*_): raise AssertionError("a model was loaded")
    monkeypatch.setattr(opening, "load_llm", forbidden)
    assert generate_pairs(run, recipe) == made and evaluate(run, recipe) == metrics


def test_editing_one_principle_redoes_its_critiques_and_revisions_only(runs, contemplative):
    from contemplative_cai.core.recipe import Recipe  # noqa: F401
    recipe, run = (build_recipe({"n_prompts": 5, "filters": "empty", "guarded": [], "n_eval_prompts": 0}),
                   open_run("edited"))
    llm = play(contemplative)
    generate_pairs(run, recipe, llm)
    before = len(llm.calls)
    changed = contemplative.principles[1]
    text = (load := load_constitution("contemplative")) and (runs.parent / "mine.md")
    shutil.copy("data/constitutions/contemplative.md", text)
    source = text.read_text()
    assert source.count(changed.critique_request) == 1
    text.write_text(source.replace(changed.critique_request, changed.critique_request + " Say it in one sentence."))
    generate_pairs(run, recipe.model_copy(update={"constitution": str(text)}), llm)
    again = Counter(next(p.id for p in load.principles
                         if p.critique_request in c[-1].content or p.revision_request in c[-1].content)
                    for c in llm.calls[before:])
    assert again == {changed.id: 10}


def test_a_model_that_changed_under_its_key_is_refused():
    recipe = build_recipe({"model": "random-tiny", "device": "cpu", "dtype": "float32"})
    with open_llm(recipe) as llm:
        llm._base_key = "random-tiny@000000000000/float32"
        with pytest.raises(ModelCallError, match="its weights or its precision changed"):
            llm.chat([user("Is it late?")], GREEDY)


@pytest.mark.parametrize("flows", [False, True])
def test_a_model_whose_scores_are_no_numbers_fails_instead_of_answering(flows):
    "Broken weights would otherwise answer with empty texts, and weigh every reply as nan."
    llm = load_llm(model_spec("random-tiny"), "float32", "cpu")
    llm.flows = flows
    with torch.no_grad(): llm.model.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    outcomes = {i: one for group in llm.stream([user("Is it late?"), user("Why?")], GREEDY) for i, one in group.items()}
    assert all(isinstance(one, CallFailed) and "not numbers" in one.reason for one in outcomes.values())
    with pytest.raises(ModelCallError, match="not numbers"): llm.logprobs([user("Is it late?")], ["Yes."])
