"""The battery: likelihoods against a plain forward pass, who chooses what, intervals by topics, kept or lost."""
import random
import re

import pytest
import torch
from support import ROOT

from contemplative_cai.capability import battery
from contemplative_cai.capability.battery import (
    ItemResult,
    battery_kept,
    battery_table,
    chosen_result,
    design_effect,
    estimate_by_topic,
    kept_change,
    measure_battery,
    smallest_loss,
)
from contemplative_cai.capability.items import BATTERY_KINDS, CHOICE_KINDS, battery_items
from contemplative_cai.core.schema import InputError
from contemplative_cai.measure.stats import share_interval
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.llm import LazyLLM, Logprob, ModelCallError, ScriptedLLM
from contemplative_cai.models.local import load_llm

ITEMS = battery_items()
BY_ID = {item.id: item for item in ITEMS}
CHOICES = [item for item in ITEMS if item.kind in CHOICE_KINDS]
ONE_OF_EACH = [next(item for item in ITEMS if item.kind == kind) for kind in BATTERY_KINDS]
SHOWN = {item.shown: item for item in CHOICES}


@pytest.fixture(scope="module")
def tiny(): return load_llm(model_spec("random-tiny"), "float32", "cpu")


def in_the_open(llm, context, end):
    "The log-probability of an end by one forward pass of transformers over the whole text, and its tokens."
    before, row = (llm.tokenizer(text)["input_ids"] for text in (context, context + end))
    assert row[:len(before)] == before, "the text breaks off between two tokens"
    with torch.inference_mode():
        scores = torch.log_softmax(llm.model(torch.tensor([row]), use_cache=False).logits[0].float(), -1)
    return sum(scores[i - 1, row[i]].item() for i in range(len(before), len(row))), len(row) - len(before)


def knowing(share=1.0, seed=0, reply="I do not know."):
    "A script that likes the right end of this share of the items, and another end of the others."
    draw = random.Random(seed)
    liked = {item.shown: item.ends[item.answer if draw.random() < share else item.answer - 1] for item in CHOICES}
    return ScriptedLLM(lambda conversation: reply,
                       lambda conversation, end: 0.0 if liked[conversation[0].content] == end else -100.0)


def result(id, right, kind="closing", subject="calendar"):
    return ItemResult(id=str(id), kind=kind, subject=subject, right=right, summed=(-1.0, -2.0, -3.0, -4.0))


# likelihoods

def matches_the_open(llm, items, tolerance):
    results = measure_battery(llm, items)
    for item, came in zip(items, results, strict=True):
        plain = [in_the_open(llm, item.shown, end)[0] for end in item.ends]
        assert came.summed == pytest.approx(plain, abs=tolerance), item.id
        assert came.per_character == pytest.approx([total / len(end) for total, end in zip(plain, item.ends)],
                                                   abs=tolerance)
        deciding = came.summed if item.kind in ("closing", "copying", "arithmetic") else came.per_character
        assert came.chosen == deciding.index(max(deciding)) and came.right == (came.chosen == item.answer)


def test_likelihoods_are_those_of_one_forward_pass_over_the_whole_text(tiny):
    matches_the_open(tiny, ONE_OF_EACH[:6], 1e-3)


@pytest.mark.long
def test_the_embedded_model_finds_ends_as_likely_as_transformers_alone_does():
    embedded = load_llm(model_spec("smollm2-135m"), "float32", "cpu")
    matches_the_open(embedded, ONE_OF_EACH[:6], 5e-3)


def test_an_end_weighs_alike_alone_and_in_company_and_in_any_order(tiny):
    some = CHOICES[::40]
    together, backwards = measure_battery(tiny, some), measure_battery(tiny, some[::-1])[::-1]
    alone = [measure_battery(tiny, [item])[0] for item in some]
    for others in (backwards, alone):
        for one, other in zip(together, others): assert one.summed == pytest.approx(other.summed, abs=1e-3)


def test_a_text_is_weighed_from_its_first_token_that_differs(tiny):
    "A tokenizer that joins the letters at the break weighs the joined token too; without a context, all but the first."
    whole = tiny.tokenizer("The river runs")["input_ids"]
    cut = tiny.text_logprobs(["The riv"], ["er runs"])[0]
    assert tiny.tokenizer.convert_ids_to_tokens(whole) == ["The", "Ġr", "iver", "Ġr", "un", "s"] and cut.tokens == 4
    assert tiny.text_logprobs([""], ["The river runs"])[0].tokens == len(whole) - 1
    assert cut.total == pytest.approx(in_the_open(tiny, "The r", "iver runs")[0], abs=1e-3)
    for before, after in (("The river", ""), ("", "The")):
        with pytest.raises(ValueError, match="expected a text that goes on"): tiny.text_logprobs([before], [after])
    with pytest.raises(ModelCallError, match="do not fit the model's context"):
        tiny.text_logprobs(["word " * 3000], [" end"])


def test_the_model_is_asked_under_the_adapter_that_is_on_it(tiny, adapter):
    both = load_llm(model_spec("random-tiny"), "float32", "cpu", {"other": adapter})
    plain, adapted = (measure_battery(both.with_adapter(name), ONE_OF_EACH[:3]) for name in (None, "other"))
    again = measure_battery(both.with_adapter(None), ONE_OF_EACH[:3])
    for one, same, other, here in zip(plain, again, adapted, measure_battery(tiny, ONE_OF_EACH[:3])):
        assert one.summed == pytest.approx(here.summed, abs=1e-3) == same.summed
        assert max(abs(a - b) for a, b in zip(one.summed, other.summed)) > 0.1


def test_a_model_that_weighs_no_plain_text_says_so_and_its_instructions_count():
    class Served:
        key, batch_size, script = "served", 8, ScriptedLLM(lambda conversation: "A bone.")
        chat, stream, batches = script.chat, script.stream, script.batches
        def with_adapter(self, name): return self
    lazy = LazyLLM("served", Served)
    with pytest.raises(ModelCallError, match="take engine: transformers"): lazy.text_logprobs(["A"], [" b."])
    results = {came.id: came for came in measure_battery(lazy, ONE_OF_EACH)}
    assert results["instruction-001"].right and "take engine" in results["closing-001"].unscored
    assert sum(came.right is None for came in results.values()) == 6


# who chooses what

def test_single_words_are_chosen_by_their_sum_and_phrases_for_each_character():
    closing, completion = BY_ID["closing-001"], BY_ID["completion-002"]
    for item in (closing, completion):
        short, long = (size(range(4), key=lambda place: len(item.ends[place])) for size in (min, max))
        totals = [{short: -1.9, long: -2.0}.get(place, -9.0) for place in range(4)]
        came = chosen_result(item, [Logprob(total=total, tokens=1) for total in totals])
        assert came.chosen == (short if item is closing else long)
        assert came.summed == tuple(totals) and came.right == (came.chosen == item.answer)
        assert came.per_character[long] == pytest.approx(-2.0 / len(item.ends[long]))


def test_who_knows_everything_has_everything_right_in_the_order_of_the_items():
    shuffled = random.Random(3).sample(CHOICES, 100)
    results = measure_battery(knowing(), shuffled)
    assert [came.id for came in results] == [item.id for item in shuffled] and all(came.right for came in results)
    assert not any(came.right for came in measure_battery(knowing(0.0), shuffled))


def test_instructions_are_asked_as_a_turn_of_the_user_and_cut_at_128_tokens():
    script = ScriptedLLM(lambda conversation: " ".join(f"word{i}" for i in range(300)))
    items = [BY_ID["instruction-025"], BY_ID["instruction-026"]]  # 80 words or more, 180 words or more
    results = measure_battery(script, items)
    assert [[turn.role for turn in call] for call in script.calls] == [["user"], ["user"]]
    assert [call[0].content for call in script.calls] == [item.prompt for item in items]
    assert [came.right for came in results] == [True, False] and len(results[0].text.split()) == 128


def test_an_item_that_fails_is_unscored_with_its_reason_and_costs_no_other():
    bad = {CHOICES[5].shown, BY_ID["instruction-002"].prompt}
    def likes(conversation, end):
        if conversation[0].content in bad: raise ModelCallError("too long")
        return 0.0 if SHOWN[conversation[0].content].ends[SHOWN[conversation[0].content].answer] == end else -100.0
    def reply(conversation): return ModelCallError("too long") if conversation[0].content in bad else "The cow."
    some = [*CHOICES[:70], BY_ID["instruction-001"], BY_ID["instruction-002"], BY_ID["instruction-012"]]
    results = measure_battery(ScriptedLLM(reply, likes), some)
    assert [came.id for came in results if came.right is None] == [CHOICES[5].id, "instruction-002"]
    assert {came.unscored for came in results if came.right is None} == {"too long"}
    assert [came.right for came in results[-3:]] == [False, None, True]
    (kind, whole) = battery_table(results)[0], battery_table(results)[-1]
    assert (kind.kind, kind.n, kind.right, kind.unscored) == ("completion", 69, 69, 1)
    assert (whole.kind, whole.n, whole.right, whole.unscored) == ("all", 71, 70, 2)


def test_where_nothing_can_be_asked_the_reason_is_told():
    def likes(conversation, end): raise ModelCallError("no memory")
    with pytest.raises(ModelCallError, match="not one of 40 items could be asked; the last: no memory"):
        measure_battery(ScriptedLLM(lambda conversation: "", likes), CHOICES[:40])
    assert measure_battery(ScriptedLLM(lambda conversation: ""), []) == []


# counting

@pytest.mark.long
def test_a_model_with_random_weights_guesses(tiny):
    results = measure_battery(tiny, CHOICES)
    whole = battery_table(results)[-2]
    assert (whole.kind, whole.n, whole.chance) == ("choices", 400, 0.25)
    assert whole.share.low < 0.25 < whole.share.high and abs(whole.share.mean - 0.25) < 0.07


def test_the_table_has_the_kinds_that_were_asked_and_chance_only_where_it_is_known():
    rows = {row.kind: row for row in battery_table(measure_battery(knowing(0.5), ITEMS))}
    assert list(rows) == [*BATTERY_KINDS, "choices", "all"]
    assert {kind: rows[kind].chance for kind in rows} == dict.fromkeys(CHOICE_KINDS, 0.25) | {
        "instruction": None, "choices": 0.25, "all": None}
    assert rows["choices"].right == sum(rows[kind].right for kind in CHOICE_KINDS)
    assert rows["all"].right == rows["choices"].right + rows["instruction"].right and rows["all"].n == 460
    assert [row.kind for row in battery_table([result(1, True)])] == ["closing", "choices", "all"]
    few = battery_table([result(i, True) for i in range(3)])[0]
    assert few.share.low is None and "1 independent unit" in few.share.undefined and few.share.mean == 1.0


def test_items_that_stand_alone_have_wilsons_interval_with_students_quantile():
    values, topics = [1.0] * 30 + [0.0] * 70, [str(i) for i in range(100)]
    figure = estimate_by_topic(values, topics, 0.25, (0.0, 1.0))
    low, high = share_interval(30, 100)
    assert design_effect(values, topics) == pytest.approx(1.0)
    assert (figure.low, figure.high) == (pytest.approx(low, abs=2e-3), pytest.approx(high, abs=2e-3))
    assert figure.low < low and high < figure.high


def test_topics_that_are_right_as_a_whole_count_as_one_item_each():
    values, topics = [1.0] * 40 + [0.0] * 60, [str(i // 5) for i in range(100)]
    assert design_effect(values, topics) == pytest.approx(5 * (20 / 19) / (100 / 99))
    wide, narrow = (estimate_by_topic(values, names, 0.25, (0.0, 1.0)) for names in (topics, list("abcde") * 20))
    assert wide.low < narrow.low - 0.05 and wide.high > narrow.high + 0.05
    assert design_effect(values, list("abcde") * 20) == 1.0, "topics that agree make nothing narrower"
    assert design_effect([1.0] * 6, list("aabbcc")) == 1.0


@pytest.mark.long
def test_the_interval_holds_the_true_share_as_often_as_it_says_though_topics_agree():
    "Eight topics of ten items, whose own shares are spread around 0.6."
    import numpy as np
    rng, topics, held = np.random.default_rng(0), [str(i // 10) for i in range(80)], 0
    for _ in range(300):
        shares = rng.beta(6, 4, 8)
        values = (rng.random((8, 10)) < shares[:, None]).astype(float).ravel().tolist()
        figure = estimate_by_topic(values, topics, 0.25, (0.0, 1.0))
        held += figure.low <= 0.6 <= figure.high
    assert 0.92 <= held / 300 <= 0.995


@pytest.mark.slow
def test_the_card_has_the_figures_of_the_embedded_model():
    "Two minutes on two cores; another processor rounds otherwise, and a few items are close."
    card = (ROOT / "data" / "capability" / "README.md").read_text()
    llm = load_llm(model_spec("smollm2-135m"))
    for row in battery_table(measure_battery(llm, ITEMS)):
        told = re.search(rf"^\| {row.kind} \| {row.n} \| (\d+) \|", card, re.MULTILINE)
        assert told and abs(int(told[1]) - row.right) <= 4, row.kind


# kept or lost

def arms(lost=0, gained=0, n=400, right=240, topics=40):
    "A base with so many right answers, and an arm that lost and gained some, spread over the topics."
    base = [result(i, i < right, subject=str(i % topics)) for i in range(n)]
    arm = [one.model_copy(update={"right": (lost <= i < right) or right <= i < right + gained})
           for i, one in enumerate(base)]
    return base, arm


def test_an_answer_that_goes_round_in_circles_follows_nothing():
    item = BY_ID["instruction-042"]  # one sentence without a comma
    def answered(text): return measure_battery(ScriptedLLM(lambda conversation: text), [item])[0]
    came, round_and_round = answered("A grey horse stands in the rain."), answered("horse " * 40)
    assert came.right and round_and_round.right is False and round_and_round.text.startswith("horse horse")


@pytest.mark.parametrize("lost, gained, verdict", [(0, 0, "kept"), (3, 3, "kept"), (0, 40, "kept"), (60, 0, "worse"),
                                                   (16, 10, "not shown"), (30, 29, "not shown")])
def test_an_arm_is_told_to_have_kept_or_lost_what_the_base_could(lost, gained, verdict):
    base, arm = arms(lost, gained)
    change = battery_kept(base, arm)
    assert (change.kept.verdict, change.lost, change.gained, change.n) == (verdict, lost, gained, 400)
    assert change.before == 0.6 and change.after == pytest.approx(0.6 + (gained - lost) / 400)
    assert change.difference.mean == pytest.approx(change.after - change.before)
    assert change.kept.margin == pytest.approx(0.05 * 0.6)


def test_a_margin_is_a_share_of_what_the_base_gets_right():
    base, arm = arms(16, 10)
    assert battery_kept(base, arm, 0.2).kept.verdict == "kept"
    assert battery_kept(base, arm, 0.2).kept.margin == pytest.approx(0.12)
    for margin in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(InputError, match="margin: expected a share"): battery_kept(base, arm, margin)


def test_losses_that_fall_on_one_topic_show_less_than_losses_here_and_there():
    base = [result(i, True, subject=str(i // 10)) for i in range(400)]
    together = [one.model_copy(update={"right": not 0 <= i < 10}) for i, one in enumerate(base)]
    apart = [one.model_copy(update={"right": i % 40 > 0}) for i, one in enumerate(base)]
    heaped, spread = battery_kept(base, together), battery_kept(base, apart)
    assert heaped.difference.mean == spread.difference.mean == -0.025
    assert heaped.difference.low < spread.difference.low
    assert (heaped.kept.verdict, spread.kept.verdict) == ("not shown", "kept")


def test_items_without_a_result_in_one_arm_are_counted_and_left_out():
    base, arm = arms(0, 0)
    arm = [arm[0].model_copy(update={"right": None}), *arm[2:], result("new", True)]
    change = battery_kept(base, arm)
    assert (change.n, change.unpaired) == (398, 3) and change.kept.verdict == "kept"


def test_a_kind_is_compared_by_itself():
    base, arm = arms(60, 0)
    others = [result(f"copy {i}", True, "copying", str(i % 8)) for i in range(60)]
    assert battery_kept([*base, *others], [*arm, *others], kind="copying").n == 60
    assert battery_kept([*base, *others], [*arm, *others], kind="copying").lost == 0
    assert battery_kept([*base, *others], [*arm, *others], kind="closing").kept.verdict == "worse"
    with pytest.raises(InputError, match="no kind 'copyng'; did you mean 'copying'"):
        battery_kept(base, arm, kind="copyng")


def test_instructions_do_not_outweigh_what_was_lost_unless_one_asks():
    base, arm = arms(40, 0)
    told = [result(f"told {i}", False, "instruction", str(i % 8)) for i in range(60)]
    obeyed = [one.model_copy(update={"right": True}) for one in told]
    for kind, n, mean in (("choices", 400, -0.1), ("instruction", 60, 1.0), ("all", 460, 20 / 460)):
        change = battery_kept([*base, *told], [*arm, *obeyed], kind=kind)
        assert (change.kind, change.n, change.difference.mean) == (kind, n, pytest.approx(mean))
    assert battery_kept([*base, *told], [*arm, *obeyed]).kept.verdict == "worse"


def test_where_nothing_could_be_lost_or_few_topics_were_asked_there_is_no_verdict():
    nothing = [result(i, False, subject=str(i % 9)) for i in range(40)]
    assert battery_kept(nothing, nothing).kept.words == "undefined: the base gets nothing right that could be lost"
    few = [result(i, True, subject=str(i % 3)) for i in range(40)]
    assert battery_kept(few, few).kept.verdict == "undefined" and battery_kept([], []).kept.verdict == "undefined"


def test_more_items_and_more_settled_ones_show_a_smaller_loss():
    few, many = (smallest_loss([result(i, i % 5 < 3) for i in range(n)]) for n in (100, 460))
    assert few.loss > many.loss > 0 and few.margin > many.margin > 0 and many.share == pytest.approx(0.6)
    settled = smallest_loss([result(i, i % 5 < 3) for i in range(460)], alike=0.9)
    assert settled.loss < many.loss and settled.margin < many.margin
    assert smallest_loss([result(i, False) for i in range(50)]).loss is None
    assert smallest_loss([]).margin is None


@pytest.mark.long
@pytest.mark.parametrize("spread", [0.0, 0.05], ids=["items by themselves", "topics together"])
def test_an_arm_that_lost_the_whole_margin_is_rarely_told_to_have_kept_it(spread):
    "400 items of 40 topics; an arm loses a tenth of what base gets right, here and there or topic by topic."
    import numpy as np
    rng, topics, told, told_of_base = np.random.default_rng(0), [str(i // 10) for i in range(400)], 0, 0
    for draw in range(200):
        before = rng.random(400) < 0.6
        lost = np.repeat(np.clip(rng.normal(0.15, spread, 40), 0, 0.3), 10)  # of what base gets right
        after = np.where(before, rng.random(400) >= lost, rng.random(400) < 0.05 * 0.6 / 0.4)
        told += kept_change("x", [*map(float, before)], [*map(float, after)], topics, 0.1).kept.verdict == "kept"
        if draw % 20: continue
        same = np.where(rng.random(400) < 0.05, ~before, before)  # some items fall out as they like
        told_of_base += kept_change("x", [*map(float, before)], [*map(float, same)], topics, 0.1).kept.verdict == "kept"
    assert told_of_base >= 8 and told <= 12, "one in forty, by the lower bound of a 95 % interval"


@pytest.mark.long
def test_a_loss_of_the_smallest_size_is_told_in_four_of_five_runs():
    "Items that change by themselves in both directions, and lose as much as the plan says."
    import numpy as np

    from contemplative_cai.measure.power import changed_shares
    base = [result(i, i % 5 < 3, subject=str(i)) for i in range(200)]
    loss, rng, told = smallest_loss(base).loss, np.random.default_rng(1), 0
    gained, fell = changed_shares(0.6, -loss)
    for _ in range(120):
        moved = [rng.random() < (fell / 0.6 if one.right else gained / 0.4) for one in base]
        arm = [one.model_copy(update={"right": one.right != away}) for one, away in zip(base, moved)]
        told += battery_kept(base, arm).difference.high < 0
    assert 0.7 <= told / 120 <= 0.92


@pytest.mark.long
def test_a_loss_as_large_as_the_margin_is_seldom_said_to_be_kept():
    "The words stand for a one-sided bound of 97.5 %, for items that fall out by themselves in 40 topics."
    import numpy as np
    rng, kept = np.random.default_rng(2), 0
    base = [result(i, i % 5 < 3, subject=str(i // 10)) for i in range(400)]
    for _ in range(300):
        moved = rng.random(400) < np.where([one.right for one in base], 0.1, 0.03 / 0.4)  # 0.06 lost, 0.03 gained
        arm = [one.model_copy(update={"right": one.right != bool(away)}) for one, away in zip(base, moved)]
        kept += battery_kept(base, arm).kept.verdict == "kept"
    assert kept / 300 <= 0.05


def test_dozens_of_items_share_a_call_and_a_batch_is_not_the_whole(monkeypatch):
    sizes, script = [], knowing()
    weigh = script.text_logprobs
    monkeypatch.setattr(script, "text_logprobs",
                        lambda contexts, ends: sizes.append(len(ends)) or weigh(contexts, ends))
    measure_battery(script, CHOICES[:70])
    assert sizes == [4 * battery.WEIGHED_ITEMS, 4 * battery.WEIGHED_ITEMS, 4 * (70 - 2 * battery.WEIGHED_ITEMS)]
