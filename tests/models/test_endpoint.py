"""A model behind a server: faults of every kind, limits, dead servers, Ctrl-C, and the key that is written nowhere."""
import asyncio
import json
import logging
import os
import random
import re
import signal
import threading
import time
import traceback

import openai._base_client
import pytest
from model_server import Server, completion
from support import journalled, user, wait_for

from contemplative_cai.core.journal import Journal
from contemplative_cai.core.schema import InputError, Message
from contemplative_cai.models.ask import ask
from contemplative_cai.models.endpoint import EndpointLLM, check_served, check_url, served_models
from contemplative_cai.models.llm import CallFailed, ModelCallError, Sampling

SAMPLING = Sampling(max_tokens=20, temperature=0.7, seed=3)
SECRET = "sk-very/secret-0123456789"


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    "Short pauses between tries."
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.02)
    monkeypatch.setattr("contemplative_cai.models.endpoint.PAUSE", 0.02)
    monkeypatch.delenv("CCAI_API_KEY", raising=False)


def faults(share, seed):
    "A server's bad days: so many requests fail, in one of nine shapes of five kinds."
    dice, lock = random.Random(seed), threading.Lock()
    whole = json.dumps(completion("right: but never whole")).encode()
    seen = set()
    shapes = {
        "busy": lambda h: h.send(429, {"error": {"message": "slow down"}}, {"retry-after": "0.1"}),
        "broken": lambda h: h.send(500, {"error": {"message": "CUDA error"}}),
        "away": lambda h: h.send(503, b"<html>Service Unavailable</html>", {"content-type": "text/html"}),
        "silent": lambda h: time.sleep(1.2) or h.drop(),
        "hung up": lambda h: h.drop(),
        "hung up in the middle": lambda h: h.send(200, whole[:60], length=len(whole)) and h.drop(),
        "truncated": lambda h: h.send(200, whole[:60]),
        "garbage": lambda h: h.send(200, b"<html>It works!</html>", {"content-type": "text/html"}),
        "hollow": lambda h: h.send(200, {"choices": []}),
    }

    def misbehave(handler, asked):
        with lock: shape = dice.choice(list(shapes)) if dice.random() < share else None
        if shape: seen.add(shape)
        return bool(shape) and shapes[shape](handler)
    misbehave.shapes, misbehave.seen = shapes, seen
    return misbehave


@pytest.mark.long
def test_a_third_of_all_requests_fail_and_nothing_is_lost(tmp_path):
    """429, 5xx, silence, dropped connections, garbage:
    every row has its own text, is in the journal once, and is not asked for again."""
    texts, misbehave = [f"question {i}" for i in range(200)], faults(0.3, seed=7)
    with Server(misbehave, pause=0.01) as server, Journal(tmp_path / "j.sqlite") as journal:
        llm = EndpointLLM(server.url, "m", concurrency=8, timeout=0.8, retries=9, batch_size=64)
        found = ask(llm, journal, "respond", [user(text) for text in texts], SAMPLING)
        assert [c.text for c in found] == [f"right: {text}" for text in texts]
        assert misbehave.seen == set(misbehave.shapes) and len(server.asked) > 250
        totals = journal.totals()["respond"]
        assert (totals["calls"], totals["failed"], totals["tokens_cached"]) == (200, 0, None)
        before = len(server.asked)
        assert (ask(llm, journal, "respond", [user(text) for text in texts], SAMPLING) == found
                and len(server.asked) == before)
        seeds = {body["messages"][-1]["content"]: body["seed"] for body in server.bodies}
        assert (
            len(set(seeds.values())) == 200 and all(0 <= seed < 2**31 for seed in seeds.values())
        ), "every row has a seed of its own, the same at every try"


def test_no_more_requests_at_once_than_allowed():
    with Server(pause=0.03) as server:
        EndpointLLM(server.url, "m", concurrency=6).chat([user(f"question {i}") for i in range(50)], SAMPLING)
        assert 2 <= server.busiest <= 6 and len(server.asked) == 50


def test_what_stays_unusable_is_a_failure_with_its_reason(tmp_path):
    "Past all tries, no half text and no empty one is taken for a completion."
    ways = {"cut": lambda h: h.send(200, json.dumps(completion("half")).encode()[:50]),
            "hollow": lambda h: h.send(200, {"choices": []}),
            "refused": lambda h: h.send(400, {"error": {"message": "maximum context length is 2048 tokens"}}),
            "filtered": lambda h: h.send(200, completion("How", "content_filter")),
            "tool": lambda h: h.send(200, completion(None, "tool_calls")),
            "nothing": lambda h: h.send(200, completion(None)),
            "unwell": lambda h: h.send(500, {"detail": "out of memory"}),
            "later": lambda h: h.send(429, {"error": {"message": "quota"}}, {"retry-after": "600"}),
            "large": lambda h: h.send(413, b"too large")}
    with Server(lambda h, asked: asked in ways and ways[asked](h)) as server, Journal(tmp_path / "j.sqlite") as journal:
        llm = EndpointLLM(server.url, "m", concurrency=1, retries=2)
        rows = [text for way in ways for text in (way, f"well, {way}")]
        found = dict(zip(rows, ask(llm, journal, "respond", [user(text) for text in rows], SAMPLING)))
        assert all(found[f"well, {way}"].text == f"right: well, {way}" for way in ways)
        reasons = {way: found[way].reason for way in ways}
        for way, said in [
            ("cut", "no usable answer.*tried 3 times"),
            ("hollow", "expected a chat completion with choices"),
            ("refused", "HTTP 400: maximum context length is 2048"),
            ("filtered", "content_filter"),
            ("tool", "tool_calls"),
            ("nothing", "sent no text"),
            ("unwell", "HTTP 500: out of memory .tried 3 times"),
            ("later", "HTTP 429: quota"),
            ("large", "HTTP 413: too large"),
        ]:
            assert re.search(said, reasons[way]), reasons[way]
        counts = {way: server.asked.count(way) for way in ways}
        assert (counts
                == dict.fromkeys(ways, 1) | {"cut": 3, "hollow": 3, "unwell": 3}), "what cannot change is asked once"
        assert journal.totals()["respond"]["failed"] == len(ways)


def test_a_server_that_dies_costs_only_what_it_had_not_finished(tmp_path):
    rows, sampling = [user(f"question {i}") for i in range(60)], SAMPLING
    def die(handler, asked):
        if len(handler.server.right) >= 20: handler.server.dead = True
        return handler.server.dead and handler.drop()
    with Journal(tmp_path / "j.sqlite") as journal:
        with Server(die) as server:
            llm = EndpointLLM(server.url, "m", concurrency=4, retries=2)
            with pytest.raises(ModelCallError,
                               match=r"5 requests in a row failed.*see that the server is running.*same command again"):
                ask(llm, journal, "respond", rows, sampling)
            port, kept = server.server_port, len(server.right)
            assert kept >= 20 and journal.totals()["respond"]["calls"] == kept
        started = time.monotonic()
        with pytest.raises(ModelCallError, match="no connection"): ask(llm, journal, "respond", rows, sampling)
        assert time.monotonic() - started < 10, "60 rows tried three times each take longer"
        with Server(port=port) as server:
            assert all(c.text for c in ask(llm, journal, "respond", rows, sampling)) and len(server.asked) == 60 - kept
        assert (journal.totals()["respond"]["calls"], journal.totals()["respond"]["failed"]) == (60, 0)


@pytest.mark.parametrize("status, advice", [(401, "set the environment variable MY_API_KEY"),
                                            (404, "check the model's name"), (402, "cannot pay")])
def test_what_no_row_can_pass_stops_the_work(tmp_path, status, advice):
    def refuse(handler, asked):
        return len(handler.server.right) >= 5 and handler.send(status, {"error": {"message": "the server's own words"}})
    with Server(refuse) as server, Journal(tmp_path / "j.sqlite") as journal:
        llm = EndpointLLM(server.url, "m", concurrency=2, api_key_env="MY_API_KEY")
        with pytest.raises(ModelCallError, match=f"HTTP {status}: the server's own words; .*{advice}"):
            ask(llm, journal, "respond", [user(f"question {i}") for i in range(50)], SAMPLING)
        assert journal.totals()["respond"]["calls"] == len(server.right) and len(server.asked) <= len(server.right) + 2


def test_a_forbidden_row_is_its_own_and_a_forbidden_server_stops(tmp_path):
    "Some servers answer 403 to a conversation they find improper."
    with Server(lambda h, asked: asked.startswith("bad") and h.send(403, {"error": {"message": "flagged"}})) as server:
        llm = EndpointLLM(server.url, "m", concurrency=1)
        groups = list(llm.stream([user("good"), user("bad"), user("good too")], SAMPLING))
        assert isinstance({i: f for g in groups for i, f in g.items()}[1], CallFailed)
        with pytest.raises(ModelCallError, match="5 requests in a row failed.*HTTP 403: flagged"):
            list(llm.stream([user(f"bad {i}") for i in range(20)], SAMPLING))
        assert len(server.asked) <= 9


def test_the_key_is_written_nowhere(tmp_path, monkeypatch, caplog):
    "A server that repeats the key in every error: it is in no message, no log, no journal and no object."
    monkeypatch.setenv("CCAI_API_KEY", f" {SECRET}\n")
    caplog.set_level(logging.DEBUG)
    authorised = []
    def repeat(handler, asked):
        authorised.append(handler.headers["authorization"])
        key = handler.headers["authorization"].split()[1]
        if asked == "text": return handler.send(200, completion(f"your key is {key}"))
        if asked == "reason": return handler.send(200, completion("x", key))
        if asked == "garbage": return handler.send(200, {"error": {"message": f"wrong key {key}"}})
        if asked == "plain": return handler.send(418, f"no tea for {key} or sk-very/...6789".encode())
        if asked in ("400", "500", "401"):
            return handler.send(int(asked), {"error": {"message": f"Incorrect API key provided: {key}"}})
    told = []
    with Server(repeat) as server, Journal(tmp_path / "j.sqlite") as journal:
        llm = EndpointLLM(server.url, "m", concurrency=2, retries=1)
        found = ask(llm, journal, "respond",
                    [user(text) for text in ("fine", "text", "reason", "garbage", "plain", "400", "500")], SAMPLING)
        assert (found[0].text == "right: fine" and all(isinstance(f, CallFailed) for f in found[1:])
                and "[the key]" in found[5].reason and "...6789" in found[4].reason)
        told += [repr(found), repr(llm), str(vars(llm))]
        with pytest.raises(ModelCallError) as stopped: llm.chat([user("401")], SAMPLING)
        with pytest.raises(ModelCallError) as failed: llm.chat([user("400")], SAMPLING)
        told += ["".join(traceback.format_exception(error.value)) for error in (stopped, failed)]
    assert set(authorised) == {f"Bearer {SECRET}"}
    told += [path.read_bytes().decode("latin1") for path in tmp_path.rglob("*") if path.is_file()] + [caplog.text]
    assert not [text for text in told
                if SECRET in text or SECRET.replace("/", "%2F") in text or SECRET.replace("/", "\\/") in text]


def test_only_the_named_variable_is_sent(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "sk-not-for-you")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-not-for-you")
    sent = []
    with Server(lambda h, asked: sent.append(dict(h.headers))) as server:
        EndpointLLM(server.url, "m").chat([user("Hello?")], SAMPLING)
    assert ("sk-not-for-you" not in str(sent)
            and {k.lower(): v for k, v in sent[0].items()}["authorization"] == "Bearer none")


@pytest.mark.parametrize("key", ["sk-öffnen", "sk one", "sk\nX-Other: 1"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(monkeypatch, key):
    monkeypatch.setenv("CCAI_API_KEY", key)
    with pytest.raises(InputError, match="CCAI_API_KEY") as refused: EndpointLLM("http://127.0.0.1:1/v1", "m")
    assert key not in str(refused.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host/v1", "http://", "http://host:99999/v1",
                                 "http://ho st/v1", "http://host/v1?key=5ecret", "http://me:5ecret@host/v1",
                                 "https://5ecret@host:x/v1"])
def test_a_bad_address_is_refused(url):
    with pytest.raises(InputError, match="base_url") as refused: check_url(url)
    assert "5ecret" not in str(refused.value)


def gone(name="endpoint"): return not [thread for thread in threading.enumerate() if thread.name == name]


def test_ctrl_c_ends_at_once_and_keeps_what_was_finished(tmp_path):
    def slow(handler, asked): return asked != "quick" and (time.sleep(8) or handler.drop())
    rows = [user("quick")] + [user(f"question {i}") for i in range(40)]
    with Server(slow) as server, Journal(tmp_path / "j.sqlite") as journal:
        llm = EndpointLLM(server.url, "m", concurrency=16)
        pressed = []
        def press():
            wait_for(lambda: journalled(tmp_path / "j.sqlite"))
            pressed.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=press, daemon=True).start()
        with pytest.raises(KeyboardInterrupt): ask(llm, journal, "respond", rows, SAMPLING)
        assert time.monotonic() - pressed[0] < 6 and gone() and journal.totals()["respond"]["calls"] == 1


def test_who_stops_listening_cancels_the_rest():
    with Server(lambda h, asked: asked != "quick" and (time.sleep(8) or h.drop())) as server:
        groups = EndpointLLM(server.url, "m", concurrency=4).stream(
            [user("quick")] + [user(f"question {i}") for i in range(40)], SAMPLING
        )
        assert next(groups)[0].text == "right: quick"
        started = time.monotonic()
        groups.close()
        assert time.monotonic() - started < 6 and gone() and len(server.asked) <= 5


def test_rows_come_as_they_finish_and_inside_a_running_loop():
    async def within(llm): return [c.text for c in llm.chat([user("one"), user("two")], SAMPLING)]
    with Server(lambda h, asked: time.sleep(1.0 if asked == "slow" else 0)) as server:
        llm = EndpointLLM(server.url, "m")
        assert asyncio.run(within(llm)) == ["right: one", "right: two"]
        assert [set(group) for group in llm.stream([user("slow"), user("quick")], SAMPLING)] == [{1}, {0}]


def test_a_request_is_bounded_as_a_whole():
    "Bytes that trickle in keep a connection awake, and the row waiting, no longer than the limit."
    def trickle(handler, asked):
        handler.send(200, b" ", length=1000)
        for _ in range(60): time.sleep(0.1); handler.wfile.write(b" "); handler.wfile.flush()
        return True
    with Server(trickle) as server, pytest.raises(ModelCallError, match="no answer in time"):
        started = time.monotonic()
        try: EndpointLLM(server.url, "m", timeout=0.5, retries=1).chat([user("Hello?")], SAMPLING)
        finally: assert time.monotonic() - started < 5, "the bytes of one try take six seconds"


def test_settings_usage_and_adapters():
    usage = {"prompt_tokens_details": {"cached_tokens": 5}}
    with Server(lambda h, asked: asked == "counted" and h.send(200, completion(" Yes. ", "length", **usage))) as server:
        llm = EndpointLLM(server.url, "m", key="small@1234/float32", adapters={"dpo": ("m-tuned", "abcd")})
        tuned = llm.with_adapter("dpo")
        assert ((llm.key, tuned.key, tuned.with_adapter(None).key) == ("small@1234/float32", "small@1234/float32+abcd",
                                                                       "small@1234/float32")
                and EndpointLLM(server.url, "m").key == "endpoint:m")
        with pytest.raises(KeyError): llm.with_adapter("sft")
        found = tuned.chat([user("counted")], SAMPLING.model_copy(update={"repetition_penalty": 1.2}))[0]
        assert ((found.text, found.finish_reason, found.prompt_tokens, found.completion_tokens, found.cached_tokens)
                == ("Yes.", "length", 7, 3, 5))
        assert llm.chat([user("plain")], SAMPLING)[0].cached_tokens is None
        with_penalty, without = server.bodies
        assert (with_penalty["model"] == "m-tuned" and with_penalty["repetition_penalty"] == 1.2
                and without["model"] == "m" and "repetition_penalty" not in without)
        assert ({k: without[k] for k in ("max_tokens", "temperature", "top_p")}
                == {"max_tokens": 20, "temperature": 0.7, "top_p": 1.0})
        assert (EndpointLLM(server.url, "m", batch_size=3).batches([user("x")] * 7) == [[0, 1, 2], [3, 4, 5], [6]]
                and list(llm.stream([], SAMPLING)) == [])


def test_text_that_is_no_text_costs_its_own_row():
    with Server() as server:
        found = {i: f
                 for g in EndpointLLM(server.url, "m").stream(
                     [(Message.model_construct(role="user", content="half \ud83d"),), user("whole")], SAMPLING
                 )
                 for i, f in g.items()}
    assert "UTF-8" in found[0].reason and found[1].text == "right: whole"


def test_served_models_are_checked():
    with Server() as server:
        assert served_models(server.url) == ["m", "m-tuned"]
        check_served(server.url, "m")
        with pytest.raises(InputError, match="'m-tune' is not served.*did you mean 'm-tuned'"):
            check_served(server.url, "m-tune")
    with pytest.raises(InputError, match="see that the server is running"): served_models(server.url)


def test_a_server_without_log_probabilities_says_so():
    with (Server(lambda h, asked: "tokenize" in h.path and h.send(404, {"detail": "Not Found"})) as server,
          pytest.raises(ModelCallError, match="does not tell how likely a given text is")):
        EndpointLLM(server.url, "m").logprobs([user("Is it late?")], ["Yes."])
    def tokens_only(handler, asked):
        return (handler.send(200, {"tokens": ([1, 2] if len(json.dumps(handler.server.bodies[-1]["messages"])) < 60
                                              else [1, 2, 3])})
                if "tokenize" in handler.path else handler.send(200, {"choices": [{"text": "x"}]}))
    with Server(tokens_only) as server, pytest.raises(ModelCallError, match="no prompt_logprobs in its answer"):
        EndpointLLM(server.url, "m").logprobs([user("Is it late?")], ["Yes."])


def test_a_missing_client_names_the_extra(monkeypatch):
    monkeypatch.setattr("contemplative_cai.models.endpoint.importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"\.\[vllm\]"): EndpointLLM("http://127.0.0.1:1/v1", "m")
