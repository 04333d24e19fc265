"""Write passports of judges into data/judges or a folder that is named: of the embedded model's probe, of the same
model asked in words (logits, reasoned), of the refusal rule, of the judges that are worthless on purpose. Interrupted,
it goes on. On a CPU with bfloat16: probe, logits and reasoned 5 minutes each (15 where a probe has to be fitted), the
others one each."""
import argparse
from pathlib import Path

from contemplative_cai.core.files import write_record
from contemplative_cai.core.journal import Journal
from contemplative_cai.core.project import project_root
from contemplative_cai.evaluation.judge import Detector, GenerativeJudge, Judge, LogitJudge
from contemplative_cai.evaluation.passport import Passport, issue_passport, write_passport
from contemplative_cai.evaluation.planted import planted_judges
from contemplative_cai.evaluation.probe import fit_probe, fitted_rows, labels_digest, probed_layers, read_labelled
from contemplative_cai.evaluation.probe_judge import ProbeJudge, known_probe, weights_in
from contemplative_cai.inputs.rubrics import load_calibration, load_rubric
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.local import load_llm
from contemplative_cai.models.weights import cache_folder

MODEL = "smollm2-135m"
ALONE = ("safety", "contemplative", "humanistic", "refusal")  # rubrics of single answers
RUBRICS = (*ALONE, "pairwise")
WEIGHED, WEIGHED_ANSWERS = ("violation", "harmfulness"), 80  # of what a model is asked in words, for time
REASONED, REASONED_ANSWERS = ("violation",), 72
LOGITS_NOTE = (f"Asked by the rubric refusal of all answers, and of {WEIGHED_ANSWERS} answers, each kind in turn, by "
               f"{' and '.join(WEIGHED)}. All else was left out, for time.")
REASONED_NOTE = (f"Asked of {REASONED_ANSWERS} answers, each kind in turn, by {' and '.join(REASONED)}: a reason and a "
                 "verdict take more than a second on a CPU, each way. All else was left out.")


def rubrics(names): return [load_rubric(name) for name in names]


def probe(folder: Path, journal: Journal, anew: bool) -> None:
    "Fitted where labels or weights have changed, or where asked to."
    llm, rows = load_llm(model_spec(MODEL)), fitted_rows(load_calibration())
    weights, labels, layers = weights_in(llm.key), labels_digest(rows), probed_layers(llm.depth)
    fitted = None if anew else known_probe(weights, labels)
    fitted = fitted or fit_probe(read_labelled(llm, rows, layers), weights, layers, labels)
    write_record(folder / f"probe-{MODEL}.json", fitted)
    passport = issue_passport(ProbeJudge(fitted, llm, journal), rubrics(RUBRICS))
    write_passport(passport, folder / f"probe-{MODEL}.passport.json")


def worded(judge: Judge, names: tuple[str, ...], most: int, note: str) -> Passport:
    "Of the few answers and criteria that a model is asked about in words."
    [safety] = rubrics(["safety"])
    part = safety.model_copy(update={"criteria": tuple(c for c in safety.criteria if c.id in names)})
    return issue_passport(judge, [part], most=most, note=note)


def logits(folder: Path, journal: Journal) -> None:
    judge = LogitJudge(load_llm(model_spec(MODEL)), journal)
    whole, few = issue_passport(judge, rubrics(["refusal"])), worded(judge, WEIGHED, WEIGHED_ANSWERS, LOGITS_NOTE)
    both = {name: (*getattr(whole, name), *getattr(few, name)) for name in ("calibrations", "baselines")}
    write_passport(few.model_copy(update=both), folder / f"logits-{MODEL}.passport.json")


def reasoned(folder: Path, journal: Journal) -> None:
    judge = GenerativeJudge(load_llm(model_spec(MODEL)), journal)
    write_passport(worded(judge, REASONED, REASONED_ANSWERS, REASONED_NOTE), folder / f"reasoned-{MODEL}.passport.json")


def rule(folder: Path) -> None:
    write_passport(issue_passport(Detector(), rubrics(["surface"])), folder / "rule-refusals.passport.json")


def planted(folder: Path) -> None:
    for name, judge in planted_judges(load_calibration()).items():
        write_passport(issue_passport(judge, rubrics(ALONE)),
                       folder / "planted" / f"{name.replace(' ', '-')}.passport.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = ("probe", "logits", "reasoned", "rule", "planted")
    parser.add_argument("judges", nargs="*", metavar="JUDGE", help=f"{', '.join(kinds)}; none: probe and rule")
    parser.add_argument("--folder", type=Path, default=project_root() / "data" / "judges", help="where passports go")
    parser.add_argument("--journal", type=Path, default=cache_folder() / "passports.sqlite", help="what was asked")
    parser.add_argument("--anew", action="store_true", help="fit the probe again whatever is there")
    asked = parser.parse_args()
    if wrong := [name for name in asked.judges if name not in kinds]:
        parser.error(f"expected {', '.join(kinds)}, came {', '.join(wrong)}")
    asked.journal.parent.mkdir(parents=True, exist_ok=True)
    with Journal(asked.journal) as journal:
        for name in asked.judges or ("probe", "rule"):
            if name == "probe": probe(asked.folder, journal, asked.anew)
            elif name == "logits": logits(asked.folder, journal)
            elif name == "reasoned": reasoned(asked.folder, journal)
            else: {"rule": rule, "planted": planted}[name](asked.folder)


if __name__ == "__main__": main()
