"""A rule knows its languages: in another one it has no number, and no claim rests on it."""
import pytest

from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.schema import Answer, Critique, Prompt, Response, Revision, Triple, Verdict
from contemplative_cai.evaluation.calibration import calibrate, calibration_table, labelled_languages
from contemplative_cai.evaluation.claims import all_comparisons, columns, declaration, level, weights_table
from contemplative_cai.evaluation.judge import DETECTOR_LANGUAGES, Asked, Detector, detect
from contemplative_cai.evaluation.questions import Item, PromptSet, Suites
from contemplative_cai.evaluation.verdicts import rule_verdicts, vocabulary_rates
from contemplative_cai.inputs.constitution import load_constitution
from contemplative_cai.inputs.rubrics import Labelled, load_calibration, load_rubric
from contemplative_cai.measure.style import style_verdicts
from contemplative_cai.measure.text import (
    REFUSAL_LANGUAGES,
    refuses,
    text_language,
    told_languages,
    vocabulary,
    without_rule,
)
from contemplative_cai.pairs.filters import FILTER_LANGUAGES, unchecked_filters, unchecked_rows
from contemplative_cai.pairs.health import FEWEST, health, health_table, health_words, warnings
from contemplative_cai.pairs.make import filter_triples
from contemplative_cai.pairs.waterfall import waterfall

NO_RULE = "not measured: no rule for fr"
DECLINED, HELPED = ("Je suis désolé, mais je ne peux pas vous aider à faire cela aujourd'hui.",
                    "Bien sûr, voici trois façons simples de ranger une petite cuisine en une heure.")
ENGLISH = {"I'm sorry, but I can't help with that, and I would rather not say why.": True,
           "Of course, here are three simple ways to tidy a small kitchen in an hour.": False}
FRENCH = [Prompt(text=f"Comment ranger la cuisine numéro {i} avant le dîner de ce soir ?", source="ailuminate-fr",
                 locale="fr_FR", hazard="vcr", persona="normal") for i in range(12)]
QUESTION = "How do I tidy the kitchen before dinner tonight?"


def answer(prompt, text, arm="base"): return Answer(arm=arm, prompt_id=prompt.id, source="test", text=text, model="m")


# which language it is

@pytest.mark.parametrize("text, locale, question, code", [
    ("Je suis désolé, mais je ne peux pas", "en_US", "", "fr"),  # a row that does not say, and a text that does
    ("Non.", "fr_FR", "", "fr"), ("Non.", "fr-CA", "", "fr"), ("Non.", "FR", "", "fr"),
    ("Non.", "en_US", FRENCH[0].text, "fr"),  # the question of a text that is too short
    (DECLINED, "English", "", "fr"), ("No.", "eng", "", "en"), ("No.", "?", "", None),  # what is no locale says nothing
    ("No.", "en_US", "", None), ("No.", "en_GB", "", "en"), ("No.", "en_US", QUESTION, "en"), ("", "en_US", "", "en"),
    ("x = 1", "en_US", "", "en"),
    (next(iter(ENGLISH)), "en_US", "", "en"),
    ("No, nothing of the kind can be said in one word.", "de_DE", "", "de"),  # the row says so
])
def test_a_row_says_its_language_or_the_text_does(text, locale, question, code):
    assert text_language(text, locale, question) == code


def test_what_is_english_is_not_taken_for_another_language():
    "All answers that judges are measured on, and all questions of the project."
    rows = load_calibration()
    assert {text_language(row.answer, question=row.prompt) for row in rows} == {"en"}


@pytest.mark.parametrize("text", ["Je suis désolé, mais je ne peux pas", DECLINED, HELPED])
def test_a_french_answer_is_neither_a_refusal_nor_none(text):
    assert refuses(text) is None and refuses(text, "fr_FR") is None and refuses("Non.", "fr_FR") is None
    assert without_rule(REFUSAL_LANGUAGES, text) == NO_RULE and vocabulary(text) is None


def test_english_answers_are_what_they_were():
    assert {text: refuses(text) for text in ENGLISH} == ENGLISH and refuses("No.", question=QUESTION) is False
    assert refuses("I'm sorry, but I can't do that.", "fr_FR") is True, "what is found counts"
    assert vocabulary("Be mindful and compassionate.") == 50


# verdicts of rules

def test_a_rule_has_no_verdict_in_a_language_it_does_not_know():
    "A refusal in French, a French answer that helps, and an English one beside them."
    asked = Prompt(text=QUESTION, source="test")
    answers = [answer(FRENCH[0], DECLINED), answer(FRENCH[1], HELPED), answer(FRENCH[2], "Non."),
               *(answer(asked, text) for text in ENGLISH)]
    verdicts = rule_verdicts([*FRENCH[:3], asked], answers)
    for criterion in ("refusal", "vocabulary"):
        values = [(v.value, v.reason) for v in verdicts if v.criterion == criterion]
        assert values[:3] == [(None, NO_RULE)] * 3 and None not in [value for value, _ in values[3:]]
    eased = [v.reason for v in verdicts if v.criterion == "reading_ease"]
    assert eased[:2] == [NO_RULE] * 2 and "too short" in eased[2]
    assert all(v.value is not None for v in verdicts if v.criterion in ("repetition", "loop", "distinct_1"))


def test_a_detector_in_a_judges_place_says_so_too():
    criterion = next(c for c in load_rubric("surface").criteria if c.id == "refusal")
    opinions = Detector().opinions([Asked(question=FRENCH[0].text, answer=text, criterion=criterion)
                                    for text in (DECLINED, "Non.")])
    assert [one.reason for one in opinions] == [NO_RULE] * 2
    assert detect(answer(FRENCH[0], DECLINED), load_rubric("surface"), FRENCH[0])[1].criterion == "refusal"
    assert set(DETECTOR_LANGUAGES) == {"refusal"}


def items_of(prompts, name):
    return Suites({name: PromptSet(name=name, prompts=tuple(prompts))}, (), {p.id: p.id for p in prompts}).items


def evaluated(prompts, texts, sets="safety"):
    "Columns of rules over answers of two arms, and what they need."
    verdicts = rule_verdicts(prompts, [answer(prompt, text, arm) for arm, text in texts.items() for prompt in prompts])
    items = items_of(prompts, sets)
    return columns(verdicts, items, []), items


def test_an_evaluation_of_french_prompts_does_not_say_that_nothing_was_refused():
    seen, items = evaluated(FRENCH, {"base": DECLINED, "dpo": HELPED})
    assert {item.language for item in items} == {"fr"}
    column = next(c for c in seen if c.outcome.label == "refusal on safety prompts")
    for arm in ("base", "dpo"):
        row = level(column, arm, {})
        assert (row.mean.mean, row.mean.undefined, row.unscored, row.asked) == (None, NO_RULE, 12, 12)
    declared = declaration(build_recipe({"primary_outcome": "refusal", "secondary_outcomes": []}), "dpo")
    rows = all_comparisons(seen, ("base", "dpo"), "dpo", declared, {}, 0.05, 100)
    row = next(row for row in rows if row.outcome == "refusal on safety prompts")
    assert (row.difference.mean, row.difference.undefined, row.p, row.before, row.after) == (None, NO_RULE, None, None,
                                                                                              None)


def test_refusals_of_harmless_french_prompts_are_not_said_to_be_kept():
    seen, _ = evaluated(FRENCH, {"base": HELPED, "dpo": DECLINED}, "safe")
    declared = declaration(build_recipe({"primary_outcome": "refusal", "secondary_outcomes": []}), "dpo")
    rows = all_comparisons(seen, ("base", "dpo"), "dpo", declared, {}, 0.05, 100)
    kept = next(row.kept for row in rows if row.outcome == "refusal")
    assert kept.verdict == "undefined" and NO_RULE in kept.words


# judges

def labelled(count, language):
    said = {"fr": ("Comment faire la cuisine pour ma famille ce soir ?", DECLINED),
            "en": (QUESTION, next(iter(ENGLISH)))}
    return [Labelled(id=f"{language}{i}", kind="good", principle=None, prompt=f"{said[language][0]} {i}",
                     answer=said[language][1], labels={"refusal": float(i % 2)}) for i in range(count)]


def test_a_calibration_knows_the_languages_of_enough_labelled_answers():
    assert labelled_languages(load_calibration()) == ("en",)
    assert labelled_languages(labelled(12, "en") + labelled(3, "fr")) == ("en",), "three are too few to measure by"
    assert labelled_languages(labelled(12, "en") + labelled(10, "fr")) == ("en", "fr")
    rubric = load_rubric("surface").model_copy(update={"criteria": tuple(
        c for c in load_rubric("surface").criteria if c.id == "refusal")})
    report = calibrate(Detector(), rubric, labelled(12, "en"))
    assert report.languages == ("en",) and "in en" in calibration_table(report)


JUDGE = "logit judge@1"


def judged(prompts, calibration):
    "Columns of a judge above the bar, over the safety rubric."
    rubric = load_rubric("safety")
    verdicts = [Verdict(arm=arm, prompt_id=prompt.id, criterion=c.id, value=float((i + len(arm)) % 2), judge=JUDGE,
                        rubric=f"safety@{rubric.digest}")
                for arm in ("base", "dpo") for i, prompt in enumerate(prompts) for c in rubric.criteria]
    items = items_of(prompts, "safety")
    return columns(verdicts, items, [calibration]), verdicts, items


@pytest.fixture
def above():
    from contemplative_cai.evaluation.calibration import Calibration, Figure, Measured
    good = Figure(value=0.95, low=0.9, high=1.0)
    return Calibration(judge=JUDGE, rubric="safety@1", answers="labels", criteria=tuple(
        Measured(criterion=c.id, n=40, yes=20, no=20, prompts=20, auc_direct=good, auc_turned=good,
                 flip_rate=Figure(value=0.0), kappa=good, unscored=Figure(value=0.0), unread=0.0, auc_length=0.5)
        for c in load_rubric("safety").criteria))


def test_no_claim_rests_on_a_judge_in_a_language_it_was_not_measured_in(above):
    english = [Prompt(text=f"{QUESTION} {i}", source="test") for i in range(12)]
    for prompts, strange in ((english, ()), (FRENCH, ("fr",)), ([*english[:6], *FRENCH[:6]], ("fr",))):
        seen, verdicts, items = judged(prompts, above)
        column = next(c for c in seen if c.outcome.name == "violation")
        assert (column.calibrated, column.unmeasured) == (not strange, strange)
        assert level(column, "dpo", {}).unmeasured == strange
        assert any(c.outcome.name == "composite" for c in seen) == (not strange), "a composite would be a claim"
        declared = declaration(build_recipe({"primary_outcome": "violation", "secondary_outcomes": []}), "dpo")
        row = next(r for r in all_comparisons(seen, ("base", "dpo"), "dpo", declared, {}, 0.05, 100)
                   if r.outcome == "violation")
        assert (row.p is None and row.difference.p is None) == bool(strange)
        spoken = {item.prompt_id: item.language for item in items}
        assert bool(weights_table(verdicts, [above], ("dpo", "base"), {}, 50, spoken=spoken)) == (not strange)
    both = above.model_copy(update={"languages": ("en", "fr")})
    assert next(c for c in judged(FRENCH, both)[0] if c.outcome.name == "violation").calibrated


def test_an_item_of_an_earlier_run_is_english():
    assert Item(set="safe", prompt_id="p", cluster="p", source="s").language == "en"


# pairs

GENERIC = load_constitution("generic")
REVISED = "Voici la réponse révisée : commencez par une seule étagère, puis demandez de l'aide à un ami."


def triple(i, text, revision, locale="en_US", question=QUESTION):
    prompt, principle = Prompt(text=f"{question} {i}", source="mine", locale=locale), GENERIC.principles[0].id
    more = {"finish_reason": "stop", "model": "m", "seed": 0}
    response = Response(prompt_id=prompt.id, text=text, **more)
    critique = Critique(prompt_id=prompt.id, response_id=response.id, principle=principle, text="Too short.", **more)
    return Triple(prompt=prompt, principle=principle, response=response, critique=critique,
                  revision=Revision(prompt_id=prompt.id, critique_id=critique.id, principle=principle, text=revision,
                                    **more))


def kept_of(*rows, filters=("leaked_preamble", "refusal_again", "principle_vocabulary")):
    kept, dropped = filter_triples(rows, GENERIC, filters)
    return kept, dropped


FRENCH_ROWS = [triple(i, DECLINED, f"{REVISED} {i}", "fr_FR", "Comment ranger la cuisine ?") for i in range(6)]
PLAIN_ROW = triple(0, "Buy nothing.", "Begin with a single shelf, then ask a friend to help you with the rest of it.")


def test_a_row_that_no_rule_could_check_is_kept_and_counted():
    "In French a leaked opening and a refusal; by locale, and where only the text tells."
    unsaid = triple(9, DECLINED, REVISED)
    kept, dropped = kept_of(*FRENCH_ROWS, unsaid, PLAIN_ROW)
    assert len(kept) == 8 and not dropped
    assert unchecked_rows(kept) == {name: {"fr": 7} for name in FILTER_LANGUAGES}
    assert unchecked_rows(kept, ("empty", "leaked_preamble")) == {"leaked_preamble": {"fr": 7}}
    assert unchecked_rows(kept_of(PLAIN_ROW)[0]) == {}
    counts = {row["stage"]: row["unchecked"] for row in waterfall(kept, dropped)}
    assert counts["leaked_preamble"] == counts["refusal_again"] == counts["principle_vocabulary"] == 7
    assert counts["empty"] == counts["kept"] == 0
    assert "unchecked" not in waterfall(kept_of(PLAIN_ROW)[0], [])[0]


def test_what_a_rule_finds_counts_in_any_language():
    english = triple(3, "Rangez.", "Here is the revised answer: commencez par une étagère.", "fr_FR", "Comment ?")
    assert [row.reason for row in kept_of(english)[1]] == ["leaked_preamble"]


def test_a_language_that_cannot_be_told_is_not_compared():
    assert "fr" in told_languages() and "tlh" not in told_languages()
    assert "language_switch" not in unchecked_filters("fr") and "language_switch" in unchecked_filters("tlh")
    assert unchecked_filters("en") == ()


def test_health_says_what_was_not_looked_for():
    kept, _ = kept_of(*FRENCH_ROWS, PLAIN_ROW)
    measured = health(kept)
    first = warnings(measured)[0]
    assert (first.figure, first.value, first.setting) == ("unchecked", 6.0, "locales")
    assert first.sentence == health_words(measured)[0] and first.sentence.startswith(
        "6 of 7 pairs are in fr and were not checked by leaked_preamble, refusal_again, principle_vocabulary")
    assert {"figure": "not checked by refusal_again", "chosen": "", "rejected": "", "pairs": "6 in fr"} in (
        health_table(measured))
    assert measured.chosen.vocabulary.n < 30, "the rate is of the English texts alone"
    alone = health(kept[:6])
    assert alone.chosen.vocabulary.value is None and alone.chosen.vocabulary.undefined == NO_RULE
    few = health_words(health(kept[:FEWEST - 1]))
    assert len(few) == 2 and "in fr" in few[0]
    english = kept_of(*(triple(i, "Buy nothing.", f"Take shelf {i} first, then rest a while before you go on to the "
                               "next one.") for i in range(6)))[0]
    assert not health(english).unchecked and all(w.figure != "unchecked" for w in warnings(health(english)))


def test_style_and_vocabulary_of_a_mixed_arm_rest_on_what_was_measured():
    asked = Prompt(text=QUESTION, source="test")
    answers = [answer(FRENCH[0], HELPED), answer(asked, "Be mindful of the kettle.")]
    rates = vocabulary_rates([(FRENCH[0], answers[0]), (asked, answers[1])])
    assert [(v.value, v.reason) for v in rates] == [(None, NO_RULE), (20.0, "")]
    eased = [v for v in style_verdicts(answers, load_rubric("style")) if v.criterion == "reading_ease"]
    assert eased[0].reason == NO_RULE
