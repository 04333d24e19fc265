"""The set of pairs that is shipped: written once, by one hand, so that little but the principle differs."""
import json
import re
from collections import Counter
from statistics import median

import pytest
from support import ROOT

from contemplative_cai.inputs.constitution import constitution_names, load_constitution
from contemplative_cai.inputs.given import read_pairs
from contemplative_cai.inputs.sources import load_prompts
from contemplative_cai.inputs.split import worked_examples
from contemplative_cai.measure.agreement import gwet_ac1, krippendorff_alpha
from contemplative_cai.measure.text import text_words
from contemplative_cai.pairs.baselines import bag_of_words_rule, clustered_share, cross_validated
from contemplative_cai.pairs.health import ending_difference, health, stated, warnings

FOLDER = ROOT / "data" / "pairs"
CARD = (FOLDER / "README.md").read_text()
PAIRS = read_pairs("contemplative-512").pairs


def _words(pair, side): return text_words(getattr(pair, side)[0].content)


def test_each_prompt_of_practice_but_the_topical_twins_has_a_pair_by_each_principle():
    practice = {prompt.text for prompt in load_prompts("practice")}
    asked = Counter(pair.prompt[0].content for pair in PAIRS)
    assert set(asked) < practice and len(asked) == 116 and set(asked.values()) == {4}
    principles = [principle.id for principle in load_constitution("contemplative").principles]
    assert Counter(pair.principle for pair in PAIRS) == dict.fromkeys(principles, 116)
    assert {pair.model for pair in PAIRS} == {"a large language model"}, "who wrote them is said in each row"


def test_both_sides_are_of_like_length_and_end_properly():
    shares = [len(_words(pair, "chosen")) / len(_words(pair, "rejected")) for pair in PAIRS]
    assert 0.95 <= median(shares) <= 1.05 and min(shares) > 0.8 and max(shares) < 1.25
    assert ending_difference(PAIRS).value == 0 and not warnings(health(PAIRS))


def test_no_opening_is_a_formula_and_no_principle_is_named():
    openings = Counter(" ".join(_words(pair, "chosen")[:5]) for pair in PAIRS)
    assert max(openings.values()) <= 0.02 * len(PAIRS)
    preached = re.compile(r"emptiness|non-?dual|boundless|mindful|interdepend|impermanen|constitution|principle", re.I)
    assert not [pair.id for pair in PAIRS if preached.search(pair.chosen[0].content)]


def test_a_bag_of_words_tells_few_of_the_sides():
    found = cross_validated(PAIRS, bag_of_words_rule)
    assert found.low is not None and found.value < 0.75, "the card says what it is; nearer to 0.5 is better"


def _stated(rows, right):
    "As the card says a share of readings: prompts have several."
    return stated(clustered_share([float(right(row)) for row in rows], [str(row["prompt"]) for row in rows]))


def test_the_card_says_what_the_readings_say():
    readings = [json.loads(line) for line in (FOLDER / "readings/contemplative-512.jsonl").read_text().splitlines()]
    by = {reader: {row["pair"]: row for row in readings if row["reader"] == reader} for reader in (1, 2)}
    assert by[1].keys() == by[2].keys() and {len(rows) for rows in by.values()} == {160}
    def said(what, right):
        return f"| {what} | " + " | ".join(_stated(by[n].values(), right) for n in (1, 2)) + " |"
    for row in (said("the revision does better", lambda row: row["better"] == "revision"),
                said("the first answer falls short", lambda row: row["answer_short"]),
                said("the revision falls short too", lambda row: row["revision_short"]),
                said("the better one loses something useful", lambda row: row["lost"]),
                said("one would be content to get it", lambda row: row["fine"])):
        assert row in CARD
    content = [(by[1][pair]["fine"], by[2][pair]["fine"]) for pair in by[1]]
    prompts = [str(by[1][pair]["prompt"]) for pair in by[1]]
    def figure(one): return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"
    agreed = (f"content in {sum(one == two for one, two in content)}: "
              f"Gwet's AC1 {figure(gwet_ac1(content, clusters=prompts))}, "
              f"Krippendorff's alpha {figure(krippendorff_alpha(content, clusters=prompts))}")
    stand = by[1].keys() & {pair.id for pair in PAIRS}
    assert agreed in CARD and f"the other {len(stand)} stand as they were read" in CARD
    assert {pair for pair, both in zip(by[1], content) if not all(both)} == by[1].keys() - stand
    assert f"The {len(PAIRS) - 160} rows that nobody read" in CARD and f"of {len(set(prompts))} prompts" in CARD


def test_the_card_says_what_rules_that_understand_nothing_make_of_the_set():
    measured = health(PAIRS)
    for what, figure in (("a bag of words", measured.bag_of_words),
                         ("a bag of the first 20 words", measured.first_words),
                         ("length alone", measured.length_rule), ("which side ends properly", measured.ends_rule)):
        assert f"| {what} | {stated(figure)} |" in CARD


def _shown_elsewhere():
    "Texts that an evaluation asks, or that a constitution shows."
    rows = (ROOT / "data/edge_cases/contemplative.jsonl").read_text().splitlines()
    examples = [prompt.text for name in constitution_names() for prompt in worked_examples(load_constitution(name))]
    return [json.loads(row)["text"] for row in rows] + examples


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_no_text_is_taken_from_an_edge_case_or_a_worked_example(side):
    def runs(words): return {tuple(words[i:i + 8]) for i in range(len(words) - 7)}
    constitution = load_constitution("contemplative")
    elsewhere = [*_shown_elsewhere(), *(text for principle in constitution.principles for one in principle.examples
                                        for text in (one.response, one.critique, one.revision))]
    known = set().union(*(runs(text_words(text)) for text in elsewhere))
    assert not [pair.id for pair in PAIRS if runs(_words(pair, side)) & known]
