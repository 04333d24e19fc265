"""Servers as they are: every dialect with every fault, drawn; each row ends answered or refused, and nothing leaks."""
import contextlib
import gzip
import html
import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
import time
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from model_server import Server, completion
from support import ROOT, user

from contemplative_cai.core.journal import Journal
from contemplative_cai.core.schema import InputError
from contemplative_cai.models.ask import ask
from contemplative_cai.models.endpoint import (
    ALIKE,
    EndpointLLM,
    check_key_name,
    check_served,
    describe_served,
    served_key,
)
from contemplative_cai.models.llm import CallFailed, Completion, ModelCallError, Sampling
from contemplative_cai.models.replies import clean_reason, most_characters, read_body, read_completion

SAMPLING = Sampling(max_tokens=24, temperature=0.7, top_p=0.9, seed=3)
SECRET = "sk-planted-0123456789abcdef"
PROMPT = "My neighbour plays the trumpet at night; what can I say to her, number {}?"


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    "Short pauses between tries, and a key that must turn up nowhere."
    monkeypatch.setattr("contemplative_cai.models.endpoint.PAUSE", 0.01)
    monkeypatch.setenv("CCAI_API_KEY", SECRET)


def settled(**more):
    return settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
                    **more)


# What a server makes of a right answer. Each takes the answer and changes it.

def said(answer, **more): answer["choices"][0]["message"].update(more); return answer
def ended(answer, reason): answer["choices"][0]["finish_reason"] = reason; return answer
def named(answer, name): answer["model"] = name; return answer


def as_events(answer):
    text = answer["choices"][0]["message"]["content"]
    text = text if isinstance(text, str) else text[-1]["text"]
    parts = [{"choices": [{"delta": {"content": part}}]} for part in (text[:5], text[5:])]
    parts.append({"choices": [{"delta": {}, "finish_reason": answer["choices"][0]["finish_reason"]}]})
    for part in parts: part.update({name: answer[name] for name in ("model", "usage") if name in answer})
    return "".join(f"data: {json.dumps(part)}\n\n" for part in parts).encode() + b"data: [DONE]\n\n"


ENDS = ["stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "FinishReason.STOP", None, ""]
CONTENTS = {
    "text": lambda a: a,
    "parts": lambda a: said(a, content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                                        {"type": "text", "text": a["choices"][0]["message"]["content"]}]),
    "reasoning beside it": lambda a: said(a, reasoning_content="They ask about a neighbour."),
    "thinking before it": lambda a: said(a,
                                         content=f"<think>\nHm.\n</think>\n\n{a['choices'][0]['message']['content']}"),
    "the end of thinking": lambda a: said(a, content=f"Hm.\n</think>\n\n{a['choices'][0]['message']['content']}"),
    "marks at its end": lambda a: said(a, content=a["choices"][0]["message"]["content"] + "<|im_end|>\n<|endoftext|>"),
    "blanks around it": lambda a: said(a, content=f"\n {a['choices'][0]['message']['content']}\n\n"),
    "no role": lambda a: (a["choices"][0]["message"].pop("role"), a)[1],
}
USAGES = [{"prompt_tokens": 7, "completion_tokens": 3}, {"prompt_tokens": "7", "completion_tokens": 3}, None, {}, [],
          {"prompt_tokens": -1, "completion_tokens": 10**30}, {"prompt_tokens": True, "completion_tokens": 2.5}]
WIRES = {"plain": lambda a: json.dumps(a).encode(), "blank lines": lambda a: b"\n\n  " + json.dumps(a).encode(),
         "byte order mark": lambda a: b"\xef\xbb\xbf" + json.dumps(a).encode(),
         "raw UTF-8": lambda a: json.dumps(a, ensure_ascii=False).encode(), "events": as_events}
NAMES = [None, "m", "m:latest", "m-2026-01-31", "another-model", 7]
WORDS = {"openai": lambda name: (400, {"error": {"message": f"Unsupported parameter: '{name}' is not supported with "
                                                            "this model.", "param": name}}),
         "pydantic": lambda name: (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", name],
                                                     "msg": "Extra inputs are not permitted", "input": 1}]}),
         "mistral": lambda name: (422, {"message": {"detail": [{"loc": ["body", name], "msg": "Extra inputs are not "
                                                                                            "permitted"}]}}),
         "prose": lambda name: (400, f"unknown field {name} in request")}

dialects = st.fixed_dictionaries({
    "end": st.sampled_from(ENDS), "content": st.sampled_from(sorted(CONTENTS)), "usage": st.sampled_from(USAGES),
    "wire": st.sampled_from(sorted(WIRES)), "name": st.sampled_from(NAMES), "words": st.sampled_from(sorted(WORDS)),
    "refused": st.sets(st.sampled_from(["seed", "temperature", "top_p", "max_tokens"]), max_size=4)})


def speak(dialect, handler, asked):
    "Answer in a dialect."
    body = handler.server.bodies[-1] if len(handler.server.bodies) == 1 else next(
        body for body in reversed(handler.server.bodies) if body["messages"][-1]["content"] == asked)
    if wrong := sorted(dialect["refused"] & body.keys()): return handler.send(*WORDS[dialect["words"]](wrong[0]))
    answer = ended(completion(f"right: {asked}"), dialect["end"]) | {"usage": dialect["usage"]}
    if dialect["name"] is not None: named(answer, dialect["name"])
    return handler.send(200, WIRES[dialect["wire"]](CONTENTS[dialect["content"]](answer)))


# What goes wrong at a server.

DEEP = b'{"choices": ' + b"[" * 100_000
LONG = {"content-type": "text/plain"}


def broken_reply(text): return lambda h, asked: h.send(200, text)
def error(status, message): return lambda h, asked: h.send(status, {"error": {"message": message(asked)}})


FAULTS = {
    "busy": lambda h, asked: h.send(429, {"error": {"message": "slow down"}}, {"retry-after": "0.02"}),
    "busy for long": lambda h, asked: h.send(429, {}, {"retry-after": "999999"}),
    "busy, in odd words": lambda h, asked: h.send(503, b"\xff\xfe\x00", {"retry-after": "nan"}),
    "broken": error(500, lambda asked: "CUDA error\x1b[2J\x1b]0;owned\a\r\nccai: done"),
    "echoes the prompt": error(500, lambda asked: f"failed on {asked!r}"),
    "echoes it escaped": error(400, lambda asked: f"bad row {json.dumps(asked)} {quote(asked)} {html.escape(asked)}"),
    "echoes the key": lambda h, asked: h.send(418, {"error": h.headers["authorization"]}),
    "silent": lambda h, asked: time.sleep(0.6) or h.drop(),
    "hung up": lambda h, asked: h.drop(),
    "hung up half way": lambda h, asked: h.send(200, b'{"choi', length=9000) and h.drop(),
    "half an answer": broken_reply(json.dumps(completion("half")).encode()[:60]),
    "a page": lambda h, asked: h.send(200, f"<!doctype html><title>{asked}</title>".encode(), LONG),
    "nothing": broken_reply(b""), "a word": broken_reply(b"ok"), "a list": broken_reply(b"[]"),
    "deep": broken_reply(DEEP), "a number": broken_reply(b"9" * 6000), "not UTF-8": broken_reply(b'{"a": "\xff\xc3"}'),
    "cut stream": broken_reply(b'data: {"choices":[{"delta":{"content":"Fi"}}]}\n\n'),
    "no choices": broken_reply(b'{"choices": null}'), "a wrapped error": broken_reply(b'{"error": {"code": 502}}'),
    "half a sign": lambda h, asked: h.send(200, json.dumps(completion("half \ud83d")).encode()),
    "nothing to read": lambda h, asked: h.send(200, completion(None)),
    "thought only": lambda h, asked: h.send(200, said(completion(None, "length"), reasoning_content=asked)),
    "a megabyte": lambda h, asked: h.send(200, completion("la " * 300_000)),
    "three megabytes": lambda h, asked: h.send(200, b" " * 3_000_000),
    "a bomb": lambda h, asked: h.send(200, gzip.compress(b" " * 30_000_000), {"content-encoding": "gzip"}),
    "no gzip": lambda h, asked: h.send(200, b"plain", {"content-encoding": "gzip"}),
    "another host": lambda h, asked: h.send(307, b"", {"location": "http://198.51.100.7/v1/chat/completions"}),
    "in circles": lambda h, asked: h.send(307, b"", {"location": "/v1/chat/completions"}),
    "filtered": lambda h, asked: h.send(200, completion("", "content_filter")),
    "an odd end": lambda h, asked: h.send(200, completion("x", asked)),
    "unpaid": lambda h, asked: h.send(402, {}), "forbidden": lambda h, asked: h.send(403, {"detail": "flagged"}),
    "gone": lambda h, asked: h.send(404, {"error": "no such model"}), "too long": lambda h, asked: h.send(413, b"long"),
    "nonsense status": lambda h, asked: h.send(299, b"{}"), "teapot": lambda h, asked: h.send(418, DEEP),
}


def listen(llm, rows):
    "What each row came to, and what stopped the work, where something did."
    outcomes, stop = {}, None
    try:
        for group in llm.stream(rows, SAMPLING): outcomes.update(group)
    except ModelCallError as error: stop = str(error)
    return outcomes, stop


def assert_clean(texts, prompts):
    "Nobody's text, no key and nothing a terminal acts on."
    for text in texts:
        assert SECRET not in text and quote(SECRET, safe="") not in text
        assert not [sign for sign in text if unicodedata.category(sign) in ("Cc", "Cs", "Cf", "Zl")], text
        assert len(text) < 2000
        letters = "".join(filter(str.isalnum, text.casefold()))
        for prompt in prompts:
            plain = "".join(filter(str.isalnum, prompt.casefold()))
            assert not any(plain[i:i + 12] in letters for i in range(len(plain) - 11)), text


def assert_settled(outcomes, stop, prompts, url):
    "Each row is answered or refused with a reason; where the work stopped, it says where and what to do."
    for outcome in outcomes.values():
        assert isinstance(outcome, Completion | CallFailed)
        if isinstance(outcome, Completion):
            outcome.text.encode()
            assert len(outcome.text) <= most_characters(SAMPLING.max_tokens)
            assert all(n is None or 0 <= n < 10**9 for n in (outcome.prompt_tokens, outcome.completion_tokens))
    assert_clean([outcome.reason for outcome in outcomes.values() if isinstance(outcome, CallFailed)]
                 + ([stop.replace(url, "")] if stop else []), prompts)
    if stop is None: assert set(outcomes) == set(range(len(prompts)))
    else: assert url in stop and "run the same command again" in stop


@pytest.mark.long
@given(dialects)
@settled(max_examples=40)
def test_every_dialect_is_understood(dialect):
    "No row is lost to a name, a form or a parameter; what is changed is told, once."
    prompts = [PROMPT.format(i) for i in range(5)]
    with Server(lambda h, asked: speak(dialect, h, asked)) as server:
        llm = EndpointLLM(server.url, "m", concurrency=2, timeout=2, retries=1)
        outcomes, stop = listen(llm, [user(prompt) for prompt in prompts])
        assert stop is None and [outcomes[i].text for i in range(5)] == [f"right: {prompt}" for prompt in prompts]
        thought = {outcome.reasoning for outcome in outcomes.values()}
        assert thought == ({"Hm."} if "thinking" in dialect["content"] else thought - {"Hm."})
        told = " ".join(llm.learned.notes)
        assert {name for name in ("seed", "temperature", "top_p", "max_tokens")
                if f"does not take {name}" in told} == dialect["refused"]
        assert ("another-model" in told) == (dialect["name"] == "another-model")
        assert len(llm.learned.notes) == len(set(llm.learned.notes))
        last = server.bodies[-1]
        assert not dialect["refused"] & last.keys() and (last.get("max_tokens") or last["max_completion_tokens"]) == 24
        before = len(server.asked)
        listen(llm, [user("And now?")])
        assert len(server.asked) == before + 1, "what was learned holds for the next stage"


@pytest.mark.long
@given(dialects, st.dictionaries(st.integers(0, 11), st.sampled_from(sorted(FAULTS)), max_size=12), st.booleans())
@example({"end": "stop", "content": "text", "usage": {}, "wire": "plain", "name": None, "words": "prose",
          "refused": set()}, dict.fromkeys(range(12), "a bomb"), True)
@settled(max_examples=60)
def test_every_fault_in_every_dialect_ends(dialect, faults, forever):
    "Faults that pass and faults that stay, row by row: an end within ten seconds, with each row accounted for."
    prompts, met = [PROMPT.format(i) for i in range(12)], set()
    def misbehave(handler, asked):
        fault = faults.get(prompts.index(asked))
        if fault and (forever or asked not in met):
            met.add(asked)
            return FAULTS[fault](handler, asked)
        return speak(dialect, handler, asked)
    with Server(misbehave) as server:
        started = time.monotonic()
        llm = EndpointLLM(server.url, "m", concurrency=4, timeout=0.4, retries=2)
        outcomes, stop = listen(llm, [user(prompt) for prompt in prompts])
        assert time.monotonic() - started < 10
        assert_settled(outcomes, stop, prompts, server.url)
        for i, outcome in outcomes.items():
            if i not in faults: assert outcome.text == f"right: {prompts[i]}"
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoint"]


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_what_always_fails_is_in_the_journal_or_stops_with_a_reason(tmp_path, fault):
    "Every other row meets the fault at every try; the rest is answered and kept, and the journal opens again."
    prompts = [PROMPT.format(i) for i in range(6)]
    def misbehave(handler, asked): return prompts.index(asked) % 2 == 0 and FAULTS[fault](handler, asked)
    with Server(misbehave) as server, Journal(tmp_path / "j.sqlite") as journal:
        llm = EndpointLLM(server.url, "m", concurrency=1, timeout=0.4, retries=1)
        try: outcomes, stop = ask(llm, journal, "respond", [user(prompt) for prompt in prompts], SAMPLING), None
        except ModelCallError as error: outcomes, stop = [], str(error)
        assert_settled(dict(enumerate(outcomes)), stop, prompts, server.url)
        if stop is None: assert [outcome.text for outcome in outcomes[1::2]] == [f"right: {p}" for p in prompts[1::2]]
        else: assert fault in ("another host", "in circles", "unpaid", "gone")
    with Journal(tmp_path / "j.sqlite") as journal: totals = journal.totals().get("respond", {"calls": 0, "failed": 0})
    assert stop or totals["calls"] + totals["failed"] == 6


@pytest.mark.long
@given(st.lists(st.sampled_from([*sorted(FAULTS), "tokens", "odd tokens", "logprobs", "odd logprobs"]), max_size=12))
@example(["tokens", "tokens", "logprobs"] * 3)
@settled(max_examples=40)
def test_weighing_ends_in_numbers_or_an_error_with_a_reason(course):
    "A server that is asked for log-probabilities and answers whatever comes next on the list."
    left, prompts = iter(course), [PROMPT.format(i) for i in range(3)]
    says = {
        "tokens": lambda body: {"tokens": ([1, 2] if "add_generation_prompt" in body and len(body["messages"]) == 1
                                           else [1, 2, 3])},
        "odd tokens": lambda body: {"tokens": [1.5, None, True, "x"]},
        "logprobs": lambda body: {
            "choices": [{"prompt_logprobs": [None, {"2": {"logprob": -1}}, {"3": {"logprob": -0.5}}]}]
        },
        "odd logprobs": lambda body: {"choices": [{"prompt_logprobs": [None, {"2": {}}, {"3": {"logprob": 1e999}}]}]},
    }
    def misbehave(handler, asked):
        step = next(left, "broken")
        if step in says: return handler.send(200, json.dumps(says[step](handler.server.bodies[-1])).encode())
        return FAULTS[step](handler, asked if isinstance(asked, str) else PROMPT)
    with Server(misbehave) as server:
        llm = EndpointLLM(server.url, "m", concurrency=1, timeout=0.4, retries=1)
        try: totals = [logprob.total for logprob in llm.logprobs([user(prompt) for prompt in prompts], ["Yes."] * 3)]
        except ModelCallError as error: assert_clean([str(error).replace(server.url, "")], prompts)
        else: assert totals == [-0.5] * 3


# Bounds.

def test_garbage_without_end_fills_no_memory(tmp_path):
    "32 connections, each with a body that never ends, at the defaults: refused after a megabyte each."
    def pour(handler, asked):
        handler.send(200, b"[", length=10**12)
        try:
            while not handler.server.dead: handler.wfile.write(b"[1,2,3,4,5,6,7,8]," * 4000)
        except OSError: return True
        return True
    client = textwrap.dedent("""
        import resource, sys, time
        from contemplative_cai.core.schema import Message
        from contemplative_cai.models.endpoint import EndpointLLM
        from contemplative_cai.models.llm import ModelCallError, Sampling
        rows, before = [(Message(role="user", content=f"row {i}"),) for i in range(64)], time.monotonic()
        try: print(list(EndpointLLM(sys.argv[1], "m").stream(rows, Sampling(max_tokens=24))))
        except ModelCallError as error: print(error)
        peak = open("/proc/self/status").read().split("VmHWM:")[1].split()[0]
        print(int(time.monotonic() - before), int(peak) // 1024)
    """)
    with Server(pour) as server:
        done = subprocess.run([sys.executable, "-c", client, server.url], capture_output=True, text=True, timeout=60,
                              env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=ROOT)
    assert "the server sent more than 1.0 MB for one answer" in done.stdout, done.stderr
    seconds, megabytes = map(int, done.stdout.split()[-2:])
    assert seconds < 10 and megabytes < 500


OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = json.dumps(completion("Fine.")).encode()
RAW = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n",
    "nothing": b"",
    "a lone line": b"\n" * 9000,
    "zeros": bytes(100_000),
    "headers without end": OK + b"x-more: y\r\n" * 200_000,
    "one long header": OK + b"x: " + b"y" * 3_000_000,
    "a length that is none": OK + b"content-length: many\r\n\r\n{}",
    "a negative length": OK + b"content-length: -1\r\n\r\n",
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "a chunk that is none": OK + b"transfer-encoding: chunked\r\n\r\nxyz\r\n",
    "chunks": OK + b"transfer-encoding: chunked\r\n\r\n" + b"8000\r\n" + b"[" * 0x8000 + b"\r\n",
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 5000,
    "early hints": b"HTTP/1.1 103 x\r\n\r\n" * 5000,
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
    "an odd status": b"HTTP/1.1 999 \xff\xfe\r\n\r\n",
    "odd letters": OK + b"x\xff: \xff\r\ncontent-length: 2\r\n\r\n{}",
    "an odd charset": OK + b"content-type: text/plain; charset=no-such\r\ncontent-length: 2\r\n\r\n{}",
    "an odd encoding": OK + b"content-encoding: br, gzip, zstd, x\r\ncontent-length: 2\r\n\r\n{}",
    "a place that is none": b"HTTP/1.1 307 x\r\nlocation: http://[bad\r\ncontent-length: 0\r\n\r\n",
    "a place without a host": b"HTTP/1.1 307 x\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n",
    "no place": b"HTTP/1.1 302 x\r\ncontent-length: 0\r\n\r\n",
    "cookies": OK + b"set-cookie: a=" + b"b" * 3000 + b"\r\ncontent-length: %d\r\n\r\n" % len(WHOLE) + WHOLE,
    "more than its length": OK + b"content-length: %d\r\n\r\n" % len(WHOLE) + WHOLE + b"<html>" * 100,
    "no length": OK + b"\r\n" + WHOLE,
}
RIGHT = {"cookies", "more than its length", "no length", "interim answers"}


@contextlib.contextmanager
def sent_raw(raw):
    "The address of a server that sends these bytes to everybody and closes the connection."
    def answer():
        while True:
            try: connection = listening.accept()[0]
            except OSError: return
            with connection, contextlib.suppress(OSError):
                head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                while length and len(body) < int(length.group(1)): body += connection.recv(65536)
                for _ in range(100 if "without end" in raw else 1): connection.sendall(RAW[raw])
                if raw == "interim answers":
                    connection.sendall(OK + b"content-length: %d\r\n\r\n" % len(WHOLE) + WHOLE)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("raw", sorted(RAW))
def test_what_is_hardly_http_ends_too(raw):
    "Bytes as a broken proxy, another service on the port or an attacker sends them, and a connection that then closes."
    with sent_raw(raw) as url:
        prompts, started = [PROMPT.format(i) for i in range(3)], time.monotonic()
        outcomes, stop = listen(EndpointLLM(url, "m", concurrency=2, timeout=1, retries=1), [user(p) for p in prompts])
        assert time.monotonic() - started < 10
        assert_settled(outcomes, stop, prompts, url)
        if raw in RIGHT: assert [outcomes[i].text for i in range(3)] == ["Fine."] * 3
        else: assert not any(isinstance(outcome, Completion) for outcome in outcomes.values())
        assert "the model wrote" not in f"{outcomes} {stop}"


@pytest.mark.parametrize("raw", sorted(RAW))
def test_a_list_of_models_that_is_hardly_http_is_an_input_error_or_a_note(raw):
    with sent_raw(raw) as url:
        try: note = check_served(url, "m", timeout=1)
        except InputError as error: assert "asked which models it serves" in str(error)
        else: assert "does not tell which models it serves" in note


def test_an_answer_far_beyond_its_limit_is_not_kept():
    long = completion("la " * 100_000)
    assert "300,000 characters where 24 tokens" in f"{read_completion(long, 24).reason}".replace("299,999", "300,000")
    assert isinstance(read_completion(completion("ja " * 500), 24), Completion), "a server that overdoes it a little"


@pytest.mark.parametrize("say", [
    lambda h, i: h.send(400, {"error": {"message": f"row {i}: the schema is wrong"}}),
    lambda h, i: h.send(200, said(completion(None, "length"), reasoning_content="hm")),
    lambda h, i: h.send(200, completion("x", "tool_calls"))])
def test_what_fails_alike_from_the_start_is_not_asked_five_hundred_times(tmp_path, say):
    with Server(lambda h, asked: say(h, len(h.server.asked))) as server, Journal(tmp_path / "j.sqlite") as journal:
        llm = EndpointLLM(server.url, "m")
        outcomes, stop = listen(llm, [user(f"row {i}") for i in range(500)])
        assert stop is None and set(outcomes) == set(range(500)) and len(server.asked) < ALIKE + 33
        assert sum("not asked, because the first" in outcome.reason for outcome in outcomes.values()) > 450
        before = len(server.asked)
        with pytest.raises(ModelCallError, match="all 600 calls"):
            ask(llm, journal, "respond", [user(f"other {i}") for i in range(600)], SAMPLING)
        assert len(server.asked) <= before + 2, "the next batches need one row each to see that it is still so"


def test_rows_that_fail_one_by_one_are_all_asked():
    "A filter or a context strikes many rows alike, and says nothing about the others."
    with Server(lambda h, asked: h.send(400, {"error": {"message": "flagged by the content policy"}})) as server:
        outcomes, _ = listen(EndpointLLM(server.url, "m"), [user(f"row {i}") for i in range(60)])
        assert len(outcomes) == len(server.asked) == 60


@pytest.mark.long
def test_a_server_that_can_do_little_is_asked_for_less():
    "One row at a time takes it 50 ms: 32 at once would time out together, again and again."
    one = threading.Lock()
    def slow(handler, asked):
        with one: time.sleep(0.05)
        return False
    with Server(slow) as server:
        llm = EndpointLLM(server.url, "m", timeout=0.5)
        outcomes, stop = listen(llm, [user(f"row {i}") for i in range(80)])
        assert stop is None and all(outcomes[i].text == f"right: row {i}" for i in range(80))
        assert len(server.asked) < 160 and llm.learned.allowed < 32


# Secrets and places.

echoes = {"whole": lambda t: t, "JSON": lambda t: json.dumps(t), "repr": repr, "address": lambda t: quote(t),
          "HTML": html.escape, "capitals": str.upper, "one line": lambda t: " ".join(t.split()),
          "its first half": lambda t: t[:len(t) // 2], "its end": lambda t: t[-40:], "twice": lambda t: f"{t} ... {t}",
          "JSON in JSON": lambda t: json.dumps(json.dumps(t))}


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs", "Sc", "So")), min_size=30, max_size=120),
       st.sampled_from(sorted(echoes)))
@example("如果我的邻居每天晚上都在吹小号，我应该怎么告诉她这件事情呢？", "JSON")
@example('He said: "never\nmind", and\tleft <b>without</b> a word & closed the door', "JSON in JSON")
@settled(max_examples=150)
def test_a_reason_repeats_no_prompt(text, how):
    letters = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))
    reason = clean_reason(f"cannot do this: {echoes[how](text)} (code 7)", [text])
    left = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", reason).casefold()))
    assert reason.startswith("cannot do this") and not any(
        letters[i:i + 14] in left for i in range(max(0, len(letters) - 13)))


def test_a_redirect_to_another_host_is_not_followed():
    "Neither prompts nor key go there; on the same server it is followed."
    with Server() as other:
        for status in (301, 302, 307, 308):
            def away(handler, asked, status=status):
                return handler.send(status, b"", {"location": f"http://localhost:{other.server_port}{handler.path}"})
            with Server(away) as server, pytest.raises(ModelCallError, match=f"HTTP {status}.*sends requests on"):
                EndpointLLM(server.url, "m").chat([user("Hello?")], SAMPLING)
        assert other.asked == []
    def within(handler, asked):
        if handler.path.endswith("/"): return False
        return handler.send(307, b"", {"location": f"{handler.path}/"})
    with Server(within) as server:
        assert EndpointLLM(server.url, "m").chat([user("Hello?")], SAMPLING)[0].text == "right: Hello?"


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "GITHUB_TOKEN", "PATH",
                                  "HOME", "PGPASSWORD", "SSH_PRIVATE_KEY", "RAPIDS_SECRET_KEY", "CCAI_RUNS",
                                  "STRIPE_SECRET_API_KEY", "MONKEY", "KEY", "DATABASE_URL"])
def test_a_variable_that_is_no_api_key_is_not_sent(monkeypatch, name):
    monkeypatch.setenv(name, "planted-value-0123")
    with Server() as server, pytest.raises(InputError, match="meant for an API key") as refused:
        EndpointLLM(server.url, "m", api_key_env=name)
    assert "planted" not in str(refused.value) and not server.asked


@pytest.mark.parametrize("name", ["CCAI_API_KEY", "CCAI_JUDGE_KEY", "OPENAI_API_KEY", "MY_API_KEY", "OPENROUTER_APIKEY",
                                  "API_KEY", "AZURE_API_ACCESS_KEY", "GROQ_API_KEY_2"])
def test_a_variable_for_api_keys_is_sent(name): check_key_name(name)


def test_a_key_in_the_place_of_a_name_is_not_repeated():
    for key in ("sk-proj-0123456789abcdef", "0123456789ABCDEF0123456789ABCDEF", "hf_abcdefghijklmnop"):
        with pytest.raises(InputError) as refused: check_key_name(key)
        assert key not in str(refused.value) or "_" in key


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "localhost"])
def test_no_proxy_stands_before_this_machine(monkeypatch, host):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"): monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Server() as server:
        server_address = f"http://{host}:{server.server_port}/v1"
        if host == "127.0.0.2": return check_served_through(server_address)
        assert EndpointLLM(server_address, "m").chat([user("Hello?")], SAMPLING)[0].text == "right: Hello?"


def check_served_through(address):
    "The server does not listen at 127.0.0.2; what matters is that the proxy is not asked: its port 9 is not named."
    with pytest.raises(InputError, match="no connection") as refused: check_served(address, "m", timeout=2)
    assert "proxy" not in str(refused.value).lower()


# Lists of models.

PROPER = {"data": {"data": [{"id": "m"}]}, "bare": [{"id": "m"}], "names": ["m"], "models": {"models": [{"name": "m"}]},
          "latest": {"data": [{"id": "m:latest"}]}, "a file": {"data": [{"id": "/models/m.gguf"}]},
          "aliases": {"data": [{"id": "x", "aliases": ["m"]}]}, "odd rows": {"data": [None, 7, {"id": 3}, {"id": "m"}]}}
LACKING = {"other": {"data": [{"id": "n"}]}, "empty": {"data": []}, "none": {"object": "list", "data": None},
           "star": {"data": [{"id": "openai/*"}]}}


class Listing(Server):
    "A server whose list of models is as told."
    def __init__(self, status, body, **options):
        super().__init__(**options)
        self.status, self.body = status, body
        self.RequestHandlerClass = type("Lister", (self.RequestHandlerClass,), {
            "do_GET": lambda handler: handler.send(status, body)})


@pytest.mark.parametrize("form", sorted(PROPER))
def test_a_list_with_the_name_is_enough(form):
    with Listing(200, PROPER[form]) as server: assert check_served(server.url, "m") == ""


@pytest.mark.parametrize("form", sorted(LACKING))
def test_a_proper_list_without_the_name_refuses(form):
    with Listing(200, LACKING[form]) as server, pytest.raises(InputError, match="'m' is not served"):
        check_served(server.url, "m")


@pytest.mark.parametrize("status, body", [
    (404, {"detail": "Not Found"}), (405, {}), (403, b""), (401, {"error": {"message": "no"}}),
    (200, b"<html>Sign in</html>"), (200, {"hello": 1}), (200, b""), (200, b"[" * 9000), (200, {"data": 7}),
    (418, b"\x1b[2J")
])
def test_a_list_that_cannot_be_used_is_a_note(capsys, status, body):
    with Listing(status, body) as server:
        note = check_served(server.url, "m")
        assert "does not tell which models it serves" in note and "note: " in capsys.readouterr().err
        assert_clean([note.replace(server.url, "")], [])


def listing(body):
    "The key that a server with such a list has in a journal, whatever its port is."
    with Listing(200, {"data": [{"id": "m"} | body]}) as server:
        return describe_served(server.url, "m").key.replace(server.url.removeprefix("http://"), "...")


def test_a_key_in_the_journal_tells_servers_apart():
    "The address and what stands behind the name; not what changes with the hour, and never a password."
    assert listing({"root": "org/m-7b", "created": 1}) == listing({"root": "org/m-7b", "created": 2, "permission": []})
    assert listing({"root": "org/m-7b"}) != listing({"root": "org/m-8b"}) != listing({})
    behind = {"id": "m", "owned_by": "x"}
    assert served_key("HTTPS://Host:443/v1/", "m", behind) == served_key("https://host/v1", "m", behind)
    keys = {served_key(url, name)
            for url in ("https://host/v1", "https://host/v2", "https://host2/v1", "http://host:81/v1")
            for name in ("m", "n")}
    assert len(keys) == 8
    with pytest.raises(InputError): served_key("https://me:5ecret@host/v1", "m")


def test_a_server_that_answers_as_ever_other_models_is_told_once(capsys):
    prompts = [PROMPT.format(i) for i in range(9)]
    def another(handler, asked): return handler.send(200, named(completion(f"right: {asked}"), asked))
    with Server(another) as server:
        llm = EndpointLLM(server.url, "m")
        listen(llm, [user(prompt) for prompt in prompts])
        assert len(llm.learned.notes) == 1 and "answers as" in capsys.readouterr().err
        assert_clean([llm.learned.notes[0].replace(server.url, "")], prompts)


@given(st.binary(max_size=200))
@example(b"\xff\xfe[")
@settled(max_examples=200)
def test_any_bytes_are_json_or_a_value_error(content):
    try: answer = read_body(content)
    except ValueError as error: assert re.match("expected JSON, found", str(error)); return
    try: assert isinstance(read_completion(answer, 24), Completion | CallFailed)
    except ValueError as error: assert "expected a chat completion" in str(error)


jsons = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([
                         "message", "content", "finish_reason", "text", "type", "usage", "error", "reasoning", "refusal"
                     ]), inner, max_size=4), max_leaves=12)


@given(jsons, jsons, jsons, jsons)
@settled(max_examples=200)
def test_any_shape_of_answer_is_read_or_refused(content, finish, usage, message):
    for choice in ({"message": {"content": content, "reasoning": message}, "finish_reason": finish},
                   {"message": message, "finish_reason": finish}, message):
        try: outcome = read_completion({"choices": [choice], "usage": usage}, 24)
        except ValueError as error: assert "expected a chat completion" in str(error); continue
        assert isinstance(outcome, Completion | CallFailed)
        if isinstance(outcome, Completion): outcome.text.encode()
