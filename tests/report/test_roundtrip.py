"""Readings with principles planted in them: what is inferred, missing, invented."""
import numpy as np
import pytest

from contemplative_cai.core.schema import InputError
from contemplative_cai.report.roundtrip import PrincipleReading, round_trip, round_trip_rows

LIST = ("emptiness", "care", "plain_words", "order")


def read(rates, prompts=60, readers=("one", "other"), seed=0):
    rng = np.random.default_rng(seed)
    return [PrincipleReading(arm=arm, prompt_id=f"p{i}", reader=reader,
                             shows=tuple(name for name, rate in zip(LIST, odds) if rng.random() < rate))
            for arm, odds in rates.items() for i in range(prompts) for reader in readers]


def test_what_was_planted_is_inferred_and_the_rest_told_apart():
    trip = round_trip(read({"base": (.1, .2, .2, .1), "ours": (.1, .7, .2, .5)}), "ours", LIST, {"emptiness", "care"})
    assert (trip.inferred, trip.missing, trip.invented) == (("care", "order"), ("emptiness",), ("order",))
    assert (trip.prompts, trip.readers) == (60, 2)
    [row] = round_trip_rows([trip])
    assert (row["inferred"], row["missing"], row["invented"]) == ("care, order", "emptiness", "order")


def test_less_of_a_principle_is_not_that_principle():
    trip = round_trip(read({"base": (.8, .2, .2, .2), "ours": (.1, .2, .2, .2)}), "ours", LIST, ["emptiness"])
    assert trip.inferred == () and trip.principles[0].p < 0.05 and trip.missing == ("emptiness",)


def test_where_nothing_was_planted_something_is_inferred_in_few_studies():
    same = {"base": (.3, .2, .2, .1), "ours": (.3, .2, .2, .1)}
    found = [bool(round_trip(read(same, seed=seed), "ours", LIST, ()).inferred) for seed in range(50)]
    assert sum(found) / len(found) <= 0.08


def test_twins_among_prompts_count_once():
    rows = read({"base": (.1, .2, .2, .1), "ours": (.1, .7, .2, .5)}, prompts=12)
    trip = round_trip(rows, "ours", LIST, ["care"], {f"p{i}": f"c{i // 6}" for i in range(12)})
    assert trip.inferred == () and trip.principles[1].difference.clusters == 2


def test_other_lists_and_other_prompts_are_refused():
    rows = read({"base": (.5, .5, .5, .5), "ours": (.5, .5, .5, .5)})
    with pytest.raises(InputError, match="expected principles of the list"): round_trip(rows, "ours", LIST[:2], [])
    with pytest.raises(InputError, match="read the same ones"): round_trip(rows, "theirs", LIST, [])


def test_a_lenient_reader_of_one_side_infers_nothing():
    rows = read({"base": (.2,) * 4, "ours": (.2,) * 4}, readers=("strict",))
    lenient = [row.model_copy(update={"reader": "lenient", "shows": LIST}) for row in rows if row.arm == "ours"]
    trip = round_trip([*rows, *lenient], "ours", LIST, [])
    assert trip.readers == 1 and trip == round_trip(rows, "ours", LIST, [])
    with pytest.raises(InputError, match="nobody read both"):
        round_trip([*lenient, *(row for row in rows if row.arm == "base")], "ours", LIST, [])


def test_what_was_trained_has_to_be_on_the_list_and_an_answer_is_read_once():
    rows = read({"base": (.5,) * 4, "ours": (.5,) * 4})
    with pytest.raises(InputError, match="trained on kindness; expected"): round_trip(rows, "ours", LIST, ["kindness"])
    with pytest.raises(InputError, match="one read ours's answer to p3 twice"):
        round_trip([*rows, next(row for row in rows if (row.arm, row.prompt_id) == ("ours", "p3"))], "ours", LIST, [])
