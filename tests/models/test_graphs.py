"""Rows that flow through fixed places say what they say in batches, and alone."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import user

from contemplative_cai.core.schema import Message
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.graphs import STEP_SIZES, FixedPlaces, fewest_places
from contemplative_cai.models.llm import CallFailed, ModelCallError, Sampling
from contemplative_cai.models.local import load_llm

TALK = (*user("We talked about rivers for a long time, and about the stones in them, " * 8),
        Message(role="assistant", content="Yes."))
QUESTIONS = ["Is it late?", "My brother borrows and never gives back. What now?", "Tell me about rivers.", "Why?",
             "What would a good neighbour do with a fence that has fallen?", "And the stones?", "Who is there?"]


@pytest.fixture(scope="module")
def tiny(): return load_llm(model_spec("random-tiny"), dtype="float32", device="cpu", batch_size=3)


def both(llm, conversations, sampling):
    "What the rows say in batches that only shrink, and in places that are filled again."
    llm.flows = False
    batches = llm.chat(conversations, sampling)
    llm.flows = True
    return batches, llm.chat(conversations, sampling)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(QUESTIONS), st.booleans()), min_size=1, max_size=12), st.integers(1, 24),
       st.sampled_from([0.0, 1.0]), st.sampled_from([1.0, 1.3]), st.integers(0, 5))
def test_places_change_no_word(tiny, asked, tokens, temperature, penalty, seed):
    conversations = [(*TALK, *user(text)) if long else user(text) for text, long in asked]
    sampling = Sampling(max_tokens=tokens, temperature=temperature, top_p=0.9, repetition_penalty=penalty, seed=seed)
    batches, places = both(tiny, conversations, sampling)
    assert ([(one.text, one.finish_reason, one.completion_tokens, one.prompt_tokens) for one in batches]
            == [(one.text, one.finish_reason, one.completion_tokens, one.prompt_tokens) for one in places])


@pytest.mark.long
def test_the_embedded_model_says_the_same_in_places():
    llm = load_llm(model_spec("smollm2-135m"), dtype="float32", device="cpu", batch_size=2)
    batches, places = both(llm, [user(text) for text in QUESTIONS[:4]],
                           Sampling(max_tokens=24, repetition_penalty=1.1))
    assert [one.text for one in batches] == [one.text for one in places]


def test_rows_are_handed_on_as_they_end(tiny, monkeypatch):
    monkeypatch.setattr("contemplative_cai.models.local.FLOW_SECONDS", 0.0)
    tiny.flows = True
    groups = list(tiny.stream([user(text) for text in QUESTIONS], Sampling(max_tokens=8)))
    assert len(groups) > 1 and sorted(i for group in groups for i in group) == list(range(len(QUESTIONS)))


def test_places_are_kept_for_the_next_stage_while_they_are_large_enough(tiny):
    tiny.flows = True
    conversations = [user(text) for text in QUESTIONS[:3]]
    tiny.chat(conversations, Sampling(max_tokens=8))
    first = tiny._held[1]
    tiny.chat([(*TALK[:1],), *conversations], Sampling(max_tokens=4, seed=3))
    assert tiny._held[1] is first
    tiny.chat(conversations, Sampling(max_tokens=4, temperature=1.0))
    assert tiny._held[1] is not first


def test_a_failure_costs_the_row_that_fails(tiny, monkeypatch):
    "Memory that runs out for one row in places fails that row alone, and the places are given up."
    enter = FixedPlaces.enter
    def refusing(self, rows, *others):
        if any(len(row) > 60 for row in rows): raise torch.OutOfMemoryError("CUDA out of memory")
        return enter(self, rows, *others)
    monkeypatch.setattr(FixedPlaces, "enter", refusing)
    tiny.flows = True
    conversations = [user(text) for text in (*QUESTIONS[:4], "stone " * 80, *QUESTIONS[4:])]
    groups = tiny.stream(conversations, Sampling(max_tokens=4))
    outcomes = {i: outcome for group in groups for i, outcome in group.items()}
    assert [i for i, outcome in outcomes.items() if isinstance(outcome, CallFailed)] == [4]
    assert sorted(outcomes) == list(range(8)) and "lower batch_size" in outcomes[4].reason
    with pytest.raises(ModelCallError): tiny.chat(conversations, Sampling(max_tokens=4))


@given(st.integers(1, 300), st.integers(1, 300))
def test_the_fewest_places_hold_the_rows_and_are_among_those_recorded(rows, most):
    size = fewest_places(min(rows, most), most)
    assert min(rows, most) <= size <= most and size in (*STEP_SIZES, most)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_recorded_step_says_what_a_started_one_says():
    llm = load_llm(model_spec("random-tiny"), dtype="float32", device="cuda", batch_size=3)
    batches, places = both(llm, [user(text) for text in QUESTIONS], Sampling(max_tokens=24))
    assert [one.text for one in batches] == [one.text for one in places] and llm._held[1]._graphs
