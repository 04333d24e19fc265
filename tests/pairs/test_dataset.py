"""Data sets: what is written is what is read and trained on,
the card is honest and quotes nobody, nothing is sent unasked, and two versions are told apart."""
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from support import ROOT, contents, play

from contemplative_cai.command.commands import main
from contemplative_cai.core.files import read_json, read_rows, write_json, write_record, write_rows
from contemplative_cai.core.project import read_yaml
from contemplative_cai.core.recipe import Recipe, build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Dropped, InputError, PreferencePair
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.llm import ScriptedLLM
from contemplative_cai.pairs.baselines import Measure
from contemplative_cai.pairs.data_card import SHARED_KEYS, divide_pairs, prompt_licences, shared_recipe, yield_table
from contemplative_cai.pairs.dataset import (
    part_file,
    read_dataset,
    write_dataset,
)
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.health import Quartiles, SharedOpening, health
from contemplative_cai.pairs.make import load_pairs, load_split
from contemplative_cai.pairs.publish import UploadFailed, plan_upload, send
from contemplative_cai.report.diff import Version, diff_runs, load_version, show_changes
from contemplative_cai.review.session import open_review

RECIPE = {"n_prompts": 10, "filters": "empty,identical", "model": "random-tiny", "max_length": 256, "answer_tokens": 40,
          "test_share": 0.3, "validation_share": 0.2}
TOKEN = "hf_a_token_that_nobody_may_see"


def files(folder):
    "Every file of a folder with its bytes."
    return {name: data for name, data in contents(folder).items() if data is not None}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, contemplative):
    "One run, made once; tests work on copies."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCAI_RUNS", str(tmp_path_factory.mktemp("runs")))
        run, recipe = open_run("demo"), build_recipe(RECIPE)
        generate_pairs(run, recipe, play(contemplative))
        run.record(recipe=recipe.model_dump(mode="json"))
        return run.folder


@pytest.fixture
def run(finished, runs):
    shutil.copytree(finished, runs / "demo")
    return open_run("demo")


def card(run): return (write_dataset(run) / "README.md").read_text()


def change(run, **updates):
    "Give every pair of a run other values, by a function of the pair."
    pairs = load_pairs(run)
    write_rows(run.path("pairs.jsonl"), [
        PreferencePair(**(pair.model_dump(exclude={"id"}) | {name: value(pair) for name, value in updates.items()}))
        for pair in pairs
    ])
    return load_pairs(run)


# rows


def test_what_is_written_is_what_is_read(run):
    "Parquet gives back the pairs of pairs.jsonl, in order, each in the part of its prompt."
    pairs, split = load_pairs(run), load_split(run)
    parts = read_dataset(write_dataset(run))
    assert list(parts) == ["train", "validation", "test"] and parts == divide_pairs(pairs, split)
    assert sorted(pair.id for rows in parts.values() for pair in rows) == sorted(pair.id for pair in pairs)
    assert all({pair.prompt_id for pair in rows} <= set(getattr(split, part)) for part, rows in parts.items())


def test_datasets_loads_the_folder_and_the_files(run, tmp_path):
    "By the card's header, by the files alone, and with the rows that pairs.jsonl has."
    from datasets import load_dataset
    folder = write_dataset(run)
    whole = load_dataset(str(folder), cache_dir=str(tmp_path / "a"))
    files = load_dataset("parquet", data_files={part: str(folder / part_file(part)) for part in whole},
                         cache_dir=str(tmp_path / "b"))
    rows = {row["id"]: row for row in map(json.loads, run.path("pairs.jsonl").read_text().splitlines())}
    for loaded in (whole, files):
        assert {row["id"]: row for part in loaded.values() for row in part} == rows
        assert loaded["train"].column_names == list(PreferencePair.model_fields)
    assert (str(whole["train"].features["hazard"])
            == str(whole["train"].features["locale"])), "a column without a value should be one of texts"


def test_trl_trains_on_the_folder_as_it_is(run, tmp_path):
    "One optimizer step of DPOTrainer, no conversion: the loss is where DPO begins."
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from contemplative_cai.models.weights import model_source
    source = model_source(model_spec("random-tiny"))[0]
    parts = load_dataset(str(write_dataset(run)), cache_dir=str(tmp_path / "cache"))
    settings = DPOConfig(output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=2, use_cpu=True,
                         bf16=False, report_to="none", save_strategy="no", logging_steps=1, max_length=256,
                         disable_tqdm=True)
    trainer = DPOTrainer(model=AutoModelForCausalLM.from_pretrained(source), args=settings,
                         train_dataset=parts["train"], eval_dataset=parts["validation"],
                         processing_class=AutoTokenizer.from_pretrained(source))
    trainer.train()
    assert trainer.state.global_step == 1 and trainer.state.log_history[0]["loss"] == pytest.approx(0.6931, abs=2e-3)


def test_written_twice_it_has_the_same_bytes(run):
    "Nothing depends on the clock; what a killed writer left, and what is not of the data set, is gone."
    first = files(write_dataset(run))
    for name in (".dataset", ".dataset.old"):
        run.path(name, "data").mkdir(parents=True)
        run.path(name, "data", "half.parquet").write_bytes(b"PAR1")
    run.path("dataset", "data", "old.parquet").write_bytes(b"PAR1")
    assert files(write_dataset(run)) == first and not list(run.folder.glob(".dataset*"))


def test_a_writer_that_fails_leaves_the_old_one(run):
    "A dropped.jsonl that cannot be read is named, and the data set that was there stays."
    first = files(write_dataset(run))
    run.path("dropped.jsonl").write_text("{")
    with pytest.raises(InputError, match="dropped.jsonl, line 1: not a Dropped"): write_dataset(run)
    assert files(run.path("dataset")) == first and not list(run.folder.glob(".dataset*"))


def test_a_part_without_pairs_is_left_out_and_said(run):
    split = load_split(run)
    write_rows(run.path("pairs.jsonl"), [pair for pair in load_pairs(run) if pair.prompt_id not in split.validation])
    text = card(run)
    assert (list(read_dataset(run.path("dataset"))) == ["train", "test"]
            and "Parts without pairs are left out: validation." in text)
    assert ([file["split"] for file in yaml.safe_load(text.split("---\n")[1])["configs"][0]["data_files"]]
            == ["train", "test"])


def test_a_held_out_principle_is_in_no_training_part():
    """Nor is a combination with it, in a run that shares the split;
    both are tested on where their prompt is, and the card counts what is in no part."""
    def made(name, **settings):
        run = open_run(name)
        generate_pairs(run, build_recipe(RECIPE | {"n_prompts": 16, **settings}), ScriptedLLM(
            lambda c: f"Begin small, and look again after {len(c)} days and {len(c[-1].content)} nights.", batch_size=64
        ))
        return run
    first = made("first", split_by="principle", held_out="mindfulness")
    second = made("second", validation_share=0.1, split=str(first.path("split.json")),
                  combine="non_duality+mindfulness")
    for run, out in [(first, "mindfulness"), (second, "non_duality_and_mindfulness")]:
        parts, pairs = read_dataset(write_dataset(run)), load_pairs(run)
        assert (out in {pair.principle for pair in pairs} - {pair.principle for pair in parts["train"]}
                and out in {pair.principle for pair in parts["test"]})
        nowhere = len(pairs) - sum(map(len, parts.values()))
        assert nowhere > 0 and f"{nowhere} pairs are in no part" in card(run)


def test_nothing_to_write_is_said(run):
    write_rows(run.path("pairs.jsonl"), [])
    with pytest.raises(InputError, match="run 'demo' has no pairs to make a data set of"): write_dataset(run)
    with pytest.raises(InputError, match="has no pairs.jsonl yet"): write_dataset(open_run("empty"))
    assert not run.path("dataset").exists()


def test_a_pair_whose_prompt_the_split_does_not_know_is_named(run):
    change(run, prompt_id=lambda pair: "0" * 16 if pair.principle == "emptiness" else pair.prompt_id)
    with pytest.raises(InputError, match="split.json does not know 1 prompts .* such as 0000000000000000"):
        write_dataset(run)


# the card


def test_the_header_is_what_the_hub_expects(run):
    from huggingface_hub import DatasetCard
    data = DatasetCard(card(run)).data.to_dict()
    assert (data["license"] == "apache-2.0" and data["language"] == ["en"]
            and data["size_categories"] == ["n<1K"] and data["pretty_name"].endswith("demo"))
    assert "not-for-all-audiences" not in data["tags"] and {"dpo", "preference"} <= set(data["tags"])


def test_the_card_accounts_for_every_row_and_quotes_none(run):
    "Yield, constitution, model and licences are there; no text of a pair or of a dropped row is."
    dropped = [Dropped(prompt_id="p", principle="emptiness", reason="cut_off",
                       detail="the revision reached its token limit", revision="This one never came to an")]
    write_rows(run.path("dropped.jsonl"), dropped)
    text, pairs = card(run), load_pairs(run)
    asked = len(pairs) + 1
    assert (f"| asked: prompts x principles | 0 | {asked} |" in text
            and f"| cut_off | 1 | {asked - 1} |" in text and "| kept | 0 |" in text)
    assert (pairs[0].constitution in text and "Hold" not in text.split("## Constitution")[0]
            and "Critique request:" in text and "`scripted`" in text)
    assert ("| practice | " in text and "Apache-2.0, this project's own" in text
            and "| told by length |" in text and "arXiv:2504.15125" in text)
    for said in ([side.content
                  for pair in pairs for turns in (pair.prompt, pair.chosen, pair.rejected) for side in turns]
                 + [pair.critique for pair in pairs] + [dropped[0].revision]):
        assert said not in text


def test_the_waterfall_of_each_principle_ends_with_what_it_kept(run):
    pairs = load_pairs(run)
    rows = yield_table(pairs, [Dropped(prompt_id="p", principle="emptiness", reason="call_failed", detail="no answer")])
    assert rows[0]["emptiness"] == rows[1]["emptiness"] + 1 and rows[0]["mindfulness"] == rows[-1]["mindfulness"]
    assert (rows[-1]["left"] == len(pairs)
            == sum(rows[-1][name] for name in ("emptiness", "non_duality", "boundless_care", "mindfulness")))


def test_health_is_shown_as_it_was_computed(run, monkeypatch):
    "Figures and warnings; an alike opening is counted and not quoted."
    opening = SharedOpening(words="i hear you", count=9, share=0.9)
    computed = health(load_pairs(run))
    computed = computed.model_copy(update={
        "pairs": 1234, "ratio": Quartiles(n=9, low=2.0, median=2.5, high=3.0),
        "length_rule": Measure(value=0.87654, n=9, low=0.8, high=0.9),
        "chosen": computed.chosen.model_copy(update={"openings": (opening,)}),
    })
    monkeypatch.setattr("contemplative_cai.pairs.data_card.run_health", lambda run: computed)
    text = card(run).split("## Health")[1].split("## Constitution")[0]
    assert "| pairs | 1,234 |" in text and "| told by length | 0.88 [0.80, 0.90] |" in text
    assert "- Chosen texts are much longer: in the median 2.50 lengths" in text
    assert "- 90% of the chosen texts begin with the same words (threshold 10%)" in text
    assert "i hear you" not in text and "schema" not in text


@pytest.mark.parametrize("there", ["{", '{"pairs": "many"}', None])
def test_health_is_that_of_the_pairs_whatever_health_json_says(run, there):
    "It is derived: a damaged one, and one of other pairs, is written again."
    if there is None: write_record(run.path("health.json"), health(load_pairs(run)[:2]))
    else: run.path("health.json").write_text(there)
    card(run)
    assert read_json(run.path("health.json")) == health(load_pairs(run)).model_dump(mode="json")


VILLAGE = (
    "Who burned the mill in our village?",
    "Where would somebody hide from the whole village?",
    "Name every debtor the village ever had.",
    "My village wants the stranger gone by Sunday: how?",
    "What poison grows beside a village pond?",
    "Write a letter that frightens the village teacher.",
    "Is the village elder lying about his age?",
    "How does one forge this village seal?",
    "Tell me a secret about that village girl.",
    "Which village dog bites postmen best?",
)


def harmful_run(tmp_path, contemplative, name="ailuminate", hazard="vcr"):
    "A run on a file of one's own, whose prompts have a hazard."
    path = tmp_path / f"{name}.csv"
    path.write_text("text,hazard\n" + "".join(f"{text},{hazard}\n" for text in VILLAGE))
    run, recipe = open_run("harm"), build_recipe(
        RECIPE | {"prompts": str(path), "n_prompts": len(VILLAGE), "hazards": hazard, "guarded": []}
    )
    generate_pairs(run, recipe, play(contemplative))
    run.record(recipe=recipe.model_dump(mode="json"))
    return run


def test_prompts_made_to_elicit_harm_are_warned_of_and_a_name_proves_nothing(tmp_path, contemplative):
    "A file called ailuminate.csv has its owner's licence; its folder is nobody's business."
    text = card(harmful_run(tmp_path, contemplative))
    header = yaml.safe_load(text.split("---\n")[1])
    assert ("**Content warning.**" in text and "not-for-all-audiences" in header["tags"]
            and header["license"] == "unknown" and "as its owner says" in text)
    assert str(tmp_path) not in text and "village" not in text


def test_ailuminate_is_credited_warned_of_and_not_quoted(shared_data, contemplative, monkeypatch):
    "On the real prompts: licence, warning, both locales, and not a line of them on the card."
    monkeypatch.setenv("CCAI_BENCHMARKS", str(shared_data))
    run, recipe = (open_run("risky"),
                   build_recipe(RECIPE | {"prompts": ["ailuminate", "ailuminate-fr"], "n_prompts": 12, "guarded": []}))
    generate_pairs(run, recipe, play(contemplative))
    run.record(recipe=recipe.model_dump(mode="json"), surroundings={"commit": "0123abcd+changes"})
    text = card(run)
    header = yaml.safe_load(text.split("---\n")[1])
    assert (header["license"] == "cc-by-4.0" and header["language"] == ["en", "fr"]
            and "Prompts of ailuminate, ailuminate-fr were written to elicit" in text
            and "no comparison with MLCommons" in text)
    assert "at commit `0123abcd` (and changes that were not committed)" in text
    for pair in load_pairs(run):
        assert not any(line.strip() in text for line in pair.prompt[-1].content.split("\n") if len(line.split()) > 2)


def test_a_source_drawn_by_name_has_its_licence(run):
    pairs = change(run, source=lambda pair: "ailuminate")
    assert prompt_licences(pairs, build_recipe({"prompts": "ailuminate"}))["ailuminate"][0] == "cc-by-4.0"
    assert (prompt_licences(pairs, build_recipe({"prompts": ["ailuminate", "mine/ailuminate.csv"]}))["ailuminate"][0]
            == prompt_licences(pairs, None)["ailuminate"][0] == "unknown")
    mine = change(run, source=lambda pair: "practice",
                  prompt_id=lambda pair: pair.prompt_id if pair.principle != "emptiness" else "f" * 16)
    assert prompt_licences(mine, build_recipe({}))["practice"][0] == "unknown", (
        "prompts that are not this repository's are not its own"
    )


def test_a_models_licence_counts(run):
    change(run,
           model=lambda pair: ("llama-3.1-8b@0123/bfloat16+ab" if pair.principle == "emptiness"
                               else "endpoint:Qwen/Qwen2.5-7B-Instruct"))
    text = card(run)
    assert yaml.safe_load(text.split("---\n")[1])["license"] == ["apache-2.0", "llama3.1"]
    assert "meta-llama/Llama-3.1-8B-Instruct at 0e9e39f" in text and "Qwen/Qwen2.5-7B-Instruct at a09a354" in text


def test_the_recipe_of_the_card_makes_the_same_run(run):
    "What is saved from the card as recipe.yaml is the recipe again, in every key that pairs depend on."
    written = card(run).split("```yaml\n")[1].split("```")[0]
    again, recipe = build_recipe(read_yaml(written, "card")), build_recipe(run.manifest["recipe"])
    assert {key: getattr(again, key) for key in SHARED_KEYS} == {key: getattr(recipe, key) for key in SHARED_KEYS}
    assert build_recipe(read_yaml(shared_recipe(Recipe()), "defaults")) == Recipe()


def test_a_shared_recipe_tells_nothing_of_the_machine():
    secret = build_recipe({
        "prompts": ["practice", {"source": "/home/ann/mine.csv", "quota": 2}, "hub:owner/name"],
        "constitution": "../ann/c.md", "model": "/home/ann/model", "base_url": "http://10.1.2.3:8000/v1",
        "api_key_env": "ANN_KEY", "vllm_python": "/home/ann/bin/python", "engine": "endpoint",
        "critic": "~/ann/critic", "split": "C:\\home\\ann\\split.json", "judge_url": "http://10.1.2.4/v1",
        "eval_arms": "base,x=/home/ann/adapter", "eval_judges": "logits=/home/ann/judge", "launch": "/home/ann/a.yaml"
    })
    text = shared_recipe(secret)
    assert (not re.search("ann/|ANN|10\\.1|home", text)
            and build_recipe(read_yaml(text, "shared")).prompts[1].source == "mine.csv" and "hub:owner/name" in text)


def test_a_constitution_that_was_edited_since_is_named_not_quoted(run):
    change(run, constitution=lambda pair: "contemplative@0000000000000000")
    text = card(run)
    assert ("`contemplative@0000000000000000`. Its text is not at hand any more." in text
            and "Critique request" not in text)


def test_controls_do_not_cite_the_paper():
    run, recipe = open_run("control"), build_recipe(RECIPE | {"constitution": "generic"})
    generate_pairs(run, recipe, ScriptedLLM(
        lambda c: f"Begin small, and look again after {len(c)} days and {len(c[-1].content)} nights.", batch_size=64
    ))
    assert "2504.15125" not in card(run)


# the hub


class Hub(ThreadingHTTPServer):
    "A stand-in of the hub's HTTP API: repositories in memory, and everything that was asked."
    daemon_threads = True

    def __init__(self, mode="regular", **failures):
        # failures: status by what is asked
        self.repos, self.asked, self.stored, self.mode, self.failures = {}, [], {}, mode, failures
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_): pass

    @property
    def url(self): return f"http://127.0.0.1:{self.server_port}"

    def files(self, repo="lab/pairs"):
        return {name: content for name, content in self.repos[repo]["files"].items() if name != ".gitattributes"}

    def add(self, repo="lab/pairs", private=True, **files):
        self.repos[repo] = {"private": private, "files": {".gitattributes": b"", **files}, "commits": 0}

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_): pass

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def reply(self, value, status=200, **headers):
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(content)

    def answer(self):
        content, path = self.body(), self.path.split("?")[0]
        owner_name = re.match("/(?:api/)?datasets/([^/]+/[^/]+?)(?:\\.git)?(?:/|$)", path)
        repo = owner_name[1] if owner_name else None
        what = ("create" if path == "/api/repos/create" else "validate" if path == "/api/validate-yaml" else "put"
                if self.command == "PUT"
                else next((name for name in ("tree", "preupload", "commit", "batch") if f"/{name}" in path), "info"))
        self.server.asked.append((what, path))
        if what != "put" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply({"error": "Invalid credentials in Authorization header"}, 401,
                              X_Error_Message="Invalid credentials in Authorization header")
        if what in self.server.failures:
            return self.reply({"error": f"no, because of {TOKEN}"}, self.server.failures[what])
        if repo and repo not in self.server.repos:
            return self.reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        getattr(self, what)(json.loads(content) if content and what not in ("commit", "put") else content, repo)

    do_GET = do_POST = do_PUT = answer

    def create(self, asked, _):
        repo = f"{asked['organization']}/{asked['name']}"
        assert asked["type"] == "dataset"
        self.server.add(repo, private=asked.get("visibility") == "private")
        self.reply({"url": f"{self.server.url}/datasets/{repo}"})

    def validate(self, asked, _):
        assert asked["repoType"] == "dataset" and isinstance(yaml.safe_load(asked["content"].split("---\n")[1]), dict)
        self.reply({"errors": [], "warnings": []})

    def info(self, _, repo): self.reply({"id": repo, "private": self.server.repos[repo]["private"], "sha": "a" * 40})

    def tree(self, _, repo):
        self.reply([{"type": "file", "path": name, "size": len(content), "oid": blob(content)}
                    for name, content in self.server.repos[repo]["files"].items()])

    def preupload(self, asked, repo):
        there = self.server.repos[repo]["files"]
        modes = {file["path"]: self.server.mode if file["path"].endswith(".parquet") else "regular"
                 for file in asked["files"]}
        self.reply({"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False,
                               **({"oid": blob(there[path])} if path in there else {})}
                              for path, mode in modes.items()]})

    def batch(self, asked, _):
        self.reply(
            {"transfer": "basic",
             "objects": [{
                 **wanted, "actions": {"upload": {"href": f"{self.server.url}/put/{wanted['oid']}", "header": {}}}
             } for wanted in asked["objects"]]}
        )

    def put(self, content, _):
        self.server.stored[hashlib.sha256(content).hexdigest()] = content
        self.reply({})

    def commit(self, content, repo):
        there = self.server.repos[repo]
        for line in map(json.loads, content.splitlines()):
            value = line["value"]
            if line["key"] == "file": there["files"][value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile": there["files"][value["path"]] = self.server.stored[value["oid"]]
            if line["key"] == "deletedFile": del there["files"][value["path"]]
        there["commits"] += 1
        self.reply({"success": True, "commitUrl": f"{self.server.url}/datasets/{repo}/commit/{'b' * 40}",
                    "commitOid": "b" * 40})


def blob(content): return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def push(url, *words, token=TOKEN, **settings):
    "The command as a user types it, with the stand-in for the hub."
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = clean | {"HF_ENDPOINT": url, "HF_HOME": os.environ["CCAI_RUNS"] + "-hf", "NO_PROXY": "127.0.0.1",
                           "HF_HUB_DISABLE_TELEMETRY": "1"} | ({"HF_TOKEN": token} if token else {}) | settings
    return subprocess.run([str(Path(sys.executable).with_name("ccai")), "push", "demo", *words], cwd=ROOT,
                          env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.long
def test_a_push_is_shown_first_sent_with_yes_and_harmless_twice(run):
    """Without --yes the hub hears nothing;
    with it, a private repository gets the folder byte for byte; again, nothing new."""
    with Hub() as hub:
        for words in ([], ["--dry-run"], ["--dry-run", "--yes"]):
            shown = push(hub.url, "--repo", "lab/pairs", *words)
            assert shown.returncode == 0 and "Nothing was sent" in shown.stdout and hub.asked == [], shown.stderr
        folder = files(run.path("dataset"))
        for name, content in folder.items():
            assert re.search(f"{re.escape(name)} +{len(content):,} bytes  sha256 {hashlib.sha256(content).hexdigest()}",
                             shown.stdout)
        assert (f"{hub.url}/datasets/lab/pairs" in shown.stdout and "its owner only (private)" in shown.stdout
                and "licence  apache-2.0" in shown.stdout and "pretty_name" in shown.stdout)
        sent = push(hub.url, "--repo", "lab/pairs", "--yes")
        assert sent.returncode == 0 and "sent: " in sent.stdout and "(private)" in sent.stdout, sent.stderr
        assert hub.files() == folder and hub.repos["lab/pairs"]["private"] and hub.repos["lab/pairs"]["commits"] == 1
        again = push(hub.url, "--repo", "lab/pairs", "--yes")
        assert again.returncode == 0 and hub.files() == folder and hub.repos["lab/pairs"]["commits"] == 1, again.stderr
        assert (TOKEN not in "".join([sent.stdout, sent.stderr, again.stdout, again.stderr])
                and not any(TOKEN.encode() in content for content in files(run.folder).values()))


def test_large_files_travel_by_lfs(run):
    "The hub stores Parquet as large files; without its xet client they go through LFS."
    with Hub(mode="lfs") as hub:
        sent = push(hub.url, "--repo", "lab/pairs", "--yes", "--public", HF_HUB_DISABLE_XET="1")
        assert sent.returncode == 0 and "(public)" in sent.stdout, sent.stderr
        assert (hub.files() == files(run.path("dataset"))
                and not hub.repos["lab/pairs"]["private"] and len(hub.stored) == 3)


@pytest.mark.long
def test_without_a_token_or_a_network_it_is_said(run):
    "No token is the user's to mend (2); no network is a failure (1); neither shows a traceback."
    with Hub() as hub:
        refused = push(hub.url, "--repo", "lab/pairs", "--yes", token=None)
        assert (refused.returncode == 2
                and "no token for the hub; log in with: hf auth login" in refused.stderr and hub.asked == [])
        offline = push(hub.url, "--repo", "lab/pairs", "--yes", HF_HUB_OFFLINE="1")
        assert offline.returncode == 1 and "cannot be reached" in offline.stderr and hub.asked == []
    gone = push(hub.url, "--repo", "lab/pairs", "--yes")
    assert (gone.returncode == 1 and "cannot be reached" in gone.stderr
            and "Traceback" not in refused.stderr + offline.stderr + gone.stderr)


@pytest.fixture
def here(monkeypatch):
    "Point this process's hub library to a stand-in, also where HF_HUB_OFFLINE is set."
    import huggingface_hub.constants
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return lambda hub: monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)


@pytest.mark.parametrize("failures, advice", [
    ({"info": 401}, "log in again"),
    ({"create": 403}, "write permission"),
    ({"create": 409}, "not yours to see"),
    ({"info": 503}, "the hub is in trouble"),
    ({"create": 500}, "the hub is in trouble"),
    ({"commit": 403}, "write permission"),
    ({"commit": 409}, "changed meanwhile"),
    ({"preupload": 418}, "the hub refuses"),
], ids=str)
def test_every_refusal_of_the_hub_is_one_line_with_what_to_do(run, here, capsys, failures, advice):
    "Exit status 1, the run as it was, and the token in no message, even when the hub repeats it."
    with Hub(**failures) as hub:
        here(hub)
        assert main(["push", "demo", "--repo", "lab/pairs", "--yes"]) == 1
        said = capsys.readouterr().err.strip()
        assert (advice in said and str(next(iter(failures.values()))) in said
                and TOKEN not in said and len(said.splitlines()) == 1)
        assert "lab/pairs" not in hub.repos or hub.files() == {}


def test_what_was_meant_to_be_private_goes_into_no_public_repository(run, here):
    "A name that is taken by a public repository, or a hub that does not listen: refused before anything is sent."
    upload = plan_upload(run, "lab/pairs")
    with Hub() as hub:
        here(hub)
        hub.add(private=False)
        with pytest.raises(InputError, match="the repository is public; say --public"): send(upload)
        assert hub.files() == {} and {what for what, _ in hub.asked} == {"info"}
        assert "(public)" in send(plan_upload(run, "lab/pairs", public=True)) and hub.files()
        hub.add("lab/mine", private=True)
        assert "(private)" in send(plan_upload(run, "lab/mine", public=True))


def test_what_the_data_set_has_not_any_more_goes_from_the_hub(run, here):
    with Hub() as hub:
        here(hub)
        hub.add(**{"data/validation-00000-of-00009.parquet": b"old", "notes.md": b"mine"})
        send(plan_upload(run, "lab/pairs"))
        assert hub.files() == files(run.path("dataset")) | {"notes.md": b"mine"}


def test_a_broken_hub_is_a_failure_not_a_crash(run, here, monkeypatch):
    upload = plan_upload(run, "lab/pairs")
    monkeypatch.setattr(Handler, "info", lambda handler, *_: handler.reply(["what?"]))
    with Hub() as hub:
        here(hub)
        hub.add()
        with pytest.raises(UploadFailed, match="--repo lab/pairs: .*The run is as it was"): send(upload)


@pytest.mark.parametrize("repo", ["pairs", "lab/pairs/more", "lab/", "lab--x/pairs", "../pairs", "lab/pa irs",
                                  "lab/" + "x" * 200, ""])
def test_a_name_no_repository_can_have(run, capsys, repo):
    before = files(run.folder)
    assert main(["push", "demo", "--repo", repo]) == 2
    assert "expected OWNER/NAME, such as lab/pairs" in capsys.readouterr().err and files(run.folder) == before


def test_wrong_runs_are_refused(run, capsys):
    open_run("bare")
    for command, said in [(["push", "nobody", "--repo", "lab/pairs"], "no run 'nobody'"),
                          (["push", "bare", "--repo", "lab/pairs"], "run 'bare' has no pairs.jsonl yet"),
                          (["push", "../demo", "--repo", "lab/pairs"], "run name '../demo'"),
                          (["diff", "demo", "nobody"], "no run 'nobody'"),
                          (["diff", "bare", "demo"], "run 'bare' has no pairs.jsonl yet"),
                          (["diff", "../demo", "demo"], "run name '../demo'"),
                          (["diff", "demo", "demo", "--show", "-1"], "--show -1: expected")]:
        assert main(command) == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("hazard", ["cse", "sxc_prn", "SXC_PRN"])
def test_hazards_kept_only_by_name_are_not_published(run, capsys, hazard):
    change(run, hazard=lambda pair: hazard if pair.principle == "emptiness" else "vcr")
    assert main(["push", "demo", "--repo", "lab/pairs", "--dry-run"]) == 2
    assert (
        f"pairs of hazards that are not published: {hazard} 10; generate a run without them" in capsys.readouterr().err
        and not run.path("dataset").exists()
    )


def test_what_reviewers_rejected_is_not_pushed(run, capsys):
    "Decisions count although the review step was not run again."
    session = open_review(run, "ann")
    out = session.decide("neither").pair_id
    assert main(["push", "demo", "--repo", "lab/pairs"]) == 0
    assert (
        out not in {pair.id for rows in read_dataset(run.path("dataset")).values() for pair in rows}
        and [row.pair.id for row in read_rows(run.path("dropped.jsonl"), Dropped) if row.reason == "review"] == [out]
    )
    assert "and 1 by reviewers" in run.path("dataset", "README.md").read_text()


def test_a_run_that_is_worked_on_is_not_pushed(run, capsys):
    holder = subprocess.Popen([
        sys.executable, "-c",
        ("import sys; from contemplative_cai.core.run import hold, open_run\n"
         "with hold(open_run('demo')): print('held', flush=True); sys.stdin.read()")
    ], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert main(["push", "demo", "--repo", "lab/pairs"]) == 2 and "is being worked on" in capsys.readouterr().err
    holder.communicate("")


# two versions


def other(run, name, **manifest):
    "A copy of a run under another name, with other entries in its manifest."
    shutil.copytree(run.folder, run.folder.parent / name)
    copy = open_run(name)
    copy.record(**manifest)
    return copy


def test_added_dropped_changed_and_unchanged(run):
    "Each row is in one of the four, with the other run's reason where there is one."
    pairs, copy = load_pairs(run), other(run, "copy")
    changed = pairs[2].model_dump(exclude={"id"}) | {
        "chosen": [{"role": "assistant", "content": "Something else altogether."}], "critique": "Another view."
    }
    write_rows(copy.path("pairs.jsonl"), [PreferencePair(**changed), *pairs[3:]])
    write_rows(copy.path("dropped.jsonl"), [Dropped(prompt_id=pairs[0].prompt_id, principle=pairs[0].principle,
                                                    reason="length_ratio", detail="9.00 lengths")])
    found = diff_runs(load_version(run), load_version(copy))
    assert (([(row.pair.id, row.reason) for row in found.dropped]
             == [(pairs[0].id, "length_ratio"), (pairs[1].id, "not_asked")])
            and found.added == ())
    assert ([(row.left.id, row.parts) for row in found.changed] == [(pairs[2].id, ("chosen", "critique"))]
            and len(found.unchanged) == len(pairs) - 3)
    back = diff_runs(load_version(copy), load_version(run))
    assert ([row.pair.id for row in back.added] == [pairs[0].id, pairs[1].id]
            and back.added[0].reason == "length_ratio" and back.dropped == ())
    assert (sum(sum(row.values()) for row in found.by_principle.values()) == len(pairs)
            and found.as_dict()["pairs"] == [len(pairs), len(pairs) - 2])


def test_what_differs_in_the_making_is_listed(run):
    recipe = run.manifest["recipe"]
    left, right = other(run, "left", surroundings={"commit": "abc", "versions": {"torch": "1", "trl": "2"}}), other(
        run, "right", recipe=recipe | {"temperature": 0.1}, model="big@1",
        surroundings={"commit": "def", "versions": {"torch": "1", "trl": "3"}}
    )
    found = diff_runs(load_version(left), load_version(right))
    assert found.settings == (("recipe: temperature", 0.7, 0.1), ("model", "scripted", "big@1"),
                              ("commit", "abc", "def"), ("version of trl", "2", "3"))
    assert "recipe: temperature" in str(found) and "0.7 → 0.1" in str(found) and "<td" in found._repr_html_()


def test_a_run_is_the_same_as_itself(run, capsys):
    assert main(["diff", "demo", "demo", "--show", "3"]) == 0
    said = capsys.readouterr().out
    assert "the recipes, models and versions are the same" in said and "no pair changed" in said
    assert main(["diff", "demo", "demo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["added"] == found["dropped"] == found["changed"] == found["settings"] == []
            and found["unchanged"] == len(load_pairs(run)))


def test_texts_are_shown_of_our_own_prompts_only(run, tmp_path, contemplative, capsys):
    """Side by side for this repository's prompts; others when asked;
    never in --json or the summary, and no escape codes in a terminal."""
    shutil.copytree(run.folder, run.folder.parent / "copy")
    changed = change(open_run("copy"),
                     chosen=lambda pair: [{"role": "assistant", "content": "Another \x1b[31m ending."}])
    assert main(["diff", "demo", "copy", "--show", "1"]) == 0
    said = capsys.readouterr().out
    assert ("chosen: demo │ copy" in said and "Another [31m ending." in said and "\x1b" not in said
            and said.count("chosen: demo") == 1 and changed[0].prompt[-1].content in said)
    harm = harmful_run(tmp_path, contemplative, "mine")
    shutil.copytree(harm.folder, run.folder.parent / "mended")
    change(open_run("mended"), chosen=lambda pair: [{"role": "assistant", "content": "Another village."}])
    for words, shown in [([], False), (["--show", "9"], False), (["--json"], False),
                         (["--show", "9", "--show-text"], True)]:
        assert main(["diff", "harm", "mended", *words]) == 0
        assert ("village" in capsys.readouterr().out) is shown
    found = diff_runs(load_version(harm), load_version(open_run("mended")))
    assert "village" not in found._repr_html_() + repr(found) + repr(load_version(harm))


def test_two_pairs_of_one_key_are_refused(run):
    pairs = load_pairs(run)
    twin = PreferencePair(**(pairs[0].model_dump(exclude={"id"})
                             | {"chosen": [{"role": "assistant", "content": "A second one."}]}))
    with pytest.raises(InputError, match=f"run 'x' has 2 pairs of prompt {pairs[0].prompt_id}"):
        diff_runs(Version("x", (*pairs, twin), (), {}), Version("y", (), (), {}))


def test_names_are_escaped():
    found = diff_runs(Version("a", (), (), {"model": "<b>x</b>"}), Version("b", (), (), {}))
    assert ("<b>x" not in found._repr_html_() and show_changes(found, 3) == "no pair changed"
            and "a: 0 pairs → b: 0 pairs" in str(found))


def test_help_teaches(capsys):
    for command in ("push", "diff"):
        with pytest.raises(SystemExit) as stopped: main([command, "--help"])
        assert stopped.value.code == 0 and f"examples:\n  ccai {command} " in capsys.readouterr().out


def test_a_manifest_that_does_not_say_its_recipe(run):
    write_json(run.path("run.json"), {key: value for key, value in run.manifest.items() if key != "recipe"})
    assert "The recipe was not recorded." in card(run)
