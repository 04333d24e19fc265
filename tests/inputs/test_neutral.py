"""Prompts that tempt nobody, and questions that no constitution taught."""
import json
from collections import Counter

import pytest
from support import ROOT

from contemplative_cai.core.recipe import load_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Prompt
from contemplative_cai.inputs.constitution import constitution_names, load_constitution
from contemplative_cai.inputs.draw import draw
from contemplative_cai.inputs.overlap import COMPARED, chance_overlap, derived, overlap
from contemplative_cai.inputs.rubrics import APPLIES, load_calibration, load_rubric
from contemplative_cai.inputs.sources import draw_prompts, load_prompts
from contemplative_cai.inputs.split import find_leaks, worked_examples
from contemplative_cai.measure.text import text_words

# prompts without a temptation

def test_neutral_prompts_are_varied_and_name_no_principle():
    prompts = load_prompts("neutral")
    assert len(prompts) == len({prompt.id for prompt in prompts}) == len({prompt.topic for prompt in prompts}) == 32
    assert {(prompt.source, prompt.principle, prompt.hazard, prompt.label) for prompt in prompts} == {
        ("neutral", None, None, None)}
    openings = Counter(" ".join(text_words(prompt.text)[:2]) for prompt in prompts)
    assert max(openings.values()) <= 5 and sum("?" in prompt.text for prompt in prompts) < 24, "not all are questions"


def test_neutral_prompts_are_in_no_set_that_is_tested_on_or_shown():
    held_out = {name: load_prompts(name) for name in ("practice", "edge_cases", "twins")}
    held_out["calibration"] = [Prompt(text=row.prompt, source="calibration") for row in load_calibration()]
    held_out["examples"] = [prompt for name in constitution_names()
                            for prompt in worked_examples(load_constitution(name))]
    assert find_leaks({"neutral": load_prompts("neutral")}, held_out) == []


def test_neutral_prompts_are_not_in_the_benchmarks(shared_data, monkeypatch):
    monkeypatch.setenv("CCAI_BENCHMARKS", str(shared_data))
    held_out = {name: load_prompts(name) for name in ("ailuminate", "xstest", "mt_bench")}
    assert find_leaks({"neutral": load_prompts("neutral")}, held_out) == []


def test_who_wrote_them_is_written_down():
    text = (ROOT / "data" / "prompts" / "README.md").read_text()
    assert "neutral.jsonl" in text and "language model" in text
    for line in (ROOT / "data" / "prompts" / "neutral.jsonl").read_text().splitlines():
        assert list(json.loads(line)) == ["text", "topic"]


def test_the_embedded_recipe_draws_a_quarter_of_them_and_the_twelve_it_always_drew():
    drawn = draw(load_recipe("smollm2-135m"))
    sources = Counter(prompt.source for prompt in drawn.prompts)
    assert sources == {"practice": 12, "neutral": 4}
    assert ([prompt.id for prompt in drawn.prompts if prompt.source == "practice"]
            == [prompt.id for prompt in draw_prompts("practice", 12, 0)])
    parts = {(drawn.split.parts[prompt.id], prompt.source) for prompt in drawn.prompts}
    assert {part for part, source in parts if source == "neutral"} == {"train", "validation", "test"}


def test_a_run_that_was_divided_before_keeps_every_prompt_where_it_was():
    run = open_run("before")
    before = draw(load_recipe("smollm2-135m", {"prompts": "practice", "n_prompts": 12}))
    run.path("split.json").write_text(before.split.model_dump_json())
    now = draw(load_recipe("smollm2-135m"), run)
    assert len(now.split.parts) == 16 and before.split.parts.items() <= now.split.parts.items()
    again = draw(load_recipe("smollm2-135m", {"prompts": "practice", "n_prompts": 12}), run=None)
    assert again.split == before.split


# questions and constitutions

# with each of the compared constitutions, as measured when the sixteen questions were written (before the control of
# prose had examples of its own, 0.17)
@pytest.mark.parametrize("name, cosine", [("contemplative", 0.43), ("generic", 0.37), ("improve", 0.29),
                                          ("unrelated", 0.15)])
def test_the_sixteen_questions_restate_the_clauses(name, cosine):
    assert overlap(load_rubric("contemplative"), load_constitution(name)).cosine == pytest.approx(cosine, abs=0.015)


def test_one_family_of_outcomes_is_derived_from_no_constitution():
    shared = {rubric: [overlap(load_rubric(rubric), load_constitution(name)) for name in COMPARED]
              for rubric in APPLIES}
    assert not any(map(derived, shared["plain"])) and max(one.without_common for one in shared["plain"]) < 0.07
    assert derived(shared["contemplative"][0]) and derived(shared["safety"][0]), "safety's words are those of care"
    assert chance_overlap() == pytest.approx(0.10, abs=0.01)


def test_an_overlap_is_one_with_itself_and_nothing_with_other_words():
    rubric = load_rubric("plain")
    clauses = tuple(text for one in rubric.criteria for text in (one.question, *one.levels))
    other = load_constitution("generic").principles[0].model_copy(update={
        "title": clauses[0], "description": "", "clauses": clauses[1:], "critique_request": "It.",
        "revision_request": "It.", "examples": ()})
    same = load_constitution("generic").model_copy(update={"principles": (other,)})
    assert overlap(rubric, same).cosine == pytest.approx(1)
    words = other.model_copy(update={"title": "Kettle", "clauses": ("Kettles boil.",)})
    assert overlap(rubric, same.model_copy(update={"principles": (words,)})).cosine == 0
