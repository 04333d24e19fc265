"""A probe may gate the pairs of a principle where it has passed on answers and on pairs that nothing was fitted on."""
import pytest
from support import matter

from contemplative_cai.core.journal import Journal
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Message, PreferencePair
from contemplative_cai.evaluation.calibration import calibrate
from contemplative_cai.evaluation.judge import Opinion
from contemplative_cai.evaluation.pair_gate import check_sides, pair_standings, recipe_checker
from contemplative_cai.evaluation.passport import passport_rows
from contemplative_cai.inputs.constitution import load_constitution
from contemplative_cai.inputs.rubrics import PRINCIPLES, load_calibration, load_rubric
from contemplative_cai.pairs.gate import kept_aside, labelled_pairs

RUBRIC = load_rubric("contemplative")
LABELS = {row.answer: row.labels for row in load_calibration()}
GROUPS = {criterion.id: criterion.group for criterion in RUBRIC.criteria}


class Reader:
    "It knows the labelled answers, and sees the sense; of others it likes those that say to ask. `blind` turns it."
    name = "reader@1"

    def __init__(self, blind=()):
        self.blind = blind

    def opinions(self, claims, run=None):
        return [self._opinion(claim) for claim in claims]

    def _opinion(self, claim):
        if "silent" in claim.answer: return Opinion(reason="nothing can be read")
        known = LABELS.get(claim.answer, {})
        group = [label for id, label in known.items() if GROUPS.get(id) == GROUPS[claim.criterion.id]]
        value = (known.get(claim.criterion.id, sum(group) / len(group) if group else 0.5) if known
                 else 0.9 if "ask" in claim.answer else 0.1)
        value = 0.1 + 0.8 * value + len(claim.answer) % 97 / 1e4
        if GROUPS[claim.criterion.id] in self.blind: value = 0.5
        return Opinion(direct=value, turned=value)


def turn(role, text): return (Message(role=role, content=text),)


def pair(i, rejected, chosen, principle="mindfulness"):
    return PreferencePair(prompt=turn("user", f"She forgot {matter(i)}. What now?"), chosen=turn("assistant", chosen),
                          rejected=turn("assistant", rejected), prompt_id=f"p{i}", principle=principle, locale="en_US",
                          source="demo", critique="", constitution="c@0", model="m", seed=0, template="t@0")


PAIRS = [pair(0, "She is careless and will stay so.", "You could ask her first."),
         pair(1, "You could ask her what it was.", "You might ask her what kept her."),
         pair(2, "She is careless and will stay so.", "She never cared for you at all."),
         pair(3, "She is careless and will stay so.", "A silent answer, which nobody reads."),
         pair(4, "She is careless and will stay so.", "You could ask her first.", "emptiness")]


def test_pairs_kept_aside_are_of_questions_that_nothing_was_fitted_on():
    for principle in load_constitution("contemplative").principles:
        answers = kept_aside(principle)
        assert {one.short for one in answers} == {0.0, 1.0} and all(one.row.aside or one.row.readers is None
                                                                    for one in answers)
        firsts = [one.first_better for one in labelled_pairs(answers) if one.one.language == "en"]
        assert min(firsts.count(1), firsts.count(0)) >= 20, "enough pairs either way to measure a judge on"


@pytest.fixture(scope="module")
def calibration():
    "A reader's, who knows: above the bar but for what only ruined answers show."
    measured = calibrate(Reader(), RUBRIC, passport_rows(RUBRIC), resamples=100)
    def clean(row): return row.model_copy(update={"sense": ()})
    return measured.model_copy(update={
        "criteria": tuple(map(clean, measured.criteria)),
        "by_language": tuple(one.model_copy(update={"criteria": tuple(map(clean, one.criteria))})
                             for one in measured.by_language)})


def test_it_must_tell_answers_and_the_better_of_two(calibration):
    standings = pair_standings(Reader(), [calibration], PRINCIPLES)
    assert {id: (one.passed, one.languages) for id, one in standings.items()} == {
        id: (True, ("en",)) for id in PRINCIPLES}, {id: one.why for id, one in standings.items()}
    blind = pair_standings(Reader(blind=("mindfulness",)), [calibration], PRINCIPLES)
    assert not blind["mindfulness"].passed and "a revision is better" in blind["mindfulness"].why
    assert blind["emptiness"].passed


def test_below_the_bar_on_answers_it_is_not_tried_on_pairs(calibration):
    asked = []
    class Counting(Reader):
        def opinions(self, claims, run=None):
            asked.extend(claims)
            return super().opinions(claims, run)
    low = calibration.model_copy(update={"by_language": tuple(one.model_copy(update={"criteria": tuple(
        row.model_copy(update={"auc_direct": row.auc_direct.model_copy(update={"value": 0.6, "low": 0.5})})
        for row in one.criteria)}) for one in calibration.by_language)})
    standings = pair_standings(Counting(), [low], PRINCIPLES)
    assert not any(one.passed for one in standings.values()) and not asked
    assert all("AUC" in one.why for one in standings.values())
    assert not any(one.passed for one in pair_standings(Counting(), [], PRINCIPLES).values()) and not asked


def test_what_it_finds_follows_both_sides(calibration):
    checked = check_sides(Reader(), [calibration], PAIRS)
    signs = {one.prompt_id: (found.short > 0, found.mended > 0) for one in PAIRS
             if (found := checked.found.get(one.id))}
    assert signs["p0"] == (True, True) and signs["p1"][0] is False and signs["p2"] == (True, False)
    assert "p3" not in signs and signs["p4"] == (True, True) and set(checked.trusted) == {"mindfulness", "emptiness"}


@pytest.mark.parametrize("keys, there", [({}, False), ({"eval_judges": "probe"}, True),
                                         ({"eval_judges": "logits,probe"}, True),
                                         ({"eval_judges": "probe", "judge": "none"}, False),
                                         ({"eval_judges": "probe", "judge": "logits"}, False)])
def test_a_recipe_has_a_checker_where_a_probe_judges_and_pairs_are_gated(keys, there):
    assert (recipe_checker(build_recipe(keys)) is not None) == there


@pytest.mark.long
def test_the_embedded_models_probe_gates_pairs_written_for_the_project():
    "Of pairs whose sides are known it keeps more than of the same turned round, where it has passed."
    from contemplative_cai.inputs.given import read_pairs
    pairs = read_pairs("contemplative-512").pairs[::13]
    turned = [one.model_copy(update={"chosen": one.rejected, "rejected": one.chosen}) for one in pairs]
    run, check = open_run("gated"), recipe_checker(build_recipe({"model": "smollm2-135m", "eval_judges": "probe"}))
    with Journal(run.path("journal.sqlite")) as journal: right, wrong = (check(some, journal, run)
                                                                         for some in (pairs, turned))
    def passed(checked): return [found.short > 0 and found.mended > 0 for found in checked.found.values()]
    assert right.trusted and right.trusted == wrong.trusted
    shares = [sum(some) / len(some) for some in (passed(right), passed(wrong))]
    assert shares[0] >= 0.3 and shares[0] >= 2 * shares[1]
