"""A judge that is handed in gates the pairs which the critic's words cannot, and nothing else."""
import pytest
from support import matter

from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Message, PreferencePair, digest
from contemplative_cai.inputs.constitution import BENIGN, load_constitution
from contemplative_cai.measure.bar import JudgeStanding
from contemplative_cai.models.llm import ScriptedLLM
from contemplative_cai.pairs.checked import Checked, SidesFound, checked_pairs
from contemplative_cai.pairs.gate import gate_counts
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.report.summary import collect, pairs_checked


def turn(role, text): return (Message(role=role, content=text),)


def pair(i, principle="mindfulness", **more):
    return PreferencePair(**{"prompt": turn("user", f"She forgot {matter(i)}. What now?"),
                             "chosen": turn("assistant", f"Ask her about {matter(i)}."),
                             "rejected": turn("assistant", f"She does not care for {matter(i)}."), "prompt_id": f"p{i}",
                             "principle": principle, "locale": "en_US", "source": "demo", "critique": "",
                             "constitution": "c@0", "model": "m", "seed": 0, "template": "t@0", **more})


def standing(principle, passed=True, languages=("en",), why="measured"):
    return JudgeStanding(judge="probe", criterion=principle, passed=passed, why=why,
                         languages=languages if passed else ())


def checked(found, *standings):
    return Checked(judge="probe", standings={one.criterion: one for one in standings},
                   found={one.id: SidesFound(short=short, mended=mended) for one, short, mended in found})


@pytest.mark.parametrize("short, mended, reason", [
    (0.5, 0.1, None), (0.25, 0.001, None), (0.0, 0.5, "not_at_fault"), (-0.5, 0.5, "not_at_fault"),
    (0.5, 0.0, "not_mended"), (0.5, -0.2, "not_mended")])
def test_a_pair_stays_where_its_answer_falls_short_and_its_revision_does_better(short, mended, reason):
    one = pair(0)
    kept, dropped = checked_pairs([one], checked([(one, short, mended)], standing("mindfulness")))
    seen = kept[0] if reason is None else dropped[0].pair
    assert [row.reason for row in dropped] == ([reason] if reason else [])
    assert (seen.judge, seen.fault_margin, seen.mended_margin) == ("probe", short, mended)


def test_a_side_that_could_not_be_read_leaves_the_pair_undecided():
    kept, (row,) = checked_pairs([pair(0)], checked([], standing("mindfulness")))
    assert not kept and row.reason == "undecided" and row.pair.fault_margin is None


def test_it_has_no_say_where_it_has_not_passed_and_where_another_judge_has_looked():
    seen = pair(0, judge="critic", fault_margin=1.0, mended_margin=1.0)
    below, twin = pair(1, "emptiness"), pair(3, BENIGN.id)
    french = pair(2, locale="fr_FR", chosen=turn("assistant", "Demandez-lui ce qui s'est passé ce jour-là."),
                  rejected=turn("assistant", "Elle ne fait jamais attention à personne."))
    rows = [seen, below, french, twin]
    bad = [(one, -1.0, -1.0) for one in rows]
    assert checked_pairs(rows, checked(bad, standing("mindfulness"), standing("emptiness", False))) == (rows, [])


# a whole run

SCRIPTS = {"kind": "Ask him what happened, {}.", "rude": "They are no good, {}."}


def script(contemplative):
    "Rude answers, kind revisions."
    revisions = [principle.revision_request for principle in contemplative.principles]
    critiques = [principle.critique_request for principle in contemplative.principles]
    def reply(conversation):
        asked = conversation[-1].content
        if any(request in asked for request in critiques): return "It settles who they are."
        kind = "kind" if any(request in asked for request in revisions) else "rude"
        return SCRIPTS[kind].format(f"{kind} {digest(asked)}")
    return reply


def checker(passed, calls):
    "A judge that has passed for some principles, and finds every second pair of them not at fault."
    def check(pairs, journal, run):
        calls.append([one.id for one in pairs])
        named = {one.principle for one in pairs}
        some = [one for one in pairs if one.principle in passed]
        return checked([(one, 0.5 if i % 2 else -0.5, 0.2) for i, one in enumerate(some)],
                       *(standing(id, id in passed, why="it falls short") for id in sorted(named)))
    return check


def made(name, calls, passed=("mindfulness",), **more):
    contemplative = load_constitution("contemplative")
    run = open_run(name)
    recipe = build_recipe({"n_prompts": 8, "filters": "empty,identical", **more})
    run.record(recipe=recipe.model_dump(mode="json"), recipe_name="test")
    llm = ScriptedLLM(script(contemplative), lambda conversation, reply: 0.0, batch_size=64, key="writer@1")
    return run, generate_pairs(run, recipe, llm, checker=checker(passed, calls))


def test_a_run_is_gated_by_it_where_the_critic_cannot_be_believed():
    run, generation = made("handed", calls := [])
    gate, counts = run.manifest["gate"], gate_counts(generation.kept, generation.dropped)
    assert gate["checker"] == "probe" and gate["judge"] == "writer@1" and len(calls) == 1 and len(calls[0]) == 32
    assert {id: (one["judge"], one["passed"]) for id, one in gate["principles"].items()} == {
        id: ("probe", id == "mindfulness") for id in ("emptiness", "non_duality", "boundless_care", "mindfulness")}
    assert "writer" not in gate["principles"]["mindfulness"]["why"] and "probe: it falls" in gate["principles"][
        "emptiness"]["why"]
    assert (counts.asked, counts.not_at_fault, counts.mending, counts.unchecked) == (8, 4, 4, 24)
    assert {row.principle for row in generation.dropped} == {"mindfulness"}
    figure = pairs_checked(collect(run))
    assert "by probe: the answer meets less than half" in figure.basis and "writer@1: the answer" not in figure.basis
    assert "Not checked: no judge above the bar (writer@1 and probe; " in figure.basis


def test_its_pairs_are_balanced_after_it():
    _, generation = made("balanced", [], balance="principle")
    counts = {id: sum(one.principle == id for one in generation.kept) for id in ("emptiness", "mindfulness")}
    assert counts == {"emptiness": 4, "mindfulness": 4}
    assert sum(row.reason == "balance" for row in generation.dropped) == 12


@pytest.mark.parametrize("judge", ["none", "logits"])
def test_it_is_not_asked_where_a_recipe_wants_no_gate(judge):
    run, _ = made(f"asked-{judge}", calls := [], judge=judge)
    assert not calls and "checker" not in run.manifest["gate"]
