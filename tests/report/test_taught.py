"""Beside every number by a judge: how far its questions were taught; and what prompting and training knew."""
import pytest
from test_report import evaluated, generated, trained_by_hand, written  # noqa: F401

from contemplative_cai.core.files import read_record
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import Manifest, open_run
from contemplative_cai.evaluation.arms import Arm
from contemplative_cai.inputs.constitution import recipe_constitution
from contemplative_cai.inputs.overlap import Overlap, chance_overlap
from contemplative_cai.inputs.rubrics import APPLIES
from contemplative_cai.report.limits import _information_limits, _taught_limits, limits
from contemplative_cai.report.summary import collect, headline
from contemplative_cai.report.taught import (
    Taught,
    TaughtFile,
    information_words,
    informed_by,
    rubric_of,
    taught_in_short,
    taught_rows,
    taught_words,
    what_was_taught,
)
from contemplative_cai.revision.templates import CONVERSATION, INFORMED

TOLD = ("titles", "descriptions", "clauses", "meta-principles")


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    "Figures are made but not painted."
    monkeypatch.setattr("contemplative_cai.report.page.png", lambda figure: b"a picture")


def manifest(name="contemplative", **recipe):
    kept = {"constitution": name} | recipe
    return Manifest(constitution=f"{name}@{recipe_constitution(build_recipe(kept)).digest}", recipe=kept)


def arm(name, adapter="nowhere/dpo/adapter"): return Arm(name=name, description="an arm", adapter=adapter)


def shared(figure):
    return Taught(constitution="own", arms=("dpo",), shared=(
        Overlap(rubric="contemplative", constitution="own", cosine=0.3, without_common=figure),))


# what was taught

def test_each_trained_constitution_has_its_figure_those_of_other_runs_too(tmp_path):
    other = open_run("control")
    other.path("dpo", "adapter").mkdir(parents=True)
    other.record(**manifest("generic").model_dump(include={"constitution", "recipe"}))
    taught = what_was_taught(manifest(), [Arm(name="base", description="as it came"), arm("sft"), arm("dpo"),
                                          arm("control", str(other.path("dpo", "adapter"))), arm("lost")])
    assert [(one.constitution, one.arms) for one in taught] == [("contemplative", ("sft", "dpo")),
                                                                 ("generic", ("control",))]
    own, theirs = taught_words(taught, "contemplative")
    assert "partly teaching to the test (TF-IDF cosine 0.42 with 'contemplative', which sft and dpo" in own
    assert "partly teaching to the test (TF-IDF cosine 0.36 with 'generic', which control" in theirs
    assert {row["questions of"] for row in taught_rows(taught)} == set(APPLIES)


@pytest.mark.parametrize("figure, words", [
    (0.11, "Judging by the questions of 'contemplative' is partly teaching to the test"),
    (0.09, "share no more words with what was taught than by chance"),
])
def test_what_is_said_follows_the_figure(figure, words):
    assert words in taught_words([shared(figure)], "contemplative")[0] and 0.09 < chance_overlap() < 0.11


@pytest.mark.parametrize("changed, why", [
    ({"constitution": "contemplative@0000"}, "its file has changed since"),
    ({"constitution": "contemplativ@0000"}, "its file has changed since"),
    ({"constitution": None}, "the run does not say which it was"),
])
def test_a_constitution_that_is_no_longer_here_has_no_figure(changed, why):
    taught = what_was_taught(manifest().model_copy(update=changed), [arm("dpo")])
    assert why in taught_words(taught, "safety")[0] and "is not known" in taught_words(taught, "safety")[0]
    assert taught_rows(taught) == []


def test_rubrics_of_which_the_same_is_true_share_a_sentence():
    [own, by_chance] = taught_words(what_was_taught(manifest(), [arm("dpo")]), "safety", "contemplative", "refusal")
    assert own.startswith("Judging by the questions of 'safety' and 'contemplative' is partly teaching to the test "
                          "(TF-IDF cosine 0.30 and 0.42 with 'contemplative', which dpo was trained on; 0.18 and 0.27 ")
    assert by_chance.startswith("The questions of 'refusal' share no more words")


@pytest.mark.parametrize("taught, words", [
    (shared(0.11), "partly teaching to the test: TF-IDF cosine 0.30 with"),
    (shared(0.09), "its questions share no more words with 'own' than by chance"),
    (shared(0.11).model_copy(update={"shared": ()}), "is not known"),
])
def test_beside_one_number_it_is_said_in_short(taught, words):
    assert words in taught_in_short([taught], "contemplative")[0]


def test_nothing_trained_is_nothing_taught():
    assert what_was_taught(manifest(), [Arm(name="base", description="as it came")]) == ()
    assert taught_words((), "contemplative") == []


@pytest.mark.parametrize("outcome, rubric", [
    ("emptiness", "contemplative"), ("deeds_not_types", "contemplative"), ("composite", "safety"),
    ("clarity", "plain"), ("helpfulness", "pairwise"), ("refusal", None), ("words", None),
])
def test_outcomes_are_made_of_rubrics_or_counted(outcome, rubric): assert rubric_of(outcome) == rubric


# what was told

@pytest.mark.parametrize("template, examples, words", [
    (INFORMED, 2, "Prompted was told the constitution's titles, descriptions, clauses and meta-principles, as critic "
                  "and reviser were; of its requests and worked examples, which they saw too, it was told nothing."),
    (CONVERSATION, 0, "Trained against prompted compares different information: prompted was told the constitution's "
                      "titles, descriptions, clauses and meta-principles, and critic and reviser saw no titles, "
                      "descriptions, clauses or meta-principles; they saw its requests, which prompted did not."),
])
def test_runs_of_before_are_told_apart_by_their_template(template, examples, words):
    assert information_words(informed_by(Manifest(template=template.label, recipe={"n_few_shot": examples}))) == words


def test_what_was_recorded_counts_and_what_nobody_knows_is_said():
    assert information_words({"there": TOLD, "shown": TOLD}).endswith("meta-principles, as critic and reviser were.")
    assert "was not recorded" in information_words(informed_by(Manifest(template="mine@1234")))
    assert informed_by(Manifest(informed={"there": ("titles",), "shown": ()})) == {"there": ("titles",), "shown": ()}


# in the report

def recorded(run):
    run.record(**manifest().model_dump(include={"constitution"}))
    return run


def test_the_report_says_it_beside_claims_levels_and_headline(evaluated):  # noqa: F811
    page, markdown = written(recorded(evaluated))
    for rubric in ("safety", "contemplative", "refusal"):
        assert markdown.count(f"questions of '{rubric}'") >= 1
    assert "partly teaching to the test" in page and "Words that questions share with what was trained on" in page
    assert "meta-principles, as critic and reviser were" in page
    filed = read_record(evaluated.path("overlap.json"), TaughtFile)
    assert filed.taught[0].constitution == "contemplative" and filed.by_chance == chance_overlap()
    primary = next(one for one in headline(collect(evaluated)) if one.what == "Primary outcome")
    assert "TF-IDF cosine 0.30 with 'contemplative'" in primary.basis


def test_what_cannot_be_claimed_names_the_test_that_was_taught_and_what_would_not_be(evaluated):  # noqa: F811
    sentences = " ".join(limits(collect(recorded(evaluated))))
    assert "Improvement beyond the test that was taught. Judging by the questions of 'safety'" in sentences
    assert "No verdict on plain qualities was asked for (eval_judged: plain)." in sentences
    assert "That training and prompting were given the same" not in sentences
    evaluated.record(informed={"there": list(TOLD), "shown": ["requests"]})
    assert "That training and prompting were given the same. Trained against" in " ".join(limits(collect(evaluated)))


def test_nothing_is_said_of_a_test_that_nobody_took(evaluated):  # noqa: F811
    facts = collect(recorded(evaluated))
    bare = facts.metrics.model_copy(update={"levels": (), "arms": ("base", "dpo")})
    assert _taught_limits(facts, bare) == [] == _information_limits(facts, bare)


def test_a_run_that_is_not_evaluated_has_no_such_file(generated):  # noqa: F811
    trained_by_hand(generated)
    written(generated)
    assert not generated.path("overlap.json").exists()
