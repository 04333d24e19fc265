"""How texts end: cut answers are dropped like cut revisions, finish reasons stand in the pairs,
and what "ends properly" tells is measured beside length and a bag of words."""
import json

import pytest
from support import matter

from contemplative_cai.core.files import read_record, read_rows, write_json, write_rows
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import (
    Critique,
    InputError,
    Message,
    PreferencePair,
    Prompt,
    Response,
    Revision,
    Triple,
)
from contemplative_cai.measure.plot import png
from contemplative_cai.measure.stats import Estimate, estimate_accuracy
from contemplative_cai.measure.text import ends_properly
from contemplative_cai.models.llm import ScriptedLLM
from contemplative_cai.pairs.baselines import cross_validated, ends_rule
from contemplative_cai.pairs.data_card import health_facts
from contemplative_cai.pairs.filters import FILTER_FUNCTIONS, USUAL, cut_off, leaked_preamble, repetition_loop
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.health import (
    Health,
    ending_words,
    health,
    health_figure,
    health_table,
    told_apart,
    warnings,
)
from contemplative_cai.pairs.make import make_pair
from contemplative_cai.report.summary import rules_reach
from contemplative_cai.training.heldout import (
    Likelier,
    PreferenceAccuracy,
    preference_figure,
    preference_table,
)

WHOLE, BROKEN = "Ask her what she needs and say what you need.", "Yes, she is, and you should tell her that you"


@pytest.mark.parametrize("text, ends", [
    ("Ask her.", True), ("Really?", True), ("Go!", True), ("Well…", True), ("She said “come in!”", True),
    ("**Wait a day.**", True), ("(So it goes.)", True), ("Take care 😊", True), ("Love ❤️", True), ("她累了。", True),
    ("क्या हुआ।", True), ("ماذا؟", True), ("```\nprint(1)\n```", True),
    ("Ask her what she", False), ("First,", False), ("Three things:", False), ("1. Call her\n2. Wait", False),
    ("", False), ("   ", False), ('""', False), ("Here is the code:\n```\nprint(1)", False), ("x\n```", False),
    ("ขอโทษ", None), ("ຂໍໂທດ", None),
])
def test_an_end_is_seen_in_the_last_sign(text, ends):
    assert ends_properly(text) is ends


# pairs

def row(answer="Yes, she is rude, and you may say so.", revision=WHOLE, ended="stop", revised="stop"):
    "A triple whose two texts ended as said."
    prompt = Prompt(text="Is my neighbour simply rude?", source="test")
    common = dict(prompt_id=prompt.id, model="m", seed=0)
    response = Response(text=answer, finish_reason=ended, **common)
    critique = Critique(text="It labels her.", response_id=response.id, principle="emptiness", finish_reason="stop",
                        **common)
    return Triple(prompt=prompt, principle="emptiness", response=response, critique=critique, revision=Revision(
        text=revision, critique_id=critique.id, principle="emptiness", finish_reason=revised, **common
    ))


@pytest.mark.parametrize("ended, revised, words", [
    ("stop", "stop", None), ("length", "stop", "the answer reached the token limit"),
    ("stop", "length", "the revision reached the token limit"),
    ("length", "length", "the answer and the revision reached the token limit"),
])
def test_a_cut_side_drops_the_row_and_is_named(contemplative, ended, revised, words):
    assert cut_off(row(ended=ended, revised=revised), contemplative.principles[0], USUAL) == words


@pytest.mark.parametrize("side, words", [("answer", "the answer: four words"),
                                         ("revision", "the revision: four words")])
def test_circles_are_looked_for_on_both_sides(contemplative, side, words):
    circle = "Ask him and then wait. " * 7
    assert repetition_loop(row(), contemplative.principles[0], USUAL) is None
    assert repetition_loop(row(**{side: circle}), contemplative.principles[0], USUAL).startswith(words)


def test_a_chats_tags_are_looked_for_on_both_sides(contemplative):
    principle = contemplative.principles[0]
    assert leaked_preamble(row(), principle, USUAL) is None
    tagged = leaked_preamble(row("Yes, she is.\nUser: And my brother?"), principle, USUAL)
    assert tagged.startswith("role, in the answer: 'User:")
    assert leaked_preamble(row("My previous answer was too short."), principle, USUAL) is None, "no answer came before"


def test_pairs_carry_how_both_sides_ended(contemplative, tmp_path):
    pair = make_pair(row(revised="length"), contemplative, "t")
    assert (pair.chosen_finish_reason, pair.rejected_finish_reason) == ("length", "stop")
    old = {name: value for name, value in pair.model_dump(mode="json").items() if "finish" not in name}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(old) + "\n")
    [known] = read_rows(tmp_path / "pairs.jsonl", PreferencePair)
    assert known.id == pair.id and known.chosen_finish_reason is None is known.rejected_finish_reason
    write_rows(tmp_path / "pairs.jsonl", [pair])
    assert read_rows(tmp_path / "pairs.jsonl", PreferencePair) == [pair]
    (tmp_path / "pairs.jsonl").write_text(json.dumps(old | {"chosen_finish_reason": "tired"}) + "\n")
    with pytest.raises(InputError): read_rows(tmp_path / "pairs.jsonl", PreferencePair)


def script(constitution, answer):
    "Answers, and revises each answer whole."
    def reply(conversation):
        asked = conversation[-1].content
        for principle in constitution.principles:
            if principle.critique_request in asked: return "It settles in one stroke what nobody can know."
            if principle.revision_request in asked:
                return ("That is hard to carry. Begin with one small step, say what you saw, and ask how it looked "
                        f"from over there, for {principle.id[0]} things begin that way.")
        return f"{answer} About '{asked[:24]}' there is nothing more to say, so do not look back."
    return ScriptedLLM(reply, batch_size=64)


@pytest.mark.parametrize("answer_tokens, reason", [(80, None), (9, "the answer reached the token limit")])
def test_a_run_keeps_no_pair_with_a_cut_answer(runs, contemplative, answer_tokens, reason):
    recipe = build_recipe({"n_prompts": 6, "answer_tokens": answer_tokens, "filters": "empty,cut_off,identical"})
    generation = generate_pairs(open_run("demo"), recipe, script(contemplative, "You are right, plain and simple."))
    assert len(generation.kept) + len(generation.dropped) == 24
    if reason is None:
        pairs = read_rows(open_run("demo").path("pairs.jsonl"), PreferencePair)
        ends = {(known.chosen_finish_reason, known.rejected_finish_reason) for known in pairs}
        assert len(pairs) == 24 and ends == {("stop", "stop")}
    else:
        assert {(dropped.reason, dropped.detail) for dropped in generation.dropped} == {("cut_off", reason)}


def test_every_filter_that_looks_at_a_text_by_itself_asks_both_sides(contemplative):
    """A fault of either side drops the row; what an answer cannot have, or a revision may mend,
    is asked of the revision alone."""
    alone = {"copied_example", "principle_vocabulary"}
    between = {"identical", "near_identical", "language_switch", "refusal_again", "length_ratio"}
    faulty = {"empty": dict(answer="..."), "cut_off": dict(ended="length"),
              "repetition_loop": dict(answer="Go on and on. " * 9),
              "leaked_preamble": dict(answer="<|im_start|>assistant Yes.")}
    assert set(FILTER_FUNCTIONS) == alone | between | set(faulty)
    for name, fault in faulty.items():
        detail = FILTER_FUNCTIONS[name](row(**fault), contemplative.principles[0], USUAL)
        assert detail and ("answer" in detail or "response" in detail), name


# the rule that looks at the end alone

def pair(number, chosen=WHOLE, rejected=BROKEN, **more) -> PreferencePair:
    prompt = Prompt(text=f"What shall I do about {matter(number)}?", source="test")
    def said(text): return (Message(role="assistant", content=f"{number} {text}"),)
    return PreferencePair(prompt=prompt.messages, chosen=said(chosen), rejected=said(rejected), prompt_id=prompt.id,
                          principle="emptiness", locale="en_US", source="test", critique="c", constitution="x@0",
                          model="m", seed=0, template="t", **more)


def test_the_end_alone_decides_pairs_whose_answers_break_off():
    "Seventeen of 28 rejected answers that break off, and eleven unseen pairs: all eleven are told by the end."
    train = [pair(i, rejected=BROKEN if i < 17 else WHOLE + " So.") for i in range(28)]
    unseen = [pair(i) for i in range(100, 111)]
    assert ends_rule(train, unseen) == [1.0] * 11
    assert ends_rule(unseen, train) == [1.0] * 17 + [0.5] * 11


def test_the_end_is_at_chance_where_both_sides_end_alike():
    whole = [pair(i, rejected="Yes, she is.") for i in range(20)]
    broken = [pair(i, chosen=BROKEN + " too") for i in range(20)]
    thai = [pair(i, chosen="ขอโทษ", rejected=BROKEN) for i in range(20)]
    for pairs in (whole, broken, thai): assert ends_rule(pairs, pairs) == [0.5] * 20
    rule = cross_validated(whole, ends_rule)
    assert rule.value == 0.5 and rule.low < 0.5 < rule.high


def test_the_rule_learns_which_side_ends():
    turned = [pair(i, chosen=BROKEN, rejected=WHOLE) for i in range(10)]
    assert ends_rule(turned[:5], turned[5:]) == [1.0] * 5
    assert ends_rule(turned[:5], [pair(50)]) == [0.0]


# health

def ended(counts, n=40):
    "Pairs of which so many chosen and rejected texts break off."
    chosen, rejected = counts
    return [pair(i, chosen=BROKEN if i < chosen else WHOLE, rejected=(BROKEN if i < rejected else WHOLE) + " So" *
                 (i < rejected) + " So." * (i >= rejected)) for i in range(n)]


@pytest.mark.parametrize("counts, words, setting", [
    ((0, 17), "chosen texts end properly more often: difference +0.42 [", "answer_tokens"),
    ((17, 0), "rejected texts end properly more often: difference -0.42 [", "revision_tokens"),
    ((0, 0), "no difference is shown: difference +0.00 [", None),
    ((0, 1), "no difference is shown: difference +0.03 [", None),
    ((3, 4), "no difference is shown: difference +0.03 [", None),
])
def test_what_is_said_of_the_ends_follows_the_interval(counts, words, setting):
    figures = health(ended(counts))
    assert ending_words(figures).startswith(words)
    said = [warning for warning in warnings(figures) if warning.figure == "ends_apart"]
    assert [warning.setting for warning in said] == ([setting] if setting else [])
    for warning in said:
        assert words[1:20] in warning.sentence and "threshold 0.05" in warning.sentence
        assert f"`{setting}`" in warning.sentence and "`cut_off`" in warning.sentence


def test_a_difference_that_is_shown_and_small_is_no_warning():
    figures = health(ended((0, 12), n=400))
    assert ending_words(figures).startswith("chosen texts end properly more often: difference +0.03 [+0.0")
    assert not [warning for warning in warnings(figures) if warning.figure == "ends_apart"]


def test_few_prompts_have_a_difference_and_no_interval():
    assert ending_words(health(ended((0, 2), n=4))) == ("difference +0.50 (no interval: 4 independent units, "
                                                        "at least 5 are needed)")
    assert ending_words(health([])) == "not computable: no pairs"


def table(figures): return {line["figure"]: line for line in health_table(figures)}


def test_shares_of_both_sides_stand_in_the_table():
    line = table(health(ended((0, 17))))["share that ends properly"]
    assert line["chosen"].startswith("1.00 [") and line["rejected"].startswith("0.57 [")
    assert line["pairs"].startswith("chosen texts end properly more often")
    assert "told apart by ends properly" in table(health(ended((0, 17))))


@pytest.mark.parametrize("reasons, shown", [
    ((None, None), ("not computable: not recorded",) * 2), (("stop", "stop"), ("0.00 [", "0.00 [")),
    (("stop", "length"), ("0.00 [", "1.00 [")), (("stop", None), ("0.00 [", "not computable: not recorded")),
])
def test_cut_texts_are_counted_where_reasons_are_recorded(reasons, shown):
    chosen, rejected = reasons
    pairs = [pair(i, chosen_finish_reason=chosen, rejected_finish_reason=rejected) for i in range(10)]
    line = table(health(pairs))["share cut at the token limit"]
    assert line["chosen"].startswith(shown[0]) and line["rejected"].startswith(shown[1])


def test_of_pairs_with_and_without_reasons_those_with_one_are_counted():
    pairs = [pair(i, rejected_finish_reason="length" if i < 3 else "stop" if i < 6 else None) for i in range(10)]
    assert (health(pairs).rejected.cut.value, health(pairs).rejected.cut.n) == (0.5, 6)


def test_a_health_of_before_says_that_ends_were_not_recorded(tmp_path):
    new = {"ends_rule": True, "ends_apart": True, "chosen": {"ends", "cut"}, "rejected": {"ends", "cut"}}
    old = health(ended((0, 17))).model_dump(mode="json", exclude=new)
    write_json(tmp_path / "health.json", old)
    figures = read_record(tmp_path / "health.json", Health)
    lines = table(figures)
    assert lines["told apart by ends properly"]["pairs"] == "not computable: not recorded"
    assert lines["share that ends properly"]["chosen"] == lines["share that ends properly"]["pairs"]
    assert ending_words(figures) == "not computable: not recorded"
    assert not [warning for warning in warnings(figures) if warning.figure == "ends_apart"]
    assert png(health_figure(figures))[:4] == b"\x89PNG"


def test_the_data_set_card_has_the_ends(runs):
    run = open_run("demo")
    write_rows(run.path("pairs.jsonl"), ended((0, 17)))
    facts = health_facts(run)
    rows = dict(facts["rows"])
    assert "told by which side ends properly" in rows and rows["end properly, chosen"].startswith("1.00")
    assert "chosen texts end properly more often" in rows["end properly, rejected"]
    assert rows["cut at the token limit, chosen and rejected"].count("not recorded") == 2
    assert any("end properly more often" in line for line in facts["warnings"])


# beside a preference accuracy

def test_before_training_the_rules_are_told_of_the_pairs():
    words = told_apart(ended((0, 40)))
    assert words.startswith("a bag of words ") and "length alone " in words
    assert "which side ends properly 1.00 [" in words and "which side ends properly 0.50 [" in told_apart(ended((0, 0)))
    assert told_apart(ended((0, 0), n=3)).count("3 independent prompts with pairs, at least 5 are needed") == 3


def accuracy(right, of=20): return estimate_accuracy([1.0] * right + [0.0] * (of - right), [f"p{i}" for i in range(of)])


def preference(**more):
    return PreferenceAccuracy(**{"reward": accuracy(19), "length_rule": accuracy(11), "bag_of_words": accuracy(12),
                                 "likelihood": Likelier(base=None, tuned=None,
                                                        difference=Estimate(n=0, clusters=0, mean=None))} | more)


def test_the_end_stands_beside_the_accuracy_in_table_figure_and_words():
    known = preference(ends_rule=accuracy(20))
    lines = {line["on unseen pairs"]: line["after"] for line in preference_table(known)}
    assert lines["told apart by which side ends properly"].startswith("1.00 [0.82")
    assert "which side ends properly 1.00 [" in rules_reach(known)
    assert "length alone 0.55 [" in rules_reach(known) and "a bag of words reaches 0.60 [" in rules_reach(known)
    labels = [label.get_text() for label in preference_figure(known).axes[0].get_yticklabels()]
    assert labels == ["trained model (reward)", "bag of words", "length alone", "which side ends properly"]


def test_of_an_older_run_the_end_is_not_recorded():
    lines = {line["on unseen pairs"]: line["after"] for line in preference_table(preference())}
    assert lines["told apart by which side ends properly"] == "not recorded"
    assert rules_reach(preference()).endswith("which side ends properly not recorded")
    assert any(text.get_text() == "not recorded" for text in preference_figure(preference()).axes[0].texts)
