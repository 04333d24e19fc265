"""A language that cannot be told is none to be measured in, and what ruins answers in one language says nothing of
another: there a judge is not measured."""
import pytest

from contemplative_cai.core.schema import Prompt, Verdict
from contemplative_cai.evaluation.calibration import calibrate, in_languages, languages_words
from contemplative_cai.evaluation.claims import columns, measured_languages
from contemplative_cai.evaluation.judge import Opinion
from contemplative_cai.evaluation.questions import PromptSet, Suites
from contemplative_cai.inputs.constitution import load_constitution
from contemplative_cai.inputs.rubrics import Labelled, load_rubric
from contemplative_cai.measure.text import UNTOLD, text_language
from contemplative_cai.pairs import gate

SAID = {"en": ("How do I tell my neighbour that the music is too loud?", "You could ask {} whether it can be quieter."),
        "fr": ("Comment dire à mon voisin que la musique est trop forte ?",
               "Vous pouvez lui demander {} si elle peut être plus douce."),
        None: ("Bor mek talu svenga rion dapek lomu tishan weru polka nimra zote garup?",
               "Rion dapek lomu tishan {} weru polka nimra zote garup hilta mesk.")}
MANNER = {"en": ("kindly", "loudly"), "fr": ("gentiment", "vivement"), None: ("sorun", "kelba")}


def rows_of(language, many, criterion):
    "Half of them kind in manner and labelled so, an answer a question."
    question, answer = SAID[language]
    return [Labelled(id=f"{language}{i}", kind="unknown", principle=None, prompt=f"{question} {i}",
                     answer=answer.format(MANNER[language][i % 2]), labels={criterion: float(1 - i % 2)})
            for i in range(many)]


class Manner:
    "Says yes to a word, whatever stands around it."
    name = "manner@1"

    def opinions(self, claims, run=None):
        kind = [any(words[0] in claim.answer for words in MANNER.values()) for claim in claims]
        return [Opinion(direct=0.1 + 0.8 * one, turned=0.1 + 0.8 * one) for one in kind]


def part(name, criterion):
    rubric = load_rubric(name)
    return rubric.model_copy(update={"criteria": tuple(c for c in rubric.criteria if c.id == criterion)})


def measured(rubric, *rows):
    return calibrate(Manner(), rubric, [row for some in rows for row in some], resamples=60)


# a language that cannot be told

def test_answers_in_a_language_that_cannot_be_told_measure_nobody_in_it():
    untold = rows_of(None, 24, "violation")
    assert {text_language(row.answer, question=row.prompt) for row in untold} == {None}
    for more, languages in (([], set()), (rows_of("en", 40, "violation"), {"en"})):
        report = measured(part("safety", "violation"), untold, more)
        assert set(in_languages(report, "violation")) == languages
        assert measured_languages([report], ["violation"]) == {"manner@1": languages}
        assert report.criteria[0].n == 24 + len(more), "they are in the pooled figures"


def test_no_claim_rests_on_prompts_in_a_language_that_cannot_be_told():
    prompts = tuple(Prompt(text=f"{SAID[None][0]} {i}", source="test") for i in range(12))
    report = measured(part("safety", "violation"), rows_of(None, 24, "violation"))
    verdicts = [Verdict(arm=arm, prompt_id=prompt.id, criterion="violation", value=float(i % 2), judge="manner@1",
                        rubric=f"safety@{load_rubric('safety').digest}")
                for arm in ("base", "dpo") for i, prompt in enumerate(prompts)]
    asked = Suites({"safety": PromptSet(name="safety", prompts=prompts)}, (), {p.id: p.id for p in prompts})
    column = next(one for one in columns(verdicts, asked.items, [report]) if one.outcome.name == "violation")
    assert (column.calibrated, column.unmeasured) == (False, (UNTOLD,))


def test_a_judge_of_pairs_is_not_measured_on_answers_in_a_language_that_cannot_be_told():
    principle = load_constitution("contemplative").principles[0]
    def answers(language):
        rows = rows_of(language, 24, "x")
        return [gate.LabelledAnswer(principle, row.model_copy(update={"prompt": rows[0].prompt}), row.labels["x"])
                for row in rows]
    assert set(gate._measurable([*answers(None), *answers("en")])) == {"en"}


# ruins

@pytest.mark.parametrize("many, words", [(22, "fr too few (11/11)"), (24, "fr too few (12/12)")])
def test_a_judge_of_manner_does_not_pass_in_a_second_language(many, words):
    "English answers were ruined, hardly any French ones."
    report = measured(part("humanistic", "empathy"), rows_of("en", 300, "empathy"), rows_of("fr", many, "empathy"))
    own = in_languages(report, "empathy")
    assert list(own) == ["en"] and any("another question" in why for why in own["en"].shortcomings)
    assert words in languages_words(report, "empathy")


def test_a_language_with_ruins_of_its_own_is_measured_by_them():
    report = measured(part("humanistic", "empathy"), rows_of("en", 60, "empathy"), rows_of("fr", 60, "empathy"))
    own = in_languages(report, "empathy")
    assert set(own) == {"en", "fr"}
    for row in own.values():
        assert {one.control for one in row.sense} >= {"another question", "shuffled words"}
        assert all(min(one.good, one.ruined) >= 10 for one in row.sense) and row.shortcomings


def test_of_one_language_the_pooled_figures_are_its_own():
    report = measured(part("humanistic", "empathy"), rows_of("fr", 24, "empathy"))
    assert in_languages(report, "empathy")["fr"] == report.criteria[0] and report.criteria[0].sense
