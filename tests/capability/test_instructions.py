"""The rules for instructions: each check followed and not followed, and where a rule could be fooled."""
import pytest

from contemplative_cai.capability.instructions import (
    CHECK_RULES,
    bullet_count,
    follows,
    follows_all,
    placeholder_count,
    sentence_count,
)
from contemplative_cai.capability.items import CHECK_ARGUMENTS, Check, battery_items

WORDS, SENTENCES = "length_constraints:number_words", "length_constraints:number_sentences"


def check(name, **arguments): return Check(check=name, **arguments)


CASES = [  # a check, answers that follow it, answers that do not
    (check("keywords:existence", keywords=("ants", "basket")),
     ["A basket, and then the Ants.", "BASKET ants", "ants-and-basket"],
     ["A basket that everybody wants.", "Ants.", "ant basket", "baskets of ants"]),
    (check("keywords:forbidden_words", forbidden_words=("star", "stars")),
     ["It starts to burn.", "A starry night."], ["A Star!", "star-like", "The stars."]),
    (check(WORDS, relation="less than", num_words=3), ["Two words.", "one"], ["Now three words.", "a b c d"]),
    (check(WORDS, relation="at least", num_words=3), ["Now three words.", "a b c d"], ["Two words.", "one - - -"]),
    (check(SENTENCES, relation="less than", num_sentences=2), ["One.", "Mr. Hall paid 3.5 euros", "One"],
     ["One. Two.", "One\n\nTwo"]),
    (check(SENTENCES, relation="at least", num_sentences=2), ["One. Two", "\"Go!\" He went.", "One?! Two."],
     ["One.", "1. One", "e.g. one", "One... ..."]),
    (check("detectable_format:number_bullet_lists", num_bullets=2),
     ["* a\n* b", "Here:\n\n  - a\n  + b\nDone.", "* a\n***\n* b"],
     ["* a", "* a\n* b\n* c", "**a**\n**b**", "*a\n*b", "1. a\n2. b", "* \n* "]),
    (check("detectable_format:title"), ["<<A Snail>>\nSlow.", "So: << The Candle >>"],
     ["A Snail", "<A Snail>", "<< >>", "<<A\nSnail>>"]),
    (check("detectable_content:postscript", postscript_marker="P.S."),
     ["Dear you,\n\nP.S. Write soon.", "Dear you.\np. s. I wave", "Dear you.\n**P.S.** Bye", "Dear you.\nP.S.\nBye"],
     ["Dear you.", "Dear you.\nP.S.", "P.S. Write soon.", "The letters P.S. in a line.", "Dear you.\nPS Bye"]),
    (check("detectable_content:number_placeholders", num_placeholders=2),
     ["Dear [name], come on [date].", "[name] [name] [your place]"],
     ["Dear [name].", "Dear name, date.", "[ ] one [x] two", "[a link](b) and [another](c)"]),
    (check("change_case:english_lowercase"), ["all small, 3 times", "a"], ["All small", "3.5", "ALL"]),
    (check("change_case:english_capital"), ["ALL LARGE, 3 TIMES", "A"], ["ALL LARGEr", "3.5", "all"]),
    (check("startend:end_checker", end_phrase="See you soon."),
     ["Have fun. See you soon.", "see you SOON.", "\"Have fun. See you soon.\"", "**See you soon.**\n"],
     ["See you soon. Bye.", "Have fun.", "See you soon!", "See you soon"]),
    (check("startend:quotation"), ["\"Courage is calm.\"", "“Arr!”\n", "\"A\""],
     ["Courage is \"calm\"", "\"Arr!", "Arr!\"", "'Arr!'", "\"\""]),
    (check("punctuation:no_comma"), ["No such sign; none.", "3.5"], ["One, two", "1,000", "一，二"]),
    (check("language:response_language", language="en"),
     ["The dog sleeps under the table and dreams of a large bone.", "Hello, how are you today?"],
     ["Der Hund schläft unter dem Tisch und träumt von einem großen Knochen.", "Bonjour, comment allez-vous ?", "3.5"]),
]


@pytest.mark.parametrize("check, answers", [(check, followed) for check, followed, _ in CASES],
                         ids=[check.check + (check.relation or "") for check, *_ in CASES])
def test_a_check_is_followed_by(check, answers):
    assert [answer for answer in answers if not follows(check, answer)] == []


@pytest.mark.parametrize("check, answers", [(check, missed) for check, _, missed in CASES],
                         ids=[check.check + (check.relation or "") for check, *_ in CASES])
def test_a_check_is_not_followed_by(check, answers):
    assert [answer for answer in answers if follows(check, answer)] == []


def test_every_check_has_a_rule_and_is_tried_both_ways():
    assert set(CHECK_RULES) == set(CHECK_ARGUMENTS) == {check.check for check, *_ in CASES}


@pytest.mark.parametrize("answer", ["", " \n\t", "...", "\"\"", "* \n* \n* ", "___"])
def test_an_answer_without_a_word_follows_nothing_whatever_is_asked(answer):
    assert not any(follows(check, answer) for check, *_ in CASES)
    assert not any(follows(check, answer) for item in battery_items(kinds=["instruction"]) for check in item.checks)


def test_one_check_that_is_missed_is_enough():
    short, smooth = check(WORDS, relation="less than", num_words=4), check("punctuation:no_comma")
    assert follows_all([short, smooth], "Three plain words")
    assert not follows_all([short, smooth], "Three, plain words")
    assert not follows_all([short, smooth], "Now these are five words")


@pytest.mark.parametrize("count, text, number", [
    (sentence_count, "Dr. Hall met J. Smith. They left", 2), (sentence_count, "1. Stir.\n2. Wait!", 2),
    (sentence_count, "(He left.) She stayed.", 2), (sentence_count, "Wait... what?", 2), (sentence_count, "", 0),
    (bullet_count, "- [ ] milk\n\t* eggs\n-no\n- ", 2), (placeholder_count, "[Your Name]\n[the\ndate] [12]", 1),
])
def test_what_is_counted(count, text, number): assert count(text) == number
