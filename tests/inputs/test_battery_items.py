"""The items of data/capability: whole, balanced, each once."""
import json
from collections import Counter

import pytest
from support import ROOT

from contemplative_cai.measure.text import text_words

FOLDER = ROOT / "data" / "capability"
COUNTS = {"completion": 100, "commonsense": 80, "arithmetic": 60, "reading": 60, "instruction": 60, "copying": 50,
          "closing": 50}
ASKED = {"completion": {"context"}, "copying": {"context"}, "closing": {"context"}, "commonsense": {"question"},
         "arithmetic": {"question"}, "reading": {"passage", "question"}}
CHOICE = sorted(ASKED)


def _items(kind): return [json.loads(line) for line in (FOLDER / f"{kind}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", sorted(COUNTS))
def test_items_of_a_kind_are_numbered_and_lie_in_topics_that_can_be_clustered(kind):
    items = _items(kind)
    assert [item["id"] for item in items] == [f"{kind}-{n:03d}" for n in range(1, COUNTS[kind] + 1)]
    topics = Counter(item["subject"] for item in items)
    assert 6 <= len(topics) <= 12 and min(topics.values()) >= 5 and {item["kind"] for item in items} == {kind}


@pytest.mark.parametrize("kind", CHOICE)
def test_a_choice_has_four_different_ends_and_its_place_gives_nothing_away(kind):
    items = _items(kind)
    for item in items:
        assert set(item) == {"id", "kind", "subject", "choices", "answer"} | ASKED[kind], item["id"]
        assert len({choice.strip().casefold() for choice in item["choices"]}) == 4, item["id"]
        assert {choice.startswith(" ") for choice in item["choices"]} == {ASKED[kind] == {"context"}}, item["id"]
    places = Counter(item["answer"] for item in items)
    assert set(places) == {0, 1, 2, 3} and max(places.values()) - min(places.values()) <= 1


@pytest.mark.parametrize("kind", CHOICE)
def test_neither_the_longest_nor_the_shortest_choice_is_right_more_often_than_chance_allows(kind):
    items = _items(kind)
    def share(pick):
        def right(item):
            lengths = [len(choice.strip()) for choice in item["choices"]]
            best = [place for place, length in enumerate(lengths) if length == pick(lengths)]
            return (item["answer"] in best) / len(best)
        return sum(map(right, items)) / len(items)
    assert share(max) < 0.34 and share(min) < 0.34


def test_no_item_stands_twice():
    asked = [" ".join(text_words(" ".join(map(str, (item.get("passage", ""), item.get("question", ""),
                                                    item.get("context", ""), item.get("prompt", ""))))))
             for kind in COUNTS for item in _items(kind)]
    assert len(set(asked)) == len(asked) == 460


def test_instructions_name_checks_and_their_arguments():
    for item in _items("instruction"):
        assert set(item) == {"id", "kind", "subject", "prompt", "checks"} and item["checks"], item["id"]
        assert all(":" in check["check"] for check in item["checks"]), item["id"]
