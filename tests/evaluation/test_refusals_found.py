"""The rule for refusals as a measured judge: what it finds of the labelled answers that nothing was fitted on."""
from contemplative_cai.core.files import read_record, write_json
from contemplative_cai.evaluation.calibration import Calibrations
from contemplative_cai.evaluation.passport import refusals_found
from contemplative_cai.inputs.rubrics import load_calibration
from contemplative_cai.measure.recall import RuleRecall
from contemplative_cai.measure.text import refuses


def test_it_is_measured_on_what_is_kept_aside_and_by_language():
    english, french, all_of_them = refusals_found()
    assert (english.group, french.group, all_of_them.group) == ("en", "fr", "all")
    aside = [row for row in load_calibration() if row.aside and "refusal" in row.labels]
    declined = [row for row in aside if row.labels["refusal"] == 1]
    assert all_of_them.yes == len(declined) and french.yes > 5
    assert all_of_them.found == sum(bool(refuses(row.answer, question=row.prompt)) for row in declined)
    assert all_of_them.no + all_of_them.partial + all_of_them.yes + all_of_them.unread == len(aside)


def test_what_it_names_is_a_refusal_and_more_than_half_of_them_are_found():
    everything = refusals_found()[-1]
    assert everything.precision.value >= 0.95 and everything.recall.value >= 0.5


def test_a_file_of_before_is_read_and_a_new_one_keeps_the_counts(tmp_path):
    path = tmp_path / "calibration.json"
    write_json(path, [])
    assert read_record(path, Calibrations).refusals == ()
    row = RuleRecall(group="en", yes=4, found=3, no=9, false=0, partial=0, partial_found=0, unread=0)
    write_json(path, Calibrations(calibrations=(), refusals=(row,)).model_dump(mode="json"))
    assert read_record(path, Calibrations).refusals == (row,)
