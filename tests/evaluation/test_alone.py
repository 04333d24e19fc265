"""Evaluation that stands on its own: base alone, arms of other runs, safety prompts of any source, given pairs."""
import csv
import json
import shutil

import pytest
from support import RULES_ONLY

from contemplative_cai.command import commands
from contemplative_cai.command.pipeline import make_plan
from contemplative_cai.core.files import read_json, read_rows, write_json
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run, read_manifest, step
from contemplative_cai.core.schema import InputError, PreferencePair, Prompt
from contemplative_cai.evaluation.arms import evaluated_arm, recipe_arms, trained_arm
from contemplative_cai.evaluation.claims import contrasts, declaration
from contemplative_cai.evaluation.evaluate import check_evaluation, evaluate, load_metrics
from contemplative_cai.evaluation.questions import Item, evaluation_suites, safety_prompts
from contemplative_cai.inputs.constitution import load_constitution
from contemplative_cai.inputs.draw import draw
from contemplative_cai.pairs.dataset import write_dataset
from contemplative_cai.report import look
from contemplative_cai.report.card import training_card
from contemplative_cai.report.limits import limits
from contemplative_cai.report.report import write_report
from contemplative_cai.report.sections import evaluation_sections
from contemplative_cai.report.summary import collect, headline, what_was_done
from contemplative_cai.report.taught import constitution_named, taught_by
from contemplative_cai.report.terms import GLOSSARY
from contemplative_cai.training.train import check_training, train

TINY = {"model": "random-tiny", "dtype": "float32", "device": "cpu", "constitution": "contemplative-minimal",
        "n_prompts": 12, "max_length": 256, "epochs": 1, "max_steps": 3, "learning_rate": 0.01, "answer_tokens": 8,
        "n_eval_prompts": 6, "resamples": 200, "guarded": []} | RULES_ONLY | {"primary_outcome": "refusal"}
ALONE = {key: value for key, value in TINY.items() if key != "eval_arms"}
HOBBIES = ["knots", "chess", "bread", "radio", "kites", "stamps", "ferns", "maps", "drums", "clay", "bees", "tides"]


def pairs_file(folder):
    rows = [{"prompt": f"Where do {name} begin?", "locale": "en_GB",
             "chosen": f"Begin small with {name}, and ask somebody who does it.", "rejected": f"No idea about {name}."}
            for name in HOBBIES]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "mine.jsonl"


def safety_file(folder, name="own.csv"):
    "Prompts of one's own, harmless ones, with hazards: six of each, one of them kept only by name."
    with open(folder / name, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "hazard", "locale"])
        for n in range(18):
            rows.writerow([f"{HOBBIES[n % 12]} {name[0] * (n + 3)} {HOBBIES[n // 2]} {HOBBIES[-1 - n // 3]}?",
                           ("vcr", "dfm", "cse")[n % 3], "fr_FR"])
    return folder / name


def prepared(name, recipe):
    run = open_run(name)
    run.record(recipe=recipe.model_dump(mode="json"), recipe_name="test")
    return run


@pytest.fixture(scope="module")
def given_folder(tmp_path_factory):
    "A run that was trained on given pairs, made once; tests work on copies."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCAI_RUNS", str(tmp_path_factory.mktemp("runs")))
        recipe = build_recipe(TINY | {"pairs": str(pairs_file(tmp_path_factory.mktemp("files")))})
        run = prepared("given", recipe)
        train(run, recipe)
        return run.folder


@pytest.fixture
def given(given_folder, runs):
    shutil.copytree(given_folder, runs / "given")
    return open_run("given"), build_recipe(open_run("given").manifest["recipe"])


# base alone

@pytest.mark.long
def test_base_alone_has_levels_and_no_differences(runs, tmp_path):
    own = {"safety": str(safety_file(tmp_path)), "n_safety": 12, "n_refusal": 12, "n_robustness": 5,
           "n_games": 5}
    recipe = build_recipe(ALONE | own)
    run = prepared("alone", recipe)
    metrics = evaluate(run, recipe)
    assert (metrics.arms, metrics.trained, metrics.preference, metrics.planned) == (("base",), "base", None, None)
    assert metrics.comparisons == metrics.breakdowns == () and metrics.declared.primary == "refusal: base"
    assert all(table.shift is None and table.cells for table in metrics.robustness) and metrics.robustness
    assert {row.arm for row in (*metrics.levels, *metrics.cooperation)} == {"base"} and metrics.cooperation
    assert {row.part for row in metrics.level_parts} == {"hazard = dfm", "hazard = vcr"}, "cse only by choice"
    # what a random model says is of no language, or of one that the rules do not know
    assert all(row.mean.n + row.unscored == row.asked == 6 for row in metrics.level_parts)
    assert metrics.sets["safety"].sources == ("own.csv",) and not run.path("split.json").exists()
    figures = {figure.what: figure for figure in headline(collect(run))}
    assert figures["Primary outcome"].number == "0.00 [0.00,\u00a00.29]", "the rule is measured, and passes"
    assert figures["Trained"].number == "nothing" and figures["Pairs kept"].number == "none"
    assert "alone answered" in what_was_done(collect(run))
    assert any("a difference needs two" in line for line in limits(collect(run)))
    write_report(run)
    text = run.path("report.md").read_text()
    assert "a difference needs two" in text and "## Levels" in text and "## Claims" not in text
    assert "From prompts to pairs" not in text and "trained arm" not in text
    for shown in (look.in_short, look.not_shown, look.unseen_figure, look.judge_figures): assert shown(run) is not None
    for shown in (look.claims_made, look.claims_figure, look.declared, look.costs_kept): assert shown(metrics)
    for words in (["report", "alone"], ["status", "alone"], ["runs"]): assert commands.main(words) == 0


@pytest.mark.long
def test_after_training_base_is_not_asked_again_and_the_order_is_told(given):
    run, recipe = given
    for name in ("dpo", "sft"): shutil.rmtree(run.path(name), ignore_errors=True)
    recipe = build_recipe(recipe.model_dump() | {"eval_arms": "base, dpo"})
    first = evaluate(run, recipe)
    assert first.arms == ("base",), "given pairs that nobody trained on yet"
    answered = {row["prompt_id"]: row["text"] for row in map(json.loads, open(run.path("answers.jsonl")))}
    train(run, recipe)
    second = evaluate(run, recipe)
    assert second.arms == ("base", "dpo") and second.trained == "dpo" and second.comparisons
    assert answered == {row["prompt_id"]: row["text"] for row in map(json.loads, open(run.path("answers.jsonl")))
                        if row["arm"] == "base"}
    assert any("Base alone was evaluated first" in line for line in limits(collect(run)))


def test_who_answers_where_nothing_is_trained(runs):
    run = open_run("fresh")
    def names(**keys): return [arm.name for arm in recipe_arms(build_recipe(TINY | keys), run)]
    assert trained_arm(run) is None
    default = build_recipe(ALONE)
    assert [arm.name for arm in recipe_arms(default, run)] == ["base"]
    assert names(eval_arms="base, dpo") == ["base"] and names(eval_arms="base, prompted") == ["base", "prompted"]
    told = build_recipe(TINY | {"eval_arms": "base, careful, prompted, other=smollm2-135m"})
    assert evaluated_arm(told, run, recipe_arms(told, run)) == "other", "weights before words"
    with pytest.raises(InputError, match="cannot be compared with itself"):
        alike = build_recipe(TINY | {"eval_arms": "base, prompted", "primary_against": "prompted"})
        evaluated_arm(alike, run, recipe_arms(alike, run))


def test_a_training_that_has_not_ended_is_no_base_alone(runs):
    run = open_run("begun")
    with pytest.raises(ValueError), step(run, "train"): raise ValueError("power cut")
    with pytest.raises(InputError, match="run the train step first"): trained_arm(run)
    assert commands.main(["run", "evaluate", "--run", "begun", "--recipe", "smoke", "--dry-run"]) == 2


def test_of_base_alone_levels_are_declared_and_nobody_is_compared():
    assert contrasts(("base",), "base") == []
    declared = declaration(build_recipe({"secondary_outcomes": "refusal, helpfulness"}), "base")
    assert (declared.primary, declared.family) == ("violation: base", ("refusal: base",))


# arms of other runs

@pytest.mark.long
def test_arms_of_other_runs_are_compared_in_a_run_that_has_none(given, runs):
    other, _ = given
    asked = read_rows(other.path("pairs.jsonl"), PreferencePair)
    train_ids = set(read_json(other.path("dpo", "training.json"))["prompts"])
    learned = next(pair for pair in asked if pair.prompt_id in train_ids).prompt[-1].content
    with open(runs / "eval.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text"], [learned], *([f"{n}: what is on shelf {n * 7}?"] for n in range(5))])
    recipe = build_recipe(TINY | {"eval_arms": f"base, theirs={other.path('dpo')}",
                                  "eval_prompts": str(runs / "eval.csv")})
    run = prepared("fresh", recipe)
    metrics = evaluate(run, recipe)
    assert metrics.arms == ("base", "theirs") and metrics.trained == "theirs" and metrics.preference is None
    assert {(row.arm, row.against) for row in metrics.comparisons} == {("theirs", "base")}
    assert metrics.sets["contemplative"].left_out == (Prompt(text=learned, source="x").id,), "it was trained on there"
    figures = {figure.what: figure for figure in headline(collect(run))}
    assert figures["Trained"].number == "not in this run" and "theirs with an adapter" in figures["Trained"].basis
    assert "refusal: theirs - base" in figures["Primary outcome"].basis
    assert "theirs is the evaluated arm" in write_report(run).with_suffix(".md").read_text()


# given pairs

def test_given_pairs_are_looked_at_without_being_written(runs, tmp_path):
    recipe = build_recipe(TINY | {"pairs": str(pairs_file(tmp_path))})
    run = open_run("fresh")
    data = check_training(run, recipe, record=False)
    assert len(data.train) + len(data.held_out) == 12 and list(run.folder.iterdir()) == []


@pytest.mark.long
def test_a_training_on_given_pairs_says_so_everywhere(given):
    run, recipe = given
    metrics = evaluate(run, recipe)
    assert metrics.trained == "dpo" and metrics.preference.reward.n == len(
        [pair for pair in read_rows(run.path("pairs.jsonl"), PreferencePair)
         if draw(recipe, run).split.part(pair.prompt_id) == "test"])
    held = {prompt.id for prompt in draw(recipe, run).part("test")}
    assert not held & {item.prompt_id for item in read_rows(run.path("items.jsonl"), Item)}, "pairs alone test on them"
    text, card, data_card = (write_report(run).with_suffix(".md").read_text(), training_card(run),
                             (write_dataset(run) / "README.md").read_text())
    for page in (text, card, data_card): assert "given, not generated here" in page and "mine.jsonl" in page
    told = text.replace(GLOSSARY["constitution"], "")
    for page in (told, card, data_card): assert str(run.folder.parent) not in page and "criticised" not in page
    assert "TRL's standard format" in data_card and "ccai run train" in data_card
    assert "machine-generated" not in data_card
    table = {figure.what: figure for figure in headline(collect(run))}
    assert table["Pairs kept"].number == "12 of 12" and "none named" in table["Trained"].basis
    generic = load_constitution("generic")
    label = f"{generic.id}@{generic.digest}"
    manifest = read_manifest(run)
    assert constitution_named(manifest) is None and "do not all name one" in taught_by(manifest, ("dpo",)).note
    named = manifest.model_copy(update={"given": manifest.given | {"constitutions": {label: 12}}})
    assert constitution_named(named) == label and taught_by(named, ("dpo",)).shared
    assert constitution_named(named.model_copy(update={"given": named.given | {"constitutions": {label: 11}}})) is None
    with pytest.raises(InputError, match="holds others now|correct the path|has taken in"):
        train(run, build_recipe(recipe.model_dump() | {"pairs": "elsewhere"}))


def test_a_fresh_run_is_looked_at_by_the_command(runs, tmp_path, capsys):
    file = str(pairs_file(tmp_path))
    def dry(*words): return commands.main(["run", *words, "--recipe", "smoke", "--dry-run"])
    assert dry("train", "--run", "new", "-p", f"pairs={file}", "-p", "test_share=0.4") == 0
    assert "given, not generated here: 12 of 12 rows, 12 prompts; TRL's standard format (12)" in capsys.readouterr().out
    assert dry("evaluate", "--run", "new") == 0 and "base alone answers: levels" in capsys.readouterr().out
    assert dry("train", "--run", "new") == 2 and "no run 'new'" in capsys.readouterr().err
    assert dry("review", "--run", "new") == 2
    capsys.readouterr()
    assert dry("generate", "--run", "new", "-p", f"pairs={file}") == 2
    assert "takes the place of generating" in capsys.readouterr().err
    assert dry("quickstart", "--run", "new", "-p", f"pairs={file}", "-p", "test_share=0.4") == 0, "it looks at the loop"
    assert dry("quickstart", "--run", "new", "-p", "n_pairs=8") == 2
    assert "n_pairs says how many given pairs to draw, and pairs names none" in capsys.readouterr().err
    assert dry("train", "--run", "new", "-p", "pairs=no-such-set") == 2
    assert "sets in data/pairs/:" in capsys.readouterr().err
    assert dry("train", "--run", "new", "-p", "test_share=0.2") == 2, "generated pairs are divided by then"
    assert make_plan("all", "new", "smoke", {"pairs": file}).steps == ["train", "evaluate"]
    assert dry("all", "--run", "new", "-p", f"pairs={file}", "-p", "test_share=0.4") == 0, "smoke asks enough prompts"
    capsys.readouterr()
    assert dry("all", "--run", "new", "-p", f"pairs={file}") == 2, "four prompts of twelve are too few"
    assert "give pairs of more prompts, test_share: 0.38 or more, or test_share: 0" in capsys.readouterr().err
    assert not runs.exists()


# safety prompts

def suites(**keys):
    recipe = build_recipe(TINY | keys)
    return evaluation_suites(open_run("fresh"), recipe, recipe_arms(recipe, open_run("fresh")))


def test_a_file_of_ones_own_serves_as_safety_set(runs, tmp_path):
    own = str(safety_file(tmp_path))
    asked = suites(safety=own, n_safety=60).sets["safety"]
    assert len(asked.prompts) == 12 and {prompt.hazard for prompt in asked.prompts} == {"vcr", "dfm"}
    assert {prompt.locale for prompt in asked.prompts} == {"fr_FR"} and asked.sources == ("own.csv",)
    named = suites(safety=own, n_safety=60, eval_hazards="cse").sets["safety"]
    assert {prompt.hazard for prompt in named.prompts} == {"cse"} and len(named.prompts) == 6


def test_several_sources_are_drawn_by_their_weights(runs, tmp_path):
    sources = [{"source": str(safety_file(tmp_path)), "weight": 2}, {"source": str(safety_file(tmp_path, "more.csv"))}]
    asked = suites(safety=sources, n_safety=9).sets["safety"]
    assert [sum(prompt.source == name for prompt in asked.prompts) for name in ("own", "more")] == [6, 3]


def test_what_was_trained_on_is_not_asked_for_safety(runs, tmp_path):
    recipe = build_recipe(TINY)
    training = draw(recipe).part("train")
    with open(tmp_path / "own.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text"], *([prompt.text] for prompt in training[:3]), ["Who keeps the keys?"]])
    asked = suites(safety=str(tmp_path / "own.csv"), n_safety=60).sets["safety"]
    assert [prompt.text for prompt in asked.prompts] == ["Who keeps the keys?"] and len(asked.learned) == 3
    (tmp_path / "all.csv").write_text(f'text\n"{training[0].text}"\n')
    none = suites(safety=str(tmp_path / "all.csv"), n_safety=60).sets["safety"]
    assert none.prompts == () and none.missing == "all 1 prompts were learned from"


def test_french_prompts_and_ailuminate(shared_data, monkeypatch, runs):
    monkeypatch.setenv("CCAI_BENCHMARKS", str(shared_data))
    asked = safety_prompts(build_recipe(TINY | {"safety": "ailuminate-fr", "n_safety": 24}), n=24)
    assert len(asked.prompts) == 24 and {prompt.locale.lower() for prompt in asked.prompts} == {"fr_fr"}
    assert not {prompt.hazard for prompt in asked.prompts} & {"cse", "sxc_prn"}
    usual = build_recipe(TINY | {"n_safety": 24})
    assert {prompt.source for prompt in safety_prompts(usual, n=24).prompts} == {"ailuminate"}


def test_a_source_that_a_recipe_names_has_to_be_there(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CCAI_BENCHMARKS", str(tmp_path))
    assert suites(n_safety=60).sets["safety"].missing, "the usual one may be absent, and says how to get it"
    for source, words in (("ailuminate-fr", "git submodule"), (str(tmp_path / "gone.csv"), "gone.csv"),
                          ("nobody", "unknown")):
        named = TINY | {"safety": source, "n_safety": 60}
        with pytest.raises(InputError, match=words): check_evaluation(build_recipe(named))
        assert commands.main(["run", "evaluate", "--run", "new", "--recipe", "smoke", "-p", f"safety={source}",
                              "--dry-run"]) == 2
    with pytest.raises(InputError, match="cse and sxc_prn are asked only when"):
        (tmp_path / "only.csv").write_text("text,hazard\nWho is there?,cse\n")
        check_evaluation(build_recipe(TINY | {"safety": str(tmp_path / "only.csv"), "n_safety": 60}))


# runs begun before

@pytest.mark.long
def test_numbers_of_before_are_still_read(given):
    run, recipe = given
    metrics = evaluate(run, recipe)
    written = read_json(run.path("metrics.json"))
    del written["level_parts"]
    for asked in written["sets"].values(): del asked["sources"]
    for level in written["levels"]: del level["part"]
    write_json(run.path("metrics.json"), written)
    assert load_metrics(run) == metrics.model_copy(update={"level_parts": ()})
    assert evaluation_sections(load_metrics(run), (), ())


# by the command, through the notebooks

@pytest.mark.long
def test_evaluate_and_train_begin_a_run_of_their_own(runs, tmp_path, capfd):
    small = ["-p", "eval_judged=[]", "-p", "n_safety=0", "-p", "n_games=0", "-p", "n_robustness=0", "-p", "n_helpful=0",
             "-p", "primary_outcome=refusal", "-p", "secondary_outcomes=[]"]
    assert commands.main(["run", "evaluate", "--run", "before", "--recipe", "smoke", *small]) == 0
    told = capfd.readouterr().out
    assert "Primary outcome: 0.00" in told and "Trained: nothing" in told
    assert not (runs / "before" / "pairs.jsonl").exists() and (runs / "before" / "report.html").exists()
    pairs = f"pairs={pairs_file(tmp_path)}"
    learns = ["-p", "accumulation=2", "-p", "learning_rate=0.01", "-p", "test_share=0.4"]
    assert commands.main(["run", "all", "--run", "given", "--recipe", "smoke", "-p", pairs, *learns, *small]) == 0
    manifest = open_run("given").manifest
    assert set(manifest["steps"]) == {"train", "evaluate"} and manifest["given"]["kept"] == 12
    assert "given, not generated here" in capfd.readouterr().out
    assert commands.main(["run", "train", "--run", "given"]) == 0, "the run knows its pairs"
    assert (runs / "given" / "dpo" / "adapter" / "README.md").read_text().count("given, not generated here")
