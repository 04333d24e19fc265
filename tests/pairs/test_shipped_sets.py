"""The sets beside contemplative-512: controls on the same first answers, twins, and plain answers."""
import json
import re
from collections import Counter
from statistics import median

import pytest
from support import ROOT

from contemplative_cai.core.schema import Prompt
from contemplative_cai.inputs.constitution import BENIGN, constitution_names, load_constitution
from contemplative_cai.inputs.given import read_pairs, shipped_pairs
from contemplative_cai.inputs.helpful import read_helpful
from contemplative_cai.inputs.sources import load_prompts
from contemplative_cai.inputs.split import find_leaks, worked_examples
from contemplative_cai.measure.text import text_words
from contemplative_cai.pairs.health import ending_difference, health, stated, warnings

FOLDER = ROOT / "data" / "pairs"
CARD = (FOLDER / "README.md").read_text()
CONTROLS = ("generic", "improve", "unrelated")
MAIN = read_pairs("contemplative-512").pairs
SETS = {name: read_pairs(name).pairs for name in (*(f"{one}-116" for one in CONTROLS), "twins-64")}
OWN = read_pairs("onpolicy-109").pairs
FINE = read_helpful(str(ROOT / "data" / "helpful" / "neutral-64.jsonl"))
OWN_PROMPTS = ("practice", "neutral", "twins", "edge_cases")


def _words(pair, side): return text_words(getattr(pair, side)[0].content)


def test_every_set_in_the_folder_is_in_its_card():
    every = {"contemplative-512": MAIN, **SETS, "onpolicy-109": OWN}
    assert set(shipped_pairs()) == {*every}
    for name, pairs in every.items(): assert f"| {name} | {len(pairs)} |" in CARD


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_revises_the_same_first_answers_by_its_own_constitution(name):
    pairs, constitution = SETS[f"{name}-116"], load_constitution(name)
    own = {(prompt.text, principle) for prompt in load_prompts("practice") for principle in [prompt.principle]}
    first = {(pair.prompt[-1].content, pair.rejected[0].content) for pair in MAIN
             if (pair.prompt[-1].content, pair.principle) in own}
    assert {(pair.prompt[-1].content, pair.rejected[0].content) for pair in pairs} == first and len(first) == 116
    assert {pair.constitution for pair in pairs} == {f"{constitution.id}@{constitution.digest}"}
    counts = Counter(pair.principle for pair in pairs)
    assert set(counts) == {principle.id for principle in constitution.principles} and min(counts.values()) >= 25
    for pair in pairs:
        quoted = [quote.strip(" ,.;:?!").lower() for quote in re.findall(r'"([^"]+)"', pair.critique)]
        assert any(quote in pair.rejected[0].content.lower() for quote in quoted), "a critique quotes what it means"


@pytest.mark.parametrize("name", SETS)
def test_both_sides_are_of_like_length_and_end_properly(name):
    pairs = SETS[name]
    shares = [len(_words(pair, "chosen")) / len(_words(pair, "rejected")) for pair in pairs]
    assert 0.94 <= median(shares) <= 1.06 and min(shares) > 0.8 and max(shares) < 1.25
    told = {warning.figure for warning in warnings(health(pairs))}
    meant = {"bag_of_words", "first_words"} if name == "twins-64" else set()  # a refusal is told by its words
    assert ending_difference(pairs).value == 0 and told <= meant
    openings = Counter(" ".join(_words(pair, "chosen")[:5]) for pair in pairs)
    assert max(openings.values()) <= 2


@pytest.mark.parametrize("name", [*SETS, "onpolicy-109"])
def test_the_card_says_what_words_and_length_make_of_a_set(name):
    measured = health(OWN if name == "onpolicy-109" else SETS[name])
    assert f"| {name} | {stated(measured.bag_of_words)} | {stated(measured.length_rule)} |" in CARD


def test_own_answers_are_what_the_embedded_model_said_and_their_revisions_the_shipped_ones():
    recorded = {row["prompt"]: row for row in map(json.loads, (FOLDER / "answers/smollm2-135m.jsonl").open())}
    asked = {prompt.text: prompt.principle for prompt in load_prompts("practice")}
    assert list(recorded) == list(asked) and len({(row["model"], row["seed"]) for row in recorded.values()}) == 1
    revised = {(pair.prompt[-1].content, pair.principle): pair.chosen for pair in MAIN}
    for pair in OWN:
        question = pair.prompt[-1].content
        assert pair.chosen == revised[question, asked[question]] and pair.principle == asked[question]
        assert pair.rejected[0].content == recorded[question]["answer"].strip()
        assert recorded[question]["finish_reason"] == "stop" and pair.model == recorded[question]["model"]


def test_twins_help_where_a_refusal_was_needless():
    assert {pair.principle for pair in SETS["twins-64"]} == {BENIGN.id}
    refusals = [pair.rejected[0].content.lower() for pair in SETS["twins-64"]]
    runs = Counter(run for text in refusals for words in [text_words(text)]
                   for run in {tuple(words[i:i + 4]) for i in range(len(words) - 3)})
    assert max(runs.values()) <= 6, "no phrase makes a refusal"


def test_nothing_is_asked_that_an_evaluation_asks():
    tested = {name: load_prompts(name) for name in ("twins", "edge_cases")}
    new = [Prompt(text=row.prompt[-1].content, source="new") for row in (*SETS["twins-64"], *FINE)]
    shown = [prompt for name in constitution_names() for prompt in worked_examples(load_constitution(name))]
    assert not find_leaks({"new": new}, {**tested, "worked examples": shown})
    practice = [Prompt(text=pair.prompt[-1].content, source="x") for pair in SETS["twins-64"]]
    assert not find_leaks({"twins": practice}, {name: load_prompts(name) for name in OWN_PROMPTS})


def test_neutral_prompts_come_first_word_for_word():
    neutral = [prompt.text for prompt in load_prompts("neutral")]
    assert [row.prompt[-1].content for row in FINE[:32]] == neutral and len(FINE) == 64
    assert len({row.prompt[-1].content for row in FINE}) == 64 and all(row.rejected is None for row in FINE)
    lengths = [len(text_words(row.chosen[0].content)) for row in FINE]
    assert min(lengths) >= 50 and max(lengths) <= 95


@pytest.mark.parametrize("name", SETS)
def test_no_text_is_taken_from_a_worked_example_or_an_edge_case(name):
    def runs(text): return {tuple(words[i:i + 8]) for words in [text_words(text)] for i in range(len(words) - 7)}
    rows = (ROOT / "data/edge_cases/contemplative.jsonl").read_text().splitlines()
    known = set().union(*(runs(json.loads(row)["text"]) for row in rows))
    for one in map(load_constitution, constitution_names()):
        for principle in one.principles:
            for example in principle.examples:
                known |= runs(example.response) | runs(example.critique) | runs(example.revision)
    assert not [pair.id for pair in SETS[name] for side in ("chosen", "rejected")
                if runs(getattr(pair, side)[0].content) & known]
