"""The boundary to models: sampling, log-probabilities against TRL, shared prefixes, the journal."""
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support import user

from contemplative_cai.core.journal import Journal
from contemplative_cai.core.schema import InputError
from contemplative_cai.models.ask import _stretches, ask
from contemplative_cai.models.attention import PackedRows, common_prefix, read_prefix, shared_with_previous
from contemplative_cai.models.batches import JOINED_BELOW, cut_rows
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.decode import choose_tokens, penalise
from contemplative_cai.models.llm import CallFailed, ModelCallError, Sampling, ScriptedLLM
from contemplative_cai.models.local import load_llm


@pytest.fixture(scope="module")
def tiny(): return load_llm(model_spec("random-tiny"), "float32", "cpu", batch_size=3)


def test_sampling_follows_the_model():
    "20,000 draws against the softmax, by a chi-square test."
    logits = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0]])
    generator = torch.Generator().manual_seed(0)
    drawn = [choose_tokens(logits, Sampling(max_tokens=1, temperature=0.8), [generator]).item() for _ in range(20_000)]
    expected = torch.softmax(logits[0].double() / 0.8, -1).numpy() * len(drawn)
    assert stats.chisquare(np.bincount(drawn, minlength=5), expected).pvalue > 0.001


def test_the_nucleus_keeps_the_likeliest_and_no_tail():
    logits, generator = torch.tensor([[3.0, 2.0, -2.0, -3.0]]), torch.Generator().manual_seed(0)
    assert {choose_tokens(logits, Sampling(max_tokens=1, temperature=1, top_p=0.9), [generator]).item()
            for _ in range(500)} == {0, 1}
    assert {choose_tokens(logits, Sampling(max_tokens=1, temperature=1, top_p=0.01), [generator]).item()
            for _ in range(50)} == {0}


def test_the_repetition_penalty_is_transformers():
    from transformers import RepetitionPenaltyLogitsProcessor
    logits, ids = torch.randn(2, 12), torch.tensor([[1, 4, 4], [0, 2, 9]])
    seen = torch.zeros(2, 12, dtype=torch.bool).scatter_(1, ids, True)
    assert torch.allclose(penalise(logits, seen, 1.3), RepetitionPenaltyLogitsProcessor(1.3)(ids, logits.clone()))


def test_greedy_text_is_transformers_own(tiny):
    "Our decoding loop against model.generate, with a repetition penalty."
    conversations = [user("Is it late?"),
                     user("My brother borrows and never gives back, and I am tired of asking him.")]
    ours = tiny.chat(conversations, Sampling(max_tokens=12, repetition_penalty=1.2))
    for conversation, completion in zip(conversations, ours):
        ids = torch.tensor([tiny._encode(conversation)])
        theirs = tiny.model.generate(ids, max_new_tokens=12, do_sample=False, repetition_penalty=1.2)[0, ids.shape[1]:]
        assert completion.text == tiny.tokenizer.decode(theirs, skip_special_tokens=True).strip()


@given(st.lists(st.text("abc def", min_size=1, max_size=60), min_size=2, max_size=5), st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_row_does_not_depend_on_its_company_or_order(tiny, texts, shared):
    head = "We spoke of rivers and of the stones in them for a long time. " * 6 if shared else ""
    conversations, sampling = [user(head + text) for text in texts], Sampling(max_tokens=6, temperature=1.0, seed=1)
    def said(some): return [(c.text, c.finish_reason, c.completion_tokens) for c in tiny.chat(some, sampling)]
    assert (said(conversations) == [said([conversation])[0] for conversation in conversations]
            == said(conversations[::-1])[::-1])


def test_shared_prefix_logits_are_plain_attention(tiny):
    """The score of every next token, read packed behind a shared prefix and continued,
    against plain forward passes in float32."""
    rows = [tiny._encode(user("We spoke of rivers and of the stones in them. " * 9 + end))
            for end in ("And then?", "What of the sea, and of the rain that feeds it?", "Why?")]
    prefix = common_prefix(rows)
    def plain(row): return tiny.model(torch.tensor([row])).logits[0, -1]
    with torch.inference_mode():
        batch = PackedRows(tiny.model, [row[prefix:] for row in rows], read_prefix(tiny.model, rows[0][:prefix]),
                           room=4)
        assert prefix > 64 and torch.allclose(torch.stack([scores[-1] for scores in batch.read()]),
                                              torch.stack([plain(row) for row in rows]), atol=1e-4)
        assert torch.allclose(batch.step(torch.tensor([5, 6, 7])),
                              torch.stack([plain([*row, token]) for row, token in zip(rows, (5, 6, 7))]), atol=1e-4)
        order = batch.keep([1, 2])  # the first row leaves, the last moves into its place
        assert order == [2, 1] and torch.allclose(
            batch.step(torch.tensor([8, 9])), torch.stack([plain([*rows[2], 7, 8]), plain([*rows[1], 6, 9])]), atol=1e-4
        )


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(0, 2**9 - 1))
@settings(max_examples=25, deadline=None)
def test_rows_read_in_several_passes_and_let_go_in_any_order_stay_themselves(tiny, lengths, chosen):
    "Packed in passes of a few tokens; whichever rows leave, those that stay go on as if alone."
    draw = torch.Generator().manual_seed(sum(lengths))
    rows = [torch.randint(3, 1000, (length,), generator=draw).tolist() for length in lengths]
    going = [i for i in range(len(rows)) if chosen >> i & 1] or [0]
    def plain(row): return tiny.model(torch.tensor([row])).logits[0, -1]
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("contemplative_cai.models.attention.PACKED_TOKENS", 30)
        batch = PackedRows(tiny.model, rows, [], room=2)
        first = torch.cat(list(batch.read()))
        assert torch.allclose(first, torch.stack([plain(row) for row in rows]), atol=1e-4)
        batch.step(torch.full((len(rows),), 7))
        order = batch.keep(going)
        assert sorted(order) == going and torch.allclose(
            batch.step(torch.full((len(order),), 9)), torch.stack([plain([*rows[i], 7, 9]) for i in order]), atol=1e-4
        )


@given(st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=12), min_size=1, max_size=9), st.integers(5, 40))
@settings(max_examples=25, deadline=None)
def test_rows_that_are_only_scored_take_over_what_the_row_before_has(tiny, rows, tokens):
    """Sorted or not, alike or not, with a prefix or without,
    in passes of any size: all scores are those of a plain pass."""
    def plain(row): return tiny.model(torch.tensor([row])).logits[0]
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("contemplative_cai.models.attention.PACKED_TOKENS", tokens)
        for listed, head in ((rows, []), (sorted(rows), [7] * 5)):
            batch = PackedRows(tiny.model, listed, read_prefix(tiny.model, head) if head else [])
            for row, scores in zip(listed, batch.read([len(row) for row in listed]), strict=True):
                assert torch.allclose(scores, plain([*head, *row])[len(head):], atol=1e-4)


@given(st.lists(st.lists(st.integers(3, 4), min_size=1, max_size=12), min_size=1, max_size=9), st.integers(5, 40),
       st.integers(1, 4), st.booleans())
@settings(max_examples=25, deadline=None)
def test_rows_that_are_continued_take_over_what_the_row_before_has(tiny, rows, tokens, least, behind):
    """From so many tokens on, in passes of any size, behind a prefix or not:
    the scores of a plain pass, at once and a step later."""
    def plain(row): return tiny.model(torch.tensor([row])).logits[0, -1]
    rows, head = sorted(rows), [7] * 5 if behind else []
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("contemplative_cai.models.attention.PACKED_TOKENS", tokens)
        patch.setattr("contemplative_cai.models.attention.TAKEN_FROM", least)
        batch = PackedRows(tiny.model, rows, read_prefix(tiny.model, head) if head else [], room=1)
        assert batch.taken == [less if less >= least else 0 for less in shared_with_previous(rows)]
        assert torch.allclose(torch.cat(list(batch.read())), torch.stack([plain(head + row) for row in rows]),
                              atol=1e-4)
        assert torch.allclose(batch.step(torch.full((len(rows),), 9)),
                              torch.stack([plain([*head, *row, 9]) for row in rows]), atol=1e-4)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 80), st.integers(1, 3)), max_size=60),
       st.sampled_from((1, 2, 4, 32)))
@settings(max_examples=60, deadline=None)
def test_batches_hold_every_row_once_and_stay_whole_when_they_are_cut_again(shapes, size):
    "As `ask` does: batches of a whole stage are handed to a model that cuts again; only a last one may be small."
    rows = [[head] * length + [tail] for head, length, tail in shapes]
    batches = cut_rows(rows, lambda group: size)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    assert all(len(batch) <= size for batch in batches)
    assert sum(2 * len(batch) < min(size, 2 * JOINED_BELOW) for batch in batches) <= 1
    for batch in batches:
        again = cut_rows([rows[i] for i in batch], lambda group: size)
        assert len(again) == 1 and sorted(again[0]) == list(range(len(batch)))


@given(st.lists(st.text("ab ", max_size=6), max_size=40), st.integers(1, 9))
def test_stretches_are_the_list_in_order_none_too_long_and_none_but_the_last_short(texts, size):
    stretches = _stretches([user(text) for text in texts], size)
    assert [i for stretch in stretches for i in stretch] == list(range(len(texts)))
    assert all(size // 2 < len(stretch) <= size for stretch in stretches[:-1])
    assert not stretches or 0 < len(stretches[-1]) <= size


def test_a_stretch_ends_between_two_answers():
    asked = [user(f"Answer {answer}.\n{question}?") for answer in "abcd" for question in range(5)]
    assert [len(stretch) for stretch in _stretches(asked, 8)] == [5, 5, 5, 5]


def test_logprobs_are_trls(tiny, tmp_path):
    "Sequence log-probabilities against those TRL's DPOTrainer logs for the same pair."
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    from contemplative_cai.models.weights import model_source
    row = {"prompt": [{"role": "user", "content": "Is it late?"}],
           "chosen": [{"role": "assistant", "content": "Not yet; sit down."}],
           "rejected": [{"role": "assistant", "content": "Yes."}]}
    model = AutoModelForCausalLM.from_pretrained(model_source(model_spec("random-tiny"))[0], dtype=torch.float32)
    settings = DPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, max_steps=1, per_device_train_batch_size=1,
                         logging_steps=1, report_to="none", activation_checkpointing=False, disable_tqdm=True)
    trainer = DPOTrainer(model=model, args=settings, train_dataset=Dataset.from_list([row]),
                         processing_class=tiny.tokenizer)
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "logps/chosen" in entry)
    ours = tiny.logprobs([user("Is it late?")] * 2, ["Not yet; sit down.", "Yes."])
    assert abs(ours[0].total - logged["logps/chosen"]) < 1e-2 and abs(ours[1].total - logged["logps/rejected"]) < 1e-2


def test_a_context_that_is_too_long_costs_only_its_own_row(tiny, tmp_path):
    with Journal(tmp_path / "j.sqlite") as journal:
        found = ask(tiny, journal, "respond", [user("Is it late?"), user("word " * 4000), user("And now?")],
                    Sampling(max_tokens=4))
    assert (isinstance(found[1], CallFailed) and "context" in found[1].reason
            and not isinstance(found[0], CallFailed) and not isinstance(found[2], CallFailed))


def test_failures_are_retried_and_never_become_text(tmp_path):
    broken = {"two"}
    llm = ScriptedLLM(lambda c: ModelCallError("the line went dead") if c[-1].content in broken else "Fine.",
                      batch_size=2)
    conversations, sampling = [user(text) for text in ("one", "two", "three")], Sampling(max_tokens=5)
    with Journal(tmp_path / "j.sqlite") as journal:
        assert ([isinstance(c, CallFailed) for c in ask(llm, journal, "respond", conversations, sampling)]
                == [False, True, False])
        assert journal.totals()["respond"]["failed"] == 1
        broken.clear()
        assert [c.text for c in ask(llm, journal, "respond", conversations, sampling)] == ["Fine."] * 3
        assert journal.totals()["respond"]["failed"] == 0


def test_a_model_that_never_answers_is_an_error(tmp_path):
    with (Journal(tmp_path / "j.sqlite") as journal,
          pytest.raises(ModelCallError, match="all 2 calls of stage 'respond' failed")):
        ask(ScriptedLLM(lambda c: ModelCallError("out of memory")), journal, "respond", [user("a"), user("b")],
            Sampling(max_tokens=5))


def test_everything_an_answer_depends_on_is_in_the_key(tmp_path):
    """Another model, temperature, seed, template or stage is another call;
    another limit only where it would change the answer."""
    llm, other = ScriptedLLM(lambda c: "a"), ScriptedLLM(lambda c: "b", key="other")
    base = Sampling(max_tokens=5)
    variants = [(llm, "respond", base, ""), (other, "respond", base, ""), (llm, "critique", base, ""),
                (llm, "respond", base, "t@1")]
    variants += [(llm, "respond", base.model_copy(update=change), "")
                 for change in ({"seed": 1}, {"temperature": 0.5}, {"top_p": 0.5}, {"repetition_penalty": 1.1})]
    with Journal(tmp_path / "j.sqlite") as journal:
        for model, stage, sampling, template in itertools.chain(variants, variants):
            ask(model, journal, stage, [user("x")], sampling, template)
    assert len(llm.calls) + len(other.calls) == len(variants)


def test_raising_the_limit_asks_again_only_what_it_had_cut_off(tmp_path):
    llm = ScriptedLLM(lambda c: c[-1].content)
    texts = ["one", "one two three four", "one two"]
    def all_of(limit):
        return [(c.text, c.finish_reason)
                for c in ask(llm, journal, "respond", [user(text) for text in texts], Sampling(max_tokens=limit))]
    with Journal(tmp_path / "j.sqlite") as journal:
        assert all_of(2) == [("one", "stop"), ("one two", "length"), ("one two", "stop")]
        assert (all_of(8) == [("one", "stop"), ("one two three four", "stop"), ("one two", "stop")]
                and len(llm.calls) == 4)
        # the shorter limit has its own row; below a text's length it is cut again
        assert all_of(2)[1] == ("one two", "length") and all_of(1)[2] == ("one", "length") and len(llm.calls) == 6
        assert journal.totals()["respond"]["calls"] == 6


def test_a_missing_device_is_said():
    if torch.cuda.is_available(): pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="device 'cuda'"): load_llm(model_spec("random-tiny"), device="cuda")
