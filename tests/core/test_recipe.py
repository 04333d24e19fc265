"""A recipe: keys in sections, defaults that stay what they were, and all problems told at once."""
import shutil

import pytest
from pydantic import ValidationError
from support import ROOT

from contemplative_cai.core.recipe import (
    SECTIONS,
    Recipe,
    build_recipe,
    default_text,
    meaning,
    recipe_summary,
    section_of,
)
from contemplative_cai.core.schema import InputError
from contemplative_cai.core.sections import CHECKS, FilterKeys, MethodKeys, TrainingKeys, build_section
from contemplative_cai.pairs.filters import USUAL, Thresholds, recipe_thresholds
from contemplative_cai.revision.revise import Methods, recipe_methods

# the defaults, as run.json has held them since the keys were settled: a run that was begun then goes on
WRITTEN = {
    "model": "smollm2-135m", "dtype": "auto", "device": "auto", "engine": "auto", "quantization": "none",
    "device_map": "one", "compile": False, "base_url": None, "api_key_env": "CCAI_API_KEY", "concurrency": 32,
    "timeout": 120.0, "vllm_python": None, "seed": 0, "prompts": ["practice"], "n_prompts": 12, "hazards": None,
    "personas": None, "locales": None, "duplicates": "exact", "constitution": "contemplative", "leave_out": None,
    "combine": None, "template": "informed", "n_few_shot": 2, "few_shot": "first", "critique_method": "free",
    "critique_samples": 1, "revision_method": "once", "revision_samples": 1, "second_round": False,
    "principle_choice": "all", "principles_per_prompt": 1, "critic": None, "reviser": None, "judge": "none",
    "paraphrases": 0, "twins": 0.0, "ensemble": None, "temperature": 0.7, "top_p": 0.95, "repetition_penalty": 1.0,
    "answer_tokens": 128, "critique_tokens": 96, "revision_tokens": 160, "batch_size": "auto",
    "filters": ["empty", "cut_off", "identical", "near_identical", "leaked_preamble", "copied_example",
                "repetition_loop", "language_switch", "refusal_again", "length_ratio", "principle_vocabulary",
                "near_duplicate", "boilerplate", "judge_prefers_rejected", "judge_flips", "ensemble_disagrees"],
    "max_similarity": 0.9, "min_length_ratio": 0.33, "max_length_ratio": 3.0, "max_vocabulary": 2.0,
    "copied_words": 8, "max_repeats": 3, "min_distinct": 0.6, "language_sure": 0.99, "max_pair_similarity": 0.8,
    "max_share_opening": 0.2, "balance": None, "balance_quota": None, "length_match": False, "split": None,
    "split_by": "cluster", "held_out": None, "validation_share": 0.1, "test_share": 0.3,
    "guarded": ["xstest", "mt_bench"], "allowed_leaks": None, "training": "dpo", "learning_rate": 0.0001, "beta": 0.1,
    "loss": {"sigmoid": 1.0}, "label_smoothing": 0.0, "ld_alpha": None, "epochs": 3.0, "max_steps": None,
    "sft_learning_rate": 0.0001, "sft_epochs": 1.0, "schedule": "linear", "warmup": 0.1, "train_batch_size": 1,
    "accumulation": 8, "packing": False, "helpful": None, "helpful_share": 0.2, "adapter": "lora", "lora_r": 16,
    "lora_alpha": 32, "lora_dropout": 0.0, "lora_targets": None, "train_quantization": "none", "max_length": 512,
    "max_cut": 0.01, "gradient_checkpointing": False, "save_steps": 4, "save_minutes": 15.0, "eval_steps": None,
    "early_stopping": None, "watch_steps": None, "stop_on": ["nan"], "trackers": None, "launch": None, "merge": False,
    "eval_prompts": ["edge_cases"], "n_eval_prompts": 24, "resamples": 2000,
    "eval_arms": ["base", "prompted", "careful", "sft", "dpo"], "eval_samples": 1, "eval_judges": ["logits"],
    "judge_url": None, "eval_judged": ["safety", "contemplative", "humanistic", "plain", "refusal", "pairwise"],
    "n_safety": 60, "eval_hazards": None, "n_refusal": 24, "n_helpful": 24, "n_robustness": 4, "n_games": 3,
    "primary_outcome": "violation", "primary_against": "base",
    "secondary_outcomes": ["refusal", "composite", "emptiness", "non_duality", "boundless_care", "mindfulness",
     "helpfulness"],
    "margin": 0.05,
}

# budgets that could never have an interval were raised, limits at which most texts were cut too, and pairs are gated
# where a judge may be believed; a run that wrote the old values keeps them
RAISED = {"n_robustness": 5, "n_games": 5, "judge": "auto", "n_prompts": 16, "answer_tokens": 384,
          "critique_tokens": 320, "revision_tokens": 384}
# keys that came afterwards: written where they are set, so that records stay as they are
LATER = {"template_options", "expected_rate", "pairs", "safety", "calibration", "n_pairs", "use_reviews", "capability",
         "capability_margin", "capability_chat", "capability_items", "capability_samples", "capability_files",
         "capability_unsafe", "data_seed", "training_seed"}

# for every check, values that it and no other refuses, with words of what it says
CONTRADICTIONS = {
    "_abilities_are_known": ({"capability": "batery"}, "did you mean 'battery'"),
    "_files_are_of_benchmarks": ({"capability_files": "mbbp=tasks.jsonl"}, "did you mean 'mbpp'"),
    "_unsafe_runs_programs": ({"capability_unsafe": True}, "add one of humaneval, mbpp, or take the key away"),
    "_samples_are_programs": ({"capability_samples": 10}, "add one of humaneval, mbpp"),
    "_endpoint_has_an_address": ({"engine": "endpoint"}, "engine: endpoint needs base_url"),
    "_address_has_an_endpoint": ({"base_url": "http://127.0.0.1:1/v1", "engine": "vllm"}, "engine is 'vllm'"),
    "_server_has_an_address": ({"base_url": "127.0.0.1:8000"}, "base_url '127.0.0.1:8000': expected an address"),
    "_judges_server_has_an_address": ({"judge_url": "http://host/v1?n=3", "eval_judges": "logits=m"},
                                      "judge_url ends in a query"),
    "_key_is_in_a_variable": ({"api_key_env": "k3y-0f-0urs"}, "the name of an environment variable"),
    "_options_have_a_template": ({"template_options": "a=1", "base_url": "http://127.0.0.1:1/v1"},
                                 "take one of the two"),
    "_critiques_have_verdicts": ({"critique_samples": 3}, "critique_method is 'free'"),
    "_critiques_differ": ({"critique_samples": 3, "critique_method": "verdict", "temperature": 0}, "all the same"),
    "_best_of_has_a_choice": ({"revision_method": "best_of"}, "needs revision_samples of 2 or more"),
    "_revisions_are_chosen_from": ({"revision_samples": 2}, "chosen from by best_of"),
    "_second_round_has_verdicts": ({"second_round": True}, "needs a critique_method with verdicts"),
    "_distilled_has_no_critiques": ({"revision_method": "distilled", "critique_method": "verdict"}, "no critiques"),
    "_chained_takes_all_principles": ({"revision_method": "chained", "principle_choice": "routed"}, "all principles"),
    "_counted_principles_are_chosen": ({"principles_per_prompt": 2}, "principle_choice is 'all'"),
    "_paraphrases_differ": ({"paraphrases": 2, "temperature": 0}, "paraphrases at temperature 0"),
    "_twins_come_from_one_place": ({"twins": 0.2, "prompts": "practice, twins"}, "the source 'twins' too"),
    "_filters_are_known": ({"filters": "empty, identicle"}, "did you mean 'identical'"),
    "_lengths_leave_room": ({"min_length_ratio": 3}, "must be below max_length_ratio 3"),
    "_balance_is_known": ({"balance": "hazrd"}, "did you mean 'hazard'"),
    "_drawn_pairs_are_given": ({"n_pairs": 5}, "pairs names none"),
    "_quota_has_a_balance": ({"balance_quota": 5}, "balance does not say of what"),
    "_something_is_left_to_learn_from": ({"validation_share": 0.5, "test_share": 0.5}, "nothing to train on"),
    "_held_out_is_kept_whole": ({"held_out": "hte"}, "split_by is 'cluster'"),
    "_chained_keeps_no_principle_out": ({"revision_method": "chained", "split_by": "principle"}, "out of training"),
    "_losses_are_known": ({"loss": "sigmoid, stf=0.2"}, "unknown loss 'stf'; did you mean 'sft'"),
    "_smoothing_has_a_loss": ({"label_smoothing": 0.1, "loss": "ipo"}, "loss is 'ipo'"),
    "_loss_looks_at_rejected": ({"loss": "sft"}, "never looks at rejected"),
    "_packing_has_rows_of_sft": ({"packing": True}, "training is dpo"),
    "_early_stopping_has_looks": ({"early_stopping": 2}, "set eval_steps"),
    "_early_stopping_has_an_accuracy": ({"early_stopping": 2, "eval_steps": 4, "training": "sft"}, "training is sft"),
    "_looks_have_prompts": ({"watch_steps": 4, "validation_share": 0}, "validation_share is 0"),
    "_watching_has_the_whole_model": ({"watch_steps": 4, "launch": "zero3"}, "zero3 keeps a part of it"),
    "_findings_are_known": ({"stop_on": "nann"}, "did you mean 'nan'"),
    "_trackers_are_known": ({"trackers": "trackoi"}, "unknown tracker 'trackoi'"),
    "_whole_weights_are_not_quantized": ({"adapter": "none", "train_quantization": "int4"}, "cannot be trained"),
    "_merging_has_an_adapter": ({"adapter": "none", "merge": True}, "whole already"),
    "_arms_are_known": ({"eval_arms": "base, promted"}, "did you mean 'prompted'"),
    "_base_is_an_arm": ({"eval_arms": "prompted, dpo"}, "put it on the list"),
    "_answers_differ": ({"eval_samples": 2, "temperature": 0}, "eval_samples at temperature 0"),
    "_judges_are_known": ({"eval_judges": "logit"}, "did you mean 'logits'"),
    "_judges_are_named_once": ({"eval_judges": "logits, logits"}, "names a judge twice"),
    "_judge_url_has_a_model": ({"judge_url": "http://127.0.0.1:1/v1"}, "eval_judges names no model"),
    "_primary_against_is_an_arm": ({"primary_against": "promted"}, "did you mean 'prompted'"),
}


def problems(values, section=Recipe):
    "What is said of values that must be refused."
    with pytest.raises(InputError) as refused: build_section(section, values)
    return list(refused.value.problems)


# what was written before


def test_a_recipe_is_written_as_it_always_was():
    assert Recipe().model_dump(mode="json") == WRITTEN | RAISED


def test_a_recipe_that_an_earlier_run_wrote_is_the_same_recipe():
    assert build_recipe(WRITTEN) == Recipe(**{key: WRITTEN[key] for key in RAISED})
    assert build_recipe(WRITTEN | RAISED) == Recipe()
    assert build_recipe({**WRITTEN, **RAISED, "beta": 0.2}) == Recipe(beta=0.2) != Recipe()


def test_a_key_that_came_later_is_written_where_it_is_set():
    recipe = build_recipe({"template_options": {"enable_thinking": False}})
    assert recipe.model_dump(mode="json") == {**WRITTEN, **RAISED, "template_options": {"enable_thinking": False}}
    for key, value in (("expected_rate", 0.1), ("pairs", "first"), ("safety", ["ailuminate-fr"]),
                       ("capability", []), ("capability_margin", 0.1), ("capability_items", 20),
                       ("capability_files", {"mbpp": "tasks.jsonl"})):
        assert build_recipe({key: value}).model_dump(mode="json") == {**WRITTEN, **RAISED, key: value}
    assert build_recipe(recipe.model_dump(mode="json")) == recipe != Recipe()


# sections


def test_every_key_stands_in_one_section_and_means_something():
    keys = [key for section in SECTIONS.values() for key in section.model_fields]
    assert keys == list(Recipe.model_fields) and len(set(keys)) == len(keys) and set(keys) == {*WRITTEN, *LATER}
    assert all(SECTIONS[section_of(key)].model_fields[key].description == meaning(key) != "" for key in keys)


def test_a_key_that_no_recipe_has_stands_in_no_section():
    with pytest.raises(KeyError, match="did you mean 'beta'"): section_of("beta_")
    with pytest.raises(KeyError, match="no recipe has a key 'run'"): meaning("run")


def test_a_section_is_complete_and_checked_by_itself():
    assert TrainingKeys().loss == {"sigmoid": 1.0}
    assert problems({"loss": "sft"}, TrainingKeys) == problems({"loss": "sft"})
    [problem] = problems({"temperature": 0.5}, TrainingKeys)
    assert problem.startswith("recipe: unknown key 'temperature'")


@pytest.mark.parametrize("key, text", [("beta", "0.1"), ("packing", "false"), ("hazards", "None"), ("n_prompts", "16"),
                                       ("loss", "sigmoid=1"), ("prompts", "practice"), ("guarded", "xstest, mt_bench"),
                                       ("template_options", "none")])
def test_a_default_is_said_in_words(key, text):
    assert default_text(key) == text


def test_the_filters_numbers_are_the_recipes():
    assert recipe_thresholds(Recipe()) == USUAL
    assert set(Thresholds.model_fields) == {*FilterKeys.model_fields, "read_words"}
    changed = {"max_similarity": 0.5, "max_repeats": 9, "language_sure": 0.7}
    limits = recipe_thresholds(build_recipe(changed | {"max_length": 100}))
    assert limits.model_dump(include=set(changed)) == changed and limits.read_words == 75


def test_the_methods_are_the_recipes():
    recipe = build_recipe({"revision_method": "best_of", "revision_samples": 3, "n_few_shot": 1, "seed": 7,
                           "template": "terse", "critique_tokens": 40, "temperature": 0.3})
    methods = recipe_methods(recipe)
    assert set(Methods.model_fields) == {*MethodKeys.model_fields, "seed", "requests"}
    assert {key: getattr(methods, key) for key in MethodKeys.model_fields} == {
        key: getattr(recipe, key) for key in MethodKeys.model_fields}
    assert methods.requests.name == "terse" and methods.critique.max_tokens == 40
    assert {sampling.seed for sampling in (methods.answer, methods.critique, methods.revision)} == {7}


# problems


def test_every_check_names_keys_of_a_recipe_and_has_an_example():
    assert {key for keys, _ in CHECKS.values() for key in keys} <= set(Recipe.model_fields)
    assert set(CHECKS) == set(CONTRADICTIONS)


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_told_once_and_by_its_own_check(monkeypatch, name):
    values, words = CONTRADICTIONS[name]
    [problem] = problems(values)
    assert words in problem
    monkeypatch.delitem(CHECKS, name)
    assert build_recipe(values), "no other check refuses it"


def test_all_contradictions_of_a_recipe_are_told_at_once():
    told = ["_endpoint_has_an_address", "_twins_come_from_one_place", "_held_out_is_kept_whole",
            "_loss_looks_at_rejected", "_primary_against_is_an_arm"]
    values = {key: value for name in told for key, value in CONTRADICTIONS[name][0].items()}
    assert problems(values) == [problem for name in told for problem in problems(CONTRADICTIONS[name][0])]


def test_wrong_values_unknown_keys_and_contradictions_are_told_together():
    told = problems({"n_promts": 4, "seed": "one", "temperature": 9, "n_games": True, "balance_quota": 5, "merge": True,
                     "adapter": "none"})
    assert [sum(word in problem for problem in told)
            for word in ("'n_promts'", "'seed'", "'temperature'", "'n_games'", "balance_quota", "merge")] == [1] * 6
    assert len(told) == 6


def test_a_check_is_not_asked_where_one_of_its_keys_is_wrong():
    assert len(problems({"early_stopping": 2, "eval_steps": "often"})) == 1
    assert len(problems({"early_stopping": 2, "eval_steps": "often", "training": "sft"})) == 2


def test_unknown_names_are_all_told():
    assert [problem.partition(";")[0] for problem in problems({"filters": "a, empty, b", "trackers": "c"})] == [
        "recipe: unknown filter 'a'", "recipe: unknown filter 'b'", "recipe: unknown tracker 'c'"]


@pytest.mark.parametrize("key", ["n_prompts", "temperature", "hazards", "model", "batch_size", "early_stopping"])
def test_a_truth_value_is_no_number_and_no_name(key):
    assert problems({key: True}) == [f"recipe: '{key}': expected a number or a name ({meaning(key)}), got True"]


def test_a_key_of_two_kinds_has_one_sentence():
    [problem] = problems({"batch_size": "many"})
    assert problem.startswith("recipe: 'batch_size': ") and problem.endswith(", or input should be 'auto', got 'many'")


def test_a_key_that_is_no_text_is_named():
    assert problems({1: 4}) == ["recipe: '1': keys should be strings, got 1"]


def test_pydantic_tells_the_same():
    with pytest.raises(ValidationError) as refused: Recipe(n_prompts=0, twins=0.2, prompts="twins", loss="sft")
    kinds = [error["type"] for error in refused.value.errors()]
    assert kinds == ["greater_than_equal", "contradiction", "contradiction"]


# options of a chat template


@pytest.mark.parametrize("text, options", [
    ("enable_thinking=false", {"enable_thinking": False}), ("a=true, b=2, c=0.5, d=low", {"a": True, "b": 2, "c": 0.5,
                                                                                         "d": "low"}),
    ("date_string=2024-07-26", {"date_string": "2024-07-26"}), ("", {}), ("a = 26 Jul 2024", {"a": "26 Jul 2024"})])
def test_options_of_a_template_are_written_as_people_write_them(text, options):
    recipes = [build_recipe({"template_options": value}) for value in (text, options)]
    assert [recipe.template_options for recipe in recipes] == [options] * 2
    assert [type(value) for value in recipes[0].template_options.values()] == list(map(type, options.values()))


@pytest.mark.parametrize("value", [
    "a",
    "a=",
    "a=b=c",
    "a=1, a=2",
    "a=[1]",
    "a={b: 1}",
    "a=it's",
    "a=b+c",
    "a={{ x }}",
    "a=%}",
    "messages=1",
    "tools=1",
    "bos_token=x",
    "2a=1",
    "a-b=1",
    "=1",
    "a=.nan",
    "a=.inf",
    "a=10000000000000000",
    {1: 2},
    {"a": None},
    {"a": {}},
    [],
    ["a=1"],
    3,
    {"é": 1},
    {"a": "x" * 201},
    {f"a{i}": 1 for i in range(21)},
    {"a\nb": 1},
    {"a": "b\nc"},
    {"a": "\u202e"},
])
def test_what_no_template_can_be_told_is_refused_by_name(value):
    [problem] = problems({"template_options": value})
    assert problem.startswith("recipe: 'template_options'") and "expected" in problem or "take it away" in problem


@pytest.mark.parametrize("content", [b"\xff\xfe# x", b"\x1f\x8b\x08cut", b"# fine\nmodel: x\n"])
def test_a_recipe_that_cannot_be_read_is_a_row_that_says_so(tmp_path, monkeypatch, content):
    "One broken file does not hide the others."
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "nbs" / "pipelines").mkdir(parents=True)
    (tmp_path / "configs" / "broken.yaml").write_bytes(content)
    monkeypatch.setenv("CCAI_ROOT", str(tmp_path))
    assert not recipe_summary("smoke").startswith("cannot") and recipe_summary("broken").startswith(
        "fine" if content.startswith(b"#") else "cannot be read: ")
