"""`ccai experts` on a run: planned, packed, collected, analysed; and what is wrong is said in a line."""
import pytest

from contemplative_cai.command.commands import main
from contemplative_cai.core.files import write_rows
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Answer, Prompt
from contemplative_cai.evaluation.questions import Item
from contemplative_cai.review.experts_plan import read_experts_plan
from contemplative_cai.review.experts_simulated import SimulatedExperts, simulated_files

RATERS = ("--raters", "practice=ann,bo,cy", "--raters", "AI safety=di,ed,flo")


@pytest.fixture
def run(monkeypatch):
    "A run with answers of two arms to twelve questions."
    run = open_run("mine")
    run.record(recipe={"seed": 0})
    prompts = [Prompt(text=f"Question {k}?", source="demo") for k in range(12)]
    write_rows(run.path("answers.jsonl"), [
        Answer(arm=arm, prompt_id=one.id, source="demo", text=f"{arm} {k}", model="m")
        for k, one in enumerate(prompts) for arm in ("base", "dpo")])
    write_rows(run.path("items.jsonl"), [Item(set="contemplative", prompt_id=one.id, cluster=one.id, source="demo")
                                         for one in prompts])
    monkeypatch.setattr("contemplative_cai.command.experts.asked_prompts", lambda run: {one.id: one for one in prompts})
    return run


def test_the_whole_way(run, tmp_path, capsys):
    assert main(["experts", "plan", "mine", "--questions", "12", *RATERS, "--until", "2026-03-31"]) == 0
    said = capsys.readouterr().out
    assert "12 questions, an answer each of base, dpo: 24 items" in said and "two raters share" in said
    folder = run.path("experts", "first")
    assert main(["experts", "pack", "mine"]) == 0
    assert "6 packs" in capsys.readouterr().out and (folder / "packs" / "ann" / "rate.html").exists()
    assert main(["experts", "analyse", "mine"]) == 2
    for name, content in simulated_files(read_experts_plan(folder), SimulatedExperts({"dpo": 1.0})).items():
        (tmp_path / name).write_bytes(content)
    assert main(["experts", "collect", "mine", *map(str, tmp_path.glob("first-*.jsonl"))]) == 0
    assert "96 of 96 ratings" in capsys.readouterr().out
    assert main(["experts", "analyse", "mine", "--difference", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "dpo is rated higher than base, which is better" in said
    page = (folder / "analysis.md").read_text()
    assert "power for 0.5" in page and "What this study does not show" in page and (folder / "analysis.html").exists()


@pytest.mark.parametrize("words, told", [
    (("--questions", "12"), "no raters"), (("--raters", "ann"), "expected a group and its raters"),
    ((*RATERS, "--arms", "base,dbo"), "did you mean 'dpo'"), ((*RATERS, "--questions", "40"), "12 have an answer"),
    ((*RATERS, "--until", "soon"), "expected a date"), ((*RATERS, "--sets", "contemplation"), "did you mean"),
    ((*RATERS, "--study", "../x"), "study's name")])
def test_what_cannot_be_planned_is_said(run, capsys, words, told):
    assert main(["experts", "plan", "mine", *words]) == 2
    assert told in capsys.readouterr().err and not run.path("experts").exists()
