"""A step draws once: the prompts, their split and the leaks are handed on, and looked for once."""
import pytest
from support import play

from contemplative_cai.core.files import read_record
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.evaluation import questions
from contemplative_cai.inputs import draw as drawing
from contemplative_cai.inputs.constitution import load_constitution
from contemplative_cai.inputs.draw import Leakage, draw
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.training.rows import training_data

RECIPE = {"n_prompts": 10, "filters": "empty,identical", "model": "random-tiny", "max_length": 256, "answer_tokens": 40,
          "test_share": 0.3, "validation_share": 0.2, "n_eval_prompts": 3, "n_safety": 0, "n_refusal": 0,
          "n_helpful": 0, "n_robustness": 0}


@pytest.fixture
def counts(monkeypatch):
    "How often prompts were drawn, and leaks searched for."
    called = {"find_leaks": 0, "recipe_prompts": 0}

    def count(name, function):
        def counted(*of):
            called[name] += 1
            return function(*of)
        monkeypatch.setattr(drawing, name, counted)

    count("find_leaks", drawing.find_leaks)
    count("recipe_prompts", drawing.recipe_prompts)
    return called


@pytest.fixture
def run(contemplative):
    run = open_run("mine")
    generate_pairs(run, build_recipe(RECIPE), play(contemplative))
    return run


def test_a_generation_that_looks_first_draws_and_searches_once(counts, scripted):
    "As the notebook does it: the counts and the leaks are shown before the first call."
    run, recipe = open_run("mine"), build_recipe(RECIPE)
    drawn = draw(recipe, run)
    assert drawn.leakage.table and not run.path("leakage.json").exists(), "looking writes nothing"
    made = generate_pairs(run, recipe, scripted, drawn)
    assert counts == {"find_leaks": 1, "recipe_prompts": 1}
    assert made.prompts == drawn.prompts and made.split == drawn.split
    assert read_record(run.path("leakage.json"), Leakage) == drawn.leakage


def test_what_is_handed_on_changes_nothing(counts, contemplative):
    recipe, files = build_recipe(RECIPE), ("split.json", "leakage.json", "pairs.jsonl", "dropped.jsonl")
    here, there = open_run("here"), open_run("there")
    generate_pairs(here, recipe, play(contemplative))
    generate_pairs(there, recipe, play(contemplative), draw(recipe, there))
    assert [here.path(name).read_bytes() for name in files] == [there.path(name).read_bytes() for name in files]


@pytest.mark.parametrize("handed", [True, False])
def test_training_draws_and_searches_once(run, counts, handed):
    recipe = build_recipe(RECIPE)
    data = training_data(run, recipe, drawn=draw(recipe, run) if handed else None)
    assert data.train and counts == {"find_leaks": 1, "recipe_prompts": 1}


@pytest.mark.parametrize("handed", [True, False])
def test_evaluation_draws_and_searches_once(run, counts, handed):
    recipe = build_recipe(RECIPE | {"n_refusal": 4, "n_helpful": 2})
    suites = questions.evaluation_suites(run, recipe, drawn=draw(recipe, run) if handed else None)
    assert suites.prompts and counts == {"find_leaks": 1, "recipe_prompts": 1}


def test_what_else_is_learned_from_is_searched_too(run):
    "Helpful data that asks a held-out prompt is found; the draw itself stays what it was."
    drawn = draw(build_recipe(RECIPE), run)
    asked = drawn.part("test")[:1]
    more = drawn.learning({"helpful data": asked})
    assert [leak.held_out_id for leak in more.leakage.leaks] == [asked[0].id] and not drawn.leakage.leaks
    assert drawn.learning({}) is drawn


def test_the_draw_of_another_recipe_is_refused(scripted):
    run, recipe = open_run("mine"), build_recipe(RECIPE)
    other = draw(build_recipe(RECIPE | {"seed": 1}), run)
    with pytest.raises(InputError, match=r"made for a recipe with another seed; call draw\(recipe, run\)"):
        generate_pairs(run, recipe, scripted, other)
    assert not run.path("split.json").exists() and not scripted.calls


def test_parts_are_the_splits(run):
    drawn = draw(build_recipe(RECIPE), run)
    assert {name: [prompt.id for prompt in drawn.part(name)] for name in ("validation", "test")} == {
        name: [prompt.id for prompt in drawn.held_out[name]] for name in ("validation", "test")}
    assert sum(len(drawn.part(name)) for name in ("train", "validation", "test")) == len(drawn.prompts) == 10
    shown = {example.prompt for principle in load_constitution("contemplative").principles
             for example in principle.examples}
    assert {prompt.text for prompt in drawn.learned["worked examples"]} <= shown
