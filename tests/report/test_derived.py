"""Cards and report are never stale: each carries what it rests on, every step writes them again, and all agree."""
import builtins
import html
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard
from support import ROOT, visible

from contemplative_cai.command.commands import main
from contemplative_cai.core import derived
from contemplative_cai.core.derived import carried, derived_files, project_texts, rests_on, stale_files, stale_words
from contemplative_cai.core.files import read_json, write_json, write_rows
from contemplative_cai.core.project import notebook_path
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.models.llm import ScriptedLLM
from contemplative_cai.pairs.data_card import dataset_card
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.health import run_health, warnings
from contemplative_cai.pairs.make import load_pairs
from contemplative_cai.report.card import card_results, training_card
from contemplative_cai.report.rebuild import rebuild
from contemplative_cai.report.report import write_report
from contemplative_cai.report.summary import collect
from contemplative_cai.review.session import open_review
from contemplative_cai.review.votes import apply_reviews


@pytest.fixture(autouse=True)
def drawn(monkeypatch): unpainted(monkeypatch)


def unpainted(patch):
    "Figures are made but not painted, which is most of the time."
    for module in ("page", "card"): patch.setattr(f"contemplative_cai.report.{module}.png", lambda figure: b"a picture")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "The runs folder with one run that has done everything, with its cards and its report; made once, tests copy it."
    runs = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        unpainted(patch)
        patch.syspath_prepend(str(ROOT / "nbs" / "09_report"))
        patch.chdir(ROOT)
        patch.setenv("CCAI_RUNS", str(runs))
        import made_up
        patch.setattr(made_up, "_run", open_run)
        run = made_up.evaluated_run(recipe={"model": "qwen2.5-0.5b"})
        run.path("dpo", "adapter").mkdir()
        rebuild(run)
        sys.modules.pop("made_up", None)
    return run.folder


@pytest.fixture
def evaluated(finished, runs):
    "A run that has done everything."
    shutil.copytree(finished, runs / "demo")
    return open_run("demo")


@pytest.fixture
def trained(evaluated):
    "The run before its evaluation."
    for name in ("metrics.json", "calibration.json", "arms.json", "items.jsonl", "answers.jsonl"):
        evaluated.path(name).rename(evaluated.path(f".{name}"))
    return evaluated


def card_of(run): return (rebuild(run)["model_card"]).read_text()


# what was seen


def test_the_data_sets_card_warns_of_what_the_report_warns_of(contemplative):
    "Seen: the card says 'No warnings.' while the report lists four."
    run, requests = open_run("demo"), [principle.revision_request for principle in contemplative.principles]
    def poor(conversation):
        asked = conversation[-1].content
        return ("With mindfulness one sees it. " * 2 + asked[-24:] if any(request in asked for request in requests)
                else f"No, about {asked[:20]!r} nothing can be said.")
    generate_pairs(run, build_recipe({"n_prompts": 12, "filters": "empty"}), ScriptedLLM(poor, batch_size=64))
    places, measured = rebuild(run), run_health(run)
    card = (places["data_set"] / "README.md").read_text()
    report = visible(places["report"].read_text())
    assert len(warnings(measured)) >= 4 and "No warnings" not in card
    for warning in warnings(measured):
        assert warning.sentence in report
        assert "openings" in warning.figure or warning.sentence in html.unescape(card), warning.sentence
    bullets = card.split("## Health")[1].split("## ")[0].count("\n- ")
    assert bullets == len(warnings(measured))


def test_few_pairs_are_too_few_to_warn_of_in_the_card_too(scripted):
    run = open_run("demo")
    generate_pairs(run, build_recipe({"n_prompts": 1, "filters": "empty"}), scripted)
    places = rebuild(run)
    for path in (places["data_set"] / "README.md", places["report"]):
        assert "4 pairs are too few to warn of anything" in path.read_text()


def test_a_card_of_an_evaluated_model_does_not_say_that_nothing_was_evaluated(trained):
    "Seen: 'nothing has been evaluated' after evaluation."
    assert "Nothing has been evaluated" in card_of(trained)
    trained.path(".metrics.json").rename(trained.path("metrics.json"))
    assert "metrics.json" in stale_files(trained)["model_card"]
    text = card_of(trained)
    assert "Nothing has been evaluated" not in text and ModelCard(text).data.eval_results and not stale_files(trained)


def test_applied_decisions_reach_cards_and_report(evaluated, capsys):
    "Seen: the review step shows an old report."
    session = open_review(evaluated, "ann")
    session.decide("neither")
    kept, _ = apply_reviews(evaluated)
    assert set(stale_files(evaluated)) == {"data_set", "model_card", "report"}
    assert main(["status", "demo"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stale")]
    assert len(lines) == 3 and all("pairs.jsonl" in line and "ccai report demo" in line for line in lines)
    assert main(["runs"]) == 0 and capsys.readouterr().out.count("! demo: ") == 3
    places = rebuild(evaluated)
    assert stale_words(evaluated) == [] and f"{len(kept)} of " in places["report"].read_text()
    assert f"{len(kept)} preference pairs" in (places["data_set"] / "README.md").read_text()
    assert main(["status", "demo"]) == 0 and "stale" not in capsys.readouterr().out


@pytest.mark.parametrize("step", ["smoke-test", "quickstart", "generate", "review", "train", "evaluate"])
def test_every_step_that_changes_something_ends_by_rebuilding(step):
    "Seen: the quickstart writes no model card. What a step writes by itself is nothing derived."
    cells = ["".join(cell["source"]) for cell in json.loads(notebook_path(step).read_text())["cells"]
             if cell["cell_type"] == "code"]
    works = [i for i, source in enumerate(cells) if "with step(" in source]
    rebuilds = [i for i, source in enumerate(cells) if "rebuild(run" in source]
    assert rebuilds and rebuilds[-1] > works[-1]
    assert not any(name in source for source in cells for name in ("write_report", "write_card", "write_dataset"))


# one function knows what rests on what


class Reads:
    "The files of a folder that are opened for reading."

    def __init__(self, monkeypatch, folder):
        self.names, real, folder = set(), io.open, Path(folder)

        def opened(file, mode="r", *args, **kwargs):
            if isinstance(file, str | Path) and not set(mode) & set("wax+") and folder in Path(file).parents:
                self.names.add(str(Path(file).relative_to(folder)))
            return real(file, mode, *args, **kwargs)
        low = os.open

        def opened_low(path, flags, *args, **kwargs):
            if isinstance(path, str | Path) and not flags & (os.O_WRONLY | os.O_RDWR) and folder in Path(path).parents:
                self.names.add(str(Path(path).relative_to(folder)))
            return low(path, flags, *args, **kwargs)
        for place in (builtins, io): monkeypatch.setattr(place, "open", opened)
        monkeypatch.setattr(os, "open", opened_low)


@pytest.mark.parametrize("name", ["report", "data_set"])
def test_nothing_is_read_that_is_not_declared(evaluated, monkeypatch, name):
    "A file that is read and not declared could change unseen."
    declared = {*derived_files(evaluated)[name].files, "run.json"}
    monkeypatch.setattr("contemplative_cai.report.report.rests_on", lambda *_: {})
    monkeypatch.setattr("contemplative_cai.report.report.stale_words", lambda *_: [])
    monkeypatch.setattr("contemplative_cai.pairs.data_card.rests_on", lambda *_: {})
    monkeypatch.setattr("contemplative_cai.pairs.health.bytes_digest", lambda path: str(path))
    with monkeypatch.context() as watching:
        reads = Reads(watching, evaluated.folder)
        from contemplative_cai.pairs.data_card import dataset_card
        if name == "report": write_report(evaluated)
        else: dataset_card(evaluated)
    assert {"pairs.jsonl", "split.json"} <= reads.names and reads.names <= declared, reads.names - declared


def uncached():
    "Forget what was read of the project before."
    for name, module in list(sys.modules.items()):
        if name.startswith("contemplative_cai."):
            for one in vars(module).values():
                if callable(getattr(one, "cache_clear", None)): one.cache_clear()


WRITERS = {"report": write_report, "data_set": dataset_card, "model_card": training_card}


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_of_the_project_is_read_that_is_not_declared(evaluated, monkeypatch, name):
    "Constitution, rubrics, prompts and models that are read when a card is written could change unseen."
    one, known = derived_files(evaluated)[name], project_texts(evaluated)
    declared = {path for group in one.texts for path in known[group]}
    monkeypatch.setattr(derived, "project_texts", lambda _: dict.fromkeys(known, []))
    uncached()
    with monkeypatch.context() as watching:
        reads = {folder: Reads(watching, ROOT / folder) for folder in ("configs", "data")}
        WRITERS[name](evaluated)
    paths = {ROOT / folder / path for folder, seen in reads.items() for path in seen.names}
    assert ROOT / "data" / "constitutions" / "contemplative.md" in paths and paths <= declared, paths - declared
    uncached()


def test_what_the_model_card_does_not_rest_on_it_does_not_tell(evaluated):
    "The card takes what was collected for the report too: files it reads and does not declare change nothing in it."
    rests = derived_files(evaluated)["model_card"].files
    others = [name for name in derived_files(evaluated)["report"].files if name not in rests]
    before = training_card(evaluated)
    for name in others: evaluated.path(name).unlink(missing_ok=True)
    assert training_card(evaluated) == before and {"answers.jsonl", "ledger.json", "calibration.json"} <= {*others}


def test_a_decision_that_is_not_applied_yet_reaches_the_model_card(evaluated):
    "The card's limits say what reviewers found, and it stayed as it was after new decisions and a rebuild."
    before = card_of(evaluated)
    session = open_review(evaluated, "ann")
    while session.current is not None: session.decide("neither", a_falls_short=False, b_falls_short=True)
    assert "reviews/ann.jsonl" in stale_files(evaluated)["model_card"]
    after = card_of(evaluated)
    assert after == training_card(evaluated) != before and "by reviewers first answers that fall short" in after


@pytest.mark.parametrize("own", [False, True], ids=["by name", "a file of one's own"])
def test_an_edited_constitution_makes_stale_what_speaks_of_it(evaluated, tmp_path, monkeypatch, own):
    "Edited later, the data set's card cannot quote it any more, and figures of shared words are of another text."
    for part in ("configs", "data/constitutions", "data/rubrics", "data/prompts", "data/edge_cases", "nbs/pipelines"):
        shutil.copytree(ROOT / part, tmp_path / "project" / part)
    monkeypatch.setenv("CCAI_ROOT", str(tmp_path / "project"))
    file = tmp_path / "project" / "data" / "constitutions" / "contemplative.md"
    if own:
        file = Path(shutil.copy(file, tmp_path / "mine.md"))
        evaluated.record(recipe=evaluated.manifest["recipe"] | {"constitution": str(file)})
    before = {name: rests_on(evaluated, name) for name in derived_files(evaluated)}
    file.write_text(file.read_text().replace("- ", "- always ", 1))
    for name, digests in before.items():
        now = rests_on(evaluated, name)
        changed = {key for key in now if now[key] != digests.get(key)}
        assert changed == ({"constitution"} if own or name == "data_set" else {"constitution", "data/constitutions"})
        assert str(tmp_path) not in json.dumps(now)


def test_of_given_pairs_the_constitutions_that_they_name_count(evaluated):
    rows = [pair.model_copy(update={"constitution": "generic@1"}) for pair in load_pairs(evaluated)]
    write_rows(evaluated.path("pairs.jsonl"), rows)
    def names(): return [path.name for path in project_texts(evaluated)["constitution"]]
    assert "generic.md" not in names()
    evaluated.record(given={"pairs": "mine.jsonl"})
    assert "generic.md" in names()


@pytest.mark.parametrize("name", ["data_set", "model_card", "report"])
def test_a_change_of_anything_it_rests_on_is_seen(evaluated, name, monkeypatch):
    one = derived_files(evaluated)[name]
    for file in one.files:
        path = evaluated.path(file)
        before = path.read_bytes() if path.exists() else None
        path.write_bytes((before or b"") + b"\n")
        assert file in stale_files(evaluated)[name]
        if before is None: path.unlink()
        else: path.write_bytes(before)
    assert stale_files(evaluated) == {}
    evaluated.record(model="another@1")
    assert "run.json has changed" in stale_files(evaluated)[name]
    rebuild(evaluated)
    monkeypatch.setattr(derived, "code_digest", lambda: "another")
    assert stale_files(evaluated)[name] == "the code that writes it is another"


def test_how_the_steps_stand_makes_nothing_stale(evaluated):
    evaluated.record(steps={"evaluate": {"status": "done"}}, engine={"engine": "transformers"})
    assert stale_files(evaluated) == {}


def test_what_older_code_wrote_is_written_again(evaluated, capsys):
    "Files of before there were digests, and a card that was never written."
    paths = [one.place for one in derived_files(evaluated).values()]
    digests = re.compile(r"(?s)rests_on:\n(  .*?\n)+|<meta name=\"rests_on\"[^>]*>")
    for path in paths: path.write_text(digests.sub("", path.read_text()))
    assert set(stale_files(evaluated)) == {"data_set", "model_card", "report"}
    assert all("older code" in words for words in stale_words(evaluated))
    paths[1].unlink()
    assert main(["report", "demo"]) == 0 and capsys.readouterr().out.strip().endswith("report.html")
    assert stale_words(evaluated) == [] and all(path.is_file() for path in paths)


def test_only_what_is_stale_is_written(evaluated):
    times = {name: one.place.stat().st_mtime_ns for name, one in derived_files(evaluated).items()}
    rebuild(evaluated)
    assert times == {name: one.place.stat().st_mtime_ns for name, one in derived_files(evaluated).items()}
    evaluated.path("ledger.json").write_text(evaluated.path("ledger.json").read_text() + "\n")
    rebuild(evaluated)
    changed = [name for name, one in derived_files(evaluated).items() if one.place.stat().st_mtime_ns != times[name]]
    assert changed == ["report"]


def test_a_report_that_is_written_alone_says_which_card_is_stale(evaluated):
    evaluated.record(model="another@1")
    assert "Note: the data set&#39;s card is stale: run.json has changed since" in write_report(evaluated).read_text()
    assert "is stale" not in rebuild(evaluated)["report"].read_text() and stale_words(evaluated) == []


def test_repair_writes_again_what_is_stale(evaluated, capsys):
    evaluated.record(model="another@1")
    assert main(["repair", "demo"]) == 0
    assert "written again: the data set's card; the model's card; the report" in capsys.readouterr().out
    assert stale_words(evaluated) == []


def test_a_data_set_without_pairs_goes(evaluated):
    write_rows(evaluated.path("pairs.jsonl"), [])
    assert stale_files(evaluated)["data_set"] == "no pair is left"
    assert "data_set" not in rebuild(evaluated) and not evaluated.path("dataset").exists()
    assert stale_words(evaluated) == []


def test_a_card_that_cannot_be_written_keeps_no_report_from_being_written(evaluated):
    split = read_json(evaluated.path("split.json"))
    write_json(evaluated.path("split.json"), split | {"train": [], "validation": [], "test": []})
    with pytest.raises(InputError, match="split.json does not know"): rebuild(evaluated)
    assert set(stale_files(evaluated)) == {"data_set"}


def test_a_run_without_pairs_has_nothing_to_rebuild(capsys):
    open_run("new").record(run="new")
    assert main(["report", "new"]) == 2 and "has nothing to report yet" in capsys.readouterr().err
    assert stale_words(open_run("new")) == []


def test_every_derived_file_carries_its_block(evaluated):
    for name, one in derived_files(evaluated).items():
        assert carried(one.place) == rests_on(evaluated, name) and len(carried(one.place)) > 4
    block = evaluated.path("report.md").read_text().split("```json\n")[1].split("\n```")[0]
    assert json.loads(block)["rests_on"] == rests_on(evaluated, "report")
    evaluated.path("report.html").write_text('<html><head><meta name="rests_on" content="{[">')
    assert "older code" in stale_files(evaluated)["report"]


# headers


def test_a_model_cards_head_holds_licence_data_base_and_results(evaluated):
    evaluated.record(pushed="lab/pairs", recipe=evaluated.manifest["recipe"] | {"helpful": "hub:lab/helpful"})
    card = ModelCard(card_of(evaluated))
    data, results = card.data, {one.metric_type: one for one in card.data.eval_results}
    assert (data.license, data.base_model, data.datasets) == ("apache-2.0", "Qwen/Qwen2.5-0.5B-Instruct",
                                                              ["lab/pairs", "lab/helpful"])
    metrics = collect(evaluated).metrics
    row = next(row for row in metrics.comparisons if row.claim == metrics.declared.primary)
    assert results["violation"].metric_value == round(row.after, 4)
    assert results["violation"].metric_args["interval_95"] == [round(row.difference.low, 4),
                                                               round(row.difference.high, 4)]
    assert "unofficial" in results["violation"].metric_name
    assert results["accuracy"].metric_value == round(metrics.preference.reward.mean, 4)
    assert data.library_name == "peft" and str(card) == card_of(evaluated)


def test_a_card_tells_the_recipe_it_was_trained_by_and_what_has_left_the_run(evaluated):
    "The run is given another model and other pairs after its training."
    recipe = evaluated.manifest["recipe"]
    write_json(evaluated.path("dpo", "stage.json"), {"run": "/home/ann/runs/demo", "recipe": recipe | {"beta": 0.33}})
    evaluated.record(recipe=recipe | {"model": "smollm2-135m"})
    write_rows(evaluated.path("pairs.jsonl"), load_pairs(evaluated)[3:])
    text = card_of(evaluated)
    assert ModelCard(text).data.base_model == "Qwen/Qwen2.5-0.5B-Instruct" and "- beta: 0.33" in text
    assert "Since then 3 of these pairs have left the run" in text and "/home/ann" not in text


def test_a_judge_below_the_bar_gives_no_result(evaluated):
    metrics = read_json(evaluated.path("metrics.json"))
    rows = [row | {"calibrated": False} if row["outcome"] == "violation" else row for row in metrics["comparisons"]]
    write_json(evaluated.path("metrics.json"), metrics | {"comparisons": rows})
    assert "violation" not in [one.metric_type for one in card_results(collect(evaluated))]


@pytest.mark.parametrize("model, licence", [
    ("llama-3.1-8b", {"license": "llama3.1"}), ("smollm2-135m", {"license": "apache-2.0"}),
    ("folder", {"license": "unknown"})])
def test_the_licence_is_the_base_models(trained, tmp_path, model, licence):
    if model == "folder":
        place = tmp_path / "client" / "base"
        place.mkdir(parents=True)
        write_json(place / "config.json", {"model_type": "llama"})
        model = str(place)
    trained.record(recipe=trained.manifest["recipe"] | {"model": model})
    text = training_card(trained)
    assert ModelCard(text).data.to_dict().items() >= licence.items()
    assert str(tmp_path) not in text


def test_a_data_sets_head_is_one_of_the_hub(evaluated):
    text = (rebuild(evaluated)["data_set"] / "README.md").read_text()
    card = DatasetCard(text)
    assert str(card) == text and card.data.license == "apache-2.0"
    assert card.data.rests_on == rests_on(evaluated, "data_set")


def test_no_card_names_a_place_or_an_address(evaluated):
    recipe = evaluated.manifest["recipe"] | {"prompts": ["/home/ann/client/p.jsonl"], "base_url": "http://10.1.2.3/v1",
                                             "helpful": "/home/ann/client/h.jsonl"}
    evaluated.record(recipe=recipe, model="endpoint:m@gpu7.office:8000/v1#3b58")
    places = rebuild(evaluated)
    for path in (places["model_card"], places["data_set"] / "README.md"):
        assert not re.search(r"/home/ann|client|10\.1\.2\.3|gpu7", path.read_text()), path
