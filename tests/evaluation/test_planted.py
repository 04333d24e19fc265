"""Judges that are worthless on purpose fail by the part of the bar that is meant for them, and papers tell how a judge
does: in both ways of asking, by subject, and how far it prefers what is long."""
import pytest

from contemplative_cai.core.errors import InputError
from contemplative_cai.core.project import project_root
from contemplative_cai.evaluation import passport
from contemplative_cai.evaluation.calibration import calibrate
from contemplative_cai.evaluation.judge import Detector, Paired
from contemplative_cai.evaluation.planted import planted_judges
from contemplative_cai.inputs.rubrics import load_calibration, load_rubric
from contemplative_cai.measure.bar import BAR, BarCase, by_subject, longer_preferred, measure_cases
from contemplative_cai.measure.parts import BAR_PARTS, SENSE, TOGETHER, passes_without, stopped_by


@pytest.fixture(scope="module")
def labelled(): return load_calibration()


@pytest.fixture(scope="module")
def judges(labelled): return planted_judges(labelled)


@pytest.fixture(scope="module")
def papers(): return passport.read_passports()


def measured(judge, rubric, *names):
    rubric = load_rubric(rubric)
    part = rubric.model_copy(update={"criteria": tuple(c for c in rubric.criteria if c.id in names)})
    return {row.criterion: row for row in calibrate(judge, part, passport.passport_rows(part), resamples=100).criteria}


# planted judges

@pytest.mark.parametrize("name, part", [("yes to all", "cut"), ("kind only", "one kind"), ("manner", SENSE)])
def test_what_knows_labels_or_kinds_is_stopped_by_one_part_alone(judges, name, part):
    "Each would pass without the part of the bar that was made for it, and not without another."
    row = measured(judges[name], "humanistic", "constructive_guidance")["constructive_guidance"]
    assert row.auc_direct.value > 0.9 and row.below and row.flip_rate.value == 0
    assert stopped_by(row) == (part,)
    assert not any(passes_without(row, other) for other in BAR_PARTS if other != part)


@pytest.mark.parametrize("name", ["number of words", "bag of words", "knows nothing"])
def test_what_counts_or_draws_lots_falls_short_of_several_parts(judges, name):
    row = measured(judges[name], "humanistic", "constructive_guidance")["constructive_guidance"]
    assert {"another question", "shuffled words"} <= {part for part, _ in row.below}
    if name != "bag of words": assert {"ranking", "number of words"} <= {part for part, _ in row.below}
    if name == "number of words": assert row.longer.value == 1 and row.auc_length > 0.5


def test_a_judge_of_manner_passes_where_no_answer_can_be_ruined(judges):
    "The hole in the bar that is told: an answer that harms harms under any question, in any order of its words."
    row = measured(judges["manner"], "safety", "harmfulness")["harmfulness"]
    assert not row.below and {"another question", "shuffled words"} <= {*row.unasked}


def test_planted_judges_compare_nothing_and_the_same_lot_falls_again(judges, labelled):
    claim = Paired(question="Q?", first="One.", second="Two.", criterion=load_rubric("pairwise").criteria[0])
    assert all(judge.opinions([claim])[0].direct is None for judge in judges.values())
    rubric = load_rubric("refusal")
    def once(): return calibrate(planted_judges(labelled)["knows nothing"], rubric, labelled[::9], resamples=0)
    assert once() == once()


# parts of the bar

def row_of(support, criteria=1, n=80):
    return measure_cases("x", [BarCase(cluster=f"p{i // 2}", label=float(i % 2), words=float(20 + 7 * i % 60), direct=s,
                                       turned=s, value=float(s > 0.5)) for i in range(n) for s in [support(i)]],
                         criteria=criteria)


def test_a_part_that_is_none_is_refused():
    with pytest.raises(InputError, match="no part 'one knd'; did you mean 'one kind'"):
        passes_without(row_of(lambda i: 0.5), "one knd")


def test_what_passes_is_stopped_by_nothing_and_few_labels_stop_whatever_is_left_out():
    good = row_of(lambda i: 0.2 + 0.6 * (i % 2))
    assert good.below == () == stopped_by(good) and all(passes_without(good, part) for part in BAR_PARTS)
    few = row_of(lambda i: 0.2 + 0.6 * (i % 2), n=12)
    assert [part for part, _ in few.below] == ["labels"] and not any(passes_without(few, part) for part in BAR_PARTS)


def test_shortcomings_are_the_same_words_as_before_each_with_its_part():
    row = row_of(lambda i: 0.6 + 0.3 * (i % 2))
    assert row.shortcomings == tuple(words for _, words in row.below)
    assert row.below == (("cut", "balanced accuracy 0.50 at the cut, at least 0.65 is needed"),)


def test_many_criteria_at_once_are_a_part_of_their_own():
    "An AUC whose lower bound is just above 0.7 for one criterion alone is below it among a thousand."
    def support(i): return 0.01 * ((i * 37) % 60) + 0.27 * (i % 2)
    alone, among = row_of(support), row_of(support, 1000)
    assert not alone.below and {part for part, _ in among.below} and passes_without(among, TOGETHER)


# by subject, and length

def test_subjects_with_few_labels_are_counted_together():
    cases = [BarCase(cluster=f"{subject}{i // 2}", label=float(i % 2), words=10.0, direct=s, turned=s, subject=subject)
             for subject, count in (("everyday", 40), ("prv", 12), ("ssh", 6), ("hte", 2))
             for i in range(count) for s in [0.2 + 0.6 * (i % 2) if subject != "prv" else 0.5]]
    figures = by_subject([*cases, BarCase(cluster="z", label=1.0, words=10.0)], resamples=50)
    assert [(one.subject, one.together, one.yes, one.no) for one in figures] == [
        ("everyday", (), 20, 20), ("prv", (), 6, 6), ("", ("hte", "ssh"), 4, 4)]
    assert [one.auc.value for one in figures] == [1.0, 0.5, 1.0]
    assert figures[0].prompts == 20 and figures[2].auc.undefined.startswith("4 prompts"), "too few for an interval"


def test_longer_is_counted_among_answers_with_one_label_alone():
    "Labels that go with length are no bias of the judge; support that does is."
    def cases(support): return [BarCase(cluster=str(i), label=float(i >= 20), words=float(i), direct=s, turned=s)
                                for i in range(40) for s in [support(i)]]
    assert longer_preferred(cases(lambda i: float(i >= 20)), 20).value == 0.5
    assert longer_preferred(cases(lambda i: i / 40), 20).value == 1
    assert longer_preferred(cases(lambda i: -i / 40), 20).value == 0
    assert longer_preferred([], 20).undefined and longer_preferred(cases(lambda i: i / 40)[:1], 20).value is None


# papers

def test_each_paper_is_of_this_rubric_these_answers_and_this_bar_or_says_what_was_left_out(papers):
    assert len({paper.judge for paper in papers}) == len(papers) >= 2
    for paper in papers:
        assert paper.bar == BAR
        for one in paper.calibrations:
            whole = load_rubric(one.rubric.partition("@")[0])
            current = (f"{whole.id}@{whole.digest}", passport.measured_on(passport.passport_rows(whole)))
            assert (one.rubric, one.answers) == current or "left out" in paper.note, paper.judge


def test_each_paper_has_its_page(papers):
    folder = project_root() / "data" / "judges"
    pages = {path.read_text() for path in folder.glob("*.md")}
    assert {passport.passport_page(paper) for paper in papers} == pages
    assert all("| AUC, other way | flips |" in page and "longer preferred" in page for page in pages)


def test_the_rule_has_its_paper_and_is_not_measured_again(monkeypatch):
    monkeypatch.setattr(passport, "calibrate", lambda *_: pytest.fail("it has a passport"))
    calibration = passport.measure_detector()
    assert calibration.judge == Detector().name and [row.criterion for row in calibration.criteria] == ["refusal"]
    assert calibration.criteria[0].subjects[0].subject == "everyday"


def test_a_paper_that_tells_no_subjects_can_be_read():
    "Papers written before there were any."
    [row] = measured(Detector(), "surface", "refusal").values()
    old = row.model_dump(mode="json")
    for name in ("subjects", "longer"): del old[name]
    assert type(row).model_validate(old).below == row.below and type(row).model_validate(old).subjects == ()


def test_answers_are_drawn_evenly_over_kinds(labelled):
    drawn = passport.evenly_drawn(labelled, 56)
    assert len(drawn) == len({row.id for row in drawn}) == 56 and drawn == passport.evenly_drawn(labelled, 56)
    assert {sum(row.kind == kind for row in drawn) for kind in {row.kind for row in labelled}} == {4}
    assert len(passport.evenly_drawn(labelled, 10_000)) == len(labelled)
