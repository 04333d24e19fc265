"""Splits: tight, repeatable, shared, refused when they no longer fit; leaks: planted ones found, and nothing else."""
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from support import play

from contemplative_cai.command.commands import main
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError, Message, Prompt
from contemplative_cai.evaluation.questions import evaluation_prompts
from contemplative_cai.inputs.constitution import dump_constitution, load_constitution, recipe_constitution
from contemplative_cai.inputs.draw import draw
from contemplative_cai.inputs.sources import draw_prompts, load_prompts, sample_prompts
from contemplative_cai.inputs.split import (
    check_split,
    extend_split,
    find_leaks,
    guarded_prompts,
    leak_table,
    read_split,
    refuse_leaks,
    split_prompts,
    worked_examples,
)
from contemplative_cai.measure import duplicates
from contemplative_cai.measure.duplicates import find_matches, jaccard, near_groups, needed_similarity, shingles
from contemplative_cai.measure.text import normalise
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.make import load_split, pairs_of
from contemplative_cai.report.report import leakage_table, write_report
from contemplative_cai.report.summary import collect
from contemplative_cai.training.rows import training_pairs

OWN = [*load_prompts("practice"), *load_prompts("edge_cases")]

# dividing


@given(st.integers(5, 60), st.sampled_from([0.0, 0.1, 0.25]), st.sampled_from([0.2, 0.3, 0.4]), st.integers(0, 3),
       st.sampled_from(["cluster", "prompt"]))
@settings(max_examples=30, deadline=None)
def test_a_split_divides_and_repeats(n, validation, test, seed, by):
    prompts = sample_prompts(load_prompts("practice"), n, seed)
    split = split_prompts(prompts, validation, test, seed, by)
    parts = [*split.train, *split.validation, *split.test]
    assert sorted(parts) == sorted(prompt.id for prompt in prompts)
    assert split == split_prompts(prompts[::-1], validation, test, seed, by)
    assert abs(len(split.test) - test * n) <= 1 and split.train


@given(st.integers(0, 20), st.sampled_from([0.1, 0.3, 0.5]))
@settings(max_examples=20, deadline=None)
def test_near_duplicates_stay_together(seed, test):
    "Each of twenty prompts with a twin: no twin is torn off, and the leak check agrees."
    prompts = sample_prompts(OWN, 20, seed)
    twins = [Prompt(text=f"{p.text.upper()}  Thank you.", source="twins") for p in prompts]
    split = split_prompts([*prompts, *twins], 0.1, test, seed)
    assert all(split.part(p.id) == split.part(twin.id) for p, twin in zip(prompts, twins))
    by_id = {p.id: p for p in (*prompts, *twins)}
    refuse_leaks(find_leaks({"training": [by_id[i] for i in split.train]}, {
        "test": [by_id[i] for i in split.test], "validation": [by_id[i] for i in split.validation]
    }))


def test_split_by_prompt_tears_twins_apart_and_the_leak_check_says_so():
    prompts = draw_prompts("practice", 12)
    twins = [Prompt(text=f"{p.text.upper()}  Thank you.", source="twins") for p in prompts]
    split = split_prompts([*prompts, *twins], 0, 0.4, by="prompt")
    by_id = {p.id: p for p in (*prompts, *twins)}
    with pytest.raises(InputError, match="leak: "):
        refuse_leaks(find_leaks({"training": [by_id[i] for i in split.train]},
                                {"test": [by_id[i] for i in split.test]}))


@pytest.fixture
def risky():
    "Forty prompts under four hazards; one has a twin under another hazard."
    prompts = [Prompt(text=f"{p.text} ({i})", source="demo", source_id=str(i),
                      hazard=["vcr", "hte", "prv", "ipv"][i % 4])
               for i, p in enumerate(draw_prompts("practice", 40))]
    return [*prompts, Prompt(text=prompts[0].text.upper(), source="demo", source_id="twin", hazard="hte")]


def test_whole_hazards_are_held_out_and_twins_follow(risky):
    named, drawn = (split_prompts(risky, 0.1, 0.25, by="hazard", held_out=held_out) for held_out in (("vcr",), ()))
    by_id = {prompt.id: prompt for prompt in risky}
    assert "vcr" not in {by_id[i].hazard for i in (*named.train, *named.validation)} and risky[-1].id in named.test
    assert ({by_id[i].hazard for i in drawn.test} >= set(drawn.held_out)
            and not {by_id[i].hazard for i in drawn.train} & set(drawn.held_out))
    assert 0.25 * len(risky) <= len(drawn.test) <= 0.5 * len(risky) + 1
    for wrong in [("vcx",), ("vcr", "hte", "prv", "ipv")]:
        with pytest.raises(InputError, match="held_out"): split_prompts(risky, 0.1, 0.25, by="hazard", held_out=wrong)


def test_no_pair_of_a_held_out_principle_is_trained_on(scripted):
    run, recipe = open_run("held"), build_recipe({"n_prompts": 16, "split_by": "principle", "held_out": "mindfulness",
                                                  "filters": "empty,identical"})
    made = generate_pairs(run, recipe, scripted)
    train, _ = training_pairs(run, recipe)
    by_id = {prompt.id: prompt for prompt in made.prompts}
    assert (train and not [pair for pair in train if pair.principle == "mindfulness"]
            and ({pair.principle for pair in pairs_of(made.kept, made.split.test)}
                 == {"emptiness", "non_duality", "boundless_care", "mindfulness"}))
    assert ({by_id[i].principle for i in made.split.test} == {"mindfulness"}
            and "mindfulness" not in {by_id[i].principle for i in made.split.train})


def test_a_hazard_is_held_out_with_all_its_codes():
    prompts = [Prompt(text=f"{p.text} ({i})", source="demo", hazard=["spc_fin", "spc_hlt", "vcr", "hte"][i % 4])
               for i, p in enumerate(draw_prompts("practice", 24))]
    for held_out in (("spc",), ("spc_fin",)):
        split = split_prompts(prompts, 0.1, 0.3, by="hazard", held_out=held_out)
        assert (split.held_out == ("spc",)
                and {p.hazard for p in prompts if p.id in split.test} == {"spc_fin", "spc_hlt"})


@pytest.mark.parametrize("recipe, untrained, tested", [
    ({"combine": "emptiness+mindfulness", "held_out": "emptiness_and_mindfulness"}, {"emptiness_and_mindfulness"},
     {"emptiness", "mindfulness"}),
    ({"constitution": "generic", "held_out": "honest"}, {"honest"},
     {"emptiness", "non_duality", "boundless_care", "mindfulness"}),
    ({"constitution": "generic"}, None, {"emptiness", "non_duality", "boundless_care", "mindfulness"}),
    ({"leave_out": "emptiness"}, None, None),
])
def test_a_principle_is_held_out_whatever_the_constitution(contemplative, recipe, untrained, tested):
    """Combined, another constitution's, left to the seed:
    it is one of the recipe's principles, its pairs are not trained on, and the test is never empty."""
    recipe = build_recipe({"n_prompts": 24, "split_by": "principle", "filters": "empty,identical"} | recipe)
    constitution = recipe_constitution(recipe)
    run = open_run("held")
    made = generate_pairs(run, recipe, play(constitution))
    train, _ = training_pairs(run, recipe)
    assert set(made.split.held_out) <= {p.id for p in constitution.principles} and made.split.test
    assert (not {pair.principle for pair in train} & set(made.split.held_out)
            and (untrained is None or set(made.split.held_out) == untrained))
    if tested: assert {p.principle for p in made.prompts if p.id in made.split.test} == tested


def test_a_name_with_and_in_it_is_no_combination(tmp_path, contemplative):
    "A user's principle called 'Truth and Beauty' is held out like any other."
    text = dump_constitution(contemplative).replace("## Emptiness {#emptiness}",
                                                    "## Truth and Beauty {#truth_and_beauty}")
    (tmp_path / "mine.md").write_text(text)
    recipe = build_recipe({"n_prompts": 12, "split_by": "principle", "held_out": "truth_and_beauty",
                           "constitution": str(tmp_path / "mine.md"), "filters": "empty,identical"})
    run = open_run("held")
    generate_pairs(run, recipe, play(recipe_constitution(recipe)))
    train, _ = training_pairs(run, recipe)
    assert train and "truth_and_beauty" not in {pair.principle for pair in train}


def test_conversations_with_history_split_without_leaks(shared_data):
    "HH-RLHF's conversations begin and end alike; clusters are made of the same turns that the leak check looks at."
    source = {"source": str(shared_data / "hh_rlhf" / "harmless-base-test.jsonl.gz"), "history": True}
    prompts = draw_prompts(source, 500)
    split = split_prompts(prompts, 0.1, 0.3)
    parts = {name: [p for p in prompts if split.parts[p.id] == name] for name in ("train", "validation", "test")}
    refuse_leaks(find_leaks({"training": parts["train"]}, {name: parts[name] for name in ("validation", "test")}))
    assert min(map(len, parts.values())) > 20


# saving, sharing, refusing


def table(path, texts):
    path.write_text("\n".join(json.dumps({"id": f"q{i}", "text": text}) for i, text in enumerate(texts)))
    return str(path)


QUESTIONS = [prompt.text for prompt in draw_prompts("practice", 14)]


def test_a_split_whose_prompts_changed_is_refused_with_what_changed(scripted, tmp_path):
    "Edited, taken away, and, in a shared split, added: each is named by its place, not by its text."
    path = tmp_path / "mine.jsonl"
    recipe = build_recipe({"prompts": table(path, QUESTIONS[:12]), "n_prompts": 12, "n_eval_prompts": 0})
    generate_pairs(open_run("mine"), recipe, scripted)
    table(path, ["Is this one new?", *QUESTIONS[1:12]])
    with pytest.raises(
        InputError, match=r"split.json: the prompts are not those this split was made for \(1 edited: mine q0\)"
    ) as caught:
        generate_pairs(open_run("mine"), recipe, scripted)
    assert QUESTIONS[0] not in str(caught.value) and "another --run" in str(caught.value)
    table(path, QUESTIONS[:11])
    with pytest.raises(InputError, match=r"1 gone: \w+ \(mine q11\)"):
        generate_pairs(open_run("mine"), recipe.model_copy(update={"n_prompts": 11}), scripted)
    table(path, QUESTIONS)
    shared = recipe.model_copy(update={"n_prompts": 14, "split": str(open_run("mine").path("split.json"))})
    with pytest.raises(InputError, match="2 new: .*take split away"):
        generate_pairs(open_run("other"), shared, scripted)


def test_relabelled_prompts_are_a_change(risky):
    "A prompt that moves to a held-out hazard does not slip into training."
    split = split_prompts(risky, 0.1, 0.25, by="hazard", held_out=("vcr",))
    moved = [p.model_copy(update={"hazard": "vcr"}) if p.id in split.train[:2] else p for p in risky]
    with pytest.raises(InputError, match="2 relabelled: "): check_split(split, moved, "split.json")


def test_growing_keeps_the_rule(risky):
    "One prompt at a time: the held-out hazard stays out of training, shares stay what they should be."
    split = split_prompts(risky[:12], 0.1, 0.25, by="hazard", held_out=("vcr",))
    for n in range(13, len(risky) + 1): split = extend_split(split, risky[:n])
    assert "vcr" not in {p.hazard for p in risky if p.id in split.train}
    plain = split_prompts(risky[:12], 0.1, 0.3)
    for n in range(13, 41): plain = extend_split(plain, risky[:n])
    assert abs(len(plain.test) - 12) <= 1 and abs(len(plain.validation) - 4) <= 2


def test_a_large_set_is_divided():
    prompts = [Prompt(text=" ".join(f"w{(i * 7919 + k * 104729) % 100003}" for k in range(12)), source="demo")
               for i in range(12000)]
    split = split_prompts(prompts, 0.1, 0.3, by="prompt")
    assert len(split.test) == 3600 and len(split.parts) == 12000


def test_another_rule_is_refused(scripted):
    generate_pairs(open_run("mine"), build_recipe({"n_prompts": 8}), scripted)
    with pytest.raises(InputError, match="another rule .*test_share 0.3, now 0.5"):
        generate_pairs(open_run("mine"), build_recipe({"n_prompts": 8, "test_share": 0.5}), scripted)


def test_a_hazard_named_by_its_code_is_the_same_rule_the_next_time(scripted, tmp_path):
    "held_out=spc_fin holds out spc; the steps after generation read the saved split by the same recipe."
    (tmp_path / "mine.jsonl").write_text("\n".join(
        json.dumps({"text": text, "hazard": ["spc_fin", "spc_hlt", "vcr"][i % 3]})
        for i, text in enumerate(QUESTIONS[:12])
    ))
    recipe = build_recipe({"prompts": str(tmp_path / "mine.jsonl"), "n_prompts": 12, "split_by": "hazard",
                           "held_out": "spc_fin", "filters": "empty,identical"})
    run = open_run("mine")
    made = generate_pairs(run, recipe, scripted)
    train, _ = training_pairs(run, recipe)
    assert made.split.held_out == ("spc",) and {pair.hazard for pair in train} == {"vcr"}
    shared = recipe.model_copy(update={"split": str(run.path("split.json"))})
    assert generate_pairs(open_run("other"), shared, scripted).split == made.split


def test_one_split_serves_many_runs(scripted):
    "Two constitutions, one split: the same test prompts; a rule that contradicts it is refused."
    first = build_recipe({"n_prompts": 12})
    generate_pairs(open_run("first"), first, scripted)
    second = build_recipe({"n_prompts": 12, "leave_out": "emptiness",
                           "split": str(open_run("first").path("split.json"))})
    generate_pairs(open_run("second"), second, scripted)
    assert load_split(open_run("second")) == load_split(open_run("first"))
    with pytest.raises(InputError, match="the recipe's split_by and test_share say otherwise"):
        generate_pairs(open_run("third"), second.model_copy(update={"test_share": 0.5, "split_by": "principle"}),
                       scripted)


@given(st.integers(5, 30), st.integers(1, 30), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_a_grown_split_moves_nobody(n, more, seed):
    prompts = sample_prompts(OWN, n + more, seed)
    split = split_prompts(prompts[:n], 0.1, 0.3, seed)
    grown = extend_split(split, prompts)
    assert all(grown.part(id) == split.part(id) for id in split.parts) and set(grown.parts) == {p.id for p in prompts}
    check_split(grown, prompts, "split.json")


@pytest.mark.parametrize("content", [
    "", "{", "[]", '{"train": []}', '{"train": 3}', '{"train": ["a"], "train": []}',
    '{"train": ["a"], "validation": [], "test": ["a"], "seed": 0, "prompts_digest": ""}',
    '{"train": [], "validation": [], "test": [], "seed": 0, "prompts_digest": "", "test_share": 7}'
])
def test_a_file_that_is_no_split(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(InputError, match="split.json.*restore the file"): read_split(tmp_path / "split.json")


# duplicates against plain references


def test_shingles_are_scikit_learns_char_wb():
    for text in (prompt.text for prompt in OWN[:60]):
        vectorizer = CountVectorizer(analyzer="char_wb", ngram_range=(5, 5), preprocessor=normalise).fit([text])
        assert shingles(text) == set(vectorizer.vocabulary_)


@pytest.mark.parametrize("name", ["xstest/xstest_prompts.csv",
                                  "ailuminate/airr_official_1.0_demo_fr_fr_prompt_set_release.csv"])
def test_no_near_duplicate_is_missed(shared_data, name):
    "Every pair that brute force finds, MinHash finds too."
    texts = [prompt.text for prompt in load_prompts(str(shared_data / name))][:500]
    sets = [shingles(text) for text in texts]
    needed = [needed_similarity(len(normalise(text).split())) for text in texts]
    brute = {(i, j) for i in range(len(texts)) for j in range(i + 1, len(texts))
             if jaccard(sets[i], sets[j]) >= max(needed[i], needed[j])}
    assert brute <= {(match.left, match.right) for match in find_matches(texts, texts)}
    group = {i: number for number, members in enumerate(near_groups([[text] for text in texts])) for i in members}
    assert all(group[match.left] == group[match.right]
               for match in find_matches(texts, texts)), "grouping and matching should agree"


def test_a_text_is_looked_at_once_however_often_it_is_compared():
    "Drawing, dividing and searching for leaks ask about the same texts; nothing is computed again."
    first = draw(build_recipe({"n_prompts": 48})).leakage
    looked_at = duplicates._sketch.cache_info().misses
    assert draw(build_recipe({"n_prompts": 48})).leakage == first and first.table
    assert duplicates._sketch.cache_info().misses == looked_at


def test_a_set_phrase_is_no_match():
    "A sentence that every prompt begins with makes no two of them the same, however long."
    boilerplate = "You are a careful assistant and you answer the following question of a user in a few words: "
    texts = [boilerplate + prompt.text for prompt in OWN[:120]]
    assert [match for match in find_matches(texts, texts) if match.kind == "word run"] == []


# planted leaks


def planted(text, kind, rng):
    "A copy of a text such as careless data sets hold."
    words = text.split()
    if kind == "copy": return text
    if kind == "case and spacing": return "   ".join(word.upper() for word in words)
    if kind == "two words swapped":
        i = rng.randrange(len(words) - 1)
        words[i], words[i + 1] = words[i + 1], words[i]
        return " ".join(words)
    cut = len(words) // 4
    if kind == "prefix cut": return " ".join(words[cut:])
    if kind == "translated prefix": return " ".join(["Bonjour,", "voici", "ma", "question", ":", *words[cut:]])
    return f"{text} Please be quick."


PLANTS = ("copy", "case and spacing", "two words swapped", "prefix cut", "translated prefix", "ending added")


def test_planted_leaks_are_found(capsys):
    "288 planted cases in six kinds among 96 prompts that leak nothing; precision and recall are printed."
    rng, prompts = random.Random(0), list(OWN)
    rng.shuffle(prompts)
    learned, others = prompts[:96], prompts[96:]
    truth = {}
    for prompt in learned:
        for kind in rng.sample(PLANTS, 3): truth[planted(prompt.text, kind, rng)] = (prompt.id, kind)
    held_out = [Prompt(text=text, source="planted") for text in truth]
    truth = {prompt.id: case for prompt, case in zip(held_out, truth.values(), strict=True)}
    hits = {(leak.learned_id, leak.held_out_id)
            for leak in find_leaks({"training": learned}, {"test": [*held_out, *others]})}
    right = {(learned_id, id) for learned_id, id in hits if id in truth and truth[id][0] == learned_id}
    found = Counter(truth[id][1] for _, id in right)
    recall = {kind: found[kind] / sum(case[1] == kind for case in truth.values()) for kind in PLANTS}
    precision, overall = len(right) / len(hits), len(right) / len(truth)
    with capsys.disabled():
        print(f"\nplanted leaks: {len(truth)} cases, precision {precision:.3f}, recall {overall:.3f} ("
              + ", ".join(f"{kind} {value:.2f}" for kind, value in recall.items()) + ")")
    assert len(truth) >= 200 and precision == 1 and overall > 0.97 and recall["copy"] == recall["case and spacing"] == 1


def test_earlier_turns_leak_too():
    known = OWN[0]
    later = Prompt(text="And what would you say?", source="talk",
                   history=(Message(role="user", content=known.text), Message(role="assistant", content="Well.")))
    leaks = find_leaks({"training": [later]}, {"test": [known]})
    assert [(leak.kind, leak.learned_id) for leak in leaks] == [("exact", later.id)]


def test_benchmarks_are_guarded(shared_data, monkeypatch):
    """A training prompt that is the second turn of an MT-Bench question, one of XSTest's;
    and a benchmark that is not there is said to be so."""
    monkeypatch.setenv("CCAI_BENCHMARKS", str(shared_data))
    second = guarded_prompts("mt_bench")[1]
    assert len(guarded_prompts("mt_bench")) == 160 and "turn 2" in second.source_id
    learned = {"training": [second, load_prompts("xstest")[3].model_copy(update={"source": "mine"})]}
    held_out = {name: guarded_prompts(name) for name in ("mt_bench", "xstest")}
    leaks = find_leaks(learned, held_out)
    assert ({(leak.held_out, leak.held_out_id) for leak in leaks if leak.kind == "exact"}
            == {("mt_bench", second.id), ("xstest", learned["training"][1].id)})
    monkeypatch.setenv("CCAI_BENCHMARKS", "/nowhere")
    assert guarded_prompts("xstest") is None
    assert leak_table(learned, {"xstest": None}, [])[0]["near"] is None


def test_worked_examples_leak_nothing():
    examples = [p for name in ("contemplative", "charter", "generic", "improve", "unrelated", "contemplative-minimal")
                for p in worked_examples(load_constitution(name))]
    refuse_leaks(find_leaks({"worked examples": examples}, {"own": [*OWN, *load_prompts("neutral")]}))


def leaking(tmp_path, scripted, **more):
    "A recipe whose evaluation prompts hold one of its own training prompts."
    path = table(tmp_path / "mine.jsonl", QUESTIONS[:12])
    recipe = build_recipe({"prompts": path, "n_prompts": 12, "n_eval_prompts": 2, "eval_prompts": "practice",
                           "filters": "empty,identical"}
                          | more)
    split = split_prompts(draw_prompts(path, 12), recipe.validation_share, recipe.test_share)
    texts = {prompt.id: prompt.text for prompt in draw_prompts(path, 12)}
    table(tmp_path / "held.jsonl", [f"{texts[split.train[0]]} !", "Where do swallows go?"])
    return recipe.model_copy(
        update={"eval_prompts": build_recipe({"eval_prompts": str(tmp_path / "held.jsonl")}).eval_prompts}
    ), split.train[0]


def test_a_leak_stops_generation_training_and_evaluation_unless_allowed(tmp_path, scripted):
    recipe, learned_id = leaking(tmp_path, scripted)
    for step in (lambda: generate_pairs(open_run("mine"), recipe, scripted),
                 lambda: training_pairs(open_run("clean"), recipe),
                 lambda: evaluation_prompts(open_run("clean"), recipe)):
        if not open_run("clean").path("pairs.jsonl").exists():
            generate_pairs(open_run("clean"), recipe.model_copy(update={"n_eval_prompts": 0}), scripted)
        with pytest.raises(InputError, match=f"learned from: {learned_id} .*normalised"): step()
    assert scripted.calls and not open_run("mine").path("journal.sqlite").exists()
    allowed = recipe.model_copy(update={"allowed_leaks": (learned_id,)})
    made = generate_pairs(open_run("allowed"), allowed, scripted)
    rows = leakage_table(collect(open_run("allowed")))
    hit = next(row for row in rows if row["learned"] == "training prompts" and row["held out"].startswith("evaluation"))
    assert made.kept and hit["normalised"] == hit["allowed"] == 1
    page = write_report(open_run("allowed")).read_text()
    assert ("<h2>Leaks</h2>" in page and "Not on this machine" in page
            and "## Leaks" in open_run("allowed").path("report.md").read_text())


def test_the_command_refuses_a_leak_before_anything_is_written(tmp_path, scripted, runs, capsys):
    leaking(tmp_path, scripted)
    argv = ["run", "generate", "--run", "mine", "--recipe", "smoke", "-p", f"prompts={tmp_path / 'mine.jsonl'}", "-p",
            f"eval_prompts={tmp_path / 'held.jsonl'}", "-p", "n_eval_prompts=2", "-p", "n_prompts=12"]
    assert main(argv) == 2 and "leak: " in capsys.readouterr().err and not (runs / "mine").exists()


@pytest.mark.long
def test_the_mixed_recipe_runs_as_the_command_says(tmp_path, runs):
    """Two sources, a held-out hazard, combined principles:
    through the notebook, into the manifest and the split; no foreign text on the way."""
    rows = [{"q": f"{text} (variant)", "kind": ("vcr", "hte", "prv")[i % 3]} for i, text in enumerate(QUESTIONS[:12])]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sources = json.dumps([
        {"source": str(tmp_path / "mine.jsonl"), "columns": {"text": "q", "hazard": "kind"}, "weight": 2},
        {"source": "edge_cases", "quota": 4},
    ])
    done = subprocess.run([
        Path(sys.executable).with_name("ccai"), "run", "generate", "--run", "mixed", "--recipe", "smoke", "-p",
        f"prompts={sources}", "-p", "n_prompts=10", "-p", "split_by=hazard", "-p", "held_out=vcr", "-p",
        "combine=emptiness+mindfulness", "-p", "n_eval_prompts=0"
    ], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run = open_run("mixed")
    split, manifest = load_split(run), run.manifest
    assert (manifest["drawn"] == {"mine": 6, "edge_cases": 4}
            and manifest["recipe"]["combine"] == ["emptiness+mindfulness"])
    assert (split.by == "hazard" and split.held_out == ("vcr",)
            and all(split.places[id].startswith("mine") for id in split.test))
    notebook = run.path("notebooks", "03_generate.ipynb").read_text()
    assert not any(text in notebook + done.stdout + done.stderr
                   for text in QUESTIONS), "prompts of a user's file should not be shown"
    rows = [json.loads(line)
            for name in ("pairs.jsonl", "dropped.jsonl") for line in run.path(name).read_text().splitlines()]
    assert ({row["principle"] for row in rows} == {"emptiness_and_mindfulness", "non_duality", "boundless_care"}
            and len(rows) == 30)
