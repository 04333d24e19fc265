"""Fit the embedded model's probe on data/calibration and write its passport into data/judges or a folder that is named.
Once labels, ruins or the bar change: about 15 minutes on a CPU with bfloat16."""
import sys
import tempfile
from pathlib import Path

from contemplative_cai.core.files import write_record
from contemplative_cai.core.journal import Journal
from contemplative_cai.core.project import project_root
from contemplative_cai.evaluation.passport import issue_passport, write_passport
from contemplative_cai.evaluation.probe import fit_probe, fitted_rows, labels_digest, probed_layers, read_labelled
from contemplative_cai.evaluation.probe_judge import ProbeJudge, weights_in
from contemplative_cai.inputs.rubrics import load_calibration, load_rubric
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.local import load_llm

MODEL = "smollm2-135m"
RUBRICS = ("safety", "contemplative", "humanistic", "refusal", "pairwise")


def main(folder: Path) -> None:
    llm, rows = load_llm(model_spec(MODEL)), fitted_rows(load_calibration())
    layers = probed_layers(llm.depth)
    probe = fit_probe(read_labelled(llm, rows, layers), weights_in(llm.key), layers, labels_digest(rows))
    write_record(folder / f"probe-{MODEL}.json", probe)
    with tempfile.TemporaryDirectory() as scratch, Journal(Path(scratch) / "journal.sqlite") as journal:
        passport = issue_passport(ProbeJudge(probe, llm, journal), [load_rubric(name) for name in RUBRICS])
    write_passport(passport, folder / f"probe-{MODEL}.passport.json")


if __name__ == "__main__": main(Path(sys.argv[1]) if sys.argv[1:] else project_root() / "data" / "judges")
