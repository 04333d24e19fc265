"""What is declared is whole, nothing of it changes unseen, and every change is told with what was known then."""
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from support import ROOT

from contemplative_cai.command.commands import main
from contemplative_cai.core.files import read_json, readable_rows, write_json, write_text
from contemplative_cai.core.journal import Journal, write_ledger
from contemplative_cai.core.recipe import SECTIONS, Recipe, build_recipe
from contemplative_cai.core.run import Run, open_run
from contemplative_cai.core.schema import InputError, Prompt
from contemplative_cai.evaluation import dependencies
from contemplative_cai.evaluation.arms import Arm
from contemplative_cai.evaluation.declarations import (
    DECLARATIONS,
    DeclarationLine,
    append_declaration,
    changed_fields,
    read_declarations,
    registration_text,
    remember_verdicts,
)
from contemplative_cai.evaluation.dependencies import (
    NOT_DECLARED,
    declared_content,
    planned_arms,
    planned_stage,
    recipe_settings,
    thresholds,
)
from contemplative_cai.evaluation.evaluate import declare_evaluation
from contemplative_cai.evaluation.questions import PromptSet, Suites

ARMS = (Arm(name="base", description="as it came"), Arm(name="prompted", description="told"))


def asked(text="May I borrow it?", left_out=(), **more):
    prompt = Prompt(text=text, source="test", **more)
    return Suites({"safety": PromptSet(name="safety", prompts=(prompt,), learned=left_out)}, (), {prompt.id: prompt.id})


def content_of(suites=None, arms=ARMS, trained="dpo", **keys):
    return declared_content(build_recipe(keys), suites or asked(), arms, trained)


def declared(run, **keys): return append_declaration(run, content_of(**keys))


def known(run, verdicts): write_text(run.path("verdicts.jsonl"), "{}\n" * verdicts)


def told(before, after):
    "The fields that are told when one content follows the other."
    run = open_run(f"told-{time.monotonic_ns()}")
    append_declaration(run, before)
    known(run, 3)
    return {change.field for change in append_declaration(run, after).changes if change.late}


# every key of a recipe

# another value of a key, with what else the recipe needs for it; where a rule below finds none
OTHERS = {
    "n_pairs": ({"pairs": "first"}, 5), "capability": ({}, "choices"),
    "capability_samples": ({"capability": "humaneval"}, 10),
    "capability_unsafe": ({"capability": "humaneval"}, True), "capability_files": ({}, {"mbpp": "tasks.jsonl"}),
    "model": ({}, "random-tiny"), "base_url": ({}, "http://127.0.0.1:8000/v1"), "vllm_python": ({}, "python3"),
    "template_options": ({}, {"enable_thinking": False}), "api_key_env": ({}, "OTHER_API_KEY"),
    "prompts": ({}, "edge_cases"), "eval_prompts": ({}, "practice"), "constitution": ({}, "generic"),
    "critique_samples": ({"critique_method": "verdict"}, 3), "second_round": ({"critique_method": "verdict"}, True),
    "revision_method": ({}, "distilled"),
    "revision_samples": ({"revision_method": "best_of", "revision_samples": 2}, 3),
    "principles_per_prompt": ({"principle_choice": "sampled"}, 2), "filters": ({}, "empty"),
    "balance": ({}, "principle"), "balance_quota": ({"balance": "principle"}, 4),
    "held_out": ({"split_by": "hazard"}, "vcr"),
    "loss": ({}, "hinge"), "label_smoothing": ({}, 0.1), "early_stopping": ({"eval_steps": 4}, 2),
    "packing": ({"training": "sft"}, True), "stop_on": ({}, "nan,length"), "trackers": ({}, "trackio"),
    "eval_arms": ({}, "base,dpo"), "eval_judges": ({}, "reasoned"), "eval_judged": ({}, "violation"),
    "judge_url": ({"eval_judges": "logits=random-tiny"}, "http://127.0.0.1:8000/v1"),
    "primary_outcome": ({}, "refusal"), "primary_against": ({}, "prompted"), "secondary_outcomes": ({}, "violation"),
    "engine": ({}, "transformers"), "split": ({}, "split.json"), "helpful": ({}, "helpful.jsonl"),
    "hazards": ({}, "vcr"), "personas": ({}, "skilled"), "locales": ({}, "en_US"), "launch": ({}, "ddp"),
    "train_batch_size": ({}, 2), "repetition_penalty": ({}, 1.2), "batch_size": ({}, 4), "template": ({}, "terse"),
}


def another_value(key):
    "Keys that the recipe has before and after, and another value of this key, by its kind."
    if key in OTHERS: return OTHERS[key]
    default = Recipe.model_fields[key].default
    schema = Recipe.model_json_schema()["properties"][key]
    choices = schema.get("enum") or next((part["enum"] for part in schema.get("anyOf", []) if "enum" in part), [])
    if choices: return {}, next(choice for choice in choices if choice != default)
    if isinstance(default, bool): return {}, not default
    if isinstance(default, int): return {}, default + 1
    if isinstance(default, float): return {}, default * 0.8 + 0.01
    kinds = {part.get("type") for part in schema.get("anyOf", [])}
    return {}, 2 if "integer" in kinds else 0.5 if "number" in kinds else "other"


def recipes_of(key):
    beside, value = another_value(key)
    return build_recipe(beside), build_recipe(beside | {key: value})


@pytest.mark.parametrize("key", Recipe.model_fields)
def test_a_change_of_any_key_is_told_or_there_is_a_reason_why_not(key):
    one, two = ({"settings": recipe_settings(recipe)} for recipe in recipes_of(key))
    assert told(one, two) == (set() if key in NOT_DECLARED else {f"settings.{key}"})


@pytest.mark.parametrize("section", ["evaluation", "statistics"])
def test_every_key_of_an_evaluation_is_declared(section):
    assert not set(SECTIONS[section].model_fields) & set(NOT_DECLARED)
    assert set(SECTIONS[section].model_fields) <= set(recipe_settings(Recipe()))


def test_what_is_not_declared_says_why():
    assert set(NOT_DECLARED) < set(Recipe.model_fields)
    assert all(len(reason.split()) > 6 for reason in NOT_DECLARED.values())


def test_a_key_of_a_newer_version_that_has_its_default_is_no_change():
    "A run begun before goes on; with another value the key is told."
    before = content_of()
    del before["settings"]["margin"], before["settings"]["template_options"]
    assert told(before, content_of()) == set()
    assert told(before, content_of(margin=0.2)) == {"settings.margin"}


# the three that nobody told

@pytest.mark.parametrize("change, was, now", [
    ({"eval_judges": "reasoned,logits"}, "logits, reasoned", "reasoned, logits"),
    ({"margin": 0.3}, "0.05", "0.3"),
    ({"eval_samples": 5}, "1", "5"),
], ids=["order of the judges", "margin", "samples"])
def test_what_was_changed_after_verdicts_is_told(runs, change, was, now):
    before = {"eval_judges": "logits,reasoned"}
    run = open_run("demo")
    declare_evaluation(run, build_recipe(before), ARMS, asked(), "dpo")
    known(run, 240)
    later = declare_evaluation(run, build_recipe(before | change), ARMS, asked(), "dpo")
    (one,) = later.changes
    assert (one.name, one.was, one.now, one.verdicts) == (*change, was, now, 240)
    assert one.when == "240 verdicts known" and one.late and later.written == one.written


def test_two_changes_that_cancel_out_are_both_told(runs):
    run = open_run("demo")
    for margin in (0.05, 0.3, 0.05):
        last = declared(run, margin=margin)
        known(run, 7)
    assert [(change.was, change.now) for change in last.changes] == [("0.05", "0.3"), ("0.3", "0.05")]


def test_what_was_changed_before_the_first_verdict_is_told_as_that(runs):
    run = open_run("demo")
    declared(run)
    declared(run, margin=0.1)
    with Journal(run.path("journal.sqlite")) as journal:
        journal.save("answer base", {"a": {"text": "yes"}, "b": {"text": "no"}}, 1.0)
    declared(run, margin=0.2)
    with Journal(run.path("journal.sqlite")) as journal: journal.save("judge weigh", {"c": {"total": -1.0}}, 1.0)
    changes = declared(run, margin=0.3).changes
    assert [change.when for change in changes] == ["before the first answer", "2 answers known, no verdict",
                                                   "judges asked 1 time, no verdicts written"]
    assert [change.late for change in changes] == [False, False, True]


def test_verdicts_that_were_deleted_had_been_known(runs):
    run = open_run("demo")
    declared(run)
    known(run, 240)
    declared(run, margin=0.1)
    run.path("verdicts.jsonl").unlink()
    assert [change.verdicts for change in declared(run, margin=0.2).changes] == [240, 240]


def test_verdicts_whose_every_trace_was_deleted_had_been_known(runs):
    "All but run.json and the ledger are gone before anything is declared again."
    run = open_run("demo")
    declared(run)
    with Journal(run.path("journal.sqlite")) as journal:
        journal.save("answer base", {"a": {"text": "yes"}}, 1.0)
        journal.save("judge weigh", {"b": {"total": -1.0}, "c": {"total": -1.0}}, 1.0)
    known(run, 240)
    remember_verdicts(run)
    write_ledger(run)
    for name in ("journal.sqlite", "verdicts.jsonl"): run.path(name).unlink()
    (change,) = declared(run, margin=0.3).changes
    assert (change.verdicts, change.judged, change.answered) == (240, 2, 1)


def test_the_same_declared_again_adds_nothing(runs):
    run = open_run("demo")
    first = declared(run)
    before = run.path(DECLARATIONS).read_bytes(), run.path("declaration.txt").read_bytes()
    assert declared(run) == first and first.changes == () and first.faults == ()
    assert (run.path(DECLARATIONS).read_bytes(), run.path("declaration.txt").read_bytes()) == before


def test_weights_that_were_open_are_filled_in_and_others_are_told(runs):
    def arms(weights): return {"arms": {"order": ["base", "dpo"], "dpo": {"system": None, "weights": weights}}}
    run = open_run("demo")
    first = append_declaration(run, arms(None))
    assert append_declaration(run, arms("abc")).changes == ()
    assert read_declarations(run).since == first.lines[0].written
    known(run, 2)
    (change,) = append_declaration(run, arms("def")).changes
    assert change.field == "arms.dpo"
    assert (change.was, change.now) == ("system none; weights abc", "system none; weights def")


# what no recipe says

@pytest.mark.parametrize("name, value, field", [
    ("LEAST_AUC", 0.5, "least AUC of a judge"), ("MOST_FLIPS", 1.0, "most flips of a judge"),
    ("MOST_UNREAD", 1.0, "most unread answers of a judge"), ("LEAST_LABELS", 1, "least labels"),
    ("LEAST_MASS", 0.01, "least mass of the replies"), ("ONE", "{asked}", "judges' words"),
    ("TWO", "{asked}", "judges' words"), ("REASONED", "{forms}", "judges' words"), ("WEIGHED", {}, "judges' words"),
    ("SPOKEN", None, "judges' words"), ("DETECTOR_VERSION", "detector@1", "rules"),
    ("RULES_VERSION", "dilemma@1", "games"), ("MIN_CLUSTERS", 2, "fewest independent prompts"),
    ("MASK", "", "masked words"), ("KEPT", ("refusal",), "kept within the margin"), ("BY", {}, "broken down by"),
])
def test_a_bar_or_rule_that_was_moved_is_told(monkeypatch, name, value, field):
    before = {"thresholds": json.loads(json.dumps(thresholds()))}
    monkeypatch.setattr(dependencies, name, value)
    assert told(before, {"thresholds": json.loads(json.dumps(thresholds()))}) == {f"thresholds.{field}"}


@pytest.mark.parametrize("file, was, now, fields", [
    ("data/rubrics/safety.yaml", "question: ", "question: Really, ", {"rubrics.judged safety", "rubrics.composite"}),
    ("data/rubrics/surface.yaml", "question: ", "question: Really, ", {"rubrics.by rule surface"}),
    ("data/rubrics/style.yaml", "question: ", "question: Really, ", {"rubrics.by rule style"}),
    ("data/rubrics/cooperation.yaml", "question: ", "question: Really, ", {"rubrics.by rule cooperation"}),
    ("data/rubrics/pairwise.yaml", "question: ", "question: Really, ", {"rubrics.judged pairwise"}),
    ("data/calibration/everyday.jsonl", '"answer": "', '"answer": "So: ',
     {"inputs.answers that judges are measured on"}),
    ("data/constitutions/contemplative.md", "- ", "- always ", {"inputs.constitution", "arms.prompted"}),
    ("data/arms/careful.md", ". ", ". So. ", {"arms.careful"}),
    ("configs/models.yaml", "revision: ", "revision: 0", {"models.answers", "models.judge logits"}),
], ids=lambda value: value.rpartition("/")[2] if isinstance(value, str) else "")
def test_a_file_that_was_edited_is_told(tmp_path, monkeypatch, file, was, now, fields):
    for part in ("configs", "data", "nbs/pipelines"):
        shutil.copytree(ROOT / part, tmp_path / "project" / part, ignore=shutil.ignore_patterns("benchmarks"))
    monkeypatch.setenv("CCAI_ROOT", str(tmp_path / "project"))
    arms = (*ARMS, Arm(name="careful", description="told"))
    def content(): return content_of(arms=arms, model="qwen2.5-0.5b")
    before, path = content(), tmp_path / "project" / file
    text = path.read_text()
    assert was in text
    path.write_text(text.replace(was, now, 1) if "models" not in file else text.replace(was, now))
    assert fields <= told(before, content()) <= fields | {"arms.prompted", "arms.careful", "inputs.constitution"}


@pytest.mark.parametrize("suites, fields", [
    (asked("May I keep it?"), {"sets.safety", "sets.places"}),
    (asked(history=({"role": "user", "content": "So."}, {"role": "assistant", "content": "Yes?"})),
     {"sets.safety", "sets.places"}),
    (asked(left_out=("0123456789abcdef",)), {"sets.safety"}),
    (asked(hazard="vcr"), {"sets.places"}),
], ids=["text", "turns before it", "left out", "hazard"])
def test_a_question_that_was_changed_is_told(suites, fields):
    assert told(content_of(), content_of(suites)) == fields


def test_the_order_of_questions_and_of_arms_is_told():
    two = [Prompt(text=text, source="test") for text in ("Who?", "What?")]
    def of(prompts): return Suites({"safety": PromptSet(name="safety", prompts=tuple(prompts))}, (),
                                   {prompt.id: prompt.id for prompt in prompts})
    assert told(content_of(of(two)), content_of(of(two[::-1]))) == {"sets.safety", "sets.places"}
    assert told(content_of(), content_of(arms=ARMS[::-1])) == {"arms.order"}
    assert told(content_of(), content_of(arms=ARMS[:1])) == {"arms.order", "arms.prompted"}


def test_another_version_of_code_or_library_is_told_and_a_commit_alone_is_not():
    before = content_of()
    def changed(**code): return before | {"code": before["code"] | code}
    for name in ("version", "source", "scipy", "torch"):
        assert told(before, changed(**{name: "other"})) == {f"code.{name}"}
    assert told(before, changed(commit="other")) == set()
    assert before["code"]["source"] and before["code"]["version"]


def test_paths_and_addresses_of_a_machine_are_not_declared(tmp_path):
    shutil.copy(ROOT / "data/constitutions/generic.md", tmp_path / "mine.md")
    keys = {"constitution": str(tmp_path / "mine.md"), "eval_arms": f"base,dpo,other={tmp_path}/other/dpo",
            "base_url": "http://10.1.2.3:8000/v1"}
    text = json.dumps(content_of(**keys), ensure_ascii=False)
    assert str(tmp_path) not in text and "10.1.2.3" not in text and '"mine.md"' in text and '"other=dpo"' in text


# a chain

def simply(run, margin=0.05):
    "Declare a margin and little else."
    return append_declaration(run, {"claims": {"primary": "violation: dpo - base"}, "settings": {"margin": margin}})


def three(runs):
    run = open_run("demo")
    for margin in (0.05, 0.1, 0.2):
        simply(run, margin=margin)
        known(run, 9)
    assert read_declarations(run).faults == ()
    return run, run.path(DECLARATIONS).read_text().splitlines(keepends=True)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("field", DeclarationLine.model_fields)
def test_an_edit_of_any_field_of_any_line_is_found(runs, number, field):
    run, lines = three(runs)
    line = json.loads(lines[number])
    settings = line["content"]["settings"] | {"margin": 0.4}
    other = {"written": "2026-01-01T00:00:00+00:00", "before": "0" * 64, "source": "evaluation.json",
             "digest": "0" * 64, "faults": ["none"], "content": line["content"] | {"settings": settings}}
    lines[number] = json.dumps(line | {field: other.get(field, 5)}) + "\n"
    run.path(DECLARATIONS).write_text("".join(lines))
    assert read_declarations(run).faults
    assert simply(run, margin=0.05).faults, "a line that is added afterwards keeps what was found"


@pytest.mark.parametrize("left", [[], [0], [1], [2], [0, 1], [0, 2], [1, 2], [1, 0, 2], [0, 1, 2, 2], [0, 0, 1, 2]],
                         ids=str)
def test_lines_that_were_taken_away_doubled_or_moved_are_found_for_good(runs, left):
    run, lines = three(runs)
    run.path(DECLARATIONS).write_text("".join(lines[number] for number in left))
    assert read_declarations(run).faults
    simply(run, margin=0.05)
    simply(run, margin=0.1)
    assert read_declarations(run).faults, "also when others were added since"


def test_a_file_that_was_deleted_is_found_for_good(runs):
    run, _ = three(runs)
    run.path(DECLARATIONS).unlink()
    assert "deleted" in read_declarations(run).faults[0]
    assert simply(run).faults and read_declarations(run).lines[0].verdicts == 9


def test_a_chain_that_was_made_anew_does_not_fit_run_json(runs):
    "Whoever computes every digest again is found as long as run.json stands."
    run, _ = three(runs)
    other = open_run("other")
    for margin in (0.2, 0.1, 0.3): simply(other, margin=margin)
    shutil.copy(other.path(DECLARATIONS), run.path(DECLARATIONS))
    assert any("run.json" in fault for fault in read_declarations(run).faults)


def test_lines_that_somebody_added_are_found(runs):
    run, _ = three(runs)
    named = run.manifest["declarations"]
    simply(run, margin=0.3)
    simply(run, margin=0.4)
    run.record(declarations=named)
    assert "added by hand" in read_declarations(run).faults[0]


def test_a_first_declaration_that_came_after_verdicts_says_so(runs):
    run = open_run("demo")
    known(run, 12)
    assert simply(run).faults == ("the first declaration was not written before the first answer: 12 verdicts known",)


def test_the_digest_can_be_computed_by_anybody(runs):
    run, lines = three(runs)
    for line in map(json.loads, lines):
        own = json.dumps({key: value for key, value in line.items() if key != "digest"}, sort_keys=True,
                         ensure_ascii=False, separators=(",", ":"))
        assert hashlib.sha256(own.encode()).hexdigest() == line["digest"]
    assert json.loads(lines[2])["digest"] in registration_text(run, read_declarations(run))
    assert run.manifest["declarations"]["first"] == json.loads(lines[0])["digest"]


# runs begun before there were lines

OLD = {"schema_version": 1, "declared": {"primary": "violation: dpo - base", "family": ["refusal: dpo - base"]},
       "trained": "dpo", "arms": ["base", "prompted"], "margin": 0.05, "samples": 1, "judges": ["logits"],
       "sets": {"safety": {"prompts": 1, "left_out": [], "note": ""}}, "detectable": 0.4,
       "written": "2026-01-01T00:00:00+00:00", "earlier": [{"primary": "words: dpo - base", "family": []}]}
SAME = {"secondary_outcomes": "refusal", "eval_arms": "base,dpo"}


@pytest.fixture
def old(runs):
    run = open_run("old")
    write_json(run.path("evaluation.json"), OLD)
    known(run, 50)
    return run


def test_a_declaration_of_before_is_the_first_and_goes_on(old):
    later = declare_evaluation(old, build_recipe(SAME), ARMS, asked(), "dpo")
    lines = read_declarations(old).lines
    assert (later.changes, later.declaration_faults) == ((), ()) and later.written == OLD["written"]
    assert [line.source for line in lines] == ["evaluation.json", ""] and len(later.earlier) == 1
    assert declare_evaluation(old, build_recipe(SAME), ARMS, asked(), "dpo") == later


@pytest.mark.parametrize("change, fields", [
    ({"margin": 0.3}, {"settings.margin"}), ({"eval_judges": "reasoned"}, {"settings.eval_judges"}),
    ({"eval_samples": 2}, {"settings.eval_samples"}), ({"primary_outcome": "refusal"},
                                                      {"claims.primary", "claims.secondary"}),
])
def test_what_a_declaration_of_before_says_is_compared(old, change, fields):
    later = declare_evaluation(old, build_recipe(SAME | change), ARMS, asked(), "dpo")
    assert {one.field for one in later.changes} == fields and later.changes[0].verdicts == 50


def test_a_declaration_of_before_that_is_none_is_refused(old):
    write_json(old.path("evaluation.json"), {"declared": {"primary": "violation: dpo - base"}})
    with pytest.raises(InputError, match=r"evaluation\.json"): read_declarations(old)


# killed, and a full disk

def test_a_line_that_does_not_fit_on_the_disk_leaves_everything_as_it_was(runs):
    run, _ = three(runs)
    path, most = run.path(DECLARATIONS), resource.getrlimit(resource.RLIMIT_FSIZE)
    before, manifest, after = path.read_bytes(), run.manifest, {"settings": {"margin": 0.3, "filler": "x" * 900}}
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for room in (0, 1, 100, 900):
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, most[1]))
        try:
            with pytest.raises(OSError): append_declaration(run, after)
        finally: resource.setrlimit(resource.RLIMIT_FSIZE, most)
        assert path.read_bytes() == before and run.manifest == manifest and read_declarations(run).faults == ()
    assert len(append_declaration(run, after).lines) == 4


def test_a_process_that_ends_between_line_and_manifest_accuses_nobody(runs, monkeypatch):
    run, _ = three(runs)
    def stop(*_, **__): raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(Run, "record", stop)
        with pytest.raises(KeyboardInterrupt): simply(run, margin=0.3)
    assert read_declarations(run).faults == () and len(read_declarations(run).lines) == 4
    later = simply(run, margin=0.4)
    assert later.faults == () and [change.now for change in later.changes] == ["0.1", "0.2", "0.3", "0.4"]


@pytest.mark.parametrize("cut", [1, 40, -2])
def test_a_torn_line_is_no_declaration_and_accuses_nobody(runs, cut):
    run, lines = three(runs)
    with open(run.path(DECLARATIONS), "a") as file: file.write(lines[2][:cut])
    assert read_declarations(run).faults == () and len(read_declarations(run).lines) == 3
    later = simply(run, margin=0.3)
    assert later.faults == () and [line.number for line in later.lines] == [1, 2, 3, 4]


DECLARING = """
import sys
from contemplative_cai.core.run import open_run
from contemplative_cai.evaluation.declarations import append_declaration
run = open_run("demo")
print("ready", flush=True)
for i in range(100_000): append_declaration(run, {"settings": {"margin": i, "filler": "x" * (i * 37 % 5000)}})
"""


@pytest.mark.long
def test_killed_at_any_moment_it_has_whole_lines_in_a_chain(runs):
    run = open_run("demo")
    lot = random.Random(0)
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", DECLARING], env=os.environ | {"CCAI_RUNS": str(runs)},
                                   stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(lot.uniform(0.05, 0.4))
        process.kill()
        process.wait()
        before = read_declarations(run)
        assert before.faults == () and before.lines
        assert [line.number for line in before.lines] == list(range(1, len(before.lines) + 1))
        assert not readable_rows(run.path(DECLARATIONS), DeclarationLine)[1], "no line was torn"
    assert len(read_declarations(run).lines) > 12


# the command

SMALL = ["-p", "n_prompts=8", "-p", "n_safety=0", "-p", "n_refusal=0", "-p", "n_helpful=0", "-p", "n_robustness=0",
         "-p", "n_games=0", "-p", "primary_outcome=refusal", "-p", "guarded=[]"]
BEGUN = ["declare", "study", "--recipe", "smollm2-135m", *SMALL]


def test_a_run_that_is_not_there_yet_is_declared_and_begun(runs, capsys):
    assert main(BEGUN) == 0
    shown, run = capsys.readouterr().out, open_run("study", create=False)
    line = read_declarations(run).lines[0]
    assert line.digest in shown and "refusal: dpo - base" in shown and "before the first answer" in shown
    assert shown.startswith(run.path("declaration.txt").read_text())
    assert run.manifest["recipe"]["n_prompts"] == 8 and run.manifest["recipe_name"] == "smollm2-135m"
    assert not run.path("journal.sqlite").exists(), "nothing was asked"


def test_shown_again_it_changes_nothing(runs, capsys):
    assert main(BEGUN) == 0
    before = {path.name: path.read_bytes() for path in (runs / "study").iterdir() if path.is_file()}
    first = capsys.readouterr().out
    assert main(["declare", "study"]) == 0 and capsys.readouterr().out == first
    assert {path.name: path.read_bytes() for path in (runs / "study").iterdir() if path.is_file()} == before


def test_for_machines_it_is_the_line_itself(runs, capsys):
    assert main([*BEGUN, "--json"]) == 0
    (row,) = map(json.loads, (runs / "study" / DECLARATIONS).read_text().splitlines())
    assert json.loads(capsys.readouterr().out) == row


def test_something_else_declared_is_told_at_once(runs, capsys):
    assert main(BEGUN) == 0 and main(["declare", "study", "-p", "margin=0.1"]) == 0
    shown = capsys.readouterr().out
    assert "margin: 0.05 -> 0.1" in shown and "before the first answer" in shown
    assert open_run("study").manifest["recipe"]["margin"] == 0.1


def test_a_file_changed_by_hand_is_told_by_the_command(runs, capsys):
    assert main(BEGUN) == 0
    (runs / "study" / DECLARATIONS).unlink()
    capsys.readouterr()
    assert main(["declare", "study"]) == 0
    shown = capsys.readouterr()
    assert "the file was deleted" in shown.err and "Signs that the file was changed by hand" in shown.out


@pytest.mark.parametrize("words, message", [
    (["nowhere"], "ccai declare nowhere --recipe NAME"), (["../out", "--recipe", "smoke"], "run name"),
    (["study", "--recipe", "smokee"], "did you mean 'smoke'"),
    (["study", "--recipe", "smoke", "-p", "margn=1"], "margin"),
    (["study", "--recipe", "smoke", "-p", "margin=2"], "margin"),
    (["study", "--recipe", "smoke", "-p", "n_safety=3"], "can never have an interval"),
    (["study", "--recipe", "smoke", "-p", "primary_outcome=violations"], "violation"),
    (["study", "--recipe", "smoke", "-p", "show_text=true"], "of the notebook of generate"),
    (["study", "--recipe", "smoke", "-p", "on=ray"], "none is run"),
    (["study", "--recipe", "smoke", "-p", "training=sft", "-p", "eval_arms=base,dpo"], "add sft"),
    (["study", "--recipe", "smoke", "-p", "eval_arms=base,dpo,dpo=runs/x/dpo"], "two arms are called 'dpo'"),
])
def test_what_is_wrong_is_told_and_nothing_is_written(runs, capsys, words, message):
    assert main(["declare", *words]) == 2
    assert message in capsys.readouterr().err and not runs.exists()


def test_keys_that_pairs_were_made_with_are_fixed_when_there_are_pairs(runs, capsys):
    assert main(BEGUN) == 0
    write_text(runs / "study" / "pairs.jsonl", "")
    assert main(["declare", "study", "-p", "n_prompts=9"]) == 2 and "belongs to generate" in capsys.readouterr().err
    assert main(["declare", "study", "-p", "margin=0.2"]) == 0


def test_a_run_at_work_is_left_alone(runs, capsys):
    from contemplative_cai.core.run import hold
    assert main(BEGUN) == 0
    code = "import sys; from contemplative_cai.command.commands import main; sys.exit(main(sys.argv[1:]))"
    with hold(open_run("study")):
        done = subprocess.run([sys.executable, "-c", code, "declare", "study", "-p", "margin=0.2"], cwd=ROOT,
                              env=os.environ | {"CCAI_RUNS": str(runs)}, capture_output=True, text=True)
    assert done.returncode == 2 and "is being worked on" in done.stderr


def test_arms_and_stage_are_known_before_anything_is_trained(runs):
    run = Run("new", runs / "new")
    for training, names in (("dpo", ["base", "prompted", "careful", "dpo"]),
                            ("sft", ["base", "prompted", "careful", "sft"]),
                            ("sft+dpo", ["base", "prompted", "careful", "sft", "dpo"])):
        recipe = build_recipe({"training": training})
        assert [arm.name for arm in planned_arms(recipe, run)] == names
        assert planned_stage(recipe, run) == names[-1]
    later = planned_arms(build_recipe({"eval_arms": "base,dpo,control=runs/control/dpo"}), run)
    assert [(arm.name, arm.adapter, arm.model) for arm in later][2] == ("control", None, None)


def test_unchanged_fields_are_no_change(runs):
    run, _ = three(runs)
    line = read_declarations(run).lines[-1]
    assert changed_fields(line, line.content) == {} and read_json(run.path("run.json"))["declarations"]["lines"] == 3


@pytest.mark.long
def test_declared_run_and_changed_from_the_command_line(runs):
    "Declared before a run is there, gone through, evaluated; then the margin is moved, and the report tells it."
    def ccai(*words, status=0):
        code = "import sys; from contemplative_cai.command.commands import main; sys.exit(main(sys.argv[1:]))"
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True,
                              env=os.environ | {"CCAI_RUNS": str(runs)})
        assert done.returncode == status, done.stderr
        return done.stdout
    few = [word for key in ("n_games", "n_robustness", "n_helpful") for word in ("-p", f"{key}=0")]
    ccai("declare", "study", "--recipe", "smoke", *few)
    run, page = Run("study", runs / "study"), runs / "study" / "report.md"
    ccai("run", "all", "--run", "study", *few)
    assert read_declarations(run).changes == () and "Changes of the declaration" not in page.read_text()
    ccai("run", "evaluate", "--run", "study", "-p", "margin=0.3")
    (change,) = read_declarations(run).changes
    assert (change.name, change.was, change.now) == ("margin", "0.05", "0.3") and change.verdicts > 0
    assert "margin 0.05 → 0.3" in page.read_text() and "verdicts known" in page.read_text()
    assert "margin: 0.05 -> 0.3" in ccai("declare", "study")
