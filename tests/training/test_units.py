"""One question in three wordings is one prompt, wherever pairs are counted."""
import pytest
from support import matter

from contemplative_cai.core.files import write_record, write_rows
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Dropped, Message, PreferencePair, Prompt
from contemplative_cai.inputs.split import split_prompts
from contemplative_cai.models.llm import Logprob
from contemplative_cai.pairs.baselines import cross_validated, length_rule, prompt_folds, prompt_units
from contemplative_cai.pairs.gate import gate_counts
from contemplative_cai.pairs.health import cut_share, ending_difference, ending_share, health
from contemplative_cai.review.reviewed import reviewed_shares
from contemplative_cai.review.votes import Decision
from contemplative_cai.training.checkpoints import Training
from contemplative_cai.training.heldout import ScoredPair, preference_accuracy

ENDS = ("?", "??", ", or not?")


def turn(role, text): return (Message(role=role, content=text),)


def prompts(questions=8, ends=ENDS):
    return [Prompt(text=f"Shall I ask about {matter(i)}{end}", source="test")
            for i in range(questions) for end in ends]


def pair(prompt, **more):
    return PreferencePair(prompt=prompt.messages, chosen=turn("assistant", f"Ask first. {prompt.id}"),
                          rejected=turn("assistant", f"Say it plainly and be done with it. {prompt.id}"),
                          prompt_id=prompt.id, principle="emptiness", locale="en", source="test", critique="c",
                          constitution="x@0", model="m", seed=0, template="t", **more)


def scored(row):
    before = Logprob(total=-10.0, tokens=5)
    return ScoredPair(pair_id=row.id, prompt_id=row.prompt_id, principle=row.principle, part="test", base_chosen=before,
                      base_rejected=before, tuned_chosen=Logprob(total=-8.0, tokens=5), tuned_rejected=before)


def trained_run(asked):
    split, run, rows = split_prompts(asked, 0.1, 0.4), open_run("units"), [pair(one) for one in asked]
    write_record(run.path("split.json"), split)
    write_rows(run.path("pairs.jsonl"), rows)
    run.path("dpo", "adapter").mkdir(parents=True)
    write_record(run.path("dpo", "training.json"), Training(
        digest="d", status="done", pair_ids=tuple(row.id for row in rows if row.prompt_id in split.train)))
    write_rows(run.path("dpo", "preferences.jsonl"), [scored(row) for row in rows if row.prompt_id in split.test])
    return run


def test_nine_wordings_of_three_questions_are_no_evidence_of_a_preference(runs):
    preference = preference_accuracy(trained_run(prompts()))
    for share in (preference.reward, preference.likelihood.difference, *preference.rules.values()):
        assert (share.n, share.clusters, share.low, share.p) == (9, 3, None, None)
        assert share.undefined == "3 independent units, at least 5 are needed"
    assert preference.reward.mean == 1.0


def test_different_questions_have_the_interval_they_had(runs):
    preference = preference_accuracy(trained_run(prompts(questions=24, ends="?")))
    assert preference.reward.clusters == preference.reward.n == 10 and preference.reward.low > 0.5


def test_no_fold_has_a_question_on_both_sides_in_two_wordings():
    rows = [pair(one) for one in prompts()]
    units = prompt_units(rows)
    assert len(units) == 24 and len(set(units.values())) == 8 and units == prompt_units(rows[::-1])
    folds = prompt_folds(rows)
    assert sorted(row.id for _, test in folds for row in test) == sorted(row.id for row in rows) and len(folds) == 5
    for train, test in folds:
        assert not {units[row.prompt_id] for row in train} & {units[row.prompt_id] for row in test}
    few = cross_validated([pair(one) for one in prompts(questions=4)], length_rule)
    assert few.undefined == "4 independent prompts with pairs, at least 5 are needed"


def shares():
    rows = [pair(one, chosen_finish_reason="stop", fault_margin=1.0, mended_margin=1.0) for one in prompts(questions=3)]
    gone = Dropped(prompt_id=rows[0].prompt_id, principle="emptiness", reason="not_mended", detail="d", pair=rows[0])
    yes = {row.id: [Decision(pair_id=row.id, reviewer="ada", decision="accept", preferred="A", shown_as_a="chosen",
                             at="2026-01-01", b_falls_short=True)] for row in rows}
    reviewed = reviewed_shares(rows, yes)[0]
    return {"end": ending_share(rows, "chosen"), "cut": cut_share(rows, "chosen"), "apart": ending_difference(rows),
            "longer": health(rows).longer, "gate": gate_counts(rows[1:], [gone]).passed,
            "fault": reviewed.at_fault, "mended": reviewed.mended}


@pytest.mark.parametrize("name", ["end", "cut", "apart", "longer", "gate", "fault", "mended"])
def test_no_share_of_three_questions_has_an_interval(name):
    share = shares()[name]
    assert share.n == 9 and share.low is None and share.undefined.startswith("3 independent")
