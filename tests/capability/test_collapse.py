"""Signs of collapse: each is found where it is there, and none where it is not."""
import math
import random

import pytest
import torch
from support import NOUNS

from contemplative_cai.capability.collapse import (
    COLLAPSE_SIGNS,
    CollapseLimits,
    collapse_figures,
    collapse_findings,
    plain_paragraphs,
    plain_perplexity,
)
from contemplative_cai.capability.items import battery_items
from contemplative_cai.core.schema import Answer, InputError
from contemplative_cai.measure.text import text_words
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.local import load_llm


def words(number, count=30): return " ".join(random.Random(number).choices(NOUNS, k=count)) + "."


def answers(texts, ends=None):
    return [Answer(arm="dpo", prompt_id=str(i), source="practice", text=text, model="tiny",
                   finish_reason=ends[i] if ends else "stop", failure=None if text is not None else "refused")
            for i, text in enumerate(texts)]


BASE = collapse_figures(answers([words(i) for i in range(40)]), 20.0)
SIGNS = {  # what a sign looks like in 40 answers
    "empty": answers([words(i) for i in range(36)] + ["", " ", "...", "\n"]),
    "repetition": answers([words(i) for i in range(34)] + ["round and round it goes, " * 6] * 6),
    "cut": answers([words(i) for i in range(40)], ["stop"] * 30 + ["length"] * 10),
    "words": answers([words(i, 10) for i in range(40)]),
    "distinct": answers([f"{words(0, 29)[:-1]} {words(i, 1)}" for i in range(40)]),
}


@pytest.mark.parametrize("sign", SIGNS)
def test_a_sign_is_found_where_it_is_and_alone(sign):
    findings = collapse_findings(BASE, collapse_figures(SIGNS[sign], 20.0))
    assert [finding.sign for finding in findings] == [sign]
    assert COLLAPSE_SIGNS[sign] in findings[0].words and "in the base" in findings[0].words


def test_a_whole_arm_has_no_finding_in_either_direction():
    other = collapse_figures(answers([words(100 + i, 26) for i in range(40)]), 24.0)
    assert collapse_findings(BASE, BASE) == collapse_findings(BASE, other) == collapse_findings(other, BASE) == []


def test_what_got_better_is_no_finding():
    worse = collapse_figures(SIGNS["cut"] + SIGNS["empty"] + SIGNS["repetition"] + SIGNS["distinct"], 90.0)
    assert [finding.sign for finding in collapse_findings(BASE, worse)][-1] == "perplexity"
    assert collapse_findings(worse, BASE) == []


def test_longer_answers_are_found_and_the_limits_are_the_callers():
    longer = collapse_figures(answers([words(i, 90) for i in range(40)]), 20.0)
    assert "more than 2.5 times as many" in next(f.words for f in collapse_findings(BASE, longer) if f.sign == "words")
    assert "words" not in {f.sign for f in collapse_findings(BASE, longer, CollapseLimits(longest=4))}
    slightly = collapse_figures(answers([words(i) for i in range(40)], ["stop"] * 36 + ["length"] * 4), 20.0)
    assert collapse_findings(BASE, slightly) == []
    assert [f.sign for f in collapse_findings(BASE, slightly, CollapseLimits(cut=0.05))] == ["cut"]


def test_a_limit_itself_is_not_beyond_the_limit():
    at = collapse_figures(answers([words(i) for i in range(36)] + ["a b c " * 9] * 4), 30.0)
    assert at.repetition == 0.1 and collapse_findings(BASE, at) == []


def test_what_is_unknown_is_not_compared_and_failed_calls_are_left_out():
    unknown = collapse_figures(answers([words(i) for i in range(38)] + [None, None], [None] * 40))
    assert (unknown.n, unknown.cut, unknown.empty, unknown.perplexity) == (38, None, 0.0, None)
    assert collapse_findings(BASE, unknown) == []
    nothing = collapse_figures(answers([None, None], [None, None]))
    assert (nothing.n, nothing.words, nothing.repetition) == (0, None, None)
    assert collapse_findings(BASE, nothing) == collapse_findings(nothing, BASE) == []


def test_distinct_runs_do_not_fall_with_length_and_answers_too_short_have_none():
    def distinct(texts): return collapse_figures(answers(texts)).distinct
    short, long = ([words(i, count) for i in range(20)] for count in (40, 400))
    assert distinct(long) == pytest.approx(distinct(short), abs=0.01)
    assert distinct(["One two three."] * 4) == 0.25 and distinct(["Yes.", "No no."]) is None


def test_plain_paragraphs_are_long_enough_distinct_and_no_part_of_the_battery(tmp_path):
    paragraphs = plain_paragraphs()
    assert len(paragraphs) == 6 and all(50 <= len(text_words(text)) <= 80 for text in paragraphs)
    assert collapse_figures(answers(paragraphs)).distinct > 0.95
    items = " ".join(" ".join(text_words(str(item.model_dump()))) for item in battery_items())
    for text in paragraphs:
        runs = [" ".join(text_words(text)[i:i + 7]) for i in range(len(text_words(text)) - 6)]
        assert not [run for run in runs if run in items]
    (tmp_path / "own.txt").write_text("A line\nthat goes on.\n\n\nAnother.\n")
    assert plain_paragraphs(tmp_path / "own.txt") == ["A line that goes on.", "Another."]
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(InputError, match="empty.txt: the file is empty"): plain_paragraphs(tmp_path / "empty.txt")
    with pytest.raises(InputError, match="expected paragraphs there"): plain_paragraphs(tmp_path / "no.txt")


def test_perplexity_is_the_exponential_of_the_mean_loss_of_transformers():
    llm, paragraphs = load_llm(model_spec("random-tiny"), "float32", "cpu"), plain_paragraphs()[:2]
    losses, counts = [], []
    for text in paragraphs:
        row = torch.tensor([llm.tokenizer(text)["input_ids"]])
        with torch.inference_mode(): losses.append(llm.model(row, labels=row, use_cache=False).loss.item())
        counts.append(row.shape[1] - 1)
    mean = sum(loss * count for loss, count in zip(losses, counts)) / sum(counts)
    assert plain_perplexity(llm, paragraphs) == pytest.approx(math.exp(mean), rel=1e-4)
