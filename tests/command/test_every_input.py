"""Bad inputs made from what each key may be, at every entry: refused in a line, or taken; nothing worse."""
import gzip
import os
import types
import typing

import annotated_types as bounds
import pytest
import yaml
from support import clean, contents, within

from contemplative_cai.command import commands, pipeline
from contemplative_cai.core.recipe import Recipe
from contemplative_cai.core.schema import InputError

PATIENCE = 10  # seconds that any refusal may take
LONGEST = 16_000  # characters that all messages together may have
NAMES = list(Recipe.model_fields)

# texts that no key means, among them what a terminal or a file name must not get
HOSTILE = {
    "control": "a\x1b[2J\x1b]0;owned\x07b", "newline": "a\nccai: all is well", "direction": "a\u202egnp.exe",
    "surrogate": "a\ud800b", "nul": "a\0b", "long": "x" * 1_000_000, "braces": "{prompt:>9999999999}",
    "folder": "../../evil", "no such folder": "/no/such/folder", "device": "/dev/zero", "percent": "%s%n", "empty": "",
    "blank": " ", "home": "~", "nowhere": "~nobody-of-this-name/x", "url": "http://user:secretpw@127.0.0.1:9/v1",
    "markup": "<script>alert(1)</script>", "dots": ".", "list in words": "[1, 2", "assign": "a=b=c", "comma": ",",
}
# values by the type they have; a key of another type refuses them
TYPED = {"text": "some words", "whole": 7, "fraction": 0.375, "yes": True, "list": ["a", ["b"]], "map": {"a": {"b": 1}},
         "not a number": float("nan"), "endless": float("inf"), "huge": 10 ** 400, "nothing": None}


def kinds(annotation) -> set:
    "The plain types that an annotation allows."
    if typing.get_origin(annotation) is typing.Annotated: return kinds(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return set().union(*map(kinds, typing.get_args(annotation)))
    if typing.get_origin(annotation) is typing.Literal: return {("one of", typing.get_args(annotation))}
    return {typing.get_origin(annotation) or annotation}


def limits(name: str) -> list:
    "What bounds the number a key holds, also inside a union."
    field = Recipe.model_fields[name]
    inner = [part for option in typing.get_args(field.annotation) for part in getattr(option, "__metadata__", ())]
    every = [*field.metadata, *(limit for part in inner for limit in getattr(part, "metadata", [part]))]
    return [limit for limit in every if isinstance(limit, (bounds.Ge, bounds.Gt, bounds.Le, bounds.Lt))]


def beyond(name: str) -> list:
    "Numbers just outside the bounds of a key."
    step = 1 if int in kinds(Recipe.model_fields[name].annotation) else 1e-6
    values = {bounds.Ge: lambda limit: limit.ge - step, bounds.Gt: lambda limit: limit.gt,
              bounds.Le: lambda limit: limit.le + step, bounds.Lt: lambda limit: limit.lt}
    return [values[type(limit)](limit) for limit in limits(name)]


def misfits(name: str) -> list:
    "Values that a key must refuse: of another type, or beyond its bounds."
    allowed = kinds(Recipe.model_fields[name].annotation)
    plain = {kind for kind in allowed if isinstance(kind, type)}
    numbers, texts, lists = plain & {int, float}, plain & {str}, plain & {tuple, list}
    wrong = [TYPED["map"]] if dict not in plain else [TYPED["list"]]
    if not numbers: wrong += [TYPED["fraction"]] * (bool not in plain) + [TYPED["huge"]]
    if numbers: wrong += [TYPED["text"], TYPED["not a number"], TYPED["endless"], TYPED["yes"]]
    if int in plain and float not in plain: wrong += [TYPED["fraction"]]
    if bool in plain: wrong += [TYPED["text"], TYPED["whole"], "false"]
    if not lists and not texts: wrong += [TYPED["list"]]
    if any(not isinstance(kind, type) for kind in allowed): wrong += [TYPED["text"]] * (not texts)
    return wrong + beyond(name)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    "Runs and caches of these tests are in the test's own folder, and no kernel is ever started."
    monkeypatch.setenv("CCAI_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(pipeline, "execute", lambda step, *_: pytest.fail(f"a dry run started step {step}"))


@pytest.fixture
def dry(tmp_path, capfd):
    "Try `ccai run generate --dry-run` with some words; returns status and what was said on stderr."
    def check(*argv):
        there = contents(tmp_path)
        with within(PATIENCE): status = commands.main(["run", "generate", "--dry-run", *map(str, argv)])
        printed, said = capfd.readouterr()
        assert status in (0, 2) and contents(tmp_path) == there
        assert (status == 2) == bool(said), said[:500]
        assert all(line.startswith("ccai: ") for line in said.splitlines()), said[:500]
        assert len(said) <= LONGEST, f"{len(said)} characters"
        assert "secretpw" not in printed + said, "a secret is shown"
        assert clean(printed) and clean(said), repr(said[:500])
        return status, said
    return check


def recipe_file(folder, values: dict):
    "A recipe that differs from the smallest one by some values."
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"model": "random-tiny", "prompts": "practice", "n_prompts": 2} | values))
    return path


def case(value): return repr(value)[:30]


WRONG = [pytest.param(name, value, id=f"{name}-{case(value)}") for name in NAMES for value in misfits(name)]


@pytest.mark.parametrize("name, value", WRONG)
def test_a_value_that_does_not_fit_is_refused_by_name(dry, tmp_path, name, value):
    "In a recipe's file and on the command line, with the key that is wrong."
    status, said = dry("--recipe", recipe_file(tmp_path, {name: value}))
    assert status == 2 and name in said
    written = yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
    status, said = dry("--recipe", "smoke", "-p", f"{name}={written}")
    assert status == 2 and name in said


@pytest.mark.parametrize("name", NAMES)
def test_any_text_as_a_value_is_taken_or_refused(dry, name):
    "Whatever it is: no traceback, no hang, no page of message, nothing that moves the cursor."
    for text in HOSTILE.values(): dry("--recipe", "smoke", "-p", f"{name}={text}")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_refuses_what_the_command_refuses(tmp_path, name):
    "`begin` has the same checks."
    for value in misfits(name):
        with pytest.raises(InputError, match=name):
            pipeline.begin("mine", "smoke", {"settings": {name: value}})
        with pytest.raises(InputError, match=name): pipeline.begin("mine", "smoke", {name: value})
    assert not os.path.exists(tmp_path / "runs" / "mine")


# files


FILES = {
    "empty": b"",
    "nul": b"\0" * 300,
    "latin": "caf\u00e9".encode("latin-1"),
    "utf-16": "text\nOne?\n".encode("utf-16"),
    "deep": b"[" * 100_000,
    "words": b"These are only words.",
    "broken yaml": b"a: [1\nb: {",
    "bomb": gzip.compress(b"0" * 300_000_000),
    "cut gzip": gzip.compress(b"text\nOne?\n" * 9)[:20],
    "one line": b"x" * 5_000_000,
    "json": b'{"text": 3}',
    "list": b"[1, 2]",
    "null": b"null",
    "html": b"<html><script>",
}
ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
RECIPES = {
    "aliases": ALIASES + "beta: *a8\n",
    "keys": "".join(f"key_{i}: {i}\n" for i in range(20_000)),
    "long key": "x" * 100_000 + ": 1\n",
    "long value": "beta: " + "x" * 900_000 + "\n",
    "huge": "n_prompts: 1" + "0" * 5000,
    "wide": "filters: [" + "x, " * 100_000 + "]\n",
    "base 60": "n_prompts: 1:30\n",
    "tag": "beta: !!python/object:os.system x",
    "merge": "<<: &x {beta: 1}\nseed: *x\n",
    "key of control": '"a\\e[2J": 1\n',
    "twenty deep": "beta: " + "[" * 20 + "]" * 20,
}
PLACES = {"--recipe": "yaml", "prompts": "csv", "eval_prompts": "jsonl", "constitution": "md", "template": "yaml",
          "split": "json", "helpful": "jsonl", "launch": "yaml", "calibration": "jsonl"}


def words_for(place: str, path) -> list[str]:
    "The words of a command line that name a file at one of the places that take one."
    return [place, str(path)] if place.startswith("-") else ["--recipe", "smoke", "-p", f"{place}={path}"]


@pytest.mark.parametrize("content", FILES)
@pytest.mark.parametrize("place", PLACES)
def test_a_file_of_another_kind_is_refused_by_name(dry, tmp_path, place, content):
    "Wherever a file is named, what is in it cannot hang or end the command."
    path = tmp_path / f"mine.{PLACES[place]}"
    path.write_bytes(FILES[content])
    dry(*words_for(place, path))


def special(kind: str, path):
    "Something that has a name and is no regular file."
    if kind == "pipe": os.mkfifo(path)
    if kind == "folder": path.mkdir()
    if kind == "loop": path.symlink_to(path)
    if kind in ("/dev/zero", "/dev/urandom", "/dev/full"): path.symlink_to(kind)
    return path


@pytest.mark.parametrize("kind",
                         ["pipe", "folder", "loop", "/dev/zero", "/dev/urandom", "/dev/full", "none"])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_is_refused(dry, tmp_path, place, kind):
    "A pipe is not waited for, and a device not read to its end."
    dry(*words_for(place, special(kind, tmp_path / f"mine.{PLACES[place]}")))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_that_is_written_to_hurt_is_refused(dry, tmp_path, recipe):
    "Within seconds, and in some lines."
    (tmp_path / "mine.yaml").write_text(RECIPES[recipe])
    status, said = dry("--recipe", tmp_path / "mine.yaml")
    assert status == 2 and "mine.yaml" in said
