"""Servers that people run or rent, each with the words it is known for:
right answers are understood, errors are told."""
import json
import re
import time
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_server import Server, completion
from support import user

from contemplative_cai.core.project import MOST_NAMES, did_you_mean
from contemplative_cai.core.schema import InputError
from contemplative_cai.models.endpoint import EndpointLLM, describe_served
from contemplative_cai.models.llm import CallFailed, Completion, ModelCallError, Sampling
from contemplative_cai.models.replies import (
    MOST_EVENTS,
    REPEATED,
    clean_reason,
    read_body,
    read_completion,
    refused_parameters,
    same_model,
    text_of,
)

GREEDY, DRAWN = Sampling(max_tokens=24, top_p=0.9), Sampling(max_tokens=24, temperature=0.7, top_p=0.9, seed=3)


@pytest.fixture(autouse=True)
def hurried(monkeypatch): monkeypatch.setattr("contemplative_cai.models.endpoint.PAUSE", 0.01)


def outcome_at(answer, sampling=DRAWN):
    "What a row comes to at a server that answers like that, what the server was asked, and what was told."
    with Server(answer) as server:
        llm = EndpointLLM(server.url, "m", retries=1, timeout=3, concurrency=1)
        try: outcome = next(iter(llm.stream([user("Hello?")], sampling)))[0]
        except ModelCallError as error: outcome = error
        return outcome, server.bodies, llm.learned.notes


# Values that a server refuses.

REFUSED = {
    "TGI": ("top_p", 422, {"error": "Input validation error: `top_p` must be > 0.0 and < 1.0",
                           "error_type": "validation"}),
    "Mistral": ("top_p", 400, {"object": "error", "message": "top_p must be 1 when using greedy sampling."}),
    "OpenAI": ("seed", 400, {"error": {"message": "Invalid 'seed': integer above maximum value. Expected a value <= 9.",
                                       "param": "seed", "code": "integer_above_max_value"}}),
    "pydantic": ("seed", 422, {"detail": [{"loc": ["body", "seed"], "msg": "Input should be less than 65536"}]}),
}


@pytest.mark.parametrize("project, sampling", [*product(REFUSED, (GREEDY, DRAWN))])
def test_a_value_that_changes_little_is_left_out_and_told(project, sampling):
    name, status, body = REFUSED[project]
    outcome, bodies, notes = outcome_at(lambda h, _: name in h.server.bodies[-1] and h.send(status, body), sampling)
    assert outcome.text == "right: Hello?" and len(bodies) == 2 and bodies[1].keys() == bodies[0].keys() - {name}
    assert len(notes) == 1 and f"does not take {name}" in notes[0]


@pytest.mark.parametrize("words", ["temperature: range: 0..1", "Invalid 'temperature': must be strictly positive",
                                   "`max_tokens` must be <= 2048",
                                   "content must be no recipe for a seed or top_p cake"])
def test_a_value_that_matters_is_not_given_up(words):
    assert refused_parameters({"error": {"message": words}}) == []


# Answers.

def with_message(content, end="stop", **more):
    answer = completion(content, end)
    answer["choices"][0]["message"].update(more)
    return answer


def events(*rows): return "".join(f"data: {json.dumps(row)}\n\n" for row in rows).encode() + b"data: [DONE]\n\n"
def piece(text, number=0, end=None): return {"choices": [{"index": number, "delta": {"content": text},
                                                          "finish_reason": end}]}


parts = [{"type": "text", "text": "Not "}, {"type": "text", "text": {"value": "yet.", "annotations": []}}]
RIGHT = {
    "Cohere's marks": with_message("<|START_RESPONSE|>Not yet.<|END_RESPONSE|>"),
    "ChatML's marks": with_message("<|im_start|>assistant\nNot yet.<|im_end|>"),
    "Llama's marks": with_message("<|start_header_id|>assistant<|end_header_id|>\n\nNot yet.<|eot_id|>"),
    "Gemma's marks": with_message("<start_of_turn>model\nNot yet.<end_of_turn>"),
    "DeepSeek's marks": with_message("<｜Assistant｜>Not yet.<｜end▁of▁sentence｜>"),
    "harmony's channels": with_message("<|start|>assistant<|channel|>final<|message|>Not yet.<|return|>"),
    "SGLang's end": with_message("Not yet.", {"type": "stop", "matched": 2}),
    "a text in a value": with_message(parts),
    "choices out of order": {"choices": [{"index": 1, "message": {"content": "B"}, "finish_reason": "stop"},
                                         {"index": 0, "message": {"content": "Not yet."}, "finish_reason": "stop"}]},
    "choices counted from one": {
        "choices": [{"index": 1, "message": {"content": "Not yet."}, "finish_reason": "stop"}]
    },
    "events of two choices": events(piece("B", 1), piece("Not "), piece("C", 1), piece("yet.", end="stop")),
    "events counted from one": events(piece("Not ", 1), piece("yet.", 1, "stop")),
    "events with parts": events(piece(parts, end="stop")),
    "Azure's filter results": events({"choices": [], "prompt_filter_results": []}, piece("Not yet.", end="stop")),
    "keep-alive comments": b": OPENROUTER PROCESSING\n\n" * 9 + events(piece("Not yet.", end="stop")),
}


@pytest.mark.parametrize("project", RIGHT)
def test_a_right_answer_is_understood(project):
    answer = RIGHT[project]
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    assert read_completion(read_body(content), 24).text == "Not yet."


lost = {"code": 502, "message": "the provider is gone"}
ERRORS = {
    "in a choice, without an end": {"choices": [{"error": lost, "message": {"content": ""}, "finish_reason": None}]},
    "in a choice, half said": {"choices": [{"error": lost, "message": {"content": "Half"}, "finish_reason": "error"}]},
    "beside choices": {"choices": None, "error": lost},
    "by its kind": {"object": "error", "message": "the provider is gone"},
    "by its type": {"type": "error", "error": {"message": "the provider is gone"}},
    "of a gateway": {"message": "the provider is gone"}, "of a framework": {"detail": "the provider is gone"},
    "as an event": b'event: error\ndata: {"message": "the provider is gone", "type": "overloaded_error"}\n\n',
    "as the last event": events(piece("Half"), {"error": lost, "choices": [{"delta": {}, "finish_reason": "error"}]}),
}


@pytest.mark.parametrize("form", ERRORS)
def test_an_error_in_the_place_of_an_answer_is_no_answer(form):
    "It is asked again, and told in the server's words."
    outcome, bodies, _ = outcome_at(lambda h, _: h.send(200, ERRORS[form]))
    assert isinstance(outcome, CallFailed) and len(bodies) == 2 and "the provider is gone" in outcome.reason


@pytest.mark.parametrize("end", ["refusal", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "content_filter",
                                 "SAFETY", "sensitive", "ERROR_TOXIC"])
def test_refusals_of_single_rows_stop_nothing(end):
    with Server(lambda h, _: h.send(200, completion("", end))) as server:
        outcomes = {}
        for group in EndpointLLM(server.url, "m").stream([user(f"row {i}") for i in range(40)], DRAWN):
            outcomes.update(group)
        assert len(server.asked) == 40 and not any("not asked" in outcome.reason for outcome in outcomes.values())


@pytest.mark.parametrize("message", [{"role": "assistant"}, {"content": None, "thinking": "hm"},
                                     {"content": None, "reasoning_details": [{"text": "hm"}]}])
def test_a_limit_used_up_by_thinking_says_what_to_raise(message):
    assert ("raise answer_tokens"
            in read_completion({"choices": [{"message": message, "finish_reason": "length"}]}).reason)


# Lists of models.

LISTED = {"a router's variant": ({"data": [{"id": "owner/m"}]}, "owner/m:fast"),
          "a folder of models": ({"data": [{"id": "models/m"}]}, "m"),
          "the variant itself": ({"data": [{"id": "owner/m"}, {"id": "owner/m:free"}]}, "owner/m:free")}
CANNOT_TELL = {
    "a first page": {"data": [{"id": "n"}], "has_more": True},
    "a page with a next": {"data": [{"id": "n"}], "next_page_token": "x"},
    "Azure's catalogue": {"data": [{"id": "n", "lifecycle_status": "preview", "deprecation": {"inference": 1}}]},
    "other names": {"data": [{"slug": "n"}]},
    "by name": {"data": {"n": {}}},
}


def described(body, model):
    with Server() as server:
        server.RequestHandlerClass = type("Lister", (server.RequestHandlerClass,),
                                          {"do_GET": lambda handler: handler.send(200, body)})
        return describe_served(server.url, model)


@pytest.mark.parametrize("form", LISTED)
def test_a_name_that_a_list_means_is_served(form): assert described(*LISTED[form]).note == ""


@pytest.mark.parametrize("form", CANNOT_TELL)
def test_a_list_that_may_lack_a_model_refuses_none(form):
    assert "whether 'm' is, the first row tells" in described(CANNOT_TELL[form], "m").note


@pytest.mark.parametrize("names, model",
                         [(["m:latest"], "m:7b"), (["owner/m:free"], "owner/m:fast"), (["owner/n"], "owner/m:x")])
def test_another_tag_is_another_model(names, model):
    with pytest.raises(InputError, match="is not served"): described({"data": [{"id": name} for name in names]}, model)


def test_a_variant_that_answers_by_its_model_is_no_other(): assert same_model("owner/m:fast", "owner/m")


# Bounds.

@pytest.mark.long
def test_a_list_of_a_hundred_thousand_models_is_searched_at_once():
    started = time.monotonic()
    with pytest.raises(InputError, match="did you mean 'org-1/m-1-instruct'"):
        described({"data": [{"id": f"org-{i}/m-{i}-instruct"} for i in range(100_000)]}, "org-1/m-1-instrukt")
    assert time.monotonic() - started < 5


def test_a_wrong_name_among_many_is_told_at_once():
    started = time.monotonic()
    assert len(did_you_mean("x" * 10**6, [f"{'y' * 90}{i}" for i in range(50_000)])) < 200 * MOST_NAMES
    assert time.monotonic() - started < 3


def test_a_stream_of_nothing_is_refused_at_once():
    started = time.monotonic()
    with pytest.raises(ValueError, match="no answer has so many"): read_body(b"data: {}\n" * (20 * MOST_EVENTS))
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("mark", ["<|im_end|>", "<|im_end|>\n ", "<｜a｜>"])
def test_marks_without_end_are_taken_off_at_once(mark):
    started = time.monotonic()
    assert text_of("Fine." + mark * 100_000) == "Fine." and time.monotonic() - started < 2


@pytest.mark.parametrize("reason, request_text", [("aaaaaaaaaaab" * 200, "a" * 400_000), ("ab" * 1000, "ab" * 200_000)])
def test_what_a_reason_repeats_is_found_at_once(reason, request_text):
    started = time.monotonic()
    clean_reason(reason, [request_text])
    assert time.monotonic() - started < 2


@given(st.text("abcé仁慈 ", min_size=0, max_size=60), st.text("abcé仁慈 ", max_size=80), st.integers(0, 40))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_stretch_of_a_request_is_left(text, reason, place):
    "Twelve letters in a row, or five where a script writes words with one or two."
    cleaned = clean_reason(f"{reason[:place]}{text}{reason[place:]}", [text]).replace(REPEATED, "|")
    letters = "".join(filter(str.isalnum, text.casefold()))
    left = ["".join(filter(str.isalnum, part.casefold())) for part in cleaned.split("|")]
    assert not any(letters[i:i + 12] in part for part in left for i in range(len(letters) - 11))
    for run in re.findall("[仁慈]{5}", letters): assert not any(run in part for part in left)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=6),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
                        ["choices", "index", "delta", "message", "content", "error", "type", "text", "value", "object",
                         "finish_reason", "detail"]), inner, max_size=4), max_leaves=16))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_event_is_read_or_refused(event):
    for content in (json.dumps(event).encode(), events(event), events(event, piece("a", end="stop"))):
        try: assert isinstance(read_completion(read_body(content), 24), Completion | CallFailed)
        except ValueError as error: assert "expected" in str(error)
