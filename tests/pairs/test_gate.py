"""Do pairs mend what falls short? A judge above the bar says so, or people do, or the report says that nobody did."""
import json
import math
import re

import pytest
from support import matter

from contemplative_cai.command.plan import call_lines
from contemplative_cai.core.errors import InputError
from contemplative_cai.core.files import append_row, write_rows
from contemplative_cai.core.journal import Journal
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import Run, open_run
from contemplative_cai.core.schema import Message, PreferencePair
from contemplative_cai.inputs.constitution import BENIGN, load_constitution
from contemplative_cai.inputs.rubrics import load_calibration, load_rubric
from contemplative_cai.measure.bar import BarCase, measure_cases, standing_of
from contemplative_cai.measure.bounded import score_interval
from contemplative_cai.measure.text import word_count
from contemplative_cai.models.llm import ModelCallError, ScriptedLLM
from contemplative_cai.pairs.data_card import shared_pairs
from contemplative_cai.pairs.gate import (
    gate_counts,
    gate_pairs,
    gate_words,
    judge_standings,
    labelled_answers,
    labelled_pairs,
    measuring_weighings,
)
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.health import health, health_table
from contemplative_cai.pairs.make import load_pairs
from contemplative_cai.pairs.waterfall import waterfall
from contemplative_cai.report.limits import limits
from contemplative_cai.report.report import write_report
from contemplative_cai.report.summary import collect, headline, pairs_checked
from contemplative_cai.review.plan import ORDERS, ReviewPool
from contemplative_cai.review.reviewed import load_reviewed, reviewed_rows, reviewed_shares, reviewed_words
from contemplative_cai.review.session import ReviewSession, open_review
from contemplative_cai.review.votes import Decision, apply_reviews, read_decisions, reviewable_pairs
from contemplative_cai.review.widget import act
from contemplative_cai.revision.preferences import FaultWeight, preferences, violation_margins, weigh_faults

ASKED = {criterion.id for criterion in load_rubric("contemplative").criteria}
GOOD = {row.answer: sum(met) / len(met) > 0.5 for row in load_calibration()
        for met in [[label for name, label in row.labels.items() if name in ASKED]] if met}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    "No test remembers a judge for another."
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "cache"))


def turn(role, text): return (Message(role=role, content=text),)


def pair(i=0, rejected="He is careless.", chosen="He forgot. Better ask him.", principle="emptiness", prompt=None):
    return PreferencePair(prompt=turn("user", f"He forgot {matter(i)}. Is he careless?"),
                          chosen=turn("assistant", chosen), rejected=turn("assistant", rejected),
                          prompt_id=prompt or f"p{i}", principle=principle, locale="en_US", source="demo",
                          critique="It settles who he is.", constitution="c@0", model="m", seed=0, template="t@0")


OWN = {criterion.id: criterion.group for criterion in load_rubric("contemplative").criteria}
CLAUSES = {principle.clauses[0]: principle.id for principle in load_constitution("contemplative").principles}
KEPT = {(row.answer, group): sum(met) / len(met) for row in load_calibration() for group in set(OWN.values())
        for met in [[label for name, label in row.labels.items() if OWN.get(name) == group]] if met}


def keeps(answer, text):
    "Whether an answer keeps to the principle that a question names."
    return KEPT.get((answer, next(id for clause, id in CLAUSES.items() if clause in text)), float(good(answer))) > 0.5


def good(answer): return GOOD.get(answer, "ask him" in answer or "Nobody knows" in answer)


def knows(conversation, reply):
    "It knows the labelled answers, and of others holds those for good that say to ask; sure in both ways of asking."
    text = conversation[-1].content
    if "Answer A: " in text:
        shown = re.search(rf"Answer {reply}: (.*?)\n\n(?:Answer [AB]: |A good answer)", text, re.DOTALL)[1]
        return 2.0 * keeps(shown, text)
    answer = re.search(r"Answer: (.*?)\n\nA good answer", text, re.DOTALL)[1]
    return 2.0 * ((reply == "Yes") == (keeps(answer, text) == ("keep to" in text)))


def yes_to_all(conversation, reply): return float(reply == "Yes")


def inverted(conversation, reply): return -knows(conversation, reply)


def judge(likes, key="judge@1", reply=lambda conversation: ""): return ScriptedLLM(reply, likes, batch_size=64, key=key)


def rows(contemplative, *pairs):
    return [(one, (one.prompt[0].content, one.chosen[0].content, one.rejected[0].content, contemplative.principles[0]))
            for one in pairs]


# the bar

def test_the_bar_has_the_values_of_a_count_by_hand():
    "Of four yes and four no: 14 of 16 comparisons right one way, all the other way round, one of eight flips."
    ways = [(1, .9, .9), (1, .8, .8), (1, .7, .7), (1, .35, .6), (0, .4, .4), (0, .36, .3), (0, .2, .2), (0, .1, .1)]
    cases = [BarCase(cluster=str(i), label=label, words=1, direct=one, turned=other,
                     flips=(one - .5) * (other - .5) < 0) for i, (label, one, other) in enumerate(ways)]
    row = measure_cases("x", cases, resamples=20)
    assert (row.auc_direct.value, row.auc_turned.value, row.flip_rate.value) == (14 / 16, 1.0, 1 / 8)
    assert (row.yes, row.no) == (4, 4) and "at least 10 of each" in row.shortcomings[0]
    decided = [case.model_copy(update={"cluster": f"{i}", "words": float(i * 7 % 50), "value": None if case.flips
                                       else float(case.direct > 0.5)}) for i, case in enumerate(cases * 12)]
    twice = measure_cases("x", decided, resamples=50)
    assert twice.shortcomings == () and standing_of("j", "c", [twice]).passed
    assert standing_of("j", "c", [twice, row]).why == f"x: {row.shortcomings[0]}"


# who may judge

def test_a_judge_that_knows_passes_and_says_on_what(contemplative, journal):
    standings = judge_standings(judge(knows), journal, contemplative.principles)
    assert list(standings) == ["emptiness", "non_duality", "boundless_care", "mindfulness"]
    assert all(one.passed and one.languages[0] == "en" and one.judge == "judge@1" for one in standings.values())
    assert re.match(r"an answer falls short: AUC \d\.\d\d and \d\.\d\d on \d+, flips 0\.\d\d\. a revision is better: "
                    r"AUC \d\.\d\d and \d\.\d\d on \d+, flips 0\.\d\d$", standings["mindfulness"].why)
    assert standings["emptiness"].languages == ("en", "fr") and "in fr: an answer falls" in standings["emptiness"].why


@pytest.mark.parametrize("likes, why", [
    (yes_to_all, r"contradicts itself on 12 of the first 12 labelled answers, and was not measured further"),
    (inverted, r"an answer falls short: AUC 0\.[01]\d asked directly, at least 0\.7 is needed"),
    (None, r"it could not be measured: 3 calls failed one after the other .* no opinion on continuations")])
def test_a_judge_below_the_bar_does_not_pass_and_the_reason_is_said(contemplative, journal, likes, why):
    standings = judge_standings(judge(likes), journal, contemplative.principles)
    assert not any(one.passed for one in standings.values())
    assert all(re.search(why, one.why) for one in standings.values()), standings


def test_a_judge_that_sees_faults_and_likes_whatever_stands_first_does_not_pass(contemplative, journal):
    def likes(conversation, reply):
        return float(reply == "A") if "Answer A: " in conversation[-1].content else knows(conversation, reply)
    standing = judge_standings(judge(likes), journal, contemplative.principles[:1])["emptiness"]
    assert not standing.passed and re.match(r"in en: a revision is better: AUC .*; flips on 100%", standing.why)


def test_a_principle_that_nobody_labelled_is_nobodys_to_judge(contemplative, journal):
    own = contemplative.principles[0].model_copy(update={"id": "own"})
    standings = judge_standings(judge(knows), journal, [own, contemplative.principles[0]])
    assert not standings["own"].passed and standings["emptiness"].passed
    assert "0 answers that fall short of 'own' and 0 that keep to it; at least 10 of each" in standings["own"].why


def test_labelled_pairs_are_of_one_prompt_and_the_lot_turns_half_of_them(contemplative):
    for answers in labelled_answers(contemplative.principles).values():
        twos = labelled_pairs(answers)
        assert all(two.one.row.prompt == two.other.row.prompt and {two.one.short, two.other.short} == {0, 1}
                   for two in twos)
        assert 0.25 < sum(two.first_better for two in twos) / len(twos) < 0.75


def test_a_judge_is_measured_once_and_again_when_what_it_was_measured_on_changes(contemplative, journal, tmp_path):
    first, again = judge(knows), judge(None)
    standings = judge_standings(first, journal, contemplative.principles)
    assert judge_standings(again, Journal(tmp_path / "other.sqlite"), contemplative.principles) == standings
    edited = contemplative.principles[0].model_copy(update={"clauses": ("The answer is short.",)})
    with Journal(tmp_path / "third.sqlite") as third:
        assert "could not be measured" in judge_standings(again, third, [edited])["emptiness"].why
        unnamed = judge(None, key="judge")  # no weights in its key: another model tomorrow
        assert "could not be measured" in judge_standings(unnamed, third, contemplative.principles)["emptiness"].why


def test_a_call_that_failed_is_not_remembered_as_a_standing(contemplative, tmp_path):
    down = [True]
    class Shaky(ScriptedLLM):
        def logprobs(self, conversations, continuations):
            if down[0] and any(GOOD_ONE in c[-1].content for c in conversations): raise ModelCallError("busy")
            return super().logprobs(conversations, continuations)
    GOOD_ONE = [one for one in labelled_answers(contemplative.principles)["emptiness"]
                if one.language == "en"][-1].row.answer
    shaky = Shaky(lambda c: "", knows, key="shaky@1")
    with Journal(tmp_path / "one.sqlite") as one: judge_standings(shaky, one, contemplative.principles[:1])
    assert not list((tmp_path / "cache").rglob("*.json"))
    down[0] = False
    with Journal(tmp_path / "one.sqlite") as one: judge_standings(shaky, one, contemplative.principles[:1])
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 1


# the gate

def test_each_way_to_fail_has_its_reason_and_what_was_found_stands_in_the_pair(contemplative, journal):
    def likes(conversation, reply):
        text = conversation[-1].content
        if "Maybe" in text and "Answer A" not in text: return float(reply == "Yes")
        if "By the way" in text and "Answer A: " in text: return float(reply == "A")
        return knows(conversation, reply)
    pairs = [pair(0), pair(1, "Better ask him."), pair(2, chosen="He is and stays so."), pair(3, "Maybe he is."),
             pair(4, chosen="By the way, ask him."), pair(5, principle="non_duality")]
    kept, dropped = gate_pairs(rows(contemplative, *pairs), {"emptiness": ("en",)}, judge(likes), journal)
    assert [(one.id, one.judge, one.fault_margin, one.mended_margin) for one in kept] == [
        (pairs[0].id, "judge@1", 2.0, 2.0), (pairs[5].id, None, None, None)]
    assert [(row.pair.id, row.reason) for row in dropped] == [
        (pairs[1].id, "not_at_fault"), (pairs[3].id, "undecided"), (pairs[2].id, "not_mended"),
        (pairs[4].id, "undecided")]
    assert [(row.pair.fault_margin, row.pair.mended_margin) for row in dropped] == [
        (-2.0, None), (0.0, None), (2.0, 0.0), (2.0, 0.0)]
    assert dropped[1].detail.startswith("the answer: +1.00 nats asked whether it falls short, -1.00")
    assert dropped[3].detail.startswith("the revision: -1.00 nats") or "+1.00 nats" in dropped[3].detail
    counts = gate_counts(kept, dropped)
    assert (counts.asked, counts.not_at_fault, counts.not_mended, counts.undecided, counts.mending,
            counts.unchecked) == (5, 1, 1, 2, 1, 1)
    low, high = score_interval([1.0, 0, 0, 0, 0], 0, 1)
    assert (counts.passed.value, counts.passed.low, counts.passed.high) == (0.2, low, high)
    assert gate_words(counts) == ("1 of 5 mend what falls short; 1 not at fault, 1 not mended, 2 undecided; "
                                  "1 kept pairs were not checked")
    by_stage = {row["stage"]: row["lost"] for row in waterfall(kept, dropped)}
    assert (by_stage["not_at_fault"], by_stage["not_mended"], by_stage["undecided"]) == (1, 1, 2)
    shown = health_table(health(kept, dropped=dropped))[-1]
    assert shown["pairs"] == gate_words(counts) and shown["figure"].startswith("mend what falls short")


def test_a_gate_that_is_not_there_changes_nothing(contemplative, journal):
    silent = judge(None)
    assert gate_pairs(rows(contemplative, pair(0), pair(1)), {}, silent, journal) == ([pair(0), pair(1)], [])
    assert not [row for row in waterfall([pair(0)], []) if row["stage"].startswith(("not_", "undecided"))]


def test_a_call_that_failed_is_no_verdict(contemplative, journal):
    def likes(conversation, reply): return knows(conversation, reply)
    class Down(ScriptedLLM):
        def logprobs(self, conversations, continuations):
            if any(matter(1) in c[-1].content for c in conversations): raise ModelCallError("out of memory")
            return super().logprobs(conversations, continuations)
    llm = Down(lambda c: "", likes, key="down@1")
    kept, dropped = gate_pairs(rows(contemplative, pair(0), pair(1)), {"emptiness": ("en",)}, llm, journal)
    assert [one.prompt_id for one in kept] == ["p0"] and dropped[0].pair.judge is None
    assert [(row.reason, row.detail) for row in dropped] == [("call_failed", "out of memory")]


def test_both_wordings_of_the_same_calls_as_before(contemplative, journal):
    "The margin is the mean of what the gate sees; the calls are those since replies are asked for as they are weighed."
    llm, cases = judge(knows), [("q", "He is careless.", contemplative.principles[0])]
    [margin], [weight] = violation_margins(llm, journal, cases), weigh_faults(llm, journal, cases)
    assert margin == weight.margin == 2.0 and journal.totals()["violates"]["calls"] == 4
    assert not FaultWeight(short=1, keeps=.5).flips and FaultWeight(short=1, keeps=-2).flips
    preferences(llm, journal, [("q", "a", "b", contemplative.principles[0])])
    keys = sorted(row[0] for row in journal._db.execute("SELECT key FROM calls"))
    assert keys == sorted(KEYS), keys


KEYS = ["0490b53e95f54b5b8d1be86a07232794", "226cb13e88cd56828b92ad55fbbfc47b", "5b096cc79d9552a6c4fcecf7aac634f1",
        "5e73d656a4d40a1f27e0e7b6f0935660", "645146dd54395f0548201c956e8c639b", "9b427155e70221ede4c1d4074bdc059d",
        "a2020854cccf4b6edee42e875818aa56", "ada6847bda9c1b400c982904af34ab40"]


# a whole run

def script(contemplative):
    "It calls people names; its revisions ask, but under the third principle, where they repeat the fault."
    def reply(conversation):
        asked = conversation[-1].content
        for number, principle in enumerate(contemplative.principles):
            if principle.critique_request in asked: return "It settles who they are."
            if principle.revision_request in asked:
                return (f"Well {asked[-20:]} They are and will stay so, whatever anybody does." if number == 2
                        else f"Number {number}: ask him what happened, {asked[-20:]}")
        return f"Nobody knows {asked[:9]}." if asked.startswith(("A", "I")) else f"They are no good. {asked[:9]}"
    return reply


def made(contemplative, name, likes, key="judge@1", **more):
    run, recipe = open_run(name), build_recipe({"n_prompts": 8, "filters": "empty,identical", **more})
    llm = judge(likes, key, script(contemplative))
    run.record(recipe=recipe.model_dump(mode="json"), recipe_name="test")
    return run, generate_pairs(run, recipe, llm), llm


def test_by_default_a_run_is_gated_where_its_critic_has_passed_the_bar(contemplative):
    run, generation, llm = made(contemplative, "gated", knows)
    gate, reasons = run.manifest["gate"], {row.reason for row in generation.dropped}
    assert gate["asked"] == "auto" and gate["judge"] == "judge@1" and len(gate["principles"]) == 4
    assert all(one["passed"] for one in gate["principles"].values())
    assert reasons == {"not_at_fault", "not_mended"} and generation.kept
    assert all(good(one.chosen[0].content) and not good(one.rejected[0].content) for one in generation.kept)
    assert {row.principle for row in generation.dropped if row.reason == "not_mended"} == {"boundless_care"}
    counts, figure = gate_counts(generation.kept, generation.dropped), pairs_checked(collect(run))
    assert counts.asked == len(generation.kept) + len(generation.dropped) == 32 and counts.unchecked == 0
    assert figure.number.endswith("by judge") and figure.number.startswith(f"{counts.passed.value:.2f} [")
    assert "judge@1: the answer falls short in both wordings" in figure.basis and "Not checked" not in figure.basis
    assert not [line for line in limits(collect(run)) if "teach what they mean" in line]
    stored = json.loads(run.path("pairs.jsonl").read_text().splitlines()[0])
    assert stored["judge"] == "judge@1" and stored["fault_margin"] > 0 and stored["mended_margin"] > 0
    page = write_report(run).read_text()
    assert "Do the pairs mend what falls short?" in page and "above the bar" in page and "not at fault" in page


def test_the_plan_counts_what_a_run_asks_for(contemplative):
    run, generation, _ = made(contemplative, "counted", knows)
    with Journal(run.path("journal.sqlite")) as journal:
        asked = {stage: totals["calls"] for stage, totals in journal.totals().items()}
    written, judged = call_lines(build_recipe({"n_prompts": 8}))
    assert written == "generation: at most 8 answers, 32 critiques and 32 revisions"
    assert (asked["respond"], asked["critique"], asked["revise"]) == (8, 32, 32)
    measuring = measuring_weighings(contemplative.principles)
    assert f"at most {measuring:,} log-probabilities; where it passes, {32 * 8} more" in judged
    looked_at = 32 + len([row for row in generation.dropped if row.reason != "not_at_fault"]) + len(generation.kept)
    assert asked["violates"] + asked["prefer"] == measuring + 4 * looked_at  # those not at fault are not compared


def test_a_gated_run_that_goes_on_asks_nothing_twice(contemplative):
    class Dies(ScriptedLLM):
        left = 40
        def logprobs(self, conversations, continuations):
            Dies.left -= 1
            if Dies.left < 0: raise KeyboardInterrupt
            return super().logprobs(conversations, continuations)
    whole, generation, llm = made(contemplative, "whole", knows)
    run, recipe = open_run("killed"), build_recipe({"n_prompts": 8, "filters": "empty,identical"})
    for left in (2, 3, 5, 10_000):
        Dies.left = left
        dying = Dies(script(contemplative), knows, batch_size=64, key="judge@1")
        try: again = generate_pairs(run, recipe, dying)
        except KeyboardInterrupt: assert left < 10_000
    assert again == generation and run.path("pairs.jsonl").read_bytes() == whole.path("pairs.jsonl").read_bytes()
    calls = len(dying.calls)
    Dies.left = 0
    assert generate_pairs(run, recipe, dying) == generation and len(dying.calls) == calls, "everything is known"


def test_what_is_given_away_names_no_server(contemplative):
    run, generation, _ = made(contemplative, "served", knows, key="endpoint:m@10.0.0.7:8000/v1")
    assert generation.kept[0].judge == "endpoint:m@10.0.0.7:8000/v1"
    assert not [one for one in shared_pairs(run) if "10.0.0.7" in one.model_dump_json()]


@pytest.mark.parametrize("likes, more, said", [
    (yes_to_all, {}, "no judge above the bar (judge@1; boundless care, emptiness: in en: an answer falls short: "),
    (None, {}, "it could not be measured"),
    (knows, {"judge": "none"}, "judge: none"),
    (knows, {"judge": "logits"}, "judge: logits kept what the critic prefers, a judge that nobody measured")])
def test_where_no_judge_is_above_the_bar_every_pair_stays_and_the_headline_says_so(contemplative, likes, more, said):
    run, generation, _ = made(contemplative, "open", likes, **more)
    if not more: assert len(generation.kept) == 32 and generation.dropped == []
    facts = collect(run)
    figure = next(one for one in headline(facts) if one.what == "Pairs that mend")
    assert figure.number == "not checked" and f"ccai run review --run {run.name}" in figure.basis
    def sorted_ids(text): return re.sub(r"(?<=; )([a-z ]+(?:, [a-z ]+)+)(?=: )",
                                        lambda found: ", ".join(sorted(found[1].split(", "))), text)
    assert said in sorted_ids(figure.basis), figure.basis
    assert [line for line in limits(facts) if "mends" in line or "mend them was not checked" in line]
    assert {one.judge for one in generation.kept} == {"judge@1" if more.get("judge") == "logits" else None}
    assert "not checked" in write_report(run).read_text()
    assert gate_words(gate_counts(generation.kept, generation.dropped)) == "not checked by a judge"


def test_pairs_of_a_principle_without_labels_stay_and_are_said_to_be_unchecked(contemplative):
    run, generation, _ = made(contemplative, "some", knows, combine="emptiness+mindfulness", template="conversation")
    gate = run.manifest["gate"]["principles"]
    assert [id for id, one in gate.items() if not one["passed"]] == ["emptiness_and_mindfulness"] or len(gate) == 3
    figure = pairs_checked(collect(run))
    assert "by judge" in figure.number and "Not checked: no judge above the bar" in figure.basis
    assert {one.judge for one in generation.kept} == {"judge@1", None}


def test_a_cluster_whose_journal_weighs_nothing_leaves_the_pairs_unchecked(contemplative, journal):
    from contemplative_cai.revision.cluster import RecordedLLM
    assert judge_standings(judge(knows), journal, contemplative.principles)["emptiness"].passed, "it is remembered"
    run, _, _ = made(contemplative, "cluster", knows, judge="none")
    recipe = build_recipe({"n_prompts": 8, "filters": "empty,identical"})
    generation = generate_pairs(run, recipe, RecordedLLM("judge@1", batch_size=64))
    assert len(generation.kept) == 32 and generation.dropped == []
    assert all("a cluster's actors weigh nothing" in one["why"] for one in run.manifest["gate"]["principles"].values())
    gated = generate_pairs(run, recipe, judge(knows, reply=script(contemplative)))
    assert gated.dropped and all(one["passed"] for one in run.manifest["gate"]["principles"].values())


# people

def reviewed_run(contemplative, name="looked"):
    run, generation, _ = made(contemplative, name, yes_to_all)
    return run, generation


def test_a_sample_is_the_same_for_everybody_grows_and_survives_a_review(contemplative):
    run, generation = reviewed_run(contemplative)
    ada, bo = open_review(run, "ada", sample=10), open_review(run, "bo", seed=3, sample=10)
    assert set(ada.queue) == set(bo.queue) and len(ada.queue) == 10
    assert set(ada.queue) < set(open_review(run, "eve", sample=20).queue) and len(open_review(run, "bo").queue) == 32
    while ada.current: ada.decide("neither", a_falls_short=True, b_falls_short=True)
    kept, dropped = apply_reviews(run)
    assert len(kept) == 22 and len(dropped) == 10 and {one.id for one in reviewable_pairs(run)} == {
        one.id for one in generation.kept}
    assert open_review(run, "bo", seed=3, sample=10).queue[:10] == bo.queue, "what was taken out is there"
    twin = pair(99, principle=BENIGN.id)
    assert ORDERS["stratified"](ReviewPool(kept=(twin, pair(1))), 0) == [pair(1).id, twin.id]


def test_what_reviewers_found_stands_in_the_place_of_not_checked(contemplative):
    "Of eight prompts one pair each: six at fault, two mended. Wilson's interval with Student's quantile, by hand."
    run, generation = reviewed_run(contemplative)
    one_each = list({one.prompt_id: one for one in generation.kept}.values())
    for i, one in enumerate(one_each):
        better = i < 2
        append_row(run.path("reviews", "ada.jsonl"), Decision(
            pair_id=one.id, reviewer="ada", decision="accept" if better else "reject",
            preferred="A" if better else "neither", shown_as_a="chosen", at="2026-01-01T00:00:00+00:00",
            a_falls_short=False, b_falls_short=i < 6))
    def by_hand(k, n, t=2.3646242515927853):
        middle, half = (k / n + t * t / 2 / n), t * math.sqrt(k / n * (1 - k / n) / n + t * t / 4 / n / n)
        return (middle - half) / (1 + t * t / n), (middle + half) / (1 + t * t / n)
    apply_reviews(run)
    [shares] = load_reviewed(run)
    assert (shares.pairs, shares.prompts, shares.still_at_fault.value) == (8, 8, 0.0)
    for measure, k in ((shares.at_fault, 6), (shares.mended, 2)):
        assert measure.value == k / 8 and (measure.low, measure.high) == pytest.approx(by_hand(k, 8), abs=1e-6)
    low, high = by_hand(6, 8)
    figure = pairs_checked(collect(run))
    assert figure.number == f"at fault 0.75 [{low:.2f}, {high:.2f}]; mended 0.25 [{1 - high:.2f}, {1 - low:.2f}]"
    assert "8 pairs from 8 prompts, as they were before any review, in the eyes of ada, blind to side" in figure.basis
    [line] = [line for line in limits(collect(run)) if "teach what they mean" in line]
    assert line == ("That the pairs teach what they mean: by reviewers first answers that fall short may be fewer than "
                    f"half, 0.75 [{low:.2f}, {high:.2f}]; revisions that are better may be fewer than half, "
                    f"0.25 [{1 - high:.2f}, {1 - low:.2f}].")
    page = write_report(run).read_text()
    assert "What reviewers say" in page and "at fault 0.75" in page and "Early and late" in page


@pytest.mark.parametrize("mended, short, said", [
    (12, 12, None), (6, 12, "by reviewers revisions that are better may be fewer than half, 0.50 ["),
    (0, 12, "by reviewers revisions that are better are fewer than half, 0.00 [0.00, "),
    (12, 0, "by reviewers first answers that fall short are fewer than half, 0.00 [0.00, "),
    (12, None, "by reviewers the share of first answers that fall short was not asked for.")])
def test_the_sentence_about_pairs_follows_the_intervals(contemplative, mended, short, said):
    run, _ = reviewed_run(contemplative)
    write_rows(run.path("pairs.jsonl"), pairs := [pair(i) for i in range(12)])
    for i, one in enumerate(pairs):
        append_row(run.path("reviews", "ada.jsonl"), Decision(
            pair_id=one.id, reviewer="ada", decision="accept" if i < mended else "reject", preferred="A",
            shown_as_a="chosen", at="2026-01-01T00:00:00+00:00", b_falls_short=None if short is None else i < short))
    lines = [line for line in limits(collect(run)) if "teach what they mean" in line]
    assert [said in line for line in lines] == ([] if said is None else [True]), lines
    if short is None:
        assert pairs_checked(collect(run)).number.startswith("at fault not checked; mended "), "as old decisions say"


def test_pairs_of_a_prompt_are_not_independent_and_reviewers_of_a_pair_count_once():
    pairs = [pair(i, prompt=f"p{i // 2}") for i in range(12)]
    def said(one, who, better, short): return Decision(
        pair_id=one.id, reviewer=who, decision="accept" if better else "reject", preferred="A" if better else "B",
        shown_as_a="rejected" if who == "bo" else "chosen", at="2026-01-01",
        a_falls_short=short if who == "bo" else None, b_falls_short=None if who == "bo" else short)
    decisions = {one.id: [said(one, "ada", i < 6, True)] for i, one in enumerate(pairs)}
    decisions[pairs[0].id].append(said(pairs[0], "bo", False, False))
    together, ada, bo = reviewed_shares(pairs, decisions)
    assert (together.reviewer, ada.reviewer, bo.reviewer) == ("2 reviewers", "ada", "bo")
    assert together.mended.value == pytest.approx((0.5 + 5) / 12)
    assert together.at_fault.value == pytest.approx(11.5 / 12)
    assert (together.mended.low, together.mended.high) == pytest.approx(
        score_interval([.75, 1, 1, 0, 0, 0], 0, 1, [2] * 6), abs=1e-9)
    assert (ada.mended.value, bo.mended.value, bo.mended.low) == (0.5, 0.0, None)
    assert reviewed_rows([bo])[0]["revisions better [95 %]"] == (
        "0.00 (no interval: 1 independent prompt, at least 5 are needed)")
    assert reviewed_words([together]).startswith("at fault 0.96 [") and reviewed_shares(pairs, {}) == []


def test_files_of_before_are_read_and_go_on(tmp_path, contemplative):
    "A reviewer's line without the new answers, a pair without what was judged, a run without a gate."
    old = pair().model_dump(mode="json", exclude={"judge", "fault_margin", "mended_margin"})
    assert PreferencePair(**old) == pair()
    line = {"pair_id": pair().id, "reviewer": "ada", "decision": "accept", "preferred": "A", "shown_as_a": "chosen",
            "note": "", "at": "2026-01-01T00:00:00+00:00"}
    run = Run("old", tmp_path / "old")
    write_rows(run.path("pairs.jsonl"), [pair(), pair(1)])
    run.path("reviews").mkdir()
    run.path("reviews", "ada.jsonl").write_text(json.dumps(line) + "\n")
    [[decision]] = read_decisions(run).values()
    assert decision.falls_short("rejected") is None and decision.a_falls_short is None
    session = ReviewSession([pair(), pair(1)], run.path("reviews", "ada.jsonl"), "ada")
    assert len(session.queue) == 1
    session.decide("neither", a_falls_short=True, b_falls_short=False)
    assert run.path("reviews", "ada.jsonl").read_text().startswith(json.dumps(line) + "\n"), "nothing is rewritten"
    made_before, _ = reviewed_run(contemplative, "before")
    manifest = json.loads(made_before.path("run.json").read_text())
    del manifest["gate"]
    made_before.path("run.json").write_text(json.dumps(manifest))
    assert "the pairs were made before there was a gate" in pairs_checked(collect(made_before)).basis
    manifest["recipe"]["judge"] = "none"
    made_before.path("run.json").write_text(json.dumps(manifest))
    assert "mend them: judge: none. People can say" in pairs_checked(collect(made_before)).basis


def test_the_page_asks_both_sides_before_it_writes(contemplative, tmp_path):
    run, generation = reviewed_run(contemplative)
    session = open_review(run, "ada", sample=5)
    assert session.asks_fault and session.current.clauses and len(session.current.criteria) == 4
    def press(**said): return act(session, {"do": "decide", "pair": session.current_id, "preferred": "A", "said": said})
    assert "say first of A and of B whether it falls short" in press() and not session.decisions
    assert press(a_falls_short=False, b_falls_short=True) == ""
    [row] = session.decisions.values()
    assert (row.a_falls_short, row.b_falls_short) == (False, True)
    assert row.falls_short("rejected") == (row.shown_as_a == "chosen")


def test_reviewers_of_pairs_whose_constitution_changed_are_asked_which_is_better_alone(contemplative):
    run, generation = reviewed_run(contemplative)
    write_rows(run.path("pairs.jsonl"), [one.model_copy(update={"constitution": "contemplative@0"})
                                         for one in load_pairs(run)])
    session = open_review(run, "ada", sample=5)
    assert not session.asks_fault and session.current.principle == ""
    assert session.decide("A").a_falls_short is None


def test_the_key_has_three_values():
    assert build_recipe({}).judge == "auto" and build_recipe({"judge": "none"}).judge == "none"
    with pytest.raises(InputError, match="'judge'"): build_recipe({"judge": "perhaps"})


# in its own language, and where the replies are what the judge would say

def test_the_bar_rests_on_the_answers_in_the_pairs_own_language(contemplative, journal, monkeypatch):
    "A judge that knows English faults and is wrong about French ones passes in English, and is not asked in French."
    import contemplative_cai.pairs.gate as gate
    rows_of = labelled_answers(contemplative.principles[:1])["emptiness"]
    twice = {two.one.row.prompt for two in labelled_pairs(rows_of)}
    french = set(sorted(twice)[:len(twice) // 2])
    def told(text, locale="en_US", question=""): return "fr" if question in french or "Bien" in text else "en"
    monkeypatch.setattr(gate, "text_language", told)
    def likes(conversation, reply):
        wrong = any(question in conversation[-1].content for question in french)
        return (-1 if wrong else 1) * knows(conversation, reply)
    standing = judge_standings(judge(likes, "en@1"), journal, contemplative.principles[:1])["emptiness"]
    assert standing.passed and standing.languages == ("en",), standing
    assert re.match(r"in (en|fr): ", standing.why) and "in fr: an answer falls short: AUC 0." in standing.why
    two = rows(contemplative, pair(0), pair(1, chosen="Bien sûr, ask him."))
    kept, dropped = gate_pairs(two, {"emptiness": standing.languages}, judge(likes), journal)
    assert [(one.prompt_id, one.fault_margin) for one in kept] == [("p0", 2.0), ("p1", None)] and not dropped


def test_a_language_is_measured_where_it_has_labels_on_both_sides(contemplative):
    from contemplative_cai.pairs.gate import _measurable
    every = labelled_answers(contemplative.principles)
    assert {id for id, answers in every.items() if "fr" in _measurable(answers)} == {"emptiness", "boundless_care"}
    for answers in every.values():
        french = [one for one in answers if one.language == "fr"]
        assert list(_measurable([one for one in answers if one not in french[2:]])) == ["en"], "two are too few"


def test_questions_that_measure_a_judge_do_not_give_the_better_answer_away_by_its_length(contemplative):
    for id, answers in labelled_answers(contemplative.principles).items():
        pairs = labelled_pairs([one for one in answers if one.language == "en"])
        longer = [(word_count(one.row.answer) > word_count(two.row.answer)) == (one.short < two.short)
                  for one, two in pairs]
        assert 0.4 < sum(longer) / len(longer) < 0.6, id


@pytest.mark.parametrize("share, passed", [(0.6, True), (0.4, False)])
def test_replies_that_hold_less_than_half_of_the_probability_are_no_verdict(contemplative, journal, share, passed):
    def likes(conversation, reply): return math.log(share * (0.9 if knows(conversation, reply) else 0.1))
    standing = judge_standings(judge(likes, f"m{share}@1"), journal, contemplative.principles[:1])["emptiness"]
    assert standing.passed is passed
    assert passed or "on none of the first 12 labelled answers its replies are a verdict" in standing.why
    kept, dropped = gate_pairs(rows(contemplative, pair(0)), {"emptiness": ("en",)}, judge(likes), journal)
    assert bool(kept) is passed and [row.reason for row in dropped] == ([] if passed else ["undecided"])
    assert passed or "the replies have 0.4 of the probability together, at least 0.5 is needed" in dropped[0].detail


@pytest.mark.parametrize("more", [{"judge": "logits"}, {"ensemble": "mindful", "judge": "none"}])
def test_a_judge_and_an_ensemble_are_not_asked_in_a_language_nobody_was_measured_in(contemplative, monkeypatch, more):
    import contemplative_cai.pairs.generate as generate
    monkeypatch.setattr(generate, "strange_pairs", lambda pairs, principles: {
        one.id: "fr" for one in pairs if one.prompt[0].content.startswith(("A", "I"))})
    if "ensemble" in more:
        monkeypatch.setattr(generate, "_is_constitution", lambda name: True)
        monkeypatch.setattr(generate, "load_constitution", lambda name: contemplative)
    def likes(conversation, reply): return math.log(0.3) + knows(conversation, reply) / 10
    run, generation, llm = made(contemplative, "strange", likes, **more)
    french = {row.prompt_id for row in generation.kept if row.prompt[0].content.startswith(("A", "I"))}
    assert french and not [row for row in generation.dropped if row.prompt_id in french]
    assert not [one for one in generation.kept if one.prompt_id in french and one.mended_margin is not None]
    told = run.manifest["gate"]["unweighed"]
    assert next(iter(told)) == ("fr" if "judge" in more and more["judge"] == "logits" else "fr, by mindful")
    assert "not weighed: " in pairs_checked(collect(run)).basis


def test_a_preference_without_mass_objects_to_nothing():
    from contemplative_cai.pairs.make import filter_ensemble, filter_judged
    from contemplative_cai.revision.preferences import Preference
    against, unread = Preference(first=-1, second=-1), Preference(first=-1, second=-1, mass=0.2)
    three = [pair(0), pair(1), pair(2)]
    kept, dropped = filter_judged(three, [against, unread, None])
    assert kept == three[1:] and dropped[0].reason == "judge_prefers_rejected"
    kept, dropped = filter_ensemble(three, {"a": [against, unread, None]})
    assert kept == three[1:] and dropped[0].reason == "ensemble_disagrees"
