"""The health of a data set and balancing: references,
properties, every warning made to speak, and nothing invented where there is too little."""
import json
import random
import statistics
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import matter

from contemplative_cai.core.files import read_rows, write_rows
from contemplative_cai.core.recipe import BALANCED, Recipe, build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Dropped, InputError, Message, PreferencePair, Prompt
from contemplative_cai.measure.plot import png
from contemplative_cai.measure.text import text_words
from contemplative_cai.pairs import health as module
from contemplative_cai.pairs.balance import balance_by, balance_pairs, match_lengths
from contemplative_cai.pairs.baselines import (
    FOLDS,
    Measure,
    bag_of_words_rule,
    clustered_share,
    cross_validated,
    length_rule,
    prompt_folds,
)
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.health import (
    RATIOS,
    Health,
    distinct_runs,
    health,
    health_figure,
    health_table,
    health_words,
    stated,
    warnings,
)
from contemplative_cai.pairs.make import load_pairs
from contemplative_cai.pairs.waterfall import waterfall
from contemplative_cai.report.report import write_report

WORDS = ("ask listen wait walk write call rest cook plan visit speak think read learn begin finish tell show thank "
         "offer first today tomorrow quietly plainly again together alone later gently money time trust noise work "
         "dinner phone person care once").split()


def make_pair(number, chosen, rejected, principle="emptiness", hazard=None, persona=None) -> PreferencePair:
    "A pair about prompt `number`."
    prompt = Prompt(text=f"What shall I do about {matter(number)}?", source="test")
    def said(text): return (Message(role="assistant", content=text),)
    return PreferencePair(prompt=prompt.messages, chosen=said(chosen), rejected=said(rejected), prompt_id=prompt.id,
                          principle=principle, hazard=hazard, persona=persona, locale="en_US", source="test",
                          critique="c", constitution="x@0", model="m", seed=0, template="t")


def text(rng, words, vocabulary=WORDS): return " ".join(rng.choice(vocabulary) for _ in range(words))


def random_pairs(n=120, seed=0, chosen=lambda rng, rejected: text(rng, rng.randint(20, 40)),
                 labels=lambda i: {"principle": ("emptiness", "mindfulness")[i % 2]}):
    "Two pairs a prompt that share their rejected text; as healthy as random words can be."
    rng, made = random.Random(seed), []
    for i in range(n):
        if i % 2 == 0: rejected = text(rng, rng.randint(20, 40))
        made.append(make_pair(i // 2, chosen(rng, rejected), rejected, **labels(i)))
    return made


def lengths(pair): return len(pair.chosen[0].content.split()), len(pair.rejected[0].content.split())


rows = st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.sampled_from([None, "vcr", "hte"]),
                          st.sampled_from([None, "skilled"]), st.integers(1, 12), st.integers(1, 12)),
                max_size=30)


def built(rows):
    "Pairs of drawn labels and lengths, all different."
    return [make_pair(number, "yes " * chosen + f"end{i}", "no " * rejected + "end", principle, hazard, persona)
            for i, (number, principle, hazard, persona, chosen, rejected) in enumerate(rows)]


# references


def test_distinct_n_is_that_of_the_hand_count():
    "a b a b · a c: two texts, six words of three kinds; four runs of two of three kinds, none across texts."
    texts = ["a b a b".split(), "a c".split()]
    assert distinct_runs(texts, 1) == Measure(value=3 / 6, n=6) and distinct_runs(texts, 2) == Measure(value=3 / 4, n=4)
    assert distinct_runs(texts, 5).value is None and distinct_runs([], 1).undefined == "no text has 1 word"


def test_variety_is_counted_on_equally_many_words_and_shared_answers_once():
    "Four revisions of one answer a prompt: without both precautions the answers would look repetitive."
    rng = random.Random(1)
    pairs = [make_pair(i, text(rng, 30), rejected, principle)
             for i in range(30) for rejected in [text(rng, 30)] for principle in "abcd"]
    found = health(pairs)
    assert found.chosen.distinct_2.n == found.rejected.distinct_2.n == 30 * 29
    assert (abs(found.chosen.distinct_2.value - found.rejected.distinct_2.value) < 0.05
            and found.chosen.vocabulary.n == 4 * found.rejected.vocabulary.n)


def test_openings_are_of_several_prompts_and_in_the_order_of_their_shares():
    texts = [("p", ["so", "it", "is", "one"]), ("q", ["so", "it", "is", "two"]), ("q", ["oh", "no"]),
             ("r", ["oh", "no"]), ("r", ["so", "it", "is"]), ("s", ["only", "here"]), ("s", ["only", "here"]),
             ("t", [])]
    assert ([(opening.words, opening.count, opening.share) for opening in module.common_openings(texts)]
            == [("so it is", 3, 3 / 8), ("oh no", 2, 2 / 8)])


@pytest.mark.parametrize("said, count", [
    ("Mindfulness, mindful walking and non-dual sight", 3), ("Nonduality and non‑duality", 2),
    ("boundless compassion; compassionately", 3), ("Emptiness is not empty", 1),
    ("Mind the full glass, passionate and bound", 0)
])
def test_the_principles_vocabulary_is_counted_in_a_thousand_words(said, count):
    words = text_words(said)
    assert module.vocabulary_rate([words, ["other"] * (1000 - len(words))]) == Measure(value=count, n=1000)


def test_quartiles_are_numpys():
    import numpy as np
    values = [3.0, 1.0, 8.0, 2.0, 9.5, 4.0]
    found = module.quartiles(values)
    assert (np.allclose([found.low, found.median, found.high], np.percentile(values, [25, 50, 75]))
            and module.quartiles([7.0]).high == 7.0)


def test_an_interval_knows_prompts_from_pairs():
    "Every pair four times over says nothing new; by prompt the interval stays, as a binomial one on the prompts."
    rng = random.Random(0)
    values, prompts = [float(rng.random() < 0.7) for _ in range(200)], [f"p{i}" for i in range(200)]
    once, four = clustered_share(values, prompts), clustered_share(values * 4, prompts * 4)
    again = clustered_share(values[::-1], prompts[::-1])
    for same in (four, again): assert abs(same.low - once.low) < 1e-6 and abs(same.high - once.high) < 1e-6
    assert four.n == 800
    half = 1.96 * (once.value * (1 - once.value) / 200) ** 0.5
    assert abs(once.low - (once.value - half)) < 0.015 and abs(once.high - (once.value + half)) < 0.015


def test_all_right_has_an_interval_by_prompt_and_so_have_ties():
    from scipy import stats
    prompts = [f"p{i}" for i in range(12)]
    found, far = clustered_share([1.0] * 24, prompts * 2), stats.t.ppf(0.975, 11)
    assert abs(found.low - 12 / (12 + far ** 2)) < 1e-6 and found.high == found.value == 1  # Wilson's, t's quantile
    tied = clustered_share([0.5] * 12, prompts)
    assert tied.value == 0.5 and tied.low < 0.5 < tied.high
    assert clustered_share([1.0, 0.0], ["p", "q"]).low is None and clustered_share([], []).undefined == "no pairs"


def test_the_rules_find_what_is_there_and_nothing_where_nothing_is():
    assert (cross_validated(random_pairs(), bag_of_words_rule).low < 0.5
            < cross_validated(random_pairs(), bag_of_words_rule).high)
    marked = random_pairs(chosen=lambda rng, rejected: "well " + text(rng, 30))
    assert statistics.mean(cross_validated(marked, bag_of_words_rule, seed).low for seed in range(3)) > 0.8


def test_a_rule_is_not_praised_for_its_memory():
    "Each prompt has a word of its own in all its chosen texts: a rule that had seen the prompt would know it."
    pairs = random_pairs(chosen=lambda rng, rejected: text(rng, 30))
    own = [make_pair(i // 2, pair.chosen[0].content + f" matter{i // 2}", pair.rejected[0].content, pair.principle)
           for i, pair in enumerate(pairs)]
    assert cross_validated(own, bag_of_words_rule).low < 0.5


def test_words_of_one_letter_teach_nothing():
    assert bag_of_words_rule([make_pair(0, "a", "b")], [make_pair(1, "a", "b")]) == [0.5]


# properties


@given(rows)
@settings(max_examples=50, deadline=None)
def test_folds_try_every_pair_once_and_share_no_prompt(rows):
    pairs, folds = built(rows), prompt_folds(built(rows))
    assert (sorted(pair.id for _, test in folds for pair in test) == sorted(pair.id for pair in pairs)
            and len(folds) == min(FOLDS, len({pair.prompt_id for pair in pairs})))
    for train, test in folds:
        assert (test and len(train) + len(test) == len(pairs)
                and not {pair.prompt_id for pair in train} & {pair.prompt_id for pair in test})


@given(rows, st.sampled_from([("principle",), ("hazard",), ("principle", "hazard"), BALANCED]),
       st.sampled_from([None, 1, 2, 5]), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_balanced_cells_are_equal_and_nothing_is_lost(rows, keys, quota, rng):
    pairs = built(rows)
    def cell(pair): return tuple(getattr(pair, key) for key in keys)
    kept, dropped = balance_by(pairs, keys, quota)
    there, left = Counter(map(cell, pairs)), Counter(map(cell, kept))
    most = min(there.values(), default=0) if quota is None else quota
    assert left == {name: min(count, most) for name, count in there.items()}
    assert (sorted([pair.id for pair in kept] + [row.pair.id for row in dropped]) == sorted(pair.id for pair in pairs)
            and kept == [pair for pair in pairs if pair in kept])
    assert {pair.id for pair in kept} == {pair.id for pair in balance_by(rng.sample(pairs, len(pairs)), keys, quota)[0]}


@given(rows, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_matched_lengths_mirror_each_other_and_no_more_is_dropped_than_must_be(rows, rng):
    pairs = built(rows)
    kept, dropped = match_lengths(pairs)
    before, after = module._bins(pairs), module._bins(kept)
    assert (all(bin.longer == bin.shorter for bin in after)
            and len(dropped) == sum(abs(bin.longer - bin.shorter) for bin in before))
    assert sorted([pair.id for pair in kept] + [row.pair.id for row in dropped]) == sorted(pair.id for pair in pairs)
    assert {pair.id for pair in kept} == {pair.id for pair in match_lengths(rng.sample(pairs, len(pairs)))[0]}
    assert all(pair in kept for pair in pairs if lengths(pair)[0] == lengths(pair)[1])


@given(rows, st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_health_is_the_same_in_any_order_and_survives_its_file(rows, rng):
    pairs = built(rows)
    found = health(pairs)
    assert health(rng.sample(pairs, len(pairs))) == found == Health.model_validate_json(found.model_dump_json())
    assert (sum(bin.shorter + bin.longer for bin in found.bins) + found.equal
            == sum(cell.pairs for cell in found.cells) == len(pairs))
    assert all(sum(axis.counts.values()) == len(pairs) for axis in found.axes.values())


def test_another_seed_keeps_other_pairs():
    pairs = random_pairs(labels=lambda i: {"principle": "a" if i < 40 else "b"})
    first, second = (balance_by(pairs, ("principle",), seed=seed)[0] for seed in (0, 1))
    assert len(first) == len(second) == 80 and first != second


# degenerate sets


@pytest.mark.parametrize("pairs", [
    [], random_pairs(1), random_pairs(2), [make_pair(0, f"yes {i}", f"no {i}") for i in range(30)],
    [make_pair(i, f"... {'' if i else '?'}", "!?") for i in range(12)], [make_pair(i, "a", "b") for i in range(12)]
], ids=["none", "one", "two of one prompt", "one prompt", "no words", "one letter"])
def test_too_little_is_said_and_nothing_invented(pairs):
    found = health(pairs)
    assert found.pairs == len(pairs) and json.loads(found.model_dump_json(), parse_constant=pytest.fail)
    if found.prompts < FOLDS:
        assert all("at least 5 are needed" in stated(rule) and rule.value is None
                   for rule in (found.length_rule, found.bag_of_words, found.first_words))
    else: assert found.bag_of_words.low < found.bag_of_words.value == 0.5 < found.bag_of_words.high
    assert (
        {warning.figure for warning in warnings(found)} <= {"similarity", "chosen.openings"}
    ), "what is true of them: the same lack of words, the same single letter"
    assert (png(health_figure(found))[:4] == b"\x89PNG"
            and all(set(row) == {"figure", "chosen", "rejected", "pairs"} for row in health_table(found)))
    assert len(balance_by(pairs, ("hazard",))[0]) == len(pairs), "one hazard: nothing to even out"
    assert sum(map(len, match_lengths(pairs))) == len(pairs)


def test_of_no_pairs_everything_is_undefined():
    said = health_table(health([]))
    assert said[0]["pairs"] == "0 of 0 prompts" and all("not computable" in value
                                                        for row in said[1:] if row["figure"] != "most frequent opening"
                                                        for key, value in row.items() if value and key != "figure")
    assert health_words(health([])) == ["0 pairs are too few to warn of anything; at least 5 are needed."]


def test_a_measure_without_value_needs_its_reason():
    with pytest.raises(ValueError, match="needs the reason"): Measure()


# warnings


def uneven(key, names): return random_pairs(40, labels=lambda i: {"principle": "emptiness"} | {key: names[i < 8]})


FAULTS = {
    ("length_rule", "length_match"): random_pairs(chosen=lambda rng, rejected: text(rng, rng.randint(30, 55))),
    ("ratio", "max_length_ratio"): random_pairs(chosen=lambda rng, rejected: text(rng, 70)),
    ("ratio", "min_length_ratio"): random_pairs(chosen=lambda rng, rejected: text(rng, 12)),
    ("bag_of_words",
     "n_few_shot"): random_pairs(chosen=lambda rng, rejected: text(rng, 30, [word + "ing" for word in WORDS])),
    (
        "first_words", "max_share_opening"
    ): random_pairs(chosen=lambda rng, rejected: text(rng, 20, [word + "ing" for word in WORDS]) + " " + text(rng, 10)),
    (
        "chosen.openings", "max_share_opening"
    ): random_pairs(chosen=lambda rng, rejected: ("That sounds hard. " if rng.random() < 0.2 else "") + text(rng, 28)),
    ("chosen.distinct_2", "temperature"): random_pairs(chosen=lambda rng, rejected: text(rng, 30, WORDS[:8])),
    ("chosen.vocabulary",
     "max_vocabulary"): random_pairs(chosen=lambda rng, rejected: text(rng, 30, [*WORDS, "mindfulness"])),
    ("similarity", "max_similarity"): random_pairs(chosen=lambda rng, rejected: rejected + f" {rng.choice(WORDS)}"),
    ("axes.principle", "balance"): uneven("principle", ("emptiness", "mindfulness")),
    ("axes.hazard", "balance"): uneven("hazard", ("vcr", None)),
    ("axes.persona", "balance"): uneven("persona", ("skilled", "unskilled")),
}


@pytest.mark.parametrize("fault", FAULTS, ids=" ".join)
def test_every_fault_has_its_warning(fault):
    "The sentence has the figure, the threshold, and the recipe's key."
    said = [warning for warning in warnings(health(FAULTS[fault])) if (warning.figure, warning.setting) == fault]
    assert len(said) == 1 and f"`{said[0].setting}" in said[0].sentence and "threshold" in said[0].sentence
    assert (said[0].value < said[0].threshold
            if fault in {("ratio", "min_length_ratio"), ("chosen.distinct_2", "temperature")}
            else said[0].value > said[0].threshold)


@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_set_has_no_warnings(seed):
    assert warnings(health(random_pairs(seed=seed))) == []


@pytest.mark.parametrize("fault", FAULTS, ids=" ".join)
def test_a_handful_of_pairs_is_no_pattern(fault):
    assert warnings(health(FAULTS[fault][:4])) == []


def test_settings_that_mend_are_keys_of_a_recipe():
    assert {setting for _, setting in FAULTS} <= set(Recipe.model_fields)


def test_the_named_settings_do_mend():
    "Balancing and matching silence the warnings that name them."
    for key in BALANCED:
        assert not any(warning.setting == "balance"
                       for warning in warnings(health(balance_by(FAULTS[f"axes.{key}", "balance"], (key,))[0])))
    poor = FAULTS["length_rule", "length_match"]
    kept, _ = match_lengths(poor)
    assert f"keeps {len(kept)} of {len(poor)}" in warnings(health(poor))[0].sentence
    assert not any(warning.setting == "length_match" for warning in warnings(health(kept)))


# balancing


def test_a_length_matched_set_leaves_a_length_rule_at_chance():
    "400 pairs, chosen mostly longer, some shorter."
    pairs = random_pairs(400, chosen=lambda rng, rejected: text(rng, rng.randint(24, 60)))
    kept, dropped = match_lengths(pairs)
    before, after = (cross_validated(pairs, length_rule),
                     statistics.mean(cross_validated(kept, length_rule, seed).value for seed in range(12)))
    assert before.low > 0.7 and len(kept) > 60 and abs(after - 0.5) < 0.1 and health(kept).longer.value == 0.5
    assert ({row.reason for row in dropped} == {"length_match"}
            and all(row.pair.prompt_id == row.prompt_id and str(lengths(row.pair)[0]) in row.detail for row in dropped))


def test_bins_mirror_each_other_around_equal_length():
    for ratio in [1.0, 1.05, *RATIOS, 7.0]:
        long = round(100 * ratio)
        (place, sign), (mirrored, other) = (module.ratio_bin(make_pair(0, "a " * mine, "b " * theirs))
                                            for mine, theirs in ((long, 100), (100, long)))
        assert place == mirrored and sign == -other == (long > 100)


def test_a_recipe_without_balancing_changes_nothing():
    pairs = random_pairs(20)
    assert balance_pairs(pairs, Recipe()) == (pairs, [])


def test_a_recipe_balances_first_and_matches_then():
    pairs = random_pairs(200, chosen=lambda rng, rejected: text(rng, rng.randint(24, 50)),
                         labels=lambda i: {"principle": "emptiness" if i % 4 else "mindfulness"})
    kept, dropped = balance_pairs(pairs,
                                  build_recipe({"balance": "principle", "balance_quota": 40, "length_match": True}))
    assert Counter(row.reason for row in dropped)["balance"] == 120 and len(kept) + len(dropped) == 200
    table = waterfall(kept,
                      [*dropped, Dropped(prompt_id="p", principle="emptiness", reason="review", detail="both bad")])
    assert ([row["stage"] for row in table][-4:] == ["balance", "length_match", "review", "kept"]
            and table[-1]["left"] == table[-2]["left"] == len(kept))
    assert [json.loads(row.model_dump_json())["pair"]["id"] for row in dropped] == [row.pair.id for row in dropped]


@pytest.mark.parametrize("keys, message", [
    ({"balance": "princple"}, "balanced by 'princple'; did you mean 'principle'"),
    ({"balance": ["hazard", "locale"]}, "balanced by 'locale'"), ({"balance_quota": 3}, "balance does not say of what"),
    ({"balance": "hazard", "balance_quota": 0}, "balance_quota"), ({"length_match": 3}, "length_match")
])
def test_a_wrong_recipe_is_refused(keys, message):
    with pytest.raises(InputError, match=message): build_recipe(keys)


def test_an_unknown_label_is_refused():
    with pytest.raises(InputError, match="balanced by 'persoan'; did you mean 'persona'"): balance_by([], ("persoan",))


# the report


def test_the_report_shows_the_health_of_what_was_kept(scripted):
    run = open_run("demo")
    generate_pairs(run, build_recipe({"n_prompts": 6, "filters": "empty"}), scripted)
    pairs = load_pairs(run)
    page, found = write_report(run).read_text(), health(pairs)
    assert (Health.model_validate_json(run.path("health.json").read_text()) == found
            and run.path("figures", "health.png").stat().st_size > 5000)
    for said in (page, run.path("report.md").read_text()):
        assert ("Health of the data set" in said and "told apart by length alone" in said
                and f"{found.pairs} of 6 prompts" in said)
    assert len(warnings(found)) == run.path("report.md").read_text().count("threshold ")


def test_the_report_of_a_run_without_pairs_says_so(scripted):
    run = open_run("demo")
    generate_pairs(run, build_recipe({"n_prompts": 4, "filters": "empty"}), scripted)
    write_rows(run.path("dropped.jsonl"), [
        Dropped(prompt_id=pair.prompt_id, principle=pair.principle, reason="review", detail="both bad", pair=pair)
        for pair in load_pairs(run)
    ])
    write_rows(run.path("pairs.jsonl"), [])
    assert ("not computable: no pairs" in write_report(run).read_text()
            and "| pairs |  |  | 0 of 0 prompts |\n" in run.path("report.md").read_text()
            and health([]) == Health.model_validate_json(run.path("health.json").read_text()))
    assert read_rows(run.path("pairs.jsonl"), PreferencePair) == []


def test_a_hazard_that_is_a_text_or_a_table_is_not_repeated():
    "A user's own labels may hold anything; what is too long to be a name may be a prompt."
    pairs = random_pairs(40, labels=lambda i: {"principle": "a", "hazard": "how would one " * 5 if i < 35 else "x|<b>"})
    said = " ".join([*health_words(health(pairs)), *(row["pairs"] for row in health_table(health(pairs))),
                     *(row.detail for row in balance_by(pairs, ("hazard",))[1])])
    assert "how would one" not in said and "(a text of" in said


def test_no_pair_to_try_a_rule_on_is_no_error():
    pairs = random_pairs()
    assert bag_of_words_rule(pairs, []) == length_rule(pairs, []) == []
