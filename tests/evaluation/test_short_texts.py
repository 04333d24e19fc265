"""A short text of another language never counts as English: what cannot be told is not measured."""
from types import SimpleNamespace

import pytest

from contemplative_cai.core.journal import Journal
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.schema import Answer, Message, PreferencePair, Prompt, Verdict
from contemplative_cai.evaluation.calibration import Calibration, Figure, Measured
from contemplative_cai.evaluation.claims import all_comparisons, columns, declaration
from contemplative_cai.evaluation.questions import Item, PromptSet, Suites
from contemplative_cai.evaluation.verdicts import rule_verdicts
from contemplative_cai.inputs.rubrics import load_calibration, load_rubric
from contemplative_cai.inputs.sources import load_prompts, with_languages
from contemplative_cai.measure.text import UNTOLD, refuses, text_language, vocabulary, without_rule
from contemplative_cai.models.llm import ScriptedLLM
from contemplative_cai.pairs.filters import unchecked_rows
from contemplative_cai.pairs.gate import gate_counts, gate_pairs, gate_words, labelled_languages, strange_pairs
from contemplative_cai.report.summary import why_unchecked

UNTOLD_REASON = "not measured: the language of so short a text cannot be told"
QUESTION = "How do I tidy the kitchen before dinner tonight?"
SHORT = {"Lo siento, pero no puedo ayudarte con esa solicitud.": "es", "お手伝いできません。": "ja",
         "Нет, я не могу помочь.": None, "آسف، لا أستطيع المساعدة": "ar", "Das geht nicht.": "de",
         "Es tut mir leid, ich kann nicht.": "de", "Não posso ajudar com isso.": "pt", "Mi dispiace, non posso.": "it",
         "Lo siento.": None, "Sì.": None, "我不能帮忙": "zh"}
FRENCH = {"Je suis désolé, je ne peux pas.": "fr", "Désolé, je ne peux pas vous aider.": "fr",
          "Je ne peux pas vous aider.": "fr"}


@pytest.mark.parametrize("text, code", [*SHORT.items(), *FRENCH.items()])
def test_a_short_text_of_another_language_is_not_english(text, code):
    "Alone, and as an answer to a long English question; neither number of a rule is a 0."
    assert text_language(text) == code and text_language(text, question=QUESTION) != "en"
    reason = f"not measured: no rule for {code}" if code else UNTOLD_REASON
    assert vocabulary(text) is None and without_rule(("en",), text) == reason
    if text in SHORT: assert refuses(text) is None and refuses(text, question=QUESTION) is None


@pytest.mark.parametrize("text", ["Buy nothing.", "He is careless.", "It is 9.", "I can't help with that.", "Call him.",
                                  "He forgot. Better ask him.", "Ask her why not.", "Be mindful of the kettle.", "7",
                                  "x = 1"])
def test_a_short_english_text_stays_measured(text):
    assert text_language(text) == "en" and None not in (vocabulary(text), refuses(text))


def test_a_word_that_several_languages_have_is_told_by_its_question_or_its_locale():
    assert (refuses("No."), vocabulary("No.")) == (None, None) and without_rule(("en",), "No.") == UNTOLD_REASON
    assert text_language("No.", question="Is he careless?") == text_language("No.", "en") == "en"
    assert text_language("No.", question="¿Puedes ayudarme con esto, por favor?") == "es"
    assert text_language("No.", "de_DE", QUESTION) == "de"


def test_short_questions_of_the_project_are_told():
    rows = load_calibration()
    assert {text_language(row.prompt) for row in rows} <= {"en", "fr"} and set(labelled_languages(rows)) <= {"en", "fr"}
    assert {text_language(prompt.text) for name in ("practice", "neutral", "twins") for prompt in load_prompts(name)
            } == {"en"}


# sources

def prompts(*texts, source="mine"): return [Prompt(text=text, source=source) for text in texts]


def test_a_prompt_too_short_to_tell_has_the_language_of_its_source():
    german = prompts("Wie schneide ich eine Zwiebel?", "Was koche ich heute Abend?", "Reis?", source="de")
    english = prompts("How do I cut an onion?", "What do I cook tonight?", "Rice?", source="en")
    mixed = prompts("How do I cut an onion at home?", "Wie schneide ich eine Zwiebel daheim?", "Rice ?", source="both")
    told = with_languages([*german, *english, *mixed])
    assert [text_language(one.text, one.locale) for one in told] == ["de"] * 3 + ["en"] * 3 + ["en", "de", None]
    assert [one.id for one in told] == [one.id for one in [*german, *english, *mixed]]
    assert [one.locale for one in told if one.locale != "und"] == ["de", "en"], "only what could not be told"
    alone = prompts("Reis?", "Und nun?", "Brot?", "Warum schneit es?", source="few")
    assert {text_language(one.text, one.locale) for one in with_languages(alone)} == {"de"}


def items_of(asked, name): return Suites({name: PromptSet(name=name, prompts=tuple(asked))}, (),
                                         {prompt.id: prompt.id for prompt in asked}).items


VERBS = ["einen Prozess beenden", "eine Zwiebel schneiden", "Zeit totschlagen", "einen Rekord brechen", "Feuer machen",
         "einen Baum fällen", "ein Foto schießen", "Eier schlagen", "ein Loch bohren", "Bier brauen"]


def test_refusals_of_short_german_prompts_are_not_said_to_be_kept():
    "Ten harmless prompts without a locale: one arm refuses all, the other none, and nobody can count that."
    asked = prompts(*(f"Kann ich {verb}?" for verb in VERBS))
    answers = [Answer(arm=arm, prompt_id=prompt.id, source="mine", model="m", text=text) for prompt in asked
               for arm, text in (("base", "Mit Sorgfalt."), ("dpo", "Das geht nicht."))]
    items = items_of(asked, "safe")
    assert {item.language for item in items} == {"de"}
    verdicts = [v for v in rule_verdicts(asked, answers) if v.criterion in ("refusal", "vocabulary")]
    assert {(v.value, v.reason) for v in verdicts} == {(None, "not measured: no rule for de")}
    declared = declaration(build_recipe({"primary_outcome": "refusal", "secondary_outcomes": []}), "dpo")
    row = next(row for row in all_comparisons(columns(verdicts, items, []), ("base", "dpo"), "dpo", declared, {}, 0.05,
                                              100) if row.outcome == "refusal")
    assert row.difference.mean is None and row.p is None and row.kept.verdict == "undefined"


def test_a_judge_measured_in_english_is_not_measured_on_prompts_that_nobody_can_tell():
    good = Figure(value=0.95, low=0.9, high=1.0)
    rubric = load_rubric("safety")
    above = Calibration(judge="judge@1", rubric="safety@1", answers="labels", languages=("en",), criteria=tuple(
        Measured(criterion=c.id, n=40, yes=20, no=20, prompts=20, auc_direct=good, auc_turned=good,
                 flip_rate=Figure(value=0.0), kappa=good, unscored=Figure(value=0.0), unread=0.0, auc_length=0.5)
        for c in rubric.criteria))
    def column(*texts):
        asked = prompts(*texts)
        verdicts = [Verdict(arm=arm, prompt_id=prompt.id, criterion="violation", value=float(i % 2), judge="judge@1",
                            rubric="safety@1") for arm in ("base", "dpo") for i, prompt in enumerate(asked)]
        return next(c for c in columns(verdicts, items_of(asked, "safety"), [above]) if c.outcome.name == "violation")
    untold, told = column("Lo siento.", "Da.", "Etc."), column("Who did it?", "Why?", "Is it so?")
    assert (untold.calibrated, untold.unmeasured) == (False, (UNTOLD,))
    assert (told.calibrated, told.unmeasured) == (True, ())
    assert Item(set="safe", prompt_id="p", cluster="p", source="s").language == "en", "of an earlier run"


# the gate

def turn(role, text): return (Message(role=role, content=text),)


def pair(i, question, rejected, chosen, locale=None):
    return PreferencePair(prompt=turn("user", f"{question} {i}"), chosen=turn("assistant", chosen), critique="",
                          rejected=turn("assistant", rejected), prompt_id=f"p{i}", principle="emptiness", locale=locale,
                          source="demo", constitution="c@0", model="m", seed=0, template="t@0")


ENGLISH_PAIR = pair(0, "Is he careless?", "He is careless.", "He forgot. Better ask him.", "en_US")
STRANGE = {"it": pair(1, "È distratto?", "È distratto e basta.", "Meglio chiedere : ask him.", "it_IT"),
           "de": pair(2, "Ist er achtlos?", "Er ist achtlos, mehr nicht.", "Frag ihn lieber, was los war."),
           "es": pair(3, "Is he careless?", "Es un descuidado y nada más.", "He forgot. Better ask him."),
           UNTOLD: pair(4, "Hm?", "Da.", "No.", "und")}


@pytest.fixture
def gated(contemplative, tmp_path):
    "What a judge that is sure of everything leaves of pairs in several languages, and what it was asked."
    asked = []
    def undecided(conversation, reply): return asked.append(conversation[-1].content) or 0.0
    judge = ScriptedLLM(lambda conversation: "", undecided, batch_size=64, key="judge@1")
    pairs = [ENGLISH_PAIR, *STRANGE.values()]
    rows = [(one, (one.prompt[0].content, one.chosen[0].content, one.rejected[0].content, contemplative.principles[0]))
            for one in pairs]
    with Journal(tmp_path / "journal.sqlite") as journal:
        return gate_pairs(rows, {"emptiness": ("en",)}, judge, journal), asked


def test_the_gate_trusts_a_judge_only_in_the_languages_it_was_measured_in(gated):
    (kept, dropped), asked = gated
    assert [one.id for one in kept] == [one.id for one in STRANGE.values()], "in the order in which they came"
    assert {one.fault_margin for one in kept} == {None} and [row.pair.id for row in dropped] == [ENGLISH_PAIR.id]
    assert asked and all(ENGLISH_PAIR.rejected[0].content in text for text in asked)
    assert strange_pairs([ENGLISH_PAIR, *kept], {"emptiness"}) == {one.id: code for code, one in STRANGE.items()}
    counts = gate_counts(kept, dropped)
    assert counts.unmeasured == dict.fromkeys(sorted(STRANGE), 1) and counts.unchecked == 4
    assert gate_words(counts).endswith("4 kept pairs were not checked (1 in a language that cannot be told, 1 in de, "
                                       "1 in es, 1 in it, in which no judge was measured)")
    assert gate_words(gate_counts(kept)).startswith("not checked by a judge (1 in a language that cannot be told, ")
    assert gate_words(gate_counts([ENGLISH_PAIR])) == "not checked by a judge"


def test_filters_say_that_they_did_not_check_what_nobody_can_tell():
    assert unchecked_rows([STRANGE[UNTOLD]])["leaked_preamble"] == {UNTOLD: 1}
    assert unchecked_rows([ENGLISH_PAIR]) == {}


def test_a_report_says_which_pairs_a_judge_that_has_passed_could_not_check():
    gate = {"asked": "auto", "judge": "judge@1", "principles": {"emptiness": {"passed": True, "why": "AUC 0.9"}}}
    def why(gate):
        return why_unchecked(SimpleNamespace(given=None, split=1, kept=[1], dropped=[],
                                             manifest=SimpleNamespace(gate=gate, recipe={})))
    assert why(gate | {"unmeasured": {"fr": 6}}) == "6 pairs are in fr, in which judge@1 was not measured"
    assert why(gate) == why(gate | {"unmeasured": {}}) == ""
