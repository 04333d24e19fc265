"""A rule knows its languages: in another one it has no number, and no claim rests on it."""
import pytest

from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.schema import Answer, Critique, Prompt, Response, Revision, Triple, Verdict
from contemplative_cai.evaluation.calibration import (
    Figure,
    InLanguage,
    calibrate,
    calibration_rows,
    calibration_table,
    in_languages,
    labelled_languages,
    languages_words,
)
from contemplative_cai.evaluation.claims import all_comparisons, columns, declaration, level, weights_table
from contemplative_cai.evaluation.judge import DETECTOR_LANGUAGES, Asked, Detector, Opinion, detect
from contemplative_cai.evaluation.questions import Item, PromptSet, Suites
from contemplative_cai.evaluation.verdicts import rule_verdicts, vocabulary_rates
from contemplative_cai.inputs.constitution import load_constitution
from contemplative_cai.inputs.rubrics import Labelled, load_calibration, load_rubric
from contemplative_cai.inputs.sources import filter_prompts, load_prompts
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

NO_RULE = "not measured: no rule for de"
DECLINED, HELPED = ("Es tut mir leid, aber dabei kann ich Ihnen heute leider nicht helfen.",
                    "Gerne, hier sind drei einfache Wege, eine kleine Küche in einer Stunde aufzuräumen.")
FRENCH = {"Je suis désolé, mais je ne peux pas vous aider à faire cela aujourd'hui.": True,
          "Bien sûr, voici trois façons simples de ranger une petite cuisine en une heure.": False}
ENGLISH = {"I'm sorry, but I can't help with that, and I would rather not say why.": True,
           "Of course, here are three simple ways to tidy a small kitchen in an hour.": False}
GERMAN = [Prompt(text=f"Wie räume ich die Küche Nummer {i} noch vor dem Abendessen auf?", source="mine",
                 locale="de_DE", hazard="vcr", persona="normal") for i in range(12)]
QUESTION = "How do I tidy the kitchen before dinner tonight?"


def answer(prompt, text, arm="base"): return Answer(arm=arm, prompt_id=prompt.id, source="test", text=text, model="m")


# which language it is

@pytest.mark.parametrize("text, locale, question, code", [
    ("Je suis désolé, mais je ne peux pas", "en_US", "", "fr"),  # a row that does not say, and a text that does
    ("Non.", "fr_FR", "", "fr"), ("Non.", "fr-CA", "", "fr"), ("Non.", "FR", "", "fr"),
    ("Nein.", "en_US", GERMAN[0].text, "de"),  # the question of a text that is too short
    (DECLINED, "English", "", "de"), ("No.", "eng", "", "en"), ("No.", "?", "", None),  # what is no locale says nothing
    ("No.", "und", "", None), ("No.", None, "", None),
    ("No.", "en_US", "", "en"), ("No.", "en_GB", "", "en"), ("No.", "en_US", QUESTION, "en"), ("", "en_US", "", "en"),
    ("x = 1", "en_US", "", "en"),
    (next(iter(ENGLISH)), "en_US", "", "en"),
    ("No, nothing of the kind can be said in one word.", "de_DE", "", "de"),  # the row says so
])
def test_a_row_says_its_language_or_the_text_does(text, locale, question, code):
    assert text_language(text, locale, question) == code


def test_a_given_en_us_is_told_from_a_row_that_does_not_say(tmp_path):
    "A column that says so is believed where a text is too short; no column says nothing."
    for name, header, code in (("says", "text,locale", "en"), ("silent", "text,topic", None)):
        (tmp_path / f"{name}.csv").write_text(f"{header}\nNo?,en_US\n")
        (prompt,) = load_prompts(str(tmp_path / f"{name}.csv"))
        assert text_language(prompt.text, prompt.locale) == code, name
        assert refuses("No.", prompt.locale) is (False if code else None)
    assert {prompt.locale for prompt in load_prompts("practice")} == {"en_US"}, "the project's own are English"
    assert filter_prompts([prompt], locales=("en_US",)) == [prompt], "kept as it was before anybody could tell"


def test_what_is_english_is_not_taken_for_another_language():
    "All answers that judges are measured on, and all questions of the project."
    rows = load_calibration()
    assert {text_language(row.answer, question=row.prompt) for row in rows} <= {"en", "fr"}


@pytest.mark.parametrize("text", [DECLINED, HELPED])
def test_a_german_answer_is_neither_a_refusal_nor_none(text):
    assert refuses(text) is None and refuses(text, "de_DE") is None and refuses("Nein.", "de_DE") is None
    assert without_rule(REFUSAL_LANGUAGES, text) == NO_RULE and vocabulary(text) is None


def test_refusals_are_known_in_french_and_leaks_and_vocabulary_are_not():
    assert {text: refuses(text) for text in FRENCH} == FRENCH and refuses("Non.", "fr_FR") is False
    assert all(vocabulary(text) is None for text in FRENCH)
    assert unchecked_filters("fr") == ("leaked_preamble", "principle_vocabulary")
    declined, helped = FRENCH
    prompts = [Prompt(text=f"Comment ranger la cuisine numéro {i} ce soir ?", source="mine", locale="fr_FR")
               for i in range(2)]
    verdicts = rule_verdicts(prompts, [answer(*row) for row in zip(prompts, FRENCH)])
    assert [v.value for v in verdicts if v.criterion == "refusal"] == [1.0, 0.0]
    again = triple(0, declined, f"{declined} Demandez-moi autre chose.", "fr_FR", "Comment ranger ?")
    better = triple(1, declined, helped, "fr_FR", "Comment ranger ?")
    kept, dropped = kept_of(again, better, filters=("refusal_again",))
    assert len(kept) == 1 and [row.reason for row in dropped] == ["refusal_again"]


def test_english_answers_are_what_they_were():
    assert {text: refuses(text) for text in ENGLISH} == ENGLISH and refuses("No.", question=QUESTION) is False
    assert refuses("I'm sorry, but I can't do that.", "de_DE") is True, "what is found counts"
    assert vocabulary("Be mindful and compassionate.") == 50


# verdicts of rules

def test_a_rule_has_no_verdict_in_a_language_it_does_not_know():
    "A refusal in German, a German answer that helps, and an English one beside them."
    asked = Prompt(text=QUESTION, source="test")
    answers = [answer(GERMAN[0], DECLINED), answer(GERMAN[1], HELPED), answer(GERMAN[2], "Nein."),
               *(answer(asked, text) for text in ENGLISH)]
    verdicts = rule_verdicts([*GERMAN[:3], asked], answers)
    for criterion in ("refusal", "vocabulary"):
        values = [(v.value, v.reason) for v in verdicts if v.criterion == criterion]
        assert values[:3] == [(None, NO_RULE)] * 3 and None not in [value for value, _ in values[3:]]
    eased = [v.reason for v in verdicts if v.criterion == "reading_ease"]
    assert eased[:2] == [NO_RULE] * 2 and "too short" in eased[2]
    assert all(v.value is not None for v in verdicts if v.criterion in ("repetition", "loop", "distinct_1"))


def test_a_detector_in_a_judges_place_says_so_too():
    criterion = next(c for c in load_rubric("surface").criteria if c.id == "refusal")
    opinions = Detector().opinions([Asked(question=GERMAN[0].text, answer=text, criterion=criterion)
                                    for text in (DECLINED, "Nein.")])
    assert [one.reason for one in opinions] == [NO_RULE] * 2
    assert detect(answer(GERMAN[0], DECLINED), load_rubric("surface"), GERMAN[0])[1].criterion == "refusal"
    assert set(DETECTOR_LANGUAGES) == {"refusal"}


def items_of(prompts, name):
    return Suites({name: PromptSet(name=name, prompts=tuple(prompts))}, (), {p.id: p.id for p in prompts}).items


def evaluated(prompts, texts, sets="safety"):
    "Columns of rules over answers of two arms, and what they need."
    verdicts = rule_verdicts(prompts, [answer(prompt, text, arm) for arm, text in texts.items() for prompt in prompts])
    items = items_of(prompts, sets)
    return columns(verdicts, items, []), items


def test_an_evaluation_of_german_prompts_does_not_say_that_nothing_was_refused():
    seen, items = evaluated(GERMAN, {"base": DECLINED, "dpo": HELPED})
    assert {item.language for item in items} == {"de"}
    column = next(c for c in seen if c.outcome.label == "refusal on safety prompts")
    for arm in ("base", "dpo"):
        row = level(column, arm, {})
        assert (row.mean.mean, row.mean.undefined, row.unscored, row.asked) == (None, NO_RULE, 12, 12)
    declared = declaration(build_recipe({"primary_outcome": "refusal", "secondary_outcomes": []}), "dpo")
    rows = all_comparisons(seen, ("base", "dpo"), "dpo", declared, {}, 0.05, 100)
    row = next(row for row in rows if row.outcome == "refusal on safety prompts")
    assert (row.difference.mean, row.difference.undefined, row.p, row.before, row.after) == (None, NO_RULE, None, None,
                                                                                              None)


def test_refusals_of_harmless_german_prompts_are_not_said_to_be_kept():
    seen, _ = evaluated(GERMAN, {"base": HELPED, "dpo": DECLINED}, "safe")
    declared = declaration(build_recipe({"primary_outcome": "refusal", "secondary_outcomes": []}), "dpo")
    rows = all_comparisons(seen, ("base", "dpo"), "dpo", declared, {}, 0.05, 100)
    kept = next(row.kept for row in rows if row.outcome == "refusal")
    assert kept.verdict == "undefined" and NO_RULE in kept.words


# judges

def labelled(count, language):
    said = {"de": ("Wie koche ich heute Abend für meine ganze Familie?", DECLINED),
            "en": (QUESTION, next(iter(ENGLISH)))}
    return [Labelled(id=f"{language}{i}", kind="good", principle=None, prompt=f"{said[language][0]} {i}",
                     answer=said[language][1], labels={"refusal": float(i % 2)}) for i in range(count)]


def test_a_calibration_knows_the_languages_of_enough_labelled_answers():
    assert "en" in labelled_languages(load_calibration())
    assert labelled_languages(labelled(12, "en") + labelled(3, "de")) == ("en",), "three are too few to measure by"
    assert labelled_languages(labelled(22, "en") + labelled(20, "de")) == ("de", "en")
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
    for prompts, strange in ((english, ()), (GERMAN, ("de",)), ([*english[:6], *GERMAN[:6]], ("de",))):
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
    both = above.model_copy(update={"languages": ("en", "de")})
    assert next(c for c in judged(GERMAN, both)[0] if c.outcome.name == "violation").calibrated


class Half:
    "Right about every English answer, wrong about every German one."
    name = "half@1"

    def opinions(self, claims, run=None):
        sides = [float(int(claim.question.split()[-1]) % 2) for claim in claims]
        sides = [1 - side if claim.question.startswith("Wie") else side for side, claim in zip(sides, claims)]
        return [Opinion(direct=0.1 + 0.8 * side, turned=0.1 + 0.8 * side) for side in sides]


def test_the_bar_is_measured_in_each_language_and_decides_in_it():
    "Pooled, a judge that is right in English and wrong in German is below; in English alone it is above."
    rubric = load_rubric("safety").model_copy(update={"criteria": load_rubric("safety").criteria[:1]})
    rows = [row.model_copy(update={"labels": {"violation": row.labels["refusal"]}})
            for row in labelled(40, "en") + labelled(20, "de")]
    report = calibrate(Half(), rubric, rows, resamples=100)
    own = in_languages(report, "violation")
    assert {code: (row.n, row.yes, row.no) for code, row in own.items()} == {"de": (20, 10, 10), "en": (40, 20, 20)}
    assert own["de"].auc_direct.value == 0 and own["en"].auc_direct.value == 1
    assert own["de"].shortcomings and not own["en"].shortcomings, own["en"].shortcomings
    assert languages_words(report, "violation") == "de below (10/10), en above (20/20)"
    assert calibration_rows(report)[0]["by language"] == languages_words(report, "violation")
    few = calibrate(Half(), rubric, rows[:40] + rows[40:46], resamples=20)
    assert list(in_languages(few, "violation")) == ["en"] and few.criteria[0].n == 46
    assert languages_words(few, "violation").startswith("de too few (3/3)")
    whole = calibrate(Half(), rubric, rows[:40], resamples=20)
    assert whole.by_language[0].criteria == whole.criteria, "of one language nothing is measured twice"


@pytest.mark.parametrize("code, fit, unmeasured", [("en", True, ()), ("de", False, ()), ("fr", False, ("fr",))])
def test_a_claim_rests_on_the_figures_of_its_own_language(above, code, fit, unmeasured):
    weak = tuple(row.model_copy(update={"auc_direct": Figure(value=0.4)}) for row in above.criteria)
    counts = {row.criterion: (20, 20) for row in above.criteria}
    report = above.model_copy(update={"criteria": weak, "by_language": (
        InLanguage(language="en", labels=counts, criteria=above.criteria),
        InLanguage(language="de", labels=counts, criteria=weak),
        InLanguage(language="fr", labels=counts, criteria=()))})
    prompts = [Prompt(text=f"{QUESTION} {i}", source="test", locale=code) for i in range(12)]
    seen, verdicts, items = judged(prompts, report)
    column = next(c for c in seen if c.outcome.name == "violation")
    assert (column.calibrated, column.unmeasured) == (fit, unmeasured)
    assert any(c.outcome.name == "composite" for c in seen) == fit
    spoken = {item.prompt_id: item.language for item in items}
    assert bool(weights_table(verdicts, [report], ("dpo", "base"), {}, 50, spoken=spoken)) == fit


def test_figures_of_before_are_called_pooled(above):
    assert languages_words(above, "violation") == "pooled, mostly en"
    assert list(in_languages(above, "violation")) == ["en"]


def test_an_item_of_an_earlier_run_is_english():
    assert Item(set="safe", prompt_id="p", cluster="p", source="s").language == "en"


# pairs

GENERIC = load_constitution("generic")
REVISED = "Hier ist die überarbeitete Antwort: Beginnen Sie mit einem Regal, dann bitten Sie jemanden um Hilfe."


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


GERMAN_ROWS = [triple(i, DECLINED, f"{REVISED} {i}", "de_DE", "Wie räume ich die Küche auf?") for i in range(6)]
PLAIN_ROW = triple(0, "Buy nothing.", "Begin with a single shelf, then ask a friend to help you with the rest of it.")


def test_a_row_that_no_rule_could_check_is_kept_and_counted():
    "In German a leaked opening and a refusal; by locale, and where only the text tells."
    unsaid = triple(9, DECLINED, REVISED)
    kept, dropped = kept_of(*GERMAN_ROWS, unsaid, PLAIN_ROW)
    assert len(kept) == 8 and not dropped
    assert unchecked_rows(kept) == {name: {"de": 7} for name in FILTER_LANGUAGES}
    assert unchecked_rows(kept, ("empty", "leaked_preamble")) == {"leaked_preamble": {"de": 7}}
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
    kept, _ = kept_of(*GERMAN_ROWS, PLAIN_ROW)
    measured = health(kept)
    first = warnings(measured)[0]
    assert (first.figure, first.value, first.setting) == ("unchecked", 6.0, "locales")
    assert first.sentence == health_words(measured)[0] and first.sentence.startswith(
        "6 of 7 pairs are in de and were not checked by leaked_preamble, refusal_again, principle_vocabulary")
    assert {"figure": "not checked by refusal_again", "chosen": "", "rejected": "", "pairs": "6 in de"} in (
        health_table(measured))
    assert measured.chosen.vocabulary.n < 30, "the rate is of the English texts alone"
    alone = health(kept[:6])
    assert alone.chosen.vocabulary.value is None and alone.chosen.vocabulary.undefined == NO_RULE
    few = health_words(health(kept[:FEWEST - 1]))
    assert len(few) == 2 and "in de" in few[0]
    english = kept_of(*(triple(i, "Buy nothing.", f"Take shelf {i} first, then rest a while before you go on to the "
                               "next one.") for i in range(6)))[0]
    assert not health(english).unchecked and all(w.figure != "unchecked" for w in warnings(health(english)))


def test_style_and_vocabulary_of_a_mixed_arm_rest_on_what_was_measured():
    asked = Prompt(text=QUESTION, source="test")
    answers = [answer(GERMAN[0], HELPED), answer(asked, "Be mindful of the kettle.")]
    rates = vocabulary_rates([(GERMAN[0], answers[0]), (asked, answers[1])])
    assert [(v.value, v.reason) for v in rates] == [(None, NO_RULE), (20.0, "")]
    eased = [v for v in style_verdicts(answers, load_rubric("style")) if v.criterion == "reading_ease"]
    assert eased[0].reason == NO_RULE
