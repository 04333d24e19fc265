"""Sets are counted as they are settled: one that can never have an interval is refused, whichever keys made it so."""
import csv
import re

import pytest
from support import borrowed_prompts, matter

from contemplative_cai.command.commands import main
from contemplative_cai.command.plan import held_out_lines
from contemplative_cai.core.files import write_record, write_text
from contemplative_cai.core.recipe import build_recipe, load_recipe, recipe_names
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.evaluation.claims import known_outcomes
from contemplative_cai.evaluation.evaluate import declare_evaluation
from contemplative_cai.evaluation.settled import (
    REMEDIES,
    check_held_out,
    check_sets,
    held_out_remedies,
    held_out_units,
    independent_prompts,
    set_sizes,
    settled_suites,
)
from contemplative_cai.inputs.draw import draw

NONE = {"n_safety": 0, "n_refusal": 0, "n_helpful": 0, "n_robustness": 0, "n_games": 0}
FEW = ["--recipe", "smoke", "-p", "n_prompts=8", "-p", "test_share=0.2", "-p", "n_eval_prompts=0",
       "-p", "n_robustness=0", "-p", "n_helpful=0"]


def own_prompts(folder, count):
    with open(folder / "own.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text"], *([f"Where do {name} begin?"] for name in
                                                ("knots", "kites", "ferns", "drums", "maps")[:count])])
    return str(folder / "own.csv")


def refused(**keys):
    recipe = build_recipe(NONE | keys)
    with pytest.raises(InputError) as error: check_sets(settled_suites(None, recipe), recipe)
    return error.value.problems


def test_a_set_made_too_small_by_several_keys_is_refused_with_the_number_that_is_enough():
    few = {"n_prompts": 8, "test_share": 0.2, "n_eval_prompts": 0}
    (problem,) = refused(**few)
    assert problem.startswith("contemplative: 2 independent prompts can never") and "n_eval_prompts: 3 or" in problem
    enough = build_recipe(NONE | few | {"n_eval_prompts": 3})
    check_sets(settled_suites(None, enough), enough)


def test_sets_that_are_drawn_from_others_are_counted_too(tmp_path):
    few = {"n_prompts": 8, "test_share": 0.2, "n_eval_prompts": 0}
    assert [problem.split(":")[0] for problem in refused(**few, n_robustness=5)] == ["contemplative", "robustness"]
    (safety,) = refused(safety=own_prompts(tmp_path, 3), n_safety=20)
    assert safety.startswith("safety: 3 independent prompts") and "name sources in safety" in safety
    five = build_recipe(NONE | {"safety": own_prompts(tmp_path, 5), "n_safety": 20})
    check_sets(settled_suites(None, five), five)


def test_near_duplicates_count_once(tmp_path):
    with open(tmp_path / "own.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text"], *([f"Where do all of the small brown birds of the old town sleep{end}"]
                                                for end in ("?", "", "!", ".", "??", "?!"))])
    (problem,) = refused(safety=str(tmp_path / "own.csv"), n_safety=20)
    assert problem.startswith("safety: 1 independent prompt can never")


def test_no_shipped_recipe_is_refused_with_benchmarks_or_without(tmp_path, monkeypatch):
    for folder in (tmp_path / "empty", borrowed_prompts(tmp_path / "full")):
        monkeypatch.setenv("CCAI_BENCHMARKS", str(folder))
        for name in recipe_names():
            recipe = load_recipe(name)
            if name == "qwen2.5-7b":  # its prompts are AILuminate's
                recipe = recipe.model_copy(update={"prompts": load_recipe("smoke").prompts, "n_prompts": 96})
            check_sets(settled_suites(None, recipe), recipe)


def test_every_set_on_which_a_claim_can_be_declared_is_looked_at():
    sets = {outcome.set for outcome in known_outcomes() if outcome.home} - {"all", "games"}
    assert sets | {"robustness"} == set(REMEDIES)


def test_declare_and_run_refuse_and_write_nothing(runs, capsys):
    for words in (["declare", "tiny"], ["run", "quickstart", "--run", "tiny"], ["run", "all", "--run", "tiny"]):
        assert main([*words, *FEW]) == 2
        assert "contemplative: 2 independent prompts can never have an interval" in capsys.readouterr().err
        assert not runs.exists()


def test_what_was_begun_with_fewer_goes_on(runs, capsys):
    assert main(["declare", "tiny", *FEW, "-p", "n_eval_prompts=3"]) == 2, "a key that is given twice"
    fine = [word if word != "n_eval_prompts=0" else "n_eval_prompts=3" for word in FEW]
    assert main(["declare", "tiny", *fine]) == 0
    assert main(["declare", "tiny", "-p", "n_eval_prompts=1"]) == 2
    assert "contemplative: 3 independent" in capsys.readouterr().err
    write_text(runs / "tiny" / "evaluation.json", "{}")
    assert main(["declare", "tiny", "-p", "n_eval_prompts=1"]) == 0


def test_a_plan_a_declaration_and_the_evaluation_count_alike(runs):
    recipe = build_recipe(NONE | {"n_refusal": 9, "primary_outcome": "refusal", "model": "random-tiny"})
    run = open_run("alike")
    suites = settled_suites(run, recipe)
    refusal = next(outcome for outcome in known_outcomes() if outcome.name == "refusal")
    counts = independent_prompts(suites, recipe, refusal), set_sizes(suites)["safe"]
    assert counts == (declare_evaluation(run, recipe, (), suites, "dpo").planned.prompts,) * 2


# what is held out of the pairs

@pytest.mark.parametrize("keys, held, remedies", [
    ({"n_prompts": 12}, 4, "write n_prompts: 16 or more, test_share: 0.38 or more, or test_share: 0 for none"),
    ({"n_prompts": 30, "test_share": 0.1}, 3, "write n_prompts: 46 or more, test_share: 0.16 or more, or"),
    ({"n_prompts": 4}, 1, "write n_prompts: 16 or more, or test_share: 0 for none"),
])
def test_held_out_pairs_that_can_never_have_an_interval_are_refused_with_the_number_that_can(keys, held, remedies):
    recipe = build_recipe(keys)
    with pytest.raises(InputError) as error: check_held_out(draw(recipe), recipe)
    assert f"{held} of {recipe.n_prompts} independent prompts" in str(error.value) and remedies in str(error.value)


@pytest.mark.parametrize("keys", [{}, {"n_prompts": 12, "test_share": 0.38}, {"n_prompts": 30, "test_share": 0.16},
                                  {"n_prompts": 46, "test_share": 0.1}, {"n_prompts": 4, "test_share": 0}])
def test_the_numbers_that_are_named_are_enough(keys):
    check_held_out(draw(recipe := build_recipe(keys)), recipe)


def test_every_shipped_recipe_holds_out_enough(tmp_path, monkeypatch):
    for name in set(recipe_names()) - {"qwen2.5-7b"}: check_held_out(draw(recipe := load_recipe(name)), recipe)


def test_what_trains_is_refused_and_what_makes_a_data_set_is_told(runs, capsys):
    few = ["--recipe", "smoke", "--run", "few", "-p", "n_prompts=8", "--dry-run"]
    assert main(["run", "all", *few]) == 2
    assert "test_share: 2 of 8 independent prompts are held out" in capsys.readouterr().err
    assert main(["run", "generate", *few]) == 0
    assert "note     test_share: 2 of 8 independent prompts are held out" in capsys.readouterr().out
    assert not runs.exists()


def near_duplicates(folder, groups, twins):
    "Prompts in groups of near duplicates; so many groups have a second wording."
    texts = [f"Shall I ask about {matter(i)}{end}" for i in range(groups)
             for end in (("?", ", or not?") if i < twins else ("?",))]
    with open(folder / "own.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    return str(folder / "own.csv")


def named_numbers(message):
    "What the message says to write instead, by key; not the 0 for none."
    return {key: float(value) if key == "test_share" else int(value)
            for key, value in re.findall(r"(n_prompts|test_share): ([\d.]+) or more", message)}


@pytest.mark.parametrize("share", [0.25, 0.28, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_near_duplicates_are_held_out_as_one_and_the_numbers_that_are_named_are_enough(tmp_path, share, seed):
    def drawn(number): return build_recipe({"prompts": own, "n_prompts": number, "test_share": share, "seed": seed})
    own = near_duplicates(tmp_path, 30, 30)
    recipe = next(one for one in map(drawn, range(20, 5, -1)) if held_out_units(draw(one))[0] < 5)
    held, there = held_out_units(draw(recipe))
    assert there < recipe.n_prompts
    with pytest.raises(InputError, match=f"{held} of {there} independent prompts") as error:
        check_held_out(draw(recipe), recipe)
    numbers = named_numbers(str(error.value))
    assert set(numbers) == {"n_prompts", "test_share"}
    assert numbers["n_prompts"] > recipe.n_prompts and numbers["test_share"] > share
    for key, value in numbers.items():
        for more in (0, 1, 2):
            changed = recipe.model_copy(update={key: value + more * (0.05 if key == "test_share" else 3)})
            check_held_out(draw(changed), changed)
    none = recipe.model_copy(update={"test_share": 0.0})
    check_held_out(draw(none), none)


def test_sources_that_have_no_more_are_not_told_to_give_more(tmp_path):
    recipe = build_recipe({"prompts": near_duplicates(tmp_path, 14, 6), "n_prompts": 20, "test_share": 0.28})
    assert held_out_units(draw(recipe)) == (4, 14)
    with pytest.raises(InputError, match="name sources with more prompts, test_share: 0.33 or more, or") as error:
        check_held_out(draw(recipe), recipe)
    assert "n_prompts" not in str(error.value)


def test_a_share_that_holds_out_nothing_is_refused_as_one_that_holds_out_too_little():
    recipe = build_recipe({"n_prompts": 16, "test_share": 0.03})
    with pytest.raises(InputError, match="0 of 16 independent prompts are held out") as error:
        check_held_out(draw(recipe), recipe)
    assert ", ".join(held_out_remedies(draw(recipe), recipe)) in str(error.value)
    assert held_out_lines(recipe)[1].endswith(", ".join(held_out_remedies(draw(recipe), recipe)))


def test_whole_hazards_and_shared_splits_are_told_what_they_can_do(tmp_path):
    by_principle = build_recipe({"n_prompts": 8, "split_by": "principle"})
    with pytest.raises(InputError, match="write more of the principles in held_out, or split_by: cluster"):
        check_held_out(draw(by_principle), by_principle)
    few = build_recipe({"n_prompts": 8})
    write_record(tmp_path / "split.json", draw(few).split)
    shared = few.model_copy(update={"split": str(tmp_path / "split.json")})
    with pytest.raises(InputError, match="name a split that holds out more, or none$"):
        check_held_out(draw(shared), shared)
