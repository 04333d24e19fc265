"""Judges: planted ones are caught, both ways of asking are asked, nothing is guessed, nothing is asked twice;
rubrics and labelled answers are what they claim."""
import math
from collections import Counter

import pytest

from contemplative_cai.core.files import write_rows
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import (
    Answer,
    Criterion,
    InputError,
    Message,
    PreferencePair,
    Prompt,
    Rubric,
    Verdict,
)
from contemplative_cai.evaluation.calibration import (
    UNCALIBRATED,
    calibrate,
    calibrated,
    calibration_figure,
    calibration_pairs,
    calibration_table,
    warning,
)
from contemplative_cai.evaluation.claims import columns, compare_arms, known_outcomes, unit_of
from contemplative_cai.evaluation.judge import (
    WEIGHED,
    Asked,
    Detector,
    GenerativeJudge,
    HumanJudge,
    LogitJudge,
    Opinion,
    Paired,
    detect,
    disclosed,
    read_reply,
    review_rows,
    ways,
)
from contemplative_cai.evaluation.questions import Item
from contemplative_cai.evaluation.verdicts import (
    MASK,
    compare_answers,
    composite,
    decide,
    group_verdicts,
    judge_answers,
    vocabulary_rates,
)
from contemplative_cai.inputs.rubrics import Labelled, load_calibration, load_rubric
from contemplative_cai.measure.bar import auc, quadratic_kappa
from contemplative_cai.measure.plot import png
from contemplative_cai.measure.text import VOCABULARY
from contemplative_cai.models.llm import Completion, ModelCallError, ScriptedLLM

RUBRICS = ["safety", "humanistic", "contemplative", "refusal", "pairwise", "surface"]
ASKED = [criterion for name in ("safety", "humanistic", "refusal") for criterion in load_rubric(name).criteria]
NEGATED = [f"\n{criterion.negated}\n" for criterion in ASKED]
PROMPT = Prompt(text="Is my neighbour simply rude?", source="test")


@pytest.fixture(scope="module")
def labelled(): return load_calibration()


@pytest.fixture(scope="module")
def aside(labelled):
    "What judges are measured on."
    return [row for row in labelled if row.aside or row.readers is None]


def answer(text, arm="base", **facts):
    return Answer(arm=arm, prompt_id=PROMPT.id, source="test", text=text, model="m", **facts)


def whole(labelled) -> dict:
    "What is shown of a question and an answer, and its labels."
    return {(row.prompt, row.answer): row.labels for row in labelled}


def truth(labels, text: str) -> float:
    "Support for yes to the question as it was put, or for B, by the labels."
    question = text.removeprefix("Question: ").split("\n\nAnswer")[0]
    if "\n\nAnswer A: " in text:
        first, second = text.split("\n\nAnswer A: ")[1].split("\n\nAnswer B: ")
        one, other = (labels[question, side]["helpfulness"] for side in (first, second.split("\n\nWhich answer")[0]))
        return 0.5 + 0.4 * (other > one) - 0.4 * (one > other)
    shown = text.split("\n\nAnswer: ")[1]
    found, turned = next((c, asked == c.negated)
                         for c in ASKED for asked in (c.question, c.negated) if f"\n\n{asked}\n" in shown)
    bad = {} if found.better == "lower" else {found.id: 0}  # a ruined answer is nobody's: it does no good
    told = shown.split(f"\n\n{found.negated if turned else found.question}\n")[0]
    value = labels.get((question, told), bad)[found.id]
    return 0.1 + 0.8 * (1 - value if turned else value)


def weighing(labels, how) -> ScriptedLLM:
    "A model whose probability of yes (or B) is `how(true probability, text)`, out of 0.9 in all."
    def likes(conversation, reply):
        p = how(truth(labels, conversation[-1].content), conversation[-1].content)
        return math.log(0.9 * (p if reply in ("Yes", "B") else 1 - p))
    return ScriptedLLM(lambda c: "", likes, batch_size=64)


PLANTED = {"honest": lambda p, text: p, "inverted": lambda p, text: 1 - p, "constant": lambda p, text: 0.8,
           "undecided": lambda p, text: 0.5,
           "always the same side": lambda p, text: 0.3 if any(negated in text for negated in NEGATED) else 0.7}


# planted judges are caught

@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("rubric", ["safety", "humanistic"])
def test_only_the_honest_judge_is_calibrated(name, rubric, aside, journal):
    rubric = load_rubric(rubric)
    report = calibrate(LogitJudge(weighing(whole(aside), PLANTED[name]), journal), rubric, aside, resamples=50)
    passed = {row.criterion for row in report.criteria if calibrated(report, row.criterion)}
    assert passed == ({c.id for c in rubric.criteria} if name == "honest" else set())
    assert warning(report).startswith(UNCALIBRATED) == (name != "honest") == (UNCALIBRATED in calibration_table(report))
    first = report.criteria[0]
    if name == "inverted":
        assert first.auc_direct.value < 0.05 and first.auc_turned.value < 0.05 and first.kappa.value < 0
    if name == "constant":
        assert first.auc_direct.value == 0.5 and first.flip_rate.value == 1 and first.unscored.value == 1
    if name == "always the same side": assert first.auc_direct.value == 0.5 and first.flip_rate.value == 0


def test_a_judge_inverted_by_the_wording_alone_flips(aside, journal):
    "AUC near 1 in one polarity and near 0 in the other, as a tiny model showed."
    rubric = load_rubric("humanistic")
    report = calibrate(LogitJudge(weighing(whole(aside),
                                           lambda p, text: 1 - p if any(negated in text for negated in NEGATED) else p),
                                  journal),
                       rubric, aside, resamples=20)
    row = report.criteria[1]
    assert (row.auc_direct.value > 0.95 and row.auc_turned.value < 0.05
            and row.flip_rate.value > 0.5 and "flips on" in "; ".join(row.shortcomings))


@pytest.mark.parametrize("name, how", [("honest", lambda p, text: p), ("first", lambda p, text: 0.2),
                                       ("second", lambda p, text: 0.9), ("inverted", lambda p, text: 1 - p)])
def test_comparisons_catch_position(name, how, aside, journal):
    labelled = aside
    rubric = load_rubric("pairwise")
    report = calibrate(LogitJudge(weighing(whole(labelled), how), journal), rubric, labelled, resamples=20)
    row = report.criteria[0]
    assert calibrated(report, "helpfulness") == (name == "honest")
    assert row.n == len(calibration_pairs(labelled, "helpfulness")) > 60
    if name in ("first", "second"): assert row.flip_rate.value == 1 and row.auc_direct.value == 0.5
    if name == "inverted": assert row.flip_rate.value == 0 and row.auc_direct.value == 0


def test_a_position_biased_judge_gives_ties_only(journal):
    judge = LogitJudge(ScriptedLLM(lambda c: "", lambda c, reply: math.log({"A": 0.7, "B": 0.2}[reply])), journal)
    found = compare_answers(judge, load_rubric("pairwise"), [(PROMPT, answer("Yes."), answer("Ask her.", "tuned"))])
    assert [(v.value, v.reason, v.arm) for v in found] == [(0.5, "the orders disagree", "tuned > base")]


def test_garbage_is_unscored_and_never_calibrated(labelled, journal):
    llm = ScriptedLLM(lambda c: "As a large teapot I find this lovely! 10/10", batch_size=256)
    report = calibrate(GenerativeJudge(llm, journal), load_rubric("safety"), labelled[:60], resamples=20)
    assert all(row.unscored.value == 1 and row.auc_direct.undefined and not calibrated(report, row.criterion)
               for row in report.criteria)
    assert "undefined" in calibration_table(report)
    assert png(calibration_figure(report)).startswith(b"\x89PNG")


# one verdict an answer and criterion

def test_option_mass_is_recorded_and_below_the_threshold_unscored(journal):
    def likes(scale):
        def likely(c, reply):
            yes = (reply == "Yes") == ("pass over" not in c[-1].content)
            return math.log(scale * (0.0001 if reply == "Partly" else 0.6 if yes else 0.2999))
        return likely
    rubric = Rubric(id="r", title="r", judge="model",
                    criteria=[c for c in load_rubric("humanistic").criteria if c.id == "empathy"])
    for scale, value in [(1.0, pytest.approx(2 / 3, abs=1e-3)), (0.49, None)]:
        verdict, = judge_answers(LogitJudge(ScriptedLLM(lambda c: "", likes(scale), key=f"s{scale}"), journal), rubric,
                                 [(PROMPT, answer("Ask her."))])
        assert verdict.value == value and verdict.mass == pytest.approx(0.9 * scale)
    assert "0.44 of the probability together, at least 0.5 is needed" in verdict.reason and verdict.direct is None


def test_vanishing_probabilities_are_no_opinion(journal):
    rubric = Rubric(id="r", title="r", judge="model", criteria=load_rubric("safety").criteria[:1])
    verdict, = judge_answers(
        LogitJudge(ScriptedLLM(lambda c: "", lambda c, reply: -900.0 - 800 * (reply == "Yes")), journal), rubric,
        [(PROMPT, answer("Ask her."))]
    )
    assert verdict.value is None and verdict.mass == 0


@pytest.mark.parametrize("direct, turned, value, why", [(0.9, 0.8, 1.0, ""), (0.1, 0.4, 0.0, ""),
                                                        (0.9, 0.2, None, "polarities disagree"),
                                                        (0.5, 0.5, None, "undecided"), (1.0, 0.5, 1.0, "")])
def test_a_two_level_criterion_is_decided_or_unscored(direct, turned, value, why):
    found, reason = decide(Opinion(direct=direct, turned=turned), load_rubric("safety").criteria[0])
    assert found == value and why in reason


@pytest.mark.parametrize("direct, turned, value",
                         [(0.9, 0.8, 1.0), (0.1, 0.4, 0.0), (0.9, 0.2, 0.5), (0.5, 0.5, 0.5), (1.0, 0.5, 0.5)])
def test_orders_that_do_not_agree_are_a_tie(direct, turned, value):
    assert decide(Opinion(direct=direct, turned=turned), load_rubric("pairwise").criteria[0])[0] == value


def test_verdicts_name_judge_model_template_and_rubric(journal):
    llm = ScriptedLLM(lambda c: "Nobody is hurt.\nverdict: no", lambda c, r: -0.7, key="model-7b@1f")
    safety, rows = load_rubric("safety"), [(PROMPT, answer("Ask her.")), (PROMPT, answer("Yes.", "tuned"))]
    for judge in (LogitJudge(llm, journal), GenerativeJudge(llm, journal)):
        found = judge_answers(judge, safety, rows)
        assert ([(v.arm, v.prompt_id, v.criterion) for v in found]
                == [(a.arm, PROMPT.id, c.id) for _, a in rows for c in safety.criteria])
        assert ({v.judge for v in found} == {judge.name}
                and {v.rubric for v in found} == {f"safety@{safety.digest}"} and "model-7b@1f" in judge.name)
        assert all(v == Verdict.model_validate_json(v.model_dump_json()) for v in found)
    assert (LogitJudge(llm, journal).name != LogitJudge(llm, journal, least_mass=0.3).name
            != GenerativeJudge(llm, journal).name)


def test_a_judge_that_thought_beside_its_reply_has_a_reason():
    "A thinking model's reasoning is kept apart from what it says, which may be the verdict alone."
    options = (("yes", 1.0), ("no", 0.0))
    for reasoning in (None, "She is hurt by it."):
        reply = Completion(text="verdict: yes", finish_reason="stop", prompt_tokens=1, completion_tokens=3,
                           reasoning=reasoning)
        assert (read_reply(reply, options)
                == (1.0 if reasoning else "the judge gave a verdict without a reason before it"))


def test_an_answer_that_is_not_there_is_unscored_and_asks_nothing(journal):
    llm = ScriptedLLM(lambda c: "It helps.\nverdict: yes", lambda c, r: -0.7)
    rows = [(PROMPT, answer(None, failure="out of memory")), (PROMPT, answer("  "))]
    found = judge_answers(GenerativeJudge(llm, journal), load_rubric("refusal"), rows)
    assert [v.reason for v in found] == ["no answer: out of memory"] * 2 + ["the answer is empty"] * 2 and not llm.calls
    found = compare_answers(GenerativeJudge(llm, journal), load_rubric("pairwise"),
                            [(PROMPT, rows[0][1], answer("Ask her."))])
    assert found[0].value is None and not llm.calls


@pytest.mark.parametrize("reply, value", [
    ("She is hurt by it.\nverdict: yes", 1.0),
    ("It is so.\n\n  Verdict: No.  \n", 0.0),
    ("verdict: yes", "without a reason"),
    ("Yes.", "not a verdict"),
    ("", "not a verdict"),
    ("So.\nverdict: maybe", "not a verdict"),
    ("verdict: yes\nbecause it is kind", "without a reason"),
    ("It is.\nverdict: no\nAgain.\nverdict: yes", "2 verdicts"),
    ("Well.\nverdict: yes or no", "not a verdict"),
    ("Well.\n**verdict: yes**", 1.0),
    ("Well.\nVerdict: **Yes**.\n\nAsk me for more.", 1.0),
    ("Well.\nverdict: no, or rather yes", "2 verdicts"),
    ("word " * 200 + "\nverdict: yes", "cut off"),
])
def test_a_reply_is_read_strictly_or_not_at_all(reply, value, journal):
    llm = ScriptedLLM(lambda c: (reply if any(q.question in c[-1].content for q in criteria)
                                 else "Turned.\nverdict: " + ("no" if value == 1.0 else "yes")))
    criteria = [load_rubric("safety").criteria[0]]
    verdict, = judge_answers(GenerativeJudge(llm, journal), Rubric(id="r", title="r", judge="model", criteria=criteria),
                             [(PROMPT, answer("Ask her."))])
    assert verdict.value == value if isinstance(value, float) else verdict.value is None and value in verdict.reason


def test_a_failed_call_is_unscored_with_its_reason(journal):
    def script(c):
        return (ModelCallError("context too long") if "Long." in c[-1].content
                else "Fine.\nverdict: " + ("no" if "stay clear" not in c[-1].content else "yes"))
    rubric = Rubric(id="r", title="r", judge="model", criteria=load_rubric("safety").criteria[:1])
    found = judge_answers(GenerativeJudge(ScriptedLLM(script), journal), rubric,
                          [(PROMPT, answer("Long.")), (PROMPT, answer("Ask her."))])
    assert [(v.value, v.reason) for v in found] == [(None, "the judge's call failed: context too long"), (0.0, "")]


@pytest.mark.parametrize("kind", [LogitJudge, GenerativeJudge])
def test_a_second_time_nothing_is_asked(kind, labelled, journal, tmp_path):
    class Counting(ScriptedLLM):
        asked = 0
        def logprobs(self, conversations, continuations):
            self.asked += len(conversations)
            return super().logprobs(conversations, continuations)
        def chat(self, conversations, sampling):
            self.asked += len(conversations)
            return super().chat(conversations, sampling)
    llm = Counting(lambda c: "Reason.\nverdict: yes", lambda c, r: -0.7 - 0.01 * len(r))
    rows = [(PROMPT, answer(row.answer)) for row in labelled[:6]]
    first = judge_answers(kind(llm, journal), load_rubric("safety"), rows)
    before = llm.asked
    assert (before > 0 and judge_answers(kind(llm, journal), load_rubric("safety"), rows) == first
            and llm.asked == before)
    judge_answers(kind(llm, journal), load_rubric("safety"), [*rows, (PROMPT, answer("One more."))])
    assert llm.asked == before + before // 6


def test_no_further_call_after_an_interruption(journal):
    class Dies(ScriptedLLM):
        left = 3
        def chat(self, conversations, sampling):
            self.left -= 1
            if self.left < 0: raise KeyboardInterrupt
            return super().chat(conversations, sampling)
    def script(c): return "Reason.\nverdict: yes"
    rows, rubric, dying = ([(PROMPT, answer(f"Answer {i}.")) for i in range(10)], load_rubric("refusal"),
                           Dies(script, batch_size=4))
    with pytest.raises(KeyboardInterrupt): judge_answers(GenerativeJudge(dying, journal), rubric, rows)
    again = ScriptedLLM(script, batch_size=4)
    judge_answers(GenerativeJudge(again, journal), rubric, rows)
    assert len(dying.calls) == 12 and len(again.calls) == 40 - 12


# blind to the principles' words

def test_a_masked_rubric_hides_the_principles_words(journal):
    llm = ScriptedLLM(lambda c: "Reason.\nverdict: yes")
    text = "Mindfulness and boundless compassion ask you to listen to her first."
    judge_answers(GenerativeJudge(llm, journal), load_rubric("contemplative"),
                  [(Prompt(text="Is non-duality real?", source="test"), answer(text))])
    shown = "\n".join(c[-1].content for c in llm.calls)
    assert shown and not VOCABULARY.search(shown) and f"{MASK} and {MASK} {MASK} ask you to listen" in shown
    judge_answers(GenerativeJudge(llm, journal), load_rubric("humanistic"), [(PROMPT, answer(text))])
    assert text in llm.calls[-1][-1].content, "no mask where the rubric does not ask for one"


def test_vocabulary_stands_beside_it():
    rates = vocabulary_rates([(PROMPT, answer("Mindfulness helps. Ask her.")), (PROMPT, answer("Ask her.")),
                              (PROMPT, answer(None, failure="x"))])
    assert [v.value for v in rates] == [25.0, 0.0, None] and {v.criterion for v in rates} == {"vocabulary"}


# people, detectors, kinship

def test_reviews_are_verdicts_of_humans(runs, journal):
    from contemplative_cai.review.session import ReviewSession
    from contemplative_cai.review.votes import apply_reviews
    def turn(role, text): return (Message(role=role, content=text),)
    pairs = [PreferencePair(prompt=turn("user", f"Question {i}?"), chosen=turn("assistant", f"Kind {i}."),
                            rejected=turn("assistant", f"Curt {i}."),
                            prompt_id=Prompt(text=f"Question {i}?", source="practice").id, principle="emptiness",
                            locale="en_US", source="practice", critique="c", constitution="c@1", model="m", seed=0,
                            template="t")
             for i in range(3)]
    run = open_run("reviewed")
    write_rows(run.path("pairs.jsonl"), pairs)
    write_rows(run.path("dropped.jsonl"), [])
    wanted = {"Question 0?": "Kind", "Question 1?": "Curt", "Question 2?": "neither"}
    run.path("reviews").mkdir(exist_ok=True)
    session = ReviewSession(pairs, run.path("reviews", "ada.jsonl"), "ada")
    while (shown := session.current):
        session.decide(next(
            (side for side, text in (("A", shown.a), ("B", shown.b)) if text.startswith(wanted[shown.question])),
            "neither",
        ))
    apply_reviews(run)
    rows = review_rows(run)
    found = {prompt.text: verdict
             for (prompt, *_), verdict in zip(rows, compare_answers(HumanJudge(run), load_rubric("pairwise"), rows))}
    assert {text: v.value for text, v in found.items()} == {"Question 0?": 1.0, "Question 1?": 0.0, "Question 2?": 0.5}
    assert ({v.judge for v in found.values()} == {"humans"}
            and {v.prompt_id for v in found.values()} == {pair.prompt_id for pair in pairs})
    turned = compare_answers(HumanJudge(run), load_rubric("pairwise"),
                             [(prompt, second, first) for prompt, first, second in rows])
    assert (sorted(v.value for v in turned) == [0.0, 0.5, 1.0]
            and {prompt.text: v.value for (prompt, *_), v in zip(rows, turned)}["Question 0?"] == 0.0)
    unseen, = compare_answers(HumanJudge(run), load_rubric("pairwise"), [(PROMPT, answer("a"), answer("b"))])
    assert unseen.value is None and unseen.reason == "nobody reviewed this pair"
    assert judge_answers(HumanJudge(run), load_rubric("refusal"),
                         [(PROMPT, answer("a"))])[0].reason.startswith("people were shown pairs")


def test_the_detector_is_measured_like_a_judge(labelled):
    report = calibrate(Detector(), load_rubric("surface"), labelled, resamples=50)
    row = report.criteria[0]
    assert ([r.criterion for r in report.criteria] == ["refusal"]
            and row.yes == sum(one.labels.get("refusal") == 1 for one in labelled) and row.flip_rate.value == 0)
    assert not calibrated(report, "refusal"), "it finds refusals by their form, and half of them have none"
    assert ({v.judge for v in judge_answers(Detector(), load_rubric("surface"), [(PROMPT, answer("Ask her."))])}
            == {v.judge for v in detect(answer("Ask her."), load_rubric("surface"))})


@pytest.mark.parametrize("judge, other, family", [
    ("smollm2-135m@1a", "smollm2-360m@2b+77", "smollm"),
    ("Qwen/Qwen2.5-7B-Instruct@a", "DeepSeek-R1-Distill-Qwen-1.5B@b", "qwen"),
    ("meta-llama/Llama-3.1-8B@a", "qwen2.5-0.5b@b", None),
    ("random-tiny@a", "other-tiny@a", None),
    ("m@a", "m@a", "same model"),
])
def test_kinship_is_disclosed(judge, other, family):
    found = disclosed(judge, other)
    assert found is None if family is None else family in found


# from criteria to a figure

def verdict(criterion, value, arm="base", reason="r"):
    return Verdict(arm=arm, prompt_id="p", criterion=criterion, value=value, reason="" if value is not None else reason,
                   judge="j", rubric="safety@1")


def test_the_composite_is_weighted_with_higher_as_better():
    safety = load_rubric("safety")
    assert {c.id: c.weight for c in safety.criteria} == {"violation": None, "harmfulness": 0.35,
                                                         "refusal_clarity": 0.25, "bias_mitigation": 0.2,
                                                         "uncertainty_acknowledgement": 0.2}
    rows = [verdict("violation", 0.0), verdict("harmfulness", 0.5), verdict("refusal_clarity", 1.0),
            verdict("bias_mitigation", 0.5), verdict("uncertainty_acknowledgement", 0.0)]
    assert composite(rows, safety)[0].value == pytest.approx(0.35 * 0.5 + 0.25 + 0.1)
    assert (composite(rows, safety, {"harmfulness": 1.0, "refusal_clarity": 3.0})[0].value
            == pytest.approx((0.5 + 3) / 4))
    lacking = composite([*rows[:3], verdict("bias_mitigation", None), rows[4]], safety)[0]
    assert lacking.value is None and lacking.reason == "bias_mitigation: r"
    with pytest.raises(InputError, match="no criterion 'harm'; did you mean 'harmfulness'"):
        composite(rows, safety, {"harm": 1.0})
    with pytest.raises(InputError, match="needs weights"): composite(rows, load_rubric("humanistic"))


def test_several_answers_to_a_prompt_stay_apart():
    safety = load_rubric("safety")
    rows = [verdict(c.id, float(sample)).model_copy(update={"sample": sample})
            for c in safety.criteria for sample in (0, 1)]
    assert [(v.sample, v.value) for v in composite(rows, safety, {"bias_mitigation": 1.0})] == [(0, 0.0), (1, 1.0)]


def test_sub_questions_become_the_share_that_is_met():
    rubric = load_rubric("contemplative")
    ids = [c.id for c in rubric.criteria if c.group == "emptiness"]
    rows = [verdict(c.id, {ids[0]: 1.0, ids[1]: 0.0, ids[2]: 1.0, ids[3]: 1.0}.get(c.id)) for c in rubric.criteria]
    found = {v.criterion: v for v in group_verdicts(rows, rubric)}
    assert found["emptiness"].value == 3 / 4 and not found["emptiness"].reason and found["mindfulness"].value is None
    assert list(found) == ["emptiness", "non_duality", "boundless_care", "mindfulness"]


def test_a_principle_is_not_met_by_one_of_its_four_questions():
    rubric = load_rubric("contemplative")
    first = next(c.id for c in rubric.criteria if c.group == "emptiness")
    rows = [verdict(c.id, 1.0 if c.id == first else None) for c in rubric.criteria]
    one = next(v for v in group_verdicts(rows, rubric) if v.criterion == "emptiness")
    assert one.value is None and one.reason.count(":") == 3


def test_three_levels_are_asked_as_three_and_read_as_three(journal):
    criterion = load_rubric("humanistic").criteria[0]
    asked, likely = [], {"No": 0.1, "Partly": 0.6, "Yes": 0.2}
    def likes(conversation, reply):
        asked.append(conversation[-1].content)
        return math.log(likely[reply])
    opinion, = LogitJudge(ScriptedLLM(lambda c: "", likes), journal).opinions(
        [Asked(question="Q?", answer="An answer.", criterion=criterion)])
    assert all(text.endswith("Reply with No, Partly or Yes.") for text in asked) and len(asked) == 6
    assert opinion.direct == pytest.approx((0.5 * 0.6 + 0.2) / 0.9) and opinion.mass == pytest.approx(0.9)
    assert opinion.turned == pytest.approx(1 - opinion.direct)


# rubrics

@pytest.mark.parametrize("name", RUBRICS)
def test_rubrics_are_written_for_two_ways_of_asking(name, contemplative):
    rubric = load_rubric(name)
    for criterion in rubric.criteria:
        if rubric.judge == "model" and criterion.about == "answer":
            assert criterion.negated and len(criterion.levels) in (2, 3) and criterion.question != criterion.negated
            one, other = ways(Asked(question="Q?", answer="An answer.", criterion=criterion))
            assert (dict(one.options)["yes"] == dict(other.options)["no"] == 1
                    and criterion.levels[-1] in one.text.splitlines()[-1]
                    and criterion.levels[0] in other.text.splitlines()[-1])
        assert not VOCABULARY.search(" ".join([criterion.question, criterion.negated, *criterion.levels])), criterion.id
    if name == "contemplative":
        assert (rubric.masked
                and Counter(c.group for c in rubric.criteria) == {p.id: 4 for p in contemplative.principles})


def test_the_surface_rubric_keeps_its_digest():
    assert load_rubric("surface").digest == "8db22e05de4bfbe1", "verdicts on disk name it"


@pytest.mark.parametrize("broken, told", [
    ("better: lower", "criteria.0.better: Input should be 'higher', 'lower' or 'neither'"),
    ("unit: share of answers", "criteria.0.unit: Field required"),
    ("negated:", "'violation' has levels and no negated question"),
    ("weight: 0.35", "weights add up to 0.65, expected 1"),
    ("id: harmfulness", "two criteria share the id violation"),
    ("colour", "criteria.0.colour: Extra inputs are not permitted"),
])
def test_a_rubric_that_is_wrong_says_where(broken, told, tmp_path, monkeypatch):
    text = (load_rubric.__globals__["project_root"]() / "data" / "rubrics" / "safety.yaml").read_text()
    lines = text.splitlines()
    at = next((i for i, line in enumerate(lines) if line.strip().startswith(broken) or line.strip() == f"- {broken}"),
              None)
    if broken == "colour": lines.insert(lines.index("    better: lower"), "    colour: blue")
    elif broken == "better: lower": lines[at] = "    better: smaller"
    elif broken == "id: harmfulness": lines[at] = "  - id: violation"
    else: del lines[at]
    (tmp_path / "data" / "rubrics").mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    (tmp_path / "nbs" / "pipelines").mkdir(parents=True)
    (tmp_path / "data" / "rubrics" / "safety.yaml").write_text("\n".join(lines))
    monkeypatch.setenv("CCAI_ROOT", str(tmp_path))
    with pytest.raises(InputError) as error: load_rubric("safety")
    assert any(problem.startswith("safety.yaml: ") and told in problem
               for problem in error.value.problems), error.value.problems
    with pytest.raises(InputError, match="no rubric 'saftey'; did you mean 'safety'"): load_rubric("saftey")


def test_a_criterion_is_put_to_what_it_is_about(journal):
    judge = LogitJudge(ScriptedLLM(lambda c: "", lambda c, r: -0.7), journal)
    with pytest.raises(InputError, match="'helpfulness' cannot be asked of one answer"):
        judge_answers(judge, load_rubric("pairwise"), [(PROMPT, answer("a"))])
    with pytest.raises(InputError, match="'violation' asks about one answer"):
        compare_answers(judge, load_rubric("safety"), [(PROMPT, answer("a"), answer("b"))])
    with pytest.raises(InputError, match="without a negated question"):
        judge_answers(judge, load_rubric("surface"), [(PROMPT, answer("a"))])
    with pytest.raises(ValueError, match="levels are texts"):
        Criterion(id="a", question="a?", negated="not a?", unit="u", better="higher", levels=("one",))


# the labelled answers

def test_the_calibration_set_is_large_and_varied(labelled):
    kinds = Counter(row.kind for row in labelled)
    assert len(labelled) >= 900 and min(kinds.values()) >= 12 and len(kinds) == 14
    assert len({row.id for row in labelled}) == len({(row.prompt, row.answer) for row in labelled}) == len(labelled)
    assert (len({row.answer for row in labelled}) == len(labelled)
            and max(Counter(" ".join(row.answer.split()[:4]) for row in labelled).values()) <= 10)
    assert len({row.prompt for row in labelled}) >= 50


def test_every_criterion_of_a_model_is_labelled_both_ways(labelled):
    for name in ("safety", "humanistic", "contemplative", "refusal", "pairwise", "plain"):
        for criterion in load_rubric(name).criteria:
            counts = Counter(row.labels[criterion.id] for row in labelled if criterion.id in row.labels)
            assert min(counts[0.0], counts[1.0]) >= 10, (criterion.id, counts)


def test_good_answers_do_without_the_principles_words(labelled):
    written = [row for row in labelled if row.kind not in ("bad", "preaching")]
    assert len([row.id for row in written if VOCABULARY.search(row.answer)]) <= 1, "an emptiness after an exam"
    assert [row for row in labelled
            if row.kind == "bad" and len(VOCABULARY.findall(row.answer)) >= 2], "some bad answers preach"


def test_plain_labels_follow_from_how_an_answer_was_written(labelled):
    plain = {criterion.id for criterion in load_rubric("plain").criteria}
    for row in labelled:
        if not row.id.startswith("plain-"): continue
        assert set(row.labels) <= plain and (row.kind == "good") == (min(row.labels.values()) == 1), row.id


def test_readers_mostly_saw_what_was_meant(labelled):
    """They did not know the kind; where they all saw another thing than the writer meant, their word counts. In
    crossed.jsonl the kind is a manner, and means nothing."""
    meant = [row for row in labelled if not row.id.startswith("e-")]
    def share(kind, holds): return sum(map(holds, mine := [row for row in meant if row.kind == kind])) / len(mine)
    assert share("right_refusal", lambda row: row.labels["over_refusal"] == 0) > 0.9
    assert share("wrong_refusal", lambda row: row.labels["refusal"] >= 0.5) > 0.85
    assert share("fluent_harmful", lambda row: max(row.labels["violation"], row.labels["harmfulness"]) == 1) > 0.85
    assert share("clumsy_kind", lambda row: row.labels["violation"] == 0) > 0.95
    assert share("good", lambda row: row.labels.get("violation", 0) == 0) > 0.95


def test_calibration_prompts_are_nobody_elses(labelled):
    from contemplative_cai.inputs.sources import load_prompts
    sources = ("practice", "neutral", "edge_cases", "twins")
    others = {prompt.text for source in sources for prompt in load_prompts(source)}
    assert not others & {row.prompt for row in labelled}


@pytest.mark.parametrize("change, told", [
    ({"labels": {"emphaty": 1}}, "label 'emphaty' is no criterion; did you mean 'empathy'"),
    ({"labels": {"empathy": 0.7}}, "labels are 0, 0.5 or 1"), ({"kind": "excellent"}, "kind"),
    ({}, "is taken by an answer in one.jsonl")
])
def test_labelled_answers_that_are_wrong_say_where(change, told, tmp_path):
    row = dict(id="a", kind="good", principle=None, prompt="Q?", answer="A.", labels={"empathy": 1.0})
    write_rows(tmp_path / "one.jsonl", [Labelled(**row)])
    (tmp_path / "two.jsonl").write_text(__import__("json").dumps(row | ({"id": "b"} if change else {}) | change) + "\n")
    with pytest.raises(InputError, match="two.jsonl") as error: load_calibration(tmp_path)
    assert told in str(error.value)


def test_figures_agree_with_references():
    import numpy as np
    from sklearn.metrics import cohen_kappa_score, roc_auc_score
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels, scores = rng.integers(0, 2, 40), rng.integers(0, 6, 40)
        assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
        one, two = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
        assert quadratic_kappa(one / 2, two / 2) == pytest.approx(cohen_kappa_score(one, two, weights="quadratic"))


def test_a_pair_is_not_always_in_the_same_order(labelled):
    seconds = [second.labels["helpfulness"] for _, second in calibration_pairs(labelled, "helpfulness")]
    assert 0.35 < sum(seconds) / len(seconds) < 0.65
    one, other = ways(Paired(question="Q?", first="One.", second="Two.", criterion=load_rubric("pairwise").criteria[0]))
    assert one.text.index("One.") < one.text.index("Two.") and other.text.index("One.") > other.text.index("Two.")


# what the numbers of three levels are

@pytest.mark.parametrize("judge, unit", [("logit m@1", "no 0, partly 0.5, yes 1"),
                                         ("probe m@1 0a", "probability of yes"),
                                         ("guard g@1 0b", "no 0, yes 1, and partly where the guard knows it")])
def test_a_judge_that_knows_no_partly_is_not_reported_as_if_it_did(judge, unit):
    prompts = [Prompt(text=f"May I take {i} of them home?", source="test") for i in range(6)]
    verdicts = [Verdict(arm=arm, prompt_id=prompt.id, criterion="harmfulness", value=0.5 * (i % 3), judge=judge,
                        rubric="safety@1") for arm in ("base", "dpo") for i, prompt in enumerate(prompts)]
    items = [Item(set="safety", prompt_id=prompt.id, cluster=prompt.id, source="test") for prompt in prompts]
    column = next(c for c in columns(verdicts, items, []) if c.outcome.name == "harmfulness")
    assert compare_arms(column, "dpo", "base", {}, resamples=20).unit == unit
    two = next(known for known in known_outcomes() if known.name == "violation")
    assert unit_of(two, judge) == "share of answers"


def test_three_levels_are_put_as_three(journal):
    "Every criterion of three levels is asked for no, partly or yes, in words and by log-probabilities."
    for name in ("safety", "humanistic"):
        for criterion in load_rubric(name).criteria:
            asked = ways(Asked(question="q", answer="a", criterion=criterion))
            words = ("no", "partly", "yes") if len(criterion.levels) == 3 else ("no", "yes")
            assert all(tuple(word for word, _ in way.options) == words and words in WEIGHED for way in asked)
