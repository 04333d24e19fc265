"""Words of every script, and verdicts as models write them, made by combining what they are made of."""
import re
import time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contemplative_cai.measure.text import (
    THINKING,
    letters_a_word,
    loop,
    normalise,
    similarity,
    stated_verdict,
    text_words,
)

SCRIPTS = {"zh": "你可以坦诚地告诉她", "ja": "心から謝ってください", "th": "คุณลืมวันเกิดเพื่อน", "lo": "ຂໍໂທດຈາກໃຈ",
           "km": "សូមទោសពីចិត្ត", "my": "တောင်းပန်ပါတယ်"}
FORMS = [
    "{label}: {word}",
    "{Label}: **{Word}**",
    "**{Label}: {word}.**",
    "`{label}: {word}`",
    "- {label}: {word}",
    '{label}: "{word}"',
    "Final {label}: {WORD}",
    "{label} - {word}",
    "{Label}： {word}",
    "> {label}: {word}",
    "1. {label}: {word}",
    "## {Label}\n\n{Word}",
    "{label}: \\boxed{{{word}}}",
    "*{Label}*: *{word}*!",
    "It is so. {Label}: {word}.",
    "| {label} | {word} |",
    "The {label} is {word}.",
    "{label}=[[{word}]]",
    '{{"reason": "It helps.", "{label}": "{word}"}}',
    "<{label}>{word}</{label}>",
    "<answer>{label}: {word}</answer>",
    "{label} \u2192 {word}",
    "{Label}: \u2705 {word}",
    "{Label}: ({word})",
    "{label}: definitely {word}",
    "{label}: it is {word}.",
    "{label}: a clear {word}",
    "{label}: [x] {word} [ ] unsure",
    "{label}: ~~unsure~~ {word}",
    "{label}\u200b: {word}\u2060",
]
TAILS = ["", "\n\nAsk me for more.", "</s>", "<|im_end|>", "\nIt rests on the last sentence."]
OFFERED = {"verdict": ("no", "partly", "yes"), "violates": ("yes", "partly", "no")}


def written(form, label, word):
    return form.format(label=label, Label=label.capitalize(), word=word, Word=word.capitalize(), WORD=word.upper())


@pytest.mark.parametrize("label", OFFERED)
def test_a_verdict_is_read_however_it_is_dressed_up(label):
    for form, word, tail in product(FORMS, OFFERED[label], TAILS):
        text = f"It helps her.\n{written(form, label, word)}{tail}"
        assert stated_verdict(text, label, OFFERED[label])[:2] == (word, ()), text


@pytest.mark.parametrize("opens, closes", THINKING)
def test_what_was_thought_is_no_verdict(opens, closes):
    "By whatever marks a model's template has, with both and with the closing one alone, and cut off before the answer."
    for label, words in OFFERED.items():
        for one, other in product(words, repeat=2):
            thought = f"{label}: {one}\n{closes}\nIt helps.\n{label}: {other}"
            for text in (f"{opens}\n{thought}", thought): assert stated_verdict(text, label, words).word == other, text
            assert stated_verdict(f"{opens}\n{label}: {one}\n", label, words).word is None


@pytest.mark.parametrize("label", OFFERED)
def test_forms_questions_and_contradictions_state_nothing(label):
    for one, other in product(OFFERED[label], repeat=2):
        for sign in ("/", " / ", ", ", " | ", " or ", " \u2192 ", " \u21d2 "):
            if one != other:
                assert stated_verdict(f"So.\n{label}: {one}{sign}{other}", label, OFFERED[label]).word is None
        for sign in (", but ", " - or rather ", ", though perhaps ", " and "):
            if one != other:
                assert stated_verdict(f"So.\n{label}: {one}{sign}{other}", label, OFFERED[label]).word is None
        both = stated_verdict(f"So.\n{label}: {one}\nAgain.\n{label}: {other}", label, OFFERED[label])
        assert both.word == (one if one == other else None)
        assert (
            stated_verdict(f"{label}: {one}\nAgain.\n{label}: {other}", label, OFFERED[label], last=True).word == other
        )
        assert stated_verdict(f"So.\n{label}: {one}?", label, OFFERED[label]).word is None
        assert stated_verdict(f"So.\n{label}: [ ] {one}", label, OFFERED[label]).word is None
        assert stated_verdict(f"So.\n{label}: ~~{one}~~", label, OFFERED[label]).word is None
    for text in ("", "Yes.", f"{label}: maybe", f"{label}: nothing", f"{label}: not yes", f"{label}s: yes"):
        assert stated_verdict(text, label, OFFERED[label]).word is None, text


@given(st.text(max_size=300), st.sampled_from(list(OFFERED)))
def test_any_text_is_read_and_none_is_invented(text, label):
    stated = stated_verdict(text, label, OFFERED[label])
    assert stated.word is None or label in text.lower() or "boxed" in text or "[[" in text


@pytest.mark.parametrize("part", ["<think>", "</think>", "verdict: ", "verdict: yes, ", "verdict is ", "[[", "my the ",
                                  "\n", ". ", "- ", "**", "yes ", "a\n", "[ ] a", "~~", "<verdict>", ", ",
                                  "verdict: it is ", "\u2192", "<|channel>thought", "verdict \u2192 "])
def test_a_megabyte_is_read_in_seconds(part):
    started = time.monotonic()
    stated_verdict(part * (1_000_000 // len(part)), "verdict", ("yes", "no"))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_phrase_sixty_times_over_is_found_in_every_script(name):
    phrase = SCRIPTS[name]
    assert loop(phrase * 60) and not loop(phrase)
    assert letters_a_word(text_words(phrase)) == (2 if name in ("zh", "ja") else 4)
    assert similarity(phrase, phrase[:-1]) > 0.5 > similarity(phrase, "Say sorry.")
    assert len(text_words(phrase * 5)) == 5 * len(text_words(phrase)) > 20


@given(st.text(alphabet=st.characters(max_codepoint=0x2ff), max_size=200))
def test_words_that_spaces_divide_are_what_they_were(text): assert text_words(text) == normalise(text).split()


@given(st.text(max_size=200))
def test_words_lose_no_letter(text):
    assert ("".join(re.findall(r"\w", "".join(text_words(text))))
            == "".join(re.findall(r"\w", normalise(text).replace(" ", ""))))
