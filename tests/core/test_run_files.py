"""The JSON files of a run's folder: a record each, one reader, and files of before that go on."""
import pytest

from contemplative_cai.core.files import FileRecord, read_json, read_record, write_json, write_record
from contemplative_cai.core.journal import Ledger, read_ledger, write_ledger
from contemplative_cai.core.run import Manifest, Setup, open_run, read_manifest, step, trained_stage
from contemplative_cai.core.schema import InputError
from contemplative_cai.core.terminal import Standing
from contemplative_cai.evaluation.arms import ArmsFile
from contemplative_cai.evaluation.calibration import Calibrations, RememberedCalibration
from contemplative_cai.inputs.draw import Leakage
from contemplative_cai.inputs.split import Split
from contemplative_cai.pairs.health import Health, health
from contemplative_cai.report.page import Headline
from contemplative_cai.training.checkpoints import PartAccuracy, Training
from contemplative_cai.training.heldout import PreferenceAccuracy

ESTIMATE = {"n": 8, "clusters": 2, "mean": 0.25, "undefined": "2 independent units, at least 5 are needed"}
MEASURED = {"value": None, "low": None, "high": None, "undefined": "nothing was read"}
CALIBRATION = {"judge": "detector", "rubric": "surface", "answers": "x", "criteria": [
    {"criterion": "refusal", "n": 1, "yes": 0, "no": 1, "prompts": 1, "auc_direct": MEASURED,
     "auc_turned": MEASURED, "flip_rate": MEASURED, "kappa": MEASURED, "unscored": MEASURED, "unread": 1.0,
     "auc_length": None},
]}
# what each file held before it had a schema version
BEFORE = {
    Manifest: {"run": "old", "recipe_name": "smoke", "recipe": {"seed": 0}, "surroundings": {"commit": None},
               "steps": {"generate": {"status": "done", "started": "2026-01-01T00:00:00+00:00", "ended": None,
                                      "pid": 3, "kept": 32}},
               "engine": {"engine": "transformers", "why": "the run was begun with it"}, "ensemble": None,
               "drawn": {"practice": 8}, "mended": {}, "seed": 0, "trained": "sft", "arms": {"signature": []}},
    Ledger: {"respond": {"tokens_in": 403, "tokens_out": 192, "tokens_cached": 0, "seconds": 0.1, "kept_pairs": None,
                         "calls": 8, "failed": 0},
             "train": {"tokens_in": None, "tokens_out": None, "tokens_cached": None, "seconds": 5.1,
                       "kept_pairs": None}},
    Standing: {"stage": "respond", "unit": "calls", "done": 3, "total": 8, "fresh": 3, "tokens": 60, "elapsed": 0.5,
               "pid": 36},
    Setup: {"device": "cpu", "dtype": "float32", "commit": None, "versions": {"torch": None},
            "machine": {"cores": 2, "python": "3.11.7"},
            "checks": [{"what": "Python", "status": "ok", "found": "3.11.7", "todo": ""}]},
    Split: {"train": ["a"], "validation": [], "test": ["b"], "seed": 0, "prompts_digest": "x"},
    Leakage: {"table": [{"learned": "training prompts", "held_out": "xstest", "exact": None, "allowed": 0}],
              "leaks": []},
    Training: {"digest": "x", "status": "done", "pairs": 2, "prompts": ["a"], "pair_ids": ["p", "q"], "tokens": 9.0,
               "accuracy": {"test": {"pairs": 0, "likelihood_base": None, "likelihood_tuned": None,
                                     "reward_before": None, "reward_after": None}}},
    PreferenceAccuracy: {"reward": ESTIMATE, "length_rule": ESTIMATE, "bag_of_words": ESTIMATE,
                         "likelihood": {"base": 0.4, "tuned": 0.4, "difference": ESTIMATE}},
    Health: health([]).model_dump(mode="json", exclude={"schema_version"}),
    ArmsFile: [{"name": "base", "description": "the model as it came", "system": None, "adapter": None, "model": None}],
    Calibrations: [CALIBRATION], RememberedCalibration: CALIBRATION,
    Headline: [["Pairs kept", "9 of 10", "one was cut off", "pairs.jsonl"]],
}
kinds = pytest.mark.parametrize("kind", BEFORE, ids=lambda kind: kind.__name__)


@kinds
def test_a_file_of_before_is_read_and_written_again_with_its_version(tmp_path, kind):
    write_json(tmp_path / "old.json", BEFORE[kind])
    record = read_record(tmp_path / "old.json", kind)
    write_record(tmp_path / "new.json", record)
    new = read_json(tmp_path / "new.json")
    assert new["schema_version"] == 1 and read_record(tmp_path / "new.json", kind) == record
    kept = new[kind.wraps] if kind.wraps else new
    entries = kept if isinstance(kept, list) else [kept]
    for old, now in zip(BEFORE[kind] if isinstance(kept, list) else [BEFORE[kind]], entries, strict=True):
        assert set(old) <= set(now), "nothing that was there is lost"


@kinds
def test_a_file_of_a_newer_version_is_refused(tmp_path, kind):
    path = tmp_path / "new.json"
    write_json(path, {"schema_version": 2, "anything": []})
    with pytest.raises(InputError) as refusal: read_record(path, kind)
    assert str(path) in str(refusal.value) and "'schema_version' 2" in str(refusal.value)
    assert "reads up to 1" in str(refusal.value) and len(refusal.value.problems) == 1


@kinds
@pytest.mark.parametrize("content", ["", "{", "null", "3", '"text"', '{"schema_version": "new"}',
                                     '{"schema_version": 1, "schema_version": 1}', '{"schema_version": 0}'])
def test_what_is_no_such_file_is_named(tmp_path, kind, content):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(InputError) as refusal: read_record(path, kind)
    assert all(problem.startswith(str(path)) and "restore the file" in problem for problem in refusal.value.problems)


@pytest.mark.parametrize("kind, change, key", [
    (Manifest, {"steps": {"train": {"status": "busy"}}}, "'steps.train.status'"),
    (Manifest, {"recipe": None}, "'recipe'"),
    (Manifest, {"trained": "rlhf"}, "'trained'"),
    (Standing, {"done": "three"}, "'done'"),
    (Setup, {"checks": [{"what": "disk"}]}, "'checks.0.status' is missing"),
    (Split, {"seed": "one"}, "'seed'"),
    (Split, {"colour": "blue"}, "'colour' is not a key of this file"),
    (Leakage, {"leaks": [{"learned": "x"}]}, "'leaks.0.learned_id' is missing"),
    (Training, {"pairs": "many"}, "'pairs'"),
    (PreferenceAccuracy, {"reward": {"n": 1}}, "'reward.clusters' is missing"),
    (Health, {"bins": 3}, "'bins'"),
])
def test_the_key_that_does_not_fit_is_named(tmp_path, kind, change, key):
    path = tmp_path / "broken.json"
    write_json(path, BEFORE[kind] | change)
    with pytest.raises(InputError) as refusal: read_record(path, kind)
    assert key in str(refusal.value) and all(problem.startswith(str(path)) for problem in refusal.value.problems)


def test_a_key_that_is_missing_in_an_entry_is_named(tmp_path):
    write_json(tmp_path / "arms.json", [{"name": "base"}])
    with pytest.raises(InputError, match="'arms.0.description' is missing"):
        read_record(tmp_path / "arms.json", ArmsFile)
    write_json(tmp_path / "ledger.json", {"respond": {"seconds": "long"}})
    with pytest.raises(InputError, match="'stages.respond.seconds'"): read_record(tmp_path / "ledger.json", Ledger)


def test_a_long_value_is_not_repeated(tmp_path):
    "It may be a prompt."
    write_json(tmp_path / "split.json", BEFORE[Split] | {"by": "a secret " * 20})
    with pytest.raises(InputError) as refusal: read_record(tmp_path / "split.json", Split)
    assert "secret" not in str(refusal.value) and "a text of" in str(refusal.value)


def test_records_of_files_are_frozen_and_know_their_version():
    assert all(issubclass(kind, FileRecord) for kind in BEFORE)
    with pytest.raises(ValueError, match="frozen"): Training(digest="x", status="done").status = "running"
    assert "schema_version" not in repr(Training(digest="x", status="done"))


def test_a_manifest_of_before_goes_on():
    "Entries are added, none is lost or reordered, and what a step keeps beside its status stays."
    run = open_run("old")
    write_json(run.path("run.json"), BEFORE[Manifest] | {"kept_by_a_later_step": 3})
    with step(run, "train", pairs=2): pass
    manifest, raw = read_manifest(run), read_json(run.path("run.json"))
    assert manifest.steps["generate"].kept == 32 and manifest.steps["train"].pairs == 2
    assert raw["kept_by_a_later_step"] == 3 and trained_stage(run) == "sft"
    assert list(raw) == ["schema_version", *BEFORE[Manifest], "kept_by_a_later_step"]
    assert raw["steps"]["generate"] == BEFORE[Manifest]["steps"]["generate"]


def test_a_ledger_of_before_adds_up():
    run = open_run("old")
    write_json(run.path("ledger.json"), BEFORE[Ledger])
    write_ledger(run, train={"seconds": 2.0})
    assert read_ledger(run).stages["train"].seconds == 7.1 and read_ledger(run).stages["respond"].calls == 8


def test_accuracies_are_records():
    part = PartAccuracy(pairs=0, likelihood_base=None, likelihood_tuned=None, reward_before=None, reward_after=None)
    assert Training(digest="x", status="done", accuracy={"test": part}).accuracy["test"].pairs == 0
