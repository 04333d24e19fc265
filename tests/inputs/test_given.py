"""Pairs that others made: every form is read, every row that makes none is named, and nothing is guessed."""
import gzip
import json
import shutil
from collections import Counter

import pytest
from support import matter

from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import Run, open_run
from contemplative_cai.core.schema import InputError, Message, PreferencePair
from contemplative_cai.inputs.draw import draw, take_in_pairs
from contemplative_cai.inputs.given import (
    GivenPairs,
    given_prompts,
    pairs_path,
    read_pairs,
    run_pairs,
    shipped_pairs,
    some_pairs,
)
from contemplative_cai.inputs.split import refuse_leaks
from contemplative_cai.inputs.tables import table_rows
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.make import load_pairs


def user(text): return {"role": "user", "content": text}


def assistant(text): return {"role": "assistant", "content": text}


QUESTION, GOOD, BAD = "Is tea good?", "In the morning, yes.", "No."
FORMS = {
    "turns": {"prompt": [user(QUESTION)], "chosen": [assistant(GOOD)], "rejected": [assistant(BAD)]},
    "text": {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD},
    "whole turns": {"chosen": [user(QUESTION), assistant(GOOD)], "rejected": [user(QUESTION), assistant(BAD)]},
    "dialogue": {"chosen": f"\n\nHuman: {QUESTION}\n\nAssistant: {GOOD}",
                 "rejected": f"\n\nHuman: {QUESTION}\n\nAssistant: {BAD}"},
}


def lines(rows): return "".join(json.dumps(row) + "\n" for row in rows)


def sides(pair): return pair.prompt[-1].content, pair.chosen[0].content, pair.rejected[0].content


def many(n): return [{"prompt": f"How long do {name} live, roughly?", "chosen": f"About {i + 1} years.",
                      "rejected": f"Nobody knows, {name} never say."} for i, name in enumerate(NAMES[:n])]


NAMES = ["herons", "mice", "oaks", "cats", "carp", "bees", "yews", "toads", "larks", "goats", "moles", "elms", "swans",
         "hares", "snails", "foxes", "owls", "newts", "ferns", "voles"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same_pair(write, form):
    given = read_pairs(str(write("mine.jsonl", lines([FORMS[form]]))))
    assert given.forms == {form: 1} and sides(given.pairs[0]) == (QUESTION, GOOD, BAD)
    assert given.pairs[0].prompt == draw_prompt(given).messages


def draw_prompt(given): return given_prompts(given.pairs)[0][0]


def test_texts_without_a_prompt_begin_alike(write):
    given = read_pairs(str(write("a.jsonl", lines([{"chosen": "The sky is blue.", "rejected": "The sky is black."}]))))
    assert given.forms == {"whole text": 1} and sides(given.pairs[0]) == ("The sky is", "blue.", "black.")


def test_a_prompt_beside_whole_conversations_is_theirs(write):
    row = {"prompt": QUESTION} | FORMS["whole turns"]
    assert sides(read_pairs(str(write("a.jsonl", lines([row])))).pairs[0]) == (QUESTION, GOOD, BAD)


def test_a_long_dialogue_keeps_its_history(write):
    before = f"\n\nHuman: Hello\n\nAssistant: Hi.\n\nHuman: {QUESTION}\n\nAssistant: "
    pair = read_pairs(str(write("a.jsonl", lines([{"chosen": before + GOOD, "rejected": before + BAD}])))).pairs[0]
    assert [turn.role for turn in pair.prompt] == ["user", "assistant", "user"] and sides(pair)[1:] == (GOOD, BAD)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_every_kind_of_file(tmp_path, name):
    import pyarrow
    import pyarrow.parquet
    path, row = tmp_path / name, FORMS["text"]
    if name.endswith("parquet"): pyarrow.parquet.write_table(pyarrow.Table.from_pylist([FORMS["turns"]]), path)
    elif name.endswith("gz"): path.write_bytes(gzip.compress(lines([row]).encode()))
    elif name.endswith("csv"): path.write_text(f'prompt,chosen,rejected\n{QUESTION},"{GOOD}",{BAD}\n')
    else: path.write_text(json.dumps([row]) if name.endswith("json") else lines([row]))
    assert sides(read_pairs(str(path)).pairs[0]) == (QUESTION, GOOD, BAD)


def test_turns_in_a_cell_are_read_as_json_or_refused(write):
    row = FORMS["whole turns"]
    def cell(value): return '"' + json.dumps(value).replace('"', '""') + '"'
    good = write("a.csv", f"chosen,rejected\n{cell(row['chosen'])},{cell(row['rejected'])}\n")
    assert sides(read_pairs(str(good)).pairs[0]) == (QUESTION, GOOD, BAD)
    bad = write("b.csv", f"chosen,rejected\n\"{row['chosen']}\",\"{row['rejected']}\"\n")
    with pytest.raises(InputError, match="b.csv, line 2: chosen: expected a text, or turns as JSON"):
        read_pairs(str(bad))


@pytest.mark.parametrize("row, reason, words", [
    (FORMS["text"] | {"chosen": " "}, "empty", "expected words in chosen"),
    (FORMS["text"] | {"chosen": BAD}, "identical", "expected two answers"),
    ({"chosen": "Yes.", "rejected": "No."}, "not_a_pair", "expected sides that answer the same question"),
    ({"chosen": [*FORMS["whole turns"]["chosen"], user("Why?"), assistant("So.")],
      "rejected": FORMS["whole turns"]["rejected"]}, "not_a_pair", "found 3 turns in chosen"),
    (FORMS["text"], "near_duplicate", "repeats line 1 word for word"),
    ({"prompt": "x?", "chosen": "y", "rejected": "z", "hazard": "cse"}, "unnamed_hazard", "has to be named"),
])
def test_what_can_be_read_and_makes_no_pair_is_named_by_line(write, row, reason, words):
    given = read_pairs(str(write("a.jsonl", lines([FORMS["text"], row]))))
    assert len(given.pairs) == 1 and [dropped.reason for dropped in given.dropped] == [reason]
    assert given.dropped[0].detail.startswith("line 2: ") and words in given.dropped[0].detail
    assert any("set aside: line 2" in line for line in given.words)


def test_a_hazard_that_is_named_is_kept(write):
    path = write("a.jsonl", lines([FORMS["text"] | {"hazard": "cse"}]))
    assert [pair.hazard for pair in read_pairs(str(path), ("cse",)).pairs] == ["cse"]
    with pytest.raises(InputError, match="none of 1 rows makes a pair"): read_pairs(str(path))


@pytest.mark.parametrize("row, words", [
    ({"chosen": GOOD}, "rejected missing"),
    ({"prompt": [user(QUESTION)], "chosen": GOOD, "rejected": BAD}, "expected a prompt that is text"),
    ({"chosen": [assistant(GOOD)], "rejected": BAD}, "a text beside turns"),
    ({"chosen": [{"role": "narrator", "content": "x"}], "rejected": []}, "expected turns with a role"),
    ({"chosen": 3, "rejected": 4}, "expected a text or a list of turns"),
    ({"chosen": "\n\nHuman: Hi\n\nAssistant: Yes.", "rejected": "no dialogue"}, "begins with 'Human:'"),
])
def test_a_row_in_no_form_is_refused_by_line_with_what_was_expected(write, row, words):
    path = write("a.jsonl", lines([FORMS["dialogue"], row | ({"rejected": None} if len(row) == 1 else {})]))
    with pytest.raises(InputError) as caught: read_pairs(str(path))
    assert "a.jsonl, line 2" in str(caught.value) and words in str(caught.value)


def test_a_table_without_pairs_is_refused_once(write):
    with pytest.raises(InputError, match="chosen and rejected missing among question") as caught:
        read_pairs(str(write("a.jsonl", lines([{"question": "x"}] * 50))))
    assert len(caught.value.problems) == 1


def test_many_bad_rows_are_counted(write):
    with pytest.raises(InputError) as caught:
        read_pairs(str(write("a.jsonl", lines([{"chosen": 1, "rejected": 2}] * 5000))))
    assert len(caught.value.problems) == 11 and "4,990 more" in caught.value.problems[-1]


@pytest.mark.parametrize("name, content, words", [
    ("a.json", "{}", "expected a list of objects"), ("a.json", "[", "not valid JSON"),
    ("a.parquet", "PAR", "not a readable Parquet file"), ("a.jsonl", "", "the file is empty"),
    ("a.txt", "x", "expected a .csv, .jsonl, .json")])
def test_a_file_that_is_no_table(write, name, content, words):
    with pytest.raises(InputError, match=words): table_rows(write(name, content))


def test_origin_is_null_where_nobody_says(write):
    row = FORMS["text"] | {"persona": "skilled", "seed": 7, "note": "ours"}
    pair = read_pairs(str(write("tea.jsonl", lines([row])))).pairs[0]
    assert (pair.source, pair.persona, pair.seed) == ("tea", "skilled", 7)
    assert {pair.principle, pair.locale, pair.critique, pair.constitution, pair.model, pair.template} == {None}


def test_a_name_is_a_set_a_run_or_a_file(runs, tmp_path, write, monkeypatch):
    project = tmp_path / "project"
    for part in ("configs", "nbs/pipelines", "data/pairs"): (project / part).mkdir(parents=True)
    (project / "data" / "pairs" / "tea-8.jsonl").write_text(lines(many(8)))
    monkeypatch.setenv("CCAI_ROOT", str(project))
    assert list(shipped_pairs()) == ["tea-8"] and len(read_pairs("tea-8").pairs) == 8
    folder = open_run("first").folder
    (folder / "run.json").write_text('{"run": "first"}')
    with pytest.raises(InputError) as caught: pairs_path("tea-9")
    assert "did you mean 'tea-8'" in str(caught.value) and "sets in data/pairs/: tea-8" in str(caught.value)
    (folder / "pairs.jsonl").write_text(lines(many(3)))
    assert pairs_path("first") == pairs_path(str(folder)) == folder / "pairs.jsonl"
    with pytest.raises(InputError, match="no file .*gone.csv"): pairs_path(str(tmp_path / "gone.csv"))


# in a run

def test_prompts_are_split_and_compared_as_drawn_ones_are(write, runs):
    path = write("mine.jsonl", lines(many(20)))
    recipe = build_recipe({"pairs": str(path), "guarded": []})
    drawn = draw(recipe)
    assert {name: len(drawn.part(name)) for name in ("train", "validation", "test")} == {"train": 12, "validation": 2,
                                                                                        "test": 6}
    assert "worked examples" not in drawn.learned and not drawn.leakage.leaks
    asked = write("eval.csv", f"text\n\"{drawn.part('train')[0].text}\"\n")
    leaking = draw(build_recipe({"pairs": str(path), "guarded": [], "eval_prompts": str(asked), "n_eval_prompts": 1}))
    with pytest.raises(InputError, match="is also learned from"): refuse_leaks(leaking.leakage.leaks)



def test_a_run_takes_pairs_in_once_and_keeps_them(write, runs):
    path = write("mine.jsonl", lines([*many(12), FORMS["text"] | {"chosen": BAD}]))
    run, recipe = open_run("own"), build_recipe({"pairs": str(path), "guarded": []})
    drawn = draw(recipe, run)
    take_in_pairs(run, drawn)
    assert len(load_pairs(run)) == 12 and run.manifest["given"]["kept"] == 12 and run.manifest["given"]["rows"] == 13
    before = run.path("pairs.jsonl").read_bytes()
    path.write_text(lines(many(11)))
    with pytest.raises(InputError, match="holds others now"): take_in_pairs(run, draw(recipe, run))
    path.unlink()
    take_in_pairs(run, draw(recipe, run))
    assert run.path("pairs.jsonl").read_bytes() == before and draw(recipe, run).split == drawn.split
    assert len(run_pairs(recipe, run).pairs) == 12
    with pytest.raises(InputError, match="generating would replace them"): generate_pairs(run, build_recipe({}))
    with pytest.raises(InputError, match="takes the place of generating"): generate_pairs(open_run("new"), recipe)


@pytest.mark.parametrize("n, seed", [(7, 0), (30, 0), (30, 5), (47, 1)])
def test_a_part_has_as_many_prompts_as_there_are_and_principles_alike(n, seed):
    rows = [{"prompt": f"{topic} {matter(i)}?", "chosen": f"Ask them, {j}.", "rejected": f"No, {j}.", "principle": j}
            for i, topic in enumerate(["Who wants"] * 12) for j in "abcd"]
    pairs = [PreferencePair(prompt=[Message(role="user", content=row["prompt"])], prompt_id=row["prompt"],
                            chosen=[Message(role="assistant", content=row["chosen"])], principle=row["principle"],
                            rejected=[Message(role="assistant", content=row["rejected"])], source="x", seed=None,
                            critique=None, constitution=None, model=None, template=None, locale="en") for row in rows]
    given = GivenPairs("x", "0", {"text": 48}, ("prompt",), pairs, [])
    some = some_pairs(given, n, seed).pairs
    prompts, principles = Counter(pair.prompt_id for pair in some), Counter(pair.principle for pair in some)
    assert len(some) == n == len({pair.id for pair in some}) and some == [pair for pair in pairs if pair in some]
    assert len(prompts) == min(n, 12) and max(prompts.values()) - min(prompts.values()) <= 1
    assert max(principles.values()) - min(principles.values()) <= 1
    assert some_pairs(given, 48) is given and some_pairs(given, None) is given and some_pairs(given, 99) is given


def test_a_run_that_has_taken_in_a_part_goes_on_with_it(write, runs):
    path, run = write("mine.jsonl", lines(many(20))), open_run("own")
    def recipe(**more): return build_recipe({"pairs": str(path), "guarded": [], **more})
    take_in_pairs(run, draw(recipe(n_pairs=12), run))
    assert len(load_pairs(run)) == 12 and run.manifest["given"]["there"] == 20
    assert run_pairs(recipe(n_pairs=12), run).words == run_pairs(recipe(n_pairs=12)).words
    assert "12 drawn of 20 pairs, 12 prompts" in run_pairs(recipe(n_pairs=12), run).words[0]
    take_in_pairs(run, draw(recipe(n_pairs=12), run))
    for other in ({"n_pairs": 13}, {}):
        with pytest.raises(InputError, match="has taken in 12 of 20 pairs"):
            take_in_pairs(run, draw(recipe(**other), run))
    whole = open_run("whole")
    take_in_pairs(whole, draw(recipe(), whole))
    take_in_pairs(whole, draw(recipe(n_pairs=20), whole))
    with pytest.raises(InputError, match="has taken in 20 of 20 pairs.*n_pairs is 12"):
        take_in_pairs(whole, draw(recipe(n_pairs=12), whole))


def test_a_run_with_pairs_of_its_own_is_left_alone(write, runs):
    run, path = open_run("own"), write("mine.jsonl", lines(many(12)))
    run.path("pairs.jsonl").write_text("")
    with pytest.raises(InputError, match="generated pairs of its own"):
        take_in_pairs(run, draw(build_recipe({"pairs": str(path), "guarded": []}), Run("x", runs / "x")))


def test_pairs_of_another_run_keep_their_origin_and_their_split(runs, scripted):
    first, recipe = open_run("first"), build_recipe({"n_prompts": 12, "filters": "empty,identical", "seed": 3})
    pairs = generate_pairs(first, recipe, scripted).kept
    given = build_recipe({"pairs": "first", "seed": 4, "test_share": 0.2})
    drawn = draw(given)
    assert run_pairs(given).pairs == pairs and run_pairs(given).forms == {"own": len(pairs)}
    parts = draw(recipe, first).split.parts
    assert drawn.split.parts == {id: parts[id] for id in {pair.prompt_id for pair in pairs}}
    second = open_run("second")
    take_in_pairs(second, drawn)
    shutil.rmtree(first.folder)
    assert draw(given, second).split == drawn.split and load_pairs(second) == pairs


@pytest.mark.long
def test_hh_rlhf_as_it_is(shared_data):
    path = shared_data / "hh_rlhf" / "harmless-base-test.jsonl.gz"
    given = read_pairs(str(path))
    assert (len(given.pairs), given.forms, [row.reason for row in given.dropped]) == (
        2308, {"dialogue": 2308}, ["empty"] * 4)
    assert all(pair.prompt[-1].role == "user" and isinstance(pair, PreferencePair) for pair in given.pairs)
    drawn = draw(build_recipe({"pairs": str(path)}))
    assert not drawn.leakage.leaks and len(drawn.part("test")) > 600, "what shares words was moved to one side"


def test_a_run_that_took_pairs_in_without_a_principle_refuses_to_leave_out_another(runs):
    run, keys = open_run("own"), {"pairs": "contemplative-512", "n_pairs": 40, "guarded": []}
    first = build_recipe(keys | {"leave_out": "emptiness"})
    take_in_pairs(run, draw(first, run))
    take_in_pairs(run, draw(first, run))
    for other, words in (({"leave_out": "mindfulness"}, "without emptiness, and leave_out is mindfulness now"),
                         ({}, "leave_out is not set now")):
        recipe = build_recipe(keys | other)
        with pytest.raises(InputError, match=words): take_in_pairs(run, draw(recipe, run))
