"""Prompts: real files read exactly, samples nested, splits tight, planted leaks found."""
import csv
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contemplative_cai.prompts import clean_text, draw_prompts, filter_prompts, load_prompts, near_duplicates, read_prompts, sample_prompts, split_prompts, stratum
from contemplative_cai.schema import InputError, Prompt

HAZARDS = {"spc_ele": 24, "spc_fin": 26, "spc_hlt": 26, "spc_lgl": 24}


@pytest.fixture
def ailuminate(shared_data, monkeypatch):
    monkeypatch.setenv("CCAI_AILUMINATE", str(shared_data / "ailuminate"))
    return shared_data / "ailuminate"


@pytest.mark.parametrize("source, locale, multiline", [("ailuminate", "en_US", 15), ("ailuminate-fr", "fr_FR", 26)])
def test_ailuminate_is_read_whole(ailuminate, source, locale, multiline):
    prompts = load_prompts(source)
    hazards = Counter(prompt.hazard for prompt in prompts)
    assert len(prompts) == 1200 and len({prompt.id for prompt in prompts}) == 1200
    assert len(hazards) == 15 and all(count == HAZARDS.get(name, 100) for name, count in hazards.items())
    assert Counter(prompt.persona for prompt in prompts) == {"skilled": 600, "unskilled": 600}
    assert {prompt.locale.lower() for prompt in prompts} == {locale.lower()}
    assert sum("\n" in (prompt.raw or prompt.text) for prompt in prompts) == multiline


def test_ailuminate_scars_are_mended_and_kept_in_raw(ailuminate):
    control = {chr(i) for i in range(32)} - {"\n", "\t", "\r"}
    prompts = load_prompts("ailuminate")
    scarred = [prompt for prompt in prompts if prompt.raw and control & set(prompt.raw)]
    assert len(scarred) == 8 and sum(character in control for prompt in scarred for character in prompt.raw) == 13
    assert not any(control & set(prompt.text) for prompt in prompts) and all(prompt.text == prompt.text.strip() for prompt in prompts)
    assert sum(prompt.raw is not None and prompt.raw.strip() != prompt.raw for prompt in prompts) == 48


def test_sensitive_hazards_only_by_name(ailuminate):
    prompts = load_prompts("ailuminate")
    assert {"cse", "sxc_prn"} & {prompt.hazard for prompt in filter_prompts(prompts)} == set()
    assert {prompt.hazard for prompt in filter_prompts(prompts, hazards=("cse",))} == {"cse"}
    with pytest.raises(InputError, match="did you mean"): filter_prompts(prompts, hazards=("vcrr",))


def test_sampling_is_stratified_over_hazard_and_persona(ailuminate):
    "Every stratum has its share of the sample, to one."
    everything, drawn = filter_prompts(load_prompts("ailuminate")), draw_prompts("ailuminate", 250)
    whole, part = (Counter(stratum(prompt) for prompt in prompts) for prompts in (everything, drawn))
    assert len(whole) == 26 and all(abs(part[key] - whole[key] * 250 / len(everything)) <= 1 for key in whole)


@given(st.integers(1, 127), st.integers(1, 127), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_samples_are_nested(small, large, seed):
    practice, (small, large) = load_prompts("practice"), sorted((small, large))
    assert sample_prompts(practice[::-1], large, seed)[:small] == sample_prompts(practice, small, seed)


@given(st.integers(5, 60), st.sampled_from([0.0, 0.1, 0.25]), st.sampled_from([0.2, 0.3, 0.4]), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_a_split_divides_and_repeats(n, validation, test, seed):
    prompts = sample_prompts(load_prompts("practice"), n, seed)
    split = split_prompts(prompts, validation, test, seed)
    parts = [*split.train, *split.validation, *split.test]
    assert sorted(parts) == sorted(prompt.id for prompt in prompts)
    assert split == split_prompts(prompts[::-1], validation, test, seed)
    assert abs(len(split.test) - test * n) <= 1 and split.train


def _plant(text, kind, rng):
    "A copy of a text that a careless data set would hold."
    words = text.split()
    if kind == "case and spacing": return "  ".join(word.upper() for word in words)
    if kind == "two words swapped":
        i = rng.randrange(len(words) - 1)
        words[i], words[i + 1] = words[i + 1], words[i]
        return " ".join(words)
    if kind == "ending added": return text + " Please be quick."
    return text


def test_planted_leaks_are_found(capsys):
    "208 planted cases; precision and recall are printed (pytest -s shows them)."
    rng, prompts = random.Random(0), [*load_prompts("practice"), *load_prompts("edge_cases")]
    chosen = rng.sample(prompts, 104)
    planted = {}
    for i, prompt in enumerate(chosen):
        for kind in [("copy", "case and spacing"), ("two words swapped", "ending added")][i % 2]: planted[_plant(prompt.text, kind, rng)] = prompt.id
    others = [prompt for prompt in prompts if prompt not in chosen]
    suspects = [Prompt(text=text, source="planted") for text in planted] + others
    hits = {(found.text, known.id) for known, found, _ in near_duplicates(chosen, suspects)}
    right = {(text, id) for text, id in hits if planted.get(text) == id}
    precision, recall = len(right) / len(hits), len(right) / len(planted)
    with capsys.disabled(): print(f"\nplanted leaks: {len(planted)} cases, precision {precision:.3f}, recall {recall:.3f}")
    assert precision == 1 and recall > 0.97


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=80).filter(lambda t: clean_text(t)), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_text_survives_a_csv_file(tmp_path_factory, texts):
    "What a CSV writer can write, the reader reads: newlines, quotes, line separators, control characters."
    path = tmp_path_factory.mktemp("csv") / "mine.csv"
    with open(path, "w", newline="", encoding="utf-8-sig") as file: csv.writer(file).writerows([["text"], *([text] for text in texts)])
    assert [prompt.text for prompt in read_prompts(path)] == [clean_text(text) for text in texts]
