"""A secret planted wherever one can stand, then looked for in all that a run writes, prints and sends."""
import ast
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from model_server import Server, completion
from support import ROOT, contents, play, user

from contemplative_cai.cloud.travel import portable, refuse_weights
from contemplative_cai.command import commands, pipeline
from contemplative_cai.core.foreign import quote, without_secrets
from contemplative_cai.core.recipe import Recipe, build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.core.sections import check_key_name
from contemplative_cai.inputs.constitution import load_constitution
from contemplative_cai.inputs.places import told_name
from contemplative_cai.models.endpoint import EndpointLLM, check_served, without_address
from contemplative_cai.models.llm import CallFailed, ModelCallError, Sampling
from contemplative_cai.pairs.dataset import write_dataset
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.report.report import write_report
from contemplative_cai.revision.cluster import _sent_along

SECRET = "Zq7Xw9Kd3Vb5Nm1TfR4y"
SHAPES = {
    "userinfo": "http://ann:{}@127.0.0.1:9/v1",
    "a name alone": "http://{}@127.0.0.1:9/v1",
    "capitals": "HTTP://ann:{}@h",
    "a slash in it": "http://ann:{}/x@h/v1",
    "a query in it": "http://ann:{}?x@h/v1",
    "a blank in it": "http://ann:{} x@h/v1",
    "one slash": "http:/ann:{}@h/x",
    "back slashes": "http:\\\\ann:{}@h",
    "git": "git+ssh://ann:{}@h/x",
    "scp": "ann:{}@h/x",
    "encoded": "http%3A%2F%2Fann%3A{}%40host",
    "behind a name": "x=http://ann:{}@h/v1",
    "quoted": '"http://ann:{}@h/v1"',
    "api_key": "http://h/v1?api_key={}",
    "second": "http://h/v1?n=3&access_token={}",
    "code": "http://h/v1?code={}",
    "fragment": "http://h/v1#token={}",
    "parameter": "http://h/v1;key={}",
    "signature": "http://h/v1?sv=1&sig={}",
    "assignment": "OPENAI_API_KEY={}",
    "password": "password={}",
    "option": "--token {}",
    "JSON": '{{"api_key": "{}"}}',
    "account": "AccountName=x;AccountKey={}==",
    "header": "Bearer {}",
    "sk": "sk-{}",
    "sk of a project": "sk-proj-{}",
    "hub": "hf_{}",
    "github": "ghp_{}",
    "github's new": "github_pat_{}",
    "google": "AIzaSy{}",
    "groq": "gsk_{}",
    "nvidia": "nvapi-{}",
    "replicate": "r8_{}",
    "slack": "xoxb-{}",
    "aws": "AKIA{}",
    "stripe": "sk_live_{}",
    "hook": "https://hooks.slack.com/services/T0/B0/{}",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJ{}.{}",
    "pem": "-----BEGIN PRIVATE KEY----- {}",
    "a long word": "{}{}",
}
TYPED = {name: shape.replace("{{", "\0").replace("}}", "\1").replace("{}", SECRET).replace("\0", "{").replace("\1", "}")
         for name, shape in SHAPES.items()}
NAMES = list(Recipe.model_fields)


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch):
    "What is refused is refused before a kernel starts."
    monkeypatch.setattr(pipeline, "execute", lambda step, *_: pytest.fail(f"step {step} was started"))


def secret_in(text: str, secret: str = SECRET) -> bool:
    "Whether a text holds the secret, in any case, or most of it, whatever stands between its signs."
    letters = "".join(filter(str.isalnum, text)).casefold()
    plain = "".join(filter(str.isalnum, secret)).casefold()
    return any(plain[start:start + 14] in letters for start in range(max(1, len(plain) - 13)))


# in the keys of a recipe


def nested(name: str, text: str) -> list:
    "Values in which a text stands deeper than at the top."
    value = Recipe.model_fields[name].default
    if name in ("prompts", "eval_prompts"):
        return [[{"source": text}], [{"source": "practice", "columns": {"text": text}}], [{"source": "hub:a/b",
                                                                                          "revision": text}]]
    return [[text], {text: 1}, {"a": text}] if isinstance(value, (tuple, dict)) or value is None else []


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_in_any_key_is_refused_and_not_repeated(name):
    for shape, text in TYPED.items():
        for value in (text, *nested(name, text)):
            with pytest.raises(InputError) as refused: build_recipe({name: value})
            assert not secret_in(str(refused.value)), (shape, value)


@pytest.mark.parametrize("number, name", list(enumerate(NAMES)))
def test_every_entry_refuses_it_alike_and_nothing_is_written(runs, tmp_path, capsys, number, name):
    "The command line, a recipe's file, and a notebook; of all shapes each is tried at some keys."
    shapes = list(TYPED.values())
    for text in (shapes[number % len(shapes)], shapes[(7 * number + 3) % len(shapes)]):
        recipe = tmp_path / "mine.yaml"
        recipe.write_text(yaml.safe_dump({"model": "random-tiny", name: text}))
        for words in (["--recipe", "smoke", "-p", f"{name}={text}"], ["--recipe", str(recipe)],
                      ["--recipe", "smoke", "-p", f"settings={{{name}: {json.dumps(text)}}}"]):
            assert commands.main(["run", "generate", "--dry-run", *words]) == 2
        for parameters in ({name: text}, {"settings": {name: text}}):
            with pytest.raises(InputError) as refused: pipeline.begin("mine", "smoke", parameters)
            assert not secret_in(str(refused.value))
    said = capsys.readouterr()
    assert not secret_in(said.out + said.err) and not runs.exists()


@pytest.mark.parametrize("shape", TYPED)
def test_a_secret_in_another_place_of_the_command_line_is_not_repeated(runs, tmp_path, capsys, monkeypatch, shape):
    text = TYPED[shape]
    monkeypatch.chdir(tmp_path)
    for words in (
        ["run", "generate", "--run", text],
        ["run", "generate", "--recipe", text],
        ["run", text],
        ["run", "review", "-p", f"reviewer={text}"],
        ["run", "generate", "-p", f"{text}=3"],
        ["run", "generate", "--on", text],
        ["plan", text],
        ["plan", "smoke", "-p", f"model={text}"],
        ["push", "mine", "--repo", text],
        ["status", text],
        ["diff", text, text],
        ["prompts", text],
        ["constitution", "lint", text],
        ["search", "smoke", "--space", text],
        ["plan", "smoke", "--pairs", text],
        ["run", "generate", f"--{text}"],
        ["completion", text],
        [text],
    ):
        try: status = commands.main([*words, *(["--dry-run"] if words[0] == "run" else [])])
        except SystemExit as ended: status = ended.code
        said = capsys.readouterr()
        assert status == 2 and not secret_in(said.out + said.err), (words, said.err[:500])
    assert not runs.exists()


@given(st.text("abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ", min_size=8, max_size=40), st.integers(10, 99),
       st.sampled_from(sorted(SHAPES)), st.sampled_from(["{}", "got '{}'", "x={}", "{}, or not", "({})", "a\n{}\nb"]))
@settings(max_examples=300, deadline=None)
def test_a_message_masks_what_looks_like_a_secret(letters, number, shape, frame):
    secret = f"{letters[:4]}{number}{letters[4:]}{number}Aa"
    text = SHAPES[shape].replace("{{", "{").replace("}}", "}").replace(
        "{}", secret + (secret if shape == "a long word" else "")
    )
    assert secret not in without_secrets(frame.format(text))
    assert secret not in quote(frame.format(text))


@pytest.mark.parametrize("shape", [name for name in SHAPES if name not in ("a long word", "a blank in it")])
def test_a_long_secret_is_masked_before_it_is_shortened(shape):
    secret = "Zq7Xw9Kd" * 200
    text = SHAPES[shape].replace("{{", "{").replace("}}", "}").replace("{}", secret)
    assert "Zq7X" not in quote(text) and "Zq7X" not in str(InputError(f"expected a name, got {quote(text)}"))


@pytest.mark.long
def test_nothing_of_our_own_looks_like_a_secret():
    "All that the package can say is said as it is written, and so is all that its recipes hold."
    files = [path for path in (ROOT / "contemplative_cai").rglob("*.py") if path.name != "foreign.py"]
    literals = {node.value for path in files for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    lines = {line for folder in ("configs", "data") for kind in ("*.yaml", "*.md", "*.jsonl")
             for path in (ROOT / folder).rglob(kind) for line in path.read_text().splitlines()}
    assert len(literals) > 5000 and len(lines) > 500
    assert [text for text in (*literals, *lines) if without_secrets(text) != text] == []


# in the name of a variable

PLANTED = ("CCAI_API_KEY", "OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY",
           "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
           "WANDB_API_KEY", "GITHUB_TOKEN", "ANTHROPIC_API_KEY", "DATABASE_URL", "PGPASSWORD", "CCAI_JUDGE_API_KEY",
           "CCAI_HUB_TOKEN", "CCAI_SAGEMAKER_SECRET", "CCAI_STORE_URL", "MLFLOW_TRACKING_PASSWORD", "SLACK_WEBHOOK_URL",
           "MADE_UP_THING")
ADDRESSES = ("DATABASE_URL", "CCAI_STORE_URL")
SENDABLE = ("CCAI_API_KEY", "OPENAI_API_KEY", "WANDB_API_KEY", "ANTHROPIC_API_KEY", "CCAI_JUDGE_API_KEY",
            "CCAI_HUB_TOKEN")


def planted() -> dict[str, str]:
    "A secret of its own for each variable."
    secrets = {name: f"pl{number:02d}{SECRET}{number:02d}x" for number, name in enumerate(PLANTED)}
    return {name: f"postgres://ann:{secret}@h/db" if name in ADDRESSES else secret for name, secret in secrets.items()}


@pytest.mark.parametrize("name", [name for name in PLANTED if name not in SENDABLE])
def test_a_variable_that_is_not_meant_for_a_key_is_refused_where_work_begins(runs, capsys, monkeypatch, name):
    monkeypatch.setenv(name, planted()[name])
    words = ["--recipe", "smoke", "-p", f"api_key_env={name}"]
    for step in ("generate", "all", "setup"): assert commands.main(["run", step, *words, "--dry-run"]) == 2
    assert commands.main(["plan", "smoke", *words[2:]]) == 2
    with pytest.raises(InputError, match="meant for an API key"):
        pipeline.begin("mine", "smoke", {"settings": {"api_key_env": name}})
    said = capsys.readouterr()
    assert said.err.count("meant for an API key") == 4 and not secret_in(said.out + said.err) and not runs.exists()


@pytest.mark.parametrize("name", SENDABLE)
def test_a_variable_for_keys_is_taken(name): check_key_name(name)


@pytest.mark.parametrize("key", ["ABCDEF0123456789ABCDEF0123456789", "AK" "IA0123456789ABCDEF", "K3Y_0F_0URS_ABCDEF",
                                 "A" * 32, "A1_B2_C3_D4"])
def test_a_key_that_could_be_a_name_is_not_recorded(runs, capsys, key):
    assert commands.main(["run", "generate", "--recipe", "smoke", "-p", f"api_key_env={key}", "--dry-run"]) == 2
    said = capsys.readouterr()
    assert key not in said.out + said.err and not runs.exists()


def test_a_run_from_before_the_rule_is_read_and_goes_on_with_another_name(runs):
    run, _ = pipeline.begin("old", "smoke", {})
    run.record(recipe=run.manifest["recipe"] | {"api_key_env": "LLM_TOKEN"})
    assert build_recipe(run.manifest["recipe"]).api_key_env == "LLM_TOKEN"
    with pytest.raises(InputError, match="LLM_TOKEN"): pipeline.settle("old", None, {})
    assert pipeline.settle("old", None, {"api_key_env": "CCAI_API_KEY"})[1].api_key_env == "CCAI_API_KEY"


def test_workers_of_a_cluster_are_given_no_secret(monkeypatch):
    "Ray writes what they are given into its logs, and shows it on its page."
    for name, secret in planted().items(): monkeypatch.setenv(name, secret)
    monkeypatch.setenv("CCAI_BENCHMARKS", "/data/benchmarks")
    sent = _sent_along("CCAI_API_KEY")
    assert not secret_in(json.dumps(sent["env_vars"])) and sent["env_vars"]["CCAI_BENCHMARKS"] == "/data/benchmarks"
    assert {"**/.env*", "**/*.pem"} <= set(sent["excludes"])


# in what a server says

KEY = "sk-proj-Zq7Xw9Kd3Vb5Nm1TfR4yAb8Cd6"
ECHOES = {
    "whole": KEY, "header": f"Bearer {KEY}", "first part": KEY[:24], "last part": KEY[8:], "spaced": " ".join(KEY),
    "in lines": "\n".join(KEY[i:i + 6] for i in range(0, len(KEY), 6)), "quoted": json.dumps({"key": KEY}),
    "dashes": KEY.replace("-", "%2D"), "marks": "**".join((KEY[:12], KEY[12:])),
}
ANSWER = "Take it slowly: begin with what you can see, and rest."


def told(where: str, echo: str, asked: str):
    "Status and body of an answer in which the echo stands somewhere."
    answer = completion(f"You said {asked}")
    choice = answer["choices"][0]
    if where == "answer": choice["message"]["content"] = f"{ANSWER} {echo}"
    if where == "reasoning": choice["message"]["reasoning_content"] = f"They sent {echo}"
    if where == "thinking": choice["message"]["content"] = f"<think>\n{echo}\n</think>\n\n{ANSWER}"
    if where == "model": answer["model"] = f"other {echo}"
    if where == "end": choice["finish_reason"] = echo
    if where == "error": return 400, {"error": {"message": f"no such key: {echo}; asked was {asked}"}}
    if where == "detail": return 422, {"detail": [{"loc": ["body", echo], "msg": f"not so: {echo}", "input": asked}]}
    if where == "field": return 200, {echo: "nothing else"}
    return 200, answer


@pytest.mark.parametrize("where", ["answer", "reasoning", "thinking", "model", "end", "error", "detail", "field"])
@pytest.mark.parametrize("form", ECHOES)
def test_a_server_that_repeats_the_key_gets_it_nowhere(monkeypatch, capsys, where, form):
    monkeypatch.setenv("CCAI_API_KEY", KEY)
    monkeypatch.setattr("contemplative_cai.models.endpoint.PAUSE", 0.01)
    asked, notes = "My neighbour plays the trumpet at night; what can I say to her?", []
    with Server(lambda handler, text: handler.send(*told(where, ECHOES[form], text))) as server:
        llm = EndpointLLM(server.url, "m", retries=0, note=notes.extend)
        try:
            outcomes = [item
                        for group in llm.stream([user(asked)] * 2, Sampling(max_tokens=60)) for item in group.values()]
        except ModelCallError as error: outcomes = [CallFailed(reason=str(error))]
    said = capsys.readouterr()
    kept = [item.model_dump_json() for item in outcomes]
    assert (len(outcomes) in (1, 2)
            and not any(secret_in(text, KEY) for text in (*kept, *notes, said.err, said.out))), kept


@pytest.mark.parametrize("form", ECHOES)
def test_a_list_of_models_that_repeats_the_key_gets_it_nowhere(monkeypatch, form):
    monkeypatch.setenv("CCAI_API_KEY", KEY)
    with Server(models=(f"m-{ECHOES[form]}", "n")) as server, pytest.raises(InputError) as refused:
        check_served(server.url, f"m-{form}")
    assert not secret_in(str(refused.value), KEY)


@pytest.mark.parametrize("key", ["none", "EMPTY", "not-needed", "token-abc123", "dummy key".replace(" ", "")])
def test_a_key_that_is_no_secret_costs_no_answer(monkeypatch, key):
    "Servers of one's own take any word as a key, and an answer may say that word."
    monkeypatch.setenv("CCAI_API_KEY", key)
    text = "It is not needed: none of the token boxes is empty, and no dummy key is kept."
    with Server(lambda handler, asked: handler.send(200, completion(text))) as server:
        assert EndpointLLM(server.url, "m").chat([user("Hello?")], Sampling(max_tokens=60))[0].text == text


@pytest.mark.parametrize("location", ["http://127.0.0.1:{}/v1/x", "http://localhost:{}/v1/x", "//127.0.0.1:{}/v1/x",
                                      "https://127.0.0.1:{}/v1/x"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_prompts_and_key_go_to_no_other_server(monkeypatch, location, status):
    monkeypatch.setenv("CCAI_API_KEY", KEY)
    with Server() as other:
        def away(handler, asked): return handler.send(status, b"", {"location": location.format(other.server_port)})
        with Server(away) as server, pytest.raises(ModelCallError, match="sends requests on|sent on"):
            EndpointLLM(server.url, "m", retries=0).chat([user("Hello?")], Sampling(max_tokens=9))
        assert other.asked == [] and other.bodies == []


def test_what_a_server_did_not_take_is_recorded_beside_the_engine(runs):
    from contemplative_cai.models.choose import open_llm
    def picky(handler, asked):
        refused = [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]
        return "seed" in handler.server.bodies[-1] and handler.send(422, {"detail": refused})
    with Server(picky) as server:
        recipe = build_recipe({"model": "m", "base_url": server.url})
        run = open_run("demo")
        for _ in range(2):
            with open_llm(recipe, run) as llm: llm.chat([user("Hello?")], Sampling(max_tokens=9))
            engine = run.manifest["engine"]
            assert (engine["engine"] == "endpoint" and len(engine["server"]) == 1
                    and "does not take seed" in engine["server"][0])
        with open_llm(recipe, run): pass
        assert run.manifest["engine"] == engine, "a run that asks nothing keeps what was told before"
        plan = pipeline.Plan(["generate"], "demo", "-", recipe, {})
        assert commands._server_notes(plan) == engine["server"]


# places

CLIENT = "client-of-ours"


UNALIKE = ("Who waters the garden in July?", "Is a promise to oneself a debt?", "Why do old bridges hum?",
           "How long should bread rest?", "What makes a neighbour kind?", "When is silence the better reply?",
           "Does the tide owe anything to the moon?")


@pytest.fixture
def elsewhere(tmp_path):
    "A folder outside the project whose name nobody else need know, with one file of each kind."
    folder = tmp_path / "home" / CLIENT
    folder.mkdir(parents=True)
    rows = (ROOT / "data" / "prompts" / "practice.jsonl").read_text().splitlines()[:16]
    (folder / "p.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "e_1.csv").write_text("text\n" + "\n".join(UNALIKE))
    (folder / "c.md").write_text((ROOT / "data" / "constitutions" / "contemplative-minimal.md").read_text())
    (folder / "h.jsonl").write_text("\n".join(json.dumps({"prompt": f"How do I tie knot {i}?", "rejected": "no",
                                                           "chosen": f"Cross the ends {i} times and pull."})
                                              for i in range(30)) + "\n")
    (folder / "r.yaml").write_text(yaml.safe_dump({
        "model": "random-tiny",
        "dtype": "float32",
        "device": "cpu",
        "prompts": str(folder / "p.jsonl"),
        "n_prompts": 8,
        "constitution": str(folder / "c.md"),
        "eval_prompts": str(folder / "e_1.csv"),
        "n_eval_prompts": 5,
        "helpful": str(folder / "h.jsonl"),
        "n_few_shot": 0,
        "answer_tokens": 16,
        "critique_tokens": 12,
        "revision_tokens": 16,
        "filters": "empty, identical",
        "max_steps": 2,
        "save_steps": 2,
        "max_length": 256,
        "n_safety": 0,
        "n_refusal": 5,
        "n_helpful": 5,
        "n_robustness": 0,
        "n_games": 0,
        "judge": "none",
        "eval_judged": "helpfulness",
        "eval_arms": "base, dpo",
        "resamples": 100,
        "primary_outcome": "words",
        "secondary_outcomes": [],
    }))
    return folder


def given_away(run: Path) -> list[Path]:
    "The files of a run that are made to be given to others."
    files = [*run.glob("report.*"), *run.glob("headline.json"), *run.glob("dataset/**/*"), *run.glob("*/adapter/*")]
    return [path for path in files if path.is_file()]


@pytest.mark.long
def test_a_report_and_a_data_set_name_files_without_their_folders(elsewhere, runs):
    "A run of prompts, constitution and held-out questions that lie in a folder of somebody's own."
    run, recipe = pipeline.begin("mine", str(elsewhere / "r.yaml"), {})
    generate_pairs(run, recipe, play(load_constitution(str(elsewhere / "c.md"))))
    write_report(run)
    write_dataset(run)
    assert run.manifest["recipe_name"] == "r.yaml" and CLIENT in json.dumps(run.manifest["recipe"])
    files = given_away(run.folder)
    assert len(files) > 4 and [path.name for path in files if CLIENT.encode() in path.read_bytes()] == []
    assert "e_1.csv" in run.path("report.md").read_text() + run.path("report.html").read_text()


@pytest.mark.parametrize("name, shown", [
    ("smoke", "smoke"), ("{root}/configs/smoke.yaml", "configs/smoke.yaml"),
    ("configs/smoke.yaml", "configs/smoke.yaml"), ("/home/ann/client/mine.yaml", "mine.yaml"),
    ("../client/mine.yml", "mine.yml"), ("{root}/../x/mine.yaml", "mine.yaml")
])
def test_a_recipe_is_recorded_by_its_place_in_the_project_or_its_bare_name(name, shown):
    assert told_name(name.format(root=ROOT)) == shown


@pytest.mark.parametrize("key, shared", [
    ("endpoint:m@gpu7.office:8000/v1#3b58", "endpoint:m#3b58"), ("endpoint:org/m-7b@10.0.0.7/v1", "endpoint:org/m-7b"),
    ("endpoint:a@h/v1#1 > endpoint:b@h2:81/v1", "endpoint:a#1 > endpoint:b"), ("endpoint:m", "endpoint:m"),
    ("random-tiny@f83c91/float32", "random-tiny@f83c91/float32"),
])
def test_a_server_is_given_away_by_name_and_not_by_address(key, shared): assert without_address(key) == shared


@pytest.mark.parametrize("values", [
    {"template": "{}/t.yaml"}, {"constitution": "{}/c.md"}, {"prompts": "practice, {}/p.csv"},
    {"split": "{}/split.json"}, {"launch": "{}/ddp.yaml"}, {"helpful": "{}/h.jsonl"},
    {"eval_prompts": [{"source": "{}/e.csv", "quota": 3}]}, {"calibration": "{}/mine.jsonl"}
])
def test_a_job_is_sent_paths_inside_the_project(values):
    inside = json.loads(json.dumps(values).replace("{}", str(ROOT / "data")))
    sent = json.dumps(portable(build_recipe(inside)).model_dump(mode="json"))
    assert str(ROOT) not in sent and "data/" in sent


@pytest.mark.parametrize("values", [
    {"model": "/home/ann/base"}, {"critic": "/home/ann/base"}, {"ensemble": "contemplative, /home/ann/judge"},
    {"eval_arms": "base, x=/home/ann/ad"}, {"eval_judges": "logits=/home/ann/judge"}])
def test_a_job_is_not_sent_for_weights_that_are_here(values):
    with pytest.raises(InputError, match="folders of this machine"): refuse_weights(portable(build_recipe(values)))


# everything at once


class Parrot(Server):
    "A server that answers, and in between repeats what it was sent: the prompt, the header, and parts of both."

    def __init__(self, **options):
        super().__init__(self.parrot, models=("m", "random-tiny"), **options)
        self.headers: list[dict] = []

    def parrot(self, handler, asked):
        self.headers.append(dict(handler.headers))
        turn, header = len(self.headers), handler.headers.get("authorization", "")
        where = ("error", "reasoning", "answer", "detail", "model", "thinking")[turn % 6]
        if turn % 3: return handler.send(200, completion(f"violates: partly\n{ANSWER} Number {turn}."))
        return handler.send(*told(where, f"{header} api_key={header[7:]} {asked[:300]}", asked))


class Trap(Server):
    "A server that nobody was told to ask."

    def __init__(self, **options):
        super().__init__(self.caught, **options)
        self.requests: list[str] = []
        inside = self

        class Handler(self.RequestHandlerClass):
            def do_GET(self): inside.requests.append(self.path); self.send(404, {})
            do_HEAD = do_PUT = do_CONNECT = do_GET
        self.RequestHandlerClass = Handler

    def caught(self, handler, asked): self.requests.append(handler.path)


def unpacked(path: Path) -> bytes:
    "A file's bytes, and what is packed in it."
    content = path.read_bytes()
    return content + gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def leaks(folder: Path, secrets: dict[str, str]) -> list[tuple[str, str]]:
    "Files below a folder, and the variables of which something stands in them."
    parts = {name: [secret[:18].encode(), secret[-18:].encode(), " ".join(secret[-18:]).encode(),
                    secret[-18:].hex().encode() if isinstance(secret, bytes) else secret[-18:].encode().hex().encode()]
             for name, value in secrets.items() for secret in [re.sub(r"^postgres://ann:|@h/db$", "", value)]}
    return [(path.relative_to(folder).as_posix(), name) for path in folder.rglob("*") if path.is_file()
            for content in [unpacked(path)] for name, forms in parts.items() if any(form in content for form in forms)]


IN_TURN = """
import json, sys
from contemplative_cai.command.commands import main
for words, expected in json.loads(sys.argv[1]):
    print("$ ccai", *words[:2])
    try: status = main(words) or 0
    except SystemExit as ended: status = ended.code or 0
    if status != expected: sys.exit(f"status {status} of {words}, expected {expected}")
"""


@pytest.mark.long
def test_no_secret_of_the_environment_is_written_printed_or_sent(elsewhere, runs, tmp_path):
    "Real commands, in processes of their own, with a secret in every variable and a server that repeats what it gets."
    secrets, outputs = planted(), []
    with Parrot() as server, Trap() as trap:
        away = f"http://127.0.0.1:{trap.server_port}"
        surroundings = os.environ | secrets | {
            "CCAI_RUNS": str(runs), "CCAI_ROOT": str(ROOT), "HOME": str(tmp_path / "home"), "HF_ENDPOINT": away,
            "OPENAI_BASE_URL": f"{away}/v1", "OPENAI_API_BASE": f"{away}/v1", "AWS_ENDPOINT_URL": away,
            "WANDB_BASE_URL": away, "MLFLOW_TRACKING_URI": away, "XDG_CACHE_HOME": str(Path.home() / ".cache")}

        def ccai(*commands):
            "Command lines one after the other in a process of their own, as (words, status)."
            done = subprocess.run([sys.executable, "-c", IN_TURN, json.dumps(commands)], cwd=elsewhere,
                                  env=surroundings, capture_output=True, text=True, timeout=600)
            outputs.append((commands, done.stdout + done.stderr))
            assert done.returncode == 0, (commands, done.stderr[-3000:])

        at_server = ["--recipe", "r.yaml", "-p", f"base_url={server.url}", "-p", "n_prompts=6", "-p", "helpful=null"]
        train, evaluate = ["run", "train", "--run", "b"], ["run", "evaluate", "--run", "b", "-p", "api_key_env="
                                                           "CCAI_JUDGE_API_KEY", "-p", "eval_judges=reasoned=m"]
        ccai((["run", "generate", "--run", "a", *at_server, "--dry-run"], 0))
        ccai((["run", "generate", "--run", "a", *at_server], 0))
        ccai((["run", "generate", "--run", "a"], 0), (["run", "review", "--run", "a"], 0))
        ccai((["run", "generate", "--recipe", "r.yaml", "--run", "b"], 0), ([*train, "--dry-run"], 0), (train, 0))
        ccai(([*evaluate, "-p", f"judge_url={server.url}"], 0))
        shown = (["report"], ["status"], ["push", "--repo", "lab/pairs", "--dry-run"])
        ccai(*(([words[0], run, *words[1:]], 0) for run in ("a", "b") for words in shown))
        ccai((["runs"], 0), (["diff", "a", "b", "--show", "3", "--show-text"], 0), (["recipes"], 0),
             (["compare", "a", "b"], 2),  # one of them was not evaluated
             (["run", "generate", "--recipe", "smoke", "--on", "sagemaker"], 0))
        sent = json.dumps(server.headers)
        assert {name for name, secret in secrets.items() if secret in sent} == {"CCAI_API_KEY", "CCAI_JUDGE_API_KEY"}
        assert trap.requests == [] and len(server.headers) > 20
    assert leaks(runs, secrets) == []
    told_names = [(commands, name) for commands, text in outputs for name, secret in secrets.items()
                  if secret_in(text, secret[:20]) or secret in text]
    assert told_names == []
    assert [path.relative_to(runs).as_posix() for run in ("a", "b") for path in given_away(runs / run)
            if CLIENT.encode() in unpacked(path)] == []
    assert b"127.0.0.1" not in b"".join(unpacked(path) for path in given_away(runs / "a") if "dataset" in path.parts)
    assert contents(runs)["a/run.json"] and json.loads((runs / "a" / "run.json").read_text())["recipe_name"] == "r.yaml"
