"""Cells that are made up, with effects planted in them: what the analysis finds, withholds, and tells."""
import numpy as np
import pytest

from contemplative_cai.core.files import read_record
from contemplative_cai.core.project import runs_root
from contemplative_cai.evaluation.claims import Column, Outcome
from contemplative_cai.inputs.study import build_study, declare_study, read_declared_study, study_cells
from contemplative_cai.measure.corrected import JudgedArm
from contemplative_cai.report import studied
from contemplative_cai.report.between import Seen
from contemplative_cai.report.heard import heard_contrast
from contemplative_cai.report.studied import (
    CellSeen,
    StudyData,
    dose_points,
    kept_within,
    multiverse,
    study_contrast,
    study_contrasts,
)
from contemplative_cai.report.study_page import StudyMetrics, finding_words, heard_rows, study_limits, write_study

CARE = Outcome(name="boundless_care", set="contemplative", unit="share", better="higher")
REFUSAL = Outcome(name="refusal", set="safe", unit="share", better="lower", judged=False)
WORDS = Outcome(name="words", set="all", unit="words", better="neither", share=False, judged=False)
FILE = {"recipe": "smoke", "primary": "boundless_care", "secondary": ["refusal"], "seeds": {"training": [1, 2, 3]},
        "axes": {"content": {"ours": {}, "theirs": {"constitution": "generic"}, "nothing": {"constitution": "improve"}},
                 "training": ["sft", "dpo"]},
        "doses": {"weight": [0, 0.5, 1, 2]}}


def made_up(seed=0, effect=0.2, of_training=0.02, judge="probe a", calibrated=True, prompts=40, by_length=False,
            **changes):
    study = build_study(FILE | changes, "made_up.yaml", "made_up")
    rng = np.random.default_rng(seed)
    ease = rng.normal(0.4, 0.1, prompts)

    def answers(shift=0.0, scale=0.1, of=1.0):
        return {f"p{i}": [float(of * ease[i] + shift + rng.normal(0, scale))] for i in range(prompts)}

    def seen(cell):
        arm = "sft" if "sft" in cell.name.split(".") else "dpo"
        shift = effect * (cell.levels["content"] == "ours") + rng.normal(0, of_training)
        care = {"base": answers(), arm: answers(shift), f"{arm}-at-50": answers(shift / 2),
                f"{arm}-at-200": answers(2 * shift)}
        longer = {"base": answers(60), arm: answers(60 + 100 * shift, 20)}
        if by_length:
            care[arm] = {p: [care["base"][p][0] + (words - longer["base"][p][0]) / 100]
                         for p, [words] in longer[arm].items()}
        columns = (Column(CARE, judge, calibrated, care),
                   Column(CARE, "logits b", True, {"base": answers(), arm: answers()}),
                   Column(REFUSAL, "rules", True, {"base": answers(), arm: answers()}),
                   Column(WORDS, "rules", True, longer))
        return CellSeen(cell, arm, Seen(cell.run, arm, columns, {}, {}))
    cells = tuple(study_cells(study))
    return StudyData(study, cells, {cell.name: seen(cell) for cell in cells})


def by_name(data): return {(row.outcome, row.name): row for row in study_contrasts(data)}


def test_a_planted_effect_is_found_where_it_was_planted_and_nowhere_else():
    rows = by_name(made_up())
    for other in ("theirs", "nothing", "base"):
        row = rows["boundless_care", f"ours less {other}"]
        assert row.role == "primary" and row.p < 0.01 and row.estimate.low < 0.2 < row.estimate.high and row.pairs == 6
        assert rows["refusal", f"ours less {other}"].role == "secondary"
    assert [rows["refusal", f"ours less {other}"].p > 0.05 for other in ("theirs", "nothing", "base")].count(True) >= 2
    assert "Shown to be more" in finding_words(rows["boundless_care", "ours less theirs"])


def test_the_family_errs_about_as_often_as_it_says():
    "Any of three contrasts shown where there is nothing: Holm's smallest p is three times the smallest."
    wrong = 0
    for seed in range(120):
        data = made_up(seed, effect=0.0, of_training=0.05, prompts=20)
        family = data.study.contrasts
        rows = [study_contrast(data, family, against, "boundless_care", "primary") for against in family.against]
        wrong += 3 * min(row.estimate.p for row in rows) < 0.05
    assert wrong / 120 < 0.12


def test_what_rests_on_a_judge_below_the_bar_or_on_several_is_no_claim():
    row = by_name(made_up(calibrated=False))["boundless_care", "ours less theirs"]
    assert row.p is None and row.withheld == "judge below the bar" and "Nothing is claimed" in finding_words(row)
    data = made_up()
    name = next(iter(data.seen))
    other = made_up(judge="probe b").seen[name]
    mixed = data._replace(seen=data.seen | {name: other})
    assert "different judges" in by_name(mixed)["boundless_care", "ours less theirs"].withheld


def test_a_repetition_that_lacks_a_cell_is_left_out_and_told():
    data = made_up()
    left = data._replace(seen={name: one for name, one in data.seen.items() if name != "theirs.dpo.t2"})
    rows = by_name(left)
    assert rows["boundless_care", "ours less theirs"].lacking == 1
    assert rows["boundless_care", "ours less theirs"].estimate.repeats == 2
    assert rows["boundless_care", "ours less base"].estimate.repeats == 3
    told = "\n".join(study_limits(left, list(rows.values()), None))
    assert "1 of 18 cells are not there yet (theirs.dpo.t2)" in told and "Of 2 repetitions" in told
    assert "Nothing was declared" in told


def test_contrasts_whose_cells_are_to_come_are_counted_in_the_family():
    data = made_up(effect=0.0)
    left = data._replace(seen={name: one for name, one in data.seen.items() if not name.startswith("nothing")})
    rows = by_name(left)
    told = [rows["boundless_care", f"ours less {other}"] for other in ("theirs", "base")]
    assert min(row.p for row in told) == pytest.approx(min(1, 3 * min(row.estimate.p for row in told)))
    assert rows["boundless_care", "ours less nothing"].p is None


def test_two_repetitions_claim_nothing_and_one_speaks_of_itself():
    row = by_name(made_up(seeds={"training": [1, 2]}))["boundless_care", "ours less theirs"]
    assert row.p is None and row.withheld == "2 repetitions, 3 are the least for a claim"
    row = by_name(made_up(seeds={"training": [1]}))["boundless_care", "ours less theirs"]
    assert "Shown to be more in this one training" in finding_words(row)


def test_one_repetition_of_several_that_were_planned_supports_no_claim():
    data = made_up()
    first = {name: one for name, one in data.seen.items() if name.endswith(".t1")}
    row = by_name(data._replace(seen=first))["boundless_care", "ours less theirs"]
    assert row.estimate.repeats == 1 and row.estimate.low > 0 and row.p is None
    assert row.withheld == "1 repetition, 3 are the least for a claim"


def test_a_repetition_without_the_outcome_is_told_as_lacking():
    data = made_up()
    one = data.seen["theirs.dpo.t2"]
    bare = CellSeen(one.cell, one.arm, Seen(one.cell.run, one.arm, one.seen.columns[2:], {}, {}))
    row = by_name(data._replace(seen=data.seen | {"theirs.dpo.t2": bare}))["boundless_care", "ours less theirs"]
    assert row.lacking == 1 and row.estimate.repeats == 2


def test_no_other_choice_says_the_same_as_a_contrast_that_claims_nothing():
    data = made_up(calibrated=False)
    worlds = multiverse(data, study_contrasts(data)[:1])
    assert worlds and all(world.agrees is None for world in worlds)


def test_other_choices_are_held_against_the_conclusion_that_the_page_draws():
    "Own p below .05 and Holm's above: as declared nothing is shown, and a choice without a difference agrees."
    data = made_up()
    row = next(row for row in study_contrasts(data) if row.name == "ours less theirs")
    missed = row.model_copy(update={"p": 0.09, "estimate": row.estimate.model_copy(update={"p": 0.03})})
    worlds = {world.choice: world for world in multiverse(data, [missed])}
    assert worlds["judge logits b"].agrees and not worlds["training sft alone"].agrees
    assert worlds["as declared"].agrees


def test_clusters_of_cells_with_other_questions_are_joined():
    data = made_up(prompts=8)
    names = list(data.seen)[:2]
    def asked(name, clusters):
        one = data.seen[name]
        return CellSeen(one.cell, one.arm, Seen(one.cell.run, one.arm, one.seen.columns, {}, clusters))
    both = data._replace(seen={names[0]: asked(names[0], {"p1": "p1", "p2": "p1", "p5": "p5"}),
                               names[1]: asked(names[1], {"p2": "p2", "p3": "p2", "p5": "p5"})})
    clusters = both.clusters
    assert len({clusters[id] for id in ("p1", "p2", "p3")}) == 1 and clusters["p5"] == "p5"


def test_a_file_that_nobody_declared_is_told():
    data = made_up()
    declare_study(runs_root() / "made_up", data.study, {}, 0)
    declared = read_declared_study(runs_root() / "made_up")
    other = data._replace(study=data.study.model_copy(update={"primary": "refusal"}), otherwise=("ours.sft.t1",))
    told = "\n".join(study_limits(other, study_contrasts(other), declared))
    assert "nobody declared what this page tests" in told and "left out: 1 (ours.sft.t1)" in told
    assert "nobody declared" not in "\n".join(study_limits(data, study_contrasts(data), declared))


def test_a_conclusion_that_is_one_judges_or_one_lengths_is_told_so():
    data = made_up()
    primary = [row for row in study_contrasts(data) if row.role == "primary"][:1]
    worlds = {world.choice: world for world in multiverse(data, primary)}
    assert worlds["as declared"].agrees and worlds["training sft alone"].agrees
    assert worlds["without training seed 1"].agrees and not worlds["judge logits b"].agrees
    assert worlds["at equal length"].agrees
    longer = made_up(by_length=True)
    worlds = {world.choice: world for world in multiverse(longer, study_contrasts(longer)[:1])}
    assert abs(worlds["at equal length"].estimate.mean) < 0.05 < 0.1 < worlds["as declared"].estimate.mean


def test_what_is_kept_depends_on_the_margin_and_that_is_told():
    data = made_up()
    kept = {(one.contrast, one.margin): one.kept.verdict for one in kept_within(data, study_contrasts(data))}
    assert kept["ours less theirs", 0.1] == "kept" and kept["ours less theirs", 0.025] != "kept"
    assert not kept_within(made_up(calibrated=False), [row for row in study_contrasts(made_up(calibrated=False))
                                                       if row.outcome == "boundless_care"])


def test_doses_rise_from_base_to_twice():
    points = [point for point in dose_points(made_up()) if point.of == "adapter's weight, ours"
              and point.outcome == "boundless_care"]
    assert [point.dose for point in points] == [0, 0.5, 1, 2] and points[0].estimate.mean == 0
    assert [point.estimate.mean for point in points] == pytest.approx([0, 0.1, 0.2, 0.4], abs=0.05)


def test_numbers_that_an_axis_varies_are_doses():
    data = made_up(axes={"content": {"ours": {}, "theirs": {"constitution": "generic"}}, "max_steps": [5, 40],
                         "training": ["sft", "dpo"]}, doses={})
    assert {(point.of, point.dose) for point in dose_points(data)} == {("max_steps", 5), ("max_steps", 40)}


def test_the_page_and_the_numbers_say_the_same():
    data = made_up()
    folder = runs_root() / "made_up"
    declare_study(folder, data.study, {}, 0)
    declare_study(folder, data.study.model_copy(update={"recipe": "quickstart"}), {}, 4)
    place = write_study(data)
    numbers, page = read_record(folder / "study-metrics.json", StudyMetrics), place.with_suffix(".md").read_text()
    assert [row.name for row in numbers.contrasts[:3]] == ["ours less theirs", "ours less nothing", "ours less base"]
    assert numbers.doses and numbers.choices and (folder / "study-figures" / "contrasts.png").stat().st_size > 2000
    assert "The study was changed on" in page and "when 4 cells had been evaluated" in page
    for title in ("The contrasts", "Every cell", "Dose curves", "Where the spread comes from", "Which conclusion"):
        assert f"## {title}" in page
    assert page == write_study(data).with_suffix(".md").read_text()


# by readers

def read_arms(data, lenient):
    "Labels of the first repetition: the judge says the same, but calls more of one side's faults good."
    labelled = {cell.run for cell in data.cells if cell.training_seed == 1}
    ours = {cell.run for cell in data.cells if cell.levels["content"] == "ours"}

    def arms(run, outcome, judge, names):
        if run.name not in labelled: return None
        rng = np.random.default_rng(len(run.name))
        labels = (rng.random(40) < 0.4).astype(float)
        hand = lenient if run.name in ours and "base" not in names else 0.1
        values = np.where((labels == 1) | (rng.random(40) < hand), 0.9, 0.1)
        return {name: JudgedArm(name=name, values=tuple(values), labels=tuple(labels),
                                clusters=tuple(f"p{i}" for i in range(40))) for name in names}
    return arms


@pytest.mark.parametrize("lenient, claimed", [(0.1, True), (0.8, False)])
def test_a_judge_that_errs_for_one_side_supports_no_claim(monkeypatch, lenient, claimed):
    data = made_up()
    monkeypatch.setattr(studied, "judged_arms", read_arms(data, lenient))
    row = by_name(data)["boundless_care", "ours less theirs"]
    assert row.heard and row.heard.pairs == 2 and row.heard.difference.first.labels == 80
    assert (row.p is not None, row.withheld == "") == (claimed, claimed), row.withheld
    assert abs(row.heard.difference.mean) < 0.25 and (claimed or "errs differently" in row.withheld)
    [shown] = [line for line in heard_rows([row])]
    assert shown["labels"] == "80, 80" and shown["by readers"].startswith(("+", "-"))


def test_nobody_having_read_is_a_limit_and_labels_on_one_side_are_none(monkeypatch):
    data = made_up()
    assert any("Nobody has labelled" in line for line in study_limits(data, study_contrasts(data), None))
    def one_sided(run, outcome, judge, names):
        return read_arms(data, 0.1)(run, outcome, judge, names) if "ours" in run.name else None
    monkeypatch.setattr(studied, "judged_arms", one_sided)
    rows = by_name(data)
    assert rows["boundless_care", "ours less theirs"].heard is None
    assert rows["boundless_care", "ours less base"].heard.pairs == 2


def half_right(lenient, labelled, seed):
    "Half of 200 answers are right; the judge sees those, and calls this share of the others right."
    rng = np.random.default_rng(seed)
    right = (rng.random(200) < 0.5).astype(float)
    return JudgedArm(values=tuple(np.where(right == 1, 1.0, (rng.random(200) < lenient).astype(float))),
                     labels=tuple(label if i < labelled else None for i, label in enumerate(right)),
                     clusters=tuple(f"p{i}" for i in range(200)))


def test_a_cell_with_more_labels_does_not_speak_for_another_in_which_the_judge_errs():
    found = []
    for seed in range(10):
        pairs = [(half_right(0.1, 120, 9 * seed), half_right(0.1, 120, 9 * seed + 1)),
                 (half_right(0.8, 30, 9 * seed + 2), half_right(0.1, 30, 9 * seed + 3))]
        found.append(heard_contrast(pairs, "ours", "theirs").difference)
    assert found[0].first.labels == found[0].second.labels == 60
    assert abs(np.mean([one.mean for one in found])) < 0.08
    assert sum(one.low <= 0 <= one.high for one in found) >= 8
