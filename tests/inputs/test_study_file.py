"""A study's file: what it says, what is wrong with it, its cells, and what it declared."""
import pytest

from contemplative_cai.core.project import project_root
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.schema import InputError, digest
from contemplative_cai.inputs.given import run_pairs
from contemplative_cai.inputs.study import (
    build_study,
    declare_study,
    read_declared_study,
    read_study,
    study_cells,
    study_path,
)

SHIPPED = sorted(path.stem for path in (project_root() / "configs" / "studies").glob("*.yaml"))
GRID = {"recipe": "quickstart", "axes": {"content": {"ours": {"pairs": "contemplative-512"}, "theirs": {"pairs": "x"}},
                                         "training": ["sft", "sft+dpo"]}, "seeds": {"training": [1, 2], "data": [7]}}


def faults(**changes):
    with pytest.raises(InputError) as error: build_study(GRID | changes, "mine.yaml", "mine")
    return error.value.problems


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_says_what_it_asks_and_has_cells(name):
    study = read_study(study_path(name))
    assert study.name == name and study_path(name).read_text().startswith("# ")
    cells = study_cells(study)
    assert len(cells) == len({cell.run for cell in cells}) > 5
    assert {cell.training_seed for cell in cells} == {1, 2, 3}


def test_cells_are_runs_with_keys_of_their_own_repetitions_outermost():
    cells = study_cells(build_study(GRID, "mine.yaml", "mine"))
    assert [cell.run for cell in cells[:5]] == [
        "mine.ours.sft.d7.t1", "mine.ours.sft-dpo.d7.t1", "mine.theirs.sft.d7.t1", "mine.theirs.sft-dpo.d7.t1",
        "mine.ours.sft.d7.t2"]
    assert cells[1].keys == {"pairs": "contemplative-512", "training": "sft+dpo", "data_seed": 7, "training_seed": 1}


def test_rules_leave_cells_out_and_a_level_goes_before_a_setting():
    rules = {"without": [{"content": "theirs", "training": "sft,sft-dpo"}], "settings": {"pairs": "y"}}
    study = build_study(GRID | rules, "mine.yaml", "mine")
    assert {cell.levels["content"] for cell in study_cells(study)} == {"ours"}
    assert study_cells(study)[0].keys["pairs"] == "contemplative-512"
    nothing = GRID | {"without": [{"content": ["ours", "theirs"]}]}
    with pytest.raises(InputError, match="leaves out every cell"): study_cells(build_study(nothing, "m.yaml", "m"))


def test_without_a_family_the_first_level_is_held_against_all_others():
    family = build_study(GRID, "mine.yaml", "mine").contrasts
    assert (family.axis, family.level, family.against) == ("content", "ours", ("theirs", "base"))


@pytest.mark.parametrize("changes,words", [
    ({"axes": {}}, "axes"), ({"axes": {"content": {"a": {"pair": "x"}}}}, "unknown key 'pair'; did you mean 'pairs'"),
    ({"axes": {"content": {"a": 5}}}, "expected keys of the recipe"),
    ({"axes": {"n_pairs": [60, 60]}}, "two levels are called '60'"),
    ({"axes": {"content": {"a b": {}}}}, "expected a name of letters"),
    ({"axes": {"a": {"x": {"beta": 1}}, "b": {"y": {"beta": 2}}}}, "both set beta"),
    ({"settings": {"training_seed": 4}}, "write seeds"), ({"nmae": 1}, "unknown key 'nmae'"),
    ({"family": {"axis": "contents", "level": "ours", "against": "base"}}, "no axis 'contents'; did you mean"),
    ({"family": {"axis": "content", "level": "ours", "against": "ours"}}, "held against itself"),
    ({"family": {"axis": "content", "level": "base", "against": "ours"}}, "base is what a level is held against"),
    ({"axes": {"content": {"base": {}, "ours": {"beta": 0.2}}}}, "no level may be called base"),
    ({"family": {"axis": "content", "level": "ours", "against": ["base", "base"]}}, "names one of them twice"),
    ({"without": [{"content": "mine"}]}, "has no level 'mine'"),
    ({"seeds": {"training": [1, 1]}}, "expected each once"),
    ({"doses": {"weight": [-1]}}, "doses.weight"), ({"name": "a.b"}, "name"), ({"recipe": ""}, "recipe"),
])
def test_what_is_wrong_is_told_by_name(changes, words):
    told = faults(**changes)
    assert words in "\n".join(told) and all(line.startswith("mine.yaml: ") for line in told)


def test_names_too_long_for_a_run_are_told():
    axes = {axis * 30: {level * 40: {} for level in "xy"} for axis in "abc"}
    with pytest.raises(InputError, match="at most 100 characters"):
        study_cells(build_study({"recipe": "smoke", "axes": axes}, "m.yaml", "m"))


def test_a_key_that_stands_twice_and_a_study_nobody_knows(tmp_path):
    (tmp_path / "two.yaml").write_text("recipe: smoke\nrecipe: smoke\n")
    with pytest.raises(InputError, match="line 2: not valid YAML: key 'recipe' appears twice"):
        read_study(tmp_path / "two.yaml")
    with pytest.raises(InputError, match="did you mean 'content'"): study_path("contents")


def test_what_is_declared_stays_and_what_is_changed_late_is_told(tmp_path):
    study = build_study(GRID, "mine.yaml", "mine")
    cells = {cell.run: digest(cell.keys) for cell in study_cells(study)}
    first = declare_study(tmp_path, study, cells, 0)
    assert declare_study(tmp_path, study, cells, 3) == first == read_declared_study(tmp_path)
    changed = declare_study(tmp_path, study.model_copy(update={"primary": "refusal"}), cells, 0)
    assert len(changed.lines) == 2 and not changed.late
    assert len(declare_study(tmp_path, study, cells, 3).late) == 1


def test_given_pairs_of_a_principle_can_be_left_out():
    recipe = {"pairs": "contemplative-512", "n_pairs": 60, "leave_out": "emptiness,mindfulness"}
    kept = run_pairs(build_recipe(recipe)).pairs
    assert len(kept) == 60 and {pair.principle for pair in kept} == {"non_duality", "boundless_care"}
    every = "emptiness,mindfulness,non_duality,boundless_care"
    with pytest.raises(InputError, match="every pair"): run_pairs(build_recipe(recipe | {"leave_out": every}))


def test_seeds_of_data_and_training_change_their_own_part_alone():
    few = {"pairs": "contemplative-512", "n_pairs": 40}
    def drawn(**seeds): return [pair.id for pair in run_pairs(build_recipe(few | seeds)).pairs]
    assert drawn() == drawn(training_seed=5) == drawn(data_seed=0) == drawn(seed=3, data_seed=0) != drawn(data_seed=5)
    recipe = build_recipe({"seed": 4, "training_seed": 0})
    assert (recipe.seed_of_training, recipe.seed_of_data) == (0, 4)
