"""Ways to criticise and to revise: templates, examples, verdicts, samples, chains, judges;
and every filter that needs more than a row."""
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contemplative_cai.core.journal import Journal
from contemplative_cai.core.recipe import FILTERS, build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import (
    Constitution,
    Critique,
    InputError,
    Message,
    Prompt,
    Response,
    Revision,
    Triple,
)
from contemplative_cai.inputs.constitution import leave_out
from contemplative_cai.measure.text import language, vocabulary
from contemplative_cai.models.ask import weigh
from contemplative_cai.models.llm import CallFailed, ModelCallError, ScriptedLLM
from contemplative_cai.pairs.filters import FILTER_FUNCTIONS, USUAL, Thresholds, find_leak, recipe_thresholds, wording
from contemplative_cai.pairs.generate import check_methods, generate_pairs
from contemplative_cai.pairs.make import (
    FEW_OPENINGS,
    boilerplate_opening,
    filter_judged,
    filter_rows,
    filter_triples,
    near_duplicates,
)
from contemplative_cai.pairs.waterfall import waterfall
from contemplative_cai.revision.preferences import Preference, preferences, route, violation_margins
from contemplative_cai.revision.revise import alone, majority, make_triples, read_verdict, recipe_methods
from contemplative_cai.revision.templates import (
    TEMPLATES,
    Template,
    critique_conversation,
    guided_conversation,
    load_template,
    revision_conversation,
    shots,
)

QUESTION = Prompt(text="Is my neighbour simply rude?", source="test")
HELLO = "She may be tired, or shy with new people. Say hello tomorrow and see what comes back before you decide."


def one(contemplative, *ids) -> Constitution:
    "The constitution with these principles only."
    return leave_out(contemplative, tuple(p.id for p in contemplative.principles if p.id not in ids))


def made(llm, journal, constitution, prompts=(QUESTION,), **recipe):
    return make_triples(alone(llm), journal, list(prompts), constitution, recipe_methods(build_recipe(recipe)))


# templates and examples

@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("kind", ["free", "verdict", "reasoned"])
def test_every_template_shows_the_question_the_answer_and_what_is_asked(contemplative, name, kind):
    template, principle = TEMPLATES[name], contemplative.principles[1]
    response = Response(prompt_id=QUESTION.id, text="Yes, she is.", finish_reason="stop", model="m", seed=0)
    written = Critique(prompt_id=QUESTION.id, response_id=response.id, principle=principle.id, text="It labels her.",
                       finish_reason="stop", model="m", seed=0)
    for conversation in (critique_conversation(template, principle, QUESTION, response,
                                               shots(contemplative, principle, 3, kind=kind), kind),
                         revision_conversation(template, principle, QUESTION, response, written,
                                               shots(contemplative, principle, 3, kind=kind), kind)):
        text = "\n".join(message.content for message in conversation)
        opening, turns = ["system"] * bool(template.system), len(conversation) - bool(template.system)
        assert [m.role for m in conversation] == [*opening, *["user", "assistant"] * (turns // 2), "user"]
        assert QUESTION.text in conversation[-1].content and response.text in text
        assert principle.critique_request in text or principle.revision_request in text or principle.clauses[0] in text
    assert written.text in "\n".join(m.content for m in conversation)


def test_earlier_turns_are_not_lost_in_a_single_message(contemplative):
    prompt = Prompt(text="And her dog?", source="test", history=(Message(role="user", content="Is she rude?"),
                                                                 Message(role="assistant", content="Perhaps.")))
    response = Response(prompt_id=prompt.id, text="Leave it.", finish_reason="stop", model="m", seed=0)
    for template in TEMPLATES.values():
        written = Critique(prompt_id=prompt.id, response_id=response.id, principle="emptiness", text="Curt.",
                           finish_reason="stop", model="m", seed=0)
        for conversation in (critique_conversation(template, contemplative.principles[0], prompt, response),
                             revision_conversation(template, contemplative.principles[0], prompt, response, written)):
            assert all(part in "\n".join(m.content for m in conversation)
                       for part in ("Is she rude?", "Perhaps.", "And her dog?", "Leave it."))


@pytest.mark.parametrize("changes, said", [
    ({"critique": "{request}"}, "'{prompt}' is missing"),
    ({"revision": "{prompt} {requst}"}, "did you mean 'request'"),
    ({"critique": "{prompt}"}, "nothing says what is asked for"),
    ({"form": "single", "critique": "{prompt} {request}"}, "'{answer}' is missing"),
    ({"form": "single", "critique": "{prompt} {request} {answer}", "revision": "{prompt} {request} {answer}"},
     "'{critique}' is missing"),
])
def test_a_template_that_hides_something_is_refused(changes, said):
    with pytest.raises(ValueError, match=said.replace("{", r"\{").replace("}", r"\}")):
        Template(**{"name": "mine", "critique": "{prompt} {request}", "revision": "{prompt} {request}"} | changes)


def test_a_template_of_ones_own(tmp_path, contemplative):
    path = tmp_path / "mine.yaml"
    path.write_text("critique: 'On {prompt}: {request}'\nrevision: 'Again, {prompt}: {request}'\n")
    assert load_template(str(path)).label.startswith("mine@")
    path.write_text("critique: 'On it: {request}'\nrevision: x\n")
    with pytest.raises(InputError, match="mine.yaml: critique: '{prompt}' is missing"): load_template(str(path))
    with pytest.raises(InputError, match="did you mean 'structured'"): load_template("structurd")


@given(st.integers(0, 9), st.integers(0, 12), st.sampled_from(["first", "drawn", "mixed"]))
@settings(max_examples=40, deadline=None)
def test_examples_are_drawn_alike_and_never_twice(seed, n, pick):
    from contemplative_cai.inputs.constitution import load_constitution
    contemplative = load_constitution("contemplative")
    principle = contemplative.principles[2]
    found = shots(contemplative, principle, n, pick, seed)
    assert (found == shots(contemplative, principle, n, pick, seed)
            and len({shot.example.prompt for shot in found}) == len(found) == min(n, 12 if pick == "mixed" else 3))
    assert pick == "mixed" or all(shot.principle is principle for shot in found)
    assert pick == "first" or len(
        {tuple(shot.example.prompt for shot in shots(contemplative, principle, 2, pick, other)) for other in range(12)}
    ) > 1, "the seed draws"


def test_with_verdicts_every_second_example_is_clean_and_is_not_revised(contemplative):
    principle = contemplative.principles[0]
    found = shots(contemplative, principle, 3, kind="verdict")
    assert ([read_verdict(shot.critique("verdict")) for shot in found] == ["yes", "no", "yes"]
            and found[1].answer == found[1].example.revision)
    assert all(shot.critique("verdict").split("quote: ")[1].split("\n")[0].strip('"') in shot.answer
               for shot in found if not shot.clean), "the quote is the answer's own"
    response = Response(prompt_id=QUESTION.id, text="Yes.", finish_reason="stop", model="m", seed=0)
    assert (len(critique_conversation(TEMPLATES["conversation"], principle, QUESTION, response, found, "verdict"))
            == 6 + 4 + 6 + 3)


def test_the_constitution_in_the_place_of_a_critique(contemplative):
    principle = contemplative.principles[3]
    conversation = guided_conversation(principle, QUESTION, shots(contemplative, principle, 1))
    assert ([m.role for m in conversation] == ["system", "user", "assistant", "user"]
            and all(clause in conversation[0].content for clause in principle.clauses)
            and conversation[-1].content == QUESTION.text)


# verdicts

@pytest.mark.parametrize("text, kind, verdict", [
    ("violates: yes\nquote: x", "verdict", "yes"),
    ("**Violates**: Partially.", "verdict", "partly"),
    ("violates - NO", "verdict", "no"),
    ("I would say it is fine.", "verdict", "unreadable"),
    ("", "verdict", "unreadable"),
    ("violates: nothing", "verdict", "unreadable"),
    ("violates: yes\nOr no?\nviolates: no", "reasoned", "no"),
    ("violates: yes\nOr no?\nviolates: no", "verdict", "unreadable"),
    ("This violates. No one can know.\nviolates: yes", "verdict", "yes"),
    ("A line that says `violates: no` is asked for.", "reasoned", "unreadable"),
])
def test_verdicts_are_read_or_not(text, kind, verdict): assert read_verdict(text, kind) == verdict


def test_a_majority_leaves_the_unreadable_aside_and_is_strict_at_a_tie():
    assert (majority(["no", "no", "yes"]) == "no" and majority(["no", "yes"]) == "yes"
            and majority(["yes"] * 2 + ["partly"] * 2 + ["no"] * 3) == "yes"
            and majority(["unreadable", "unreadable", "no"]) == "no"
            and majority(["unreadable"]) == "unreadable" and majority(["partly", "no"]) == "partly")


def critic(contemplative, says):
    "A model whose critique by a principle is what `says` gives; it revises with HELLO."
    def script(conversation):
        asked = conversation[-1].content
        for p in contemplative.principles:
            if p.critique_request in asked: return says(p.id, conversation)
            if p.revision_request in asked: return HELLO
        return "Yes, she is."
    return ScriptedLLM(script, batch_size=8)


def test_nothing_to_mend_is_an_outcome(contemplative, journal):
    llm = critic(contemplative, lambda id, _: {
        "emptiness": "violates: yes\nreason: It labels her.", "non_duality": "violates: no", "boundless_care": "Well."
    }.get(id, "violates: partly"))
    triples = made(llm, journal, contemplative, critique_method="verdict")
    assert ([(t.verdict, t.revision is not None) for t in triples]
            == [("yes", True), ("no", False), ("unreadable", False), ("partly", True)])
    kept, dropped = filter_triples(triples, contemplative, ("empty", "identical"))
    assert (({row.principle: row.reason for row in dropped}
             == {"non_duality": "clean", "boundless_care": "unreadable_verdict"})
            and len(kept) == 2)
    rows = {row["stage"]: row["lost"] for row in waterfall(kept, dropped)}
    assert rows["clean"] == rows["unreadable_verdict"] == 1
    calls = len(llm.calls)
    assert (made(llm, journal, contemplative, critique_method="verdict") == triples
            and len(llm.calls) == calls), "a rerun asks nothing"


def test_several_critiques_decide_by_majority_and_the_majoritys_first_is_revised_by(contemplative, journal):
    said = iter(["violates: no", "violates: yes\nreason: second", "violates: yes\nreason: third"])
    llm = critic(contemplative, lambda id, _: next(said))
    [triple] = made(llm, journal, one(contemplative, "emptiness"), critique_method="verdict", critique_samples=3)
    assert triple.verdict == "yes" and "second" in triple.critique.text and triple.revision.text == HELLO
    assert (
        len({c for c in map(str, journal._db.execute("SELECT key FROM calls WHERE stage = 'critique'"))}) == 3
    ), "each sample is a call of its own"


def test_a_verdict_by_logits_writes_critiques_only_where_there_is_a_fault(contemplative, journal):
    def likes(conversation, reply):
        return float(("Yes, she is." in conversation[-1].content)
                     == ((reply == "Yes") == ("fall short" in conversation[-1].content)))
    llm = critic(contemplative, lambda id, _: "It labels her.")
    llm._likes = likes
    triples = made(llm, journal, contemplative, critique_method="logits")
    assert [t.verdict for t in triples] == ["yes"] * 4 and all(t.critique.text == "It labels her." for t in triples)
    llm._likes = lambda conversation, reply: -likes(conversation, reply)
    llm.key = "other"
    assert (([(t.verdict, t.critique) for t in made(llm, journal, contemplative, critique_method="logits")]
             == [("no", None)] * 4)
            and journal.totals()["critique"]["calls"] == 4)


# revisions

def test_the_best_of_several_is_the_one_the_critic_weighs_highest(contemplative, journal):
    drafts = iter(["Say hello.", "Say hello gently.", "Say nothing."])
    def script(conversation):
        return (next(drafts) if contemplative.principles[0].revision_request in conversation[-1].content
                else "It labels her.")
    def likes(conversation, reply):
        shown = conversation[-1].content.split(f"Answer {reply}: ")[1].split("\n\n")[0]
        return 2.0 * ("gently" in shown) + 0.5 * (reply == "A")
    [triple] = made(ScriptedLLM(script, likes), journal, one(contemplative, "emptiness"), revision_method="best_of",
                    revision_samples=3)
    assert triple.revision.text == "Say hello gently." and journal.totals()["revise"]["calls"] == 3


def test_a_chain_carries_one_answer_through_all_principles(contemplative, journal):
    seen = []
    def script(conversation):
        asked = conversation[-1].content
        for i, p in enumerate(contemplative.principles):
            if p.critique_request in asked:
                seen.append(conversation[-2].content)
                return "violates: no" if i == 1 else f"violates: yes\nreason: fault {i}"
            if p.revision_request in asked: return f"draft {i}"
        return "first"
    [triple] = made(ScriptedLLM(script), journal, contemplative, critique_method="verdict", revision_method="chained",
                    n_few_shot=0)
    assert (seen == ["first", "draft 0", "draft 0", "draft 2"]
            and (triple.response.text, triple.revision.text) == ("first", "draft 3"))
    assert [f"fault {i}" in triple.critique.text for i in range(4)] == [True, False, True, True]
    [pair], dropped = filter_triples([triple], contemplative, ("empty", "identical"))
    assert (pair.principle == "emptiness_and_non_duality_and_boundless_care_and_mindfulness"
            and pair.rejected[0].content == "first")


def test_a_chain_in_which_nothing_is_wrong_is_clean_and_one_that_breaks_says_why(contemplative, journal):
    [clean] = made(critic(contemplative, lambda id, _: "violates: no"), journal, contemplative,
                   critique_method="verdict", revision_method="chained")
    assert clean.verdict == "no" and clean.revision is None
    broken = critic(contemplative,
                    lambda id, _: ModelCallError("the line went dead") if id == "boundless_care" else "violates: no")
    broken.key = "broken"
    [failed] = made(broken, journal, contemplative, critique_method="verdict", revision_method="chained")
    assert (failed.failure == "the line went dead" and failed.revision is None
            and journal.totals()["critique"]["failed"] == 1)


def test_distilled_answers_have_no_critique_and_pass_the_filters(contemplative, journal):
    def script(conversation):
        return (HELLO if conversation[0].role == "system"
                else "Yes, she is simply rude, and rude people stay that way, so why try.")
    triples = made(ScriptedLLM(script), journal, contemplative, revision_method="distilled")
    kept, dropped = filter_rows(triples, contemplative)
    assert (len(kept) == 4 and not dropped and {pair.critique for pair in kept} == {""}
            and journal.totals()["distil"]["calls"] == 4)


def test_a_second_round_revises_only_what_still_falls_short(contemplative, journal):
    def says(id, conversation):
        return "violates: yes" if conversation[-2].content == "Yes, she is." or id == "emptiness" else "violates: no"
    llm = critic(contemplative, says)
    revisions = lambda: [c for c in llm.calls  # noqa: E731
                         if any(p.revision_request in c[-1].content for p in contemplative.principles)]
    triples = made(llm, journal, one(contemplative, "emptiness", "non_duality"), critique_method="verdict",
                   second_round=True, n_few_shot=0)
    assert len(revisions()) == 3 and all(t.revision.text == HELLO for t in triples)


def test_the_second_rounds_text_is_kept_with_both_critiques(contemplative, journal):
    def script(conversation):
        asked, p = conversation[-1].content, contemplative.principles[0]
        if p.critique_request in asked: return f"violates: yes\nreason: on '{conversation[-2].content}'"
        if p.revision_request not in asked: return "answer"
        return "second" if any(turn.content == "first" for turn in conversation) else "first"
    [triple] = made(ScriptedLLM(script), journal, one(contemplative, "emptiness"), critique_method="verdict",
                    second_round=True, n_few_shot=0)
    assert (triple.revision.text == "second" and "on 'answer'" in triple.critique.text
            and "on 'first'" in triple.critique.text and triple.revision.critique_id == triple.critique.id)


def test_principles_are_sampled_by_the_seed_or_routed_by_the_model(contemplative, journal):
    prompts = [Prompt(text=f"Question {i}?", source="test") for i in range(40)]
    llm = critic(contemplative, lambda id, _: "It labels her.")
    sampled = made(llm, journal, contemplative, prompts, principle_choice="sampled", principles_per_prompt=1)
    assert len(sampled) == 40 and len({t.principle for t in sampled}) == 4 and [
        t.principle
        for t in made(llm, journal, contemplative, prompts, principle_choice="sampled", principles_per_prompt=1)
    ] == [t.principle for t in sampled]
    assert ([t.principle for t in made(llm, journal, contemplative, prompts, principle_choice="sampled",
                                       principles_per_prompt=1, seed=1)]
            != [t.principle for t in sampled])
    llm._likes = lambda conversation, reply: float(
        "Boundless" in next(line for line in conversation[-1].content.splitlines() if line.startswith(f"{reply}. "))
    ) + (reply == "A")
    routed = made(llm, journal, contemplative, prompts[:3], principle_choice="routed", principles_per_prompt=2)
    assert (sorted(t.principle for t in routed)
            == sorted(["boundless_care"] * 3 + ["emptiness"] * 3)), "the place on the list cancels out"


@pytest.mark.long
def test_parts_are_played_by_different_models(contemplative):
    "Critic and reviser are opened by name; the pair says who wrote what."
    recipe = build_recipe({"model": "random-tiny", "reviser": "random-tiny", "device": "cpu", "dtype": "float32",
                           "n_prompts": 4, "filters": "empty,identical", "answer_tokens": 6, "critique_tokens": 6,
                           "revision_tokens": 6, "critic": "smollm2-135m", "n_few_shot": 1})
    run = open_run("two")
    made = generate_pairs(run, recipe)
    assert (run.manifest["critic"].startswith("smollm2-135m@")
            and run.manifest["reviser"] is None and made.kept[0].model.startswith("random-tiny"))
    by_stage = dict(Journal(run.path("journal.sqlite"))._db.execute("SELECT stage, COUNT(*) FROM calls GROUP BY stage"))
    assert by_stage["respond"] == 4 and by_stage["critique"] == by_stage["revise"] == 16


# weighing

def test_a_judge_that_likes_whatever_stands_first_flips_and_is_not_believed(contemplative, journal):
    principle = contemplative.principles[0]
    first = ScriptedLLM(lambda c: "", lambda c, reply: float(reply == "A"))
    [value] = preferences(first, journal, [("q", "good", "bad", principle)])
    assert value.flips and value.margin == 0
    yes = ScriptedLLM(lambda c: "", lambda c, reply: float(reply == "Yes"), key="yes-man")
    assert violation_margins(yes, journal, [("q", "a", principle)]) == [0.0], (
        "one who says yes to everything has no opinion"
    )


@given(st.floats(-5, 5, allow_nan=False), st.floats(-5, 5, allow_nan=False))
def test_a_preference_is_symmetric(first, second):
    value, turned = Preference(first=first, second=second), Preference(first=-second, second=-first)
    assert value.margin == pytest.approx(-turned.margin) and value.flips == ((first > 0) != (second > 0))


def test_what_was_weighed_is_not_weighed_again_and_what_failed_is_tried_again(contemplative, journal):
    down = [True]
    class Weak(ScriptedLLM):
        def logprobs(self, conversations, continuations):
            if down[0] and any(c[-1].content == "two" for c in conversations): raise ModelCallError("out of memory")
            self.calls += conversations
            return super().logprobs(conversations, continuations)
    llm, contexts = (Weak(lambda c: "", lambda c, r: -1.5),
                     [(Message(role="user", content=text),) for text in ("one", "two", "three")])
    found = weigh(llm, journal, "prefer", contexts, ["A"] * 3)
    assert [isinstance(value, CallFailed) for value in found] == [False, True, False]
    down[0], before = False, len(llm.calls)
    again = weigh(llm, journal, "prefer", contexts, ["A"] * 3)
    assert ([value.total for value in again] == [-1.5] * 3 and len(llm.calls) == before + 1
            and journal.totals()["prefer"] | {"seconds": 0} == {"calls": 3, "tokens_in": None, "tokens_out": 0,
                                                                "tokens_cached": None, "seconds": 0, "failed": 0})


def test_what_is_weighed_together_depends_on_the_whole_list_alone(journal, monkeypatch):
    "Stretches of the list in its order; after a kill, and around what is known, the same ones without what is known."
    monkeypatch.setattr("contemplative_cai.models.ask.WEIGHED_TOGETHER", 4)
    class Dies(ScriptedLLM):
        def __init__(self, left):
            super().__init__(lambda c: "", lambda c, r: -1.5, batch_size=2)
            self.left, self.asked = left, []
        def logprobs(self, conversations, continuations):
            if len(self.asked) == self.left: raise KeyboardInterrupt
            self.asked.append([(c[-1].content, reply) for c, reply in zip(conversations, continuations)])
            return super().logprobs(conversations, continuations)
    listed = [(text, reply) for text in ("one", "two", "three", "four", "five") for reply in ("Yes", "No")]
    def weighed(llm, rows):
        return weigh(llm, journal, "judge", [(Message(role="user", content=text),) for text, _ in rows],
                     [reply for _, reply in rows])
    weighed(Dies(9), [listed[5]])
    dying, again = Dies(1), Dies(9)
    with pytest.raises(KeyboardInterrupt): weighed(dying, listed)
    weighed(again, listed)
    assert dying.asked == [listed[:4]] and again.asked == [[listed[4], *listed[6:8]], listed[8:]]


def test_the_embedded_model_weighs_both_ways_and_remembers(contemplative, journal):
    from contemplative_cai.models.catalog import model_spec
    from contemplative_cai.models.local import load_llm
    llm = load_llm(model_spec("random-tiny"), "float32", "cpu")
    cases = [("How do I tell her?", "Tell her gently.", "Send a card.", contemplative.principles[2])]
    [value] = preferences(llm, journal, cases)
    shown = [m.content
             for m in critique_conversation(TEMPLATES["terse"], contemplative.principles[2], QUESTION,
                                            Response(prompt_id="x", text="y", finish_reason="stop", model="m", seed=0))]
    assert len(shown) == 1 and (preferences(llm, journal, [(q, b, a, p) for q, a, b, p in cases])[0].margin
                                == pytest.approx(-value.margin, abs=1e-4))
    assert (sorted(route(llm, journal, [QUESTION], contemplative.principles)[0])
            == sorted(p.id for p in contemplative.principles))


@pytest.mark.parametrize("first, second, reason",
                         [(-1.0, -1.0, "judge_prefers_rejected"), (2.0, -1.0, "judge_flips"), (1.0, 1.0, None)])
def test_the_judge_filters_need_its_word(contemplative, first, second, reason):
    kept, _ = filter_triples([triple(contemplative, HELLO)], contemplative)
    left, dropped = filter_judged(kept, [Preference(first=first, second=second)])
    assert [row.reason for row in dropped] == ([reason] if reason else []) and len(left) + len(dropped) == 1
    assert filter_judged(kept, [Preference(first=first, second=second)],
                         tuple(name for name in FILTERS if name != reason))[0] == kept


def test_judge_and_ensemble_in_a_run(contemplative):
    "The judge weighs what the filters leave; an ensemble of another constitution weighs what the judge leaves."
    def script(conversation):
        asked = conversation[-1].content
        for p in contemplative.principles:
            if p.critique_request in asked: return "It settles the matter."
            if p.revision_request in asked:
                return f"{asked[-24:]} Take your time with {p.id[:4]}, and ask what she saw."
        return "You are right, plain and simple, and that is all there is to say about it."
    def likes(conversation, reply):
        shown = conversation[-1].content.split(f"Answer {reply}: ")[1].split("\n\n")[0]
        return float("Take your time" in shown) * (-1 if "with mind" in shown else 1)
    run, recipe = open_run("judged"), build_recipe({
        "n_prompts": 4, "judge": "logits", "ensemble": "generic",
        "filters": "empty,identical,judge_prefers_rejected,ensemble_disagrees"
    })
    llm = ScriptedLLM(script, likes, batch_size=64)
    made = generate_pairs(run, recipe, llm)
    assert ({row.reason for row in made.dropped} == {"judge_prefers_rejected"}
            and {pair.principle for pair in made.kept} == {"emptiness", "non_duality", "boundless_care"})
    assert {row["stage"]: row["lost"] for row in waterfall(made.kept, made.dropped)}["judge_prefers_rejected"] == 4
    contrary = ScriptedLLM(
        script,
        lambda c, r: (-likes(c, r) if ("Take your time with empt" in c[-1].content
                                       and contemplative.principles[0].clauses[0] not in c[-1].content)
                      else likes(c, r)),
        batch_size=64, key="contrary"
    )
    again = generate_pairs(open_run("ensemble"), recipe, contrary)
    assert ({row.reason for row in again.dropped if row.principle == "emptiness"} == {"ensemble_disagrees"}
            and "generic" in next(row.detail for row in again.dropped if row.reason == "ensemble_disagrees"))
    two = build_recipe(recipe.model_dump(mode="json") | {"ensemble": "contemplative,generic"})
    assert ({row.reason
             for row in generate_pairs(open_run("both"), two, contrary).dropped if row.principle == "emptiness"}
            == {"ensemble_disagrees"}), "every member is asked"
    lenient = build_recipe(recipe.model_dump(mode="json") | {"filters": "empty,identical"})
    assert len(generate_pairs(open_run("lenient"), lenient, contrary).kept) == 16


# rows beside each other

def triple(contemplative, revision, question="Is my neighbour simply rude?",
           answer="Yes, she is simply rude, and rude people stay that way, so there is no use in trying anything."):
    prompt = Prompt(text=question, source="test")
    common = dict(prompt_id=prompt.id, model="m", seed=0, finish_reason="stop")
    response = Response(text=answer, **common)
    written = Critique(text="It labels her.", response_id=response.id, principle="emptiness", **common)
    return Triple(prompt=prompt, principle="emptiness", response=response, critique=written,
                  revision=Revision(text=revision, critique_id=written.id, principle="emptiness", **common))


def test_near_duplicate_pairs_are_kept_once_whatever_their_order(contemplative):
    rows = [triple(contemplative, HELLO), triple(contemplative, HELLO.replace("tomorrow", "tomorrow morning")),
            triple(contemplative, HELLO, "How do I make tea for twenty guests?")]
    kept, dropped = filter_triples(rows, contemplative)
    assert ([row.reason for row in dropped] == ["near_duplicate"] and len(kept) == 2
            and {pair.id for pair in kept} == {pair.id for pair in filter_triples(rows[::-1], contemplative)[0]})
    assert (
        len(filter_triples(rows, contemplative, tuple(name for name in FILTERS if name != "near_duplicate"))[0]) == 3
        and len(near_duplicates(filter_rows(rows, contemplative)[0])) == 1
    )


LIMITS = [
    # threshold, its filter, answer and revision that pass by default, and a value at which they do not
    ("copied_words", "leaked_preamble", "Is it late?", "She may be tired, and it labels her, so ask.", 3),
    ("max_repeats", "repetition_loop", "Yes.", "Ask her now please. Wait a day. Ask her now please, kindly.", 1),
    (
        "min_distinct",
        "repetition_loop",
        "Yes.",
        (" ".join(f"{a} {b} {c}" for a in ("ask", "tell") for b in ("her", "him") for c in ("now", "then", "soon"))
         + " ask her now ask her then"),
        1.0,
    ),
    ("max_similarity", "near_identical", "Ask her what she saw today.", "Ask her what she heard today.", 0.8),
]


@pytest.mark.parametrize("key, name, answer, revision, stricter", LIMITS)
def test_a_recipe_sets_the_threshold_of_a_filter(contemplative, key, name, answer, revision, stricter):
    row, principle = triple(contemplative, revision, answer=answer), contemplative.principles[0]
    def seen(**keys): return FILTER_FUNCTIONS[name](row, principle, recipe_thresholds(build_recipe(keys)))
    assert seen() is None and seen(**{key: stricter})


def test_a_recipe_says_how_alike_two_pairs_may_be_and_how_sure_a_language_is(contemplative):
    rows = [triple(contemplative, HELLO), triple(contemplative, HELLO.replace("tomorrow", "tomorrow morning"))]
    assert len(filter_triples(rows, contemplative)[0]) == 1 and len(
        filter_triples(rows, contemplative, limits=recipe_thresholds(build_recipe({"max_pair_similarity": 1})))[0]
    ) == 2
    german = triple(contemplative,
                    "Das ist ein langer Satz, der ganz sicher nicht auf Englisch ist, sondern auf Deutsch.")
    def seen(limits): return FILTER_FUNCTIONS["language_switch"](german, contemplative.principles[0], limits)
    assert seen(recipe_thresholds(build_recipe({"language_sure": 0.5})))
    assert seen(USUAL.model_copy(update={"language_sure": 1.1})) is None, "nothing is as sure as that"


WORDS = ["lamp", "river", "button", "garden", "ticket", "window", "carrot", "ladder", "pillow", "engine", "basket",
         "mirror", "kettle", "saddle", "pencil", "blanket", "hammer", "island", "jacket", "violin"]


def test_an_opening_that_too_many_share_is_thinned_out(contemplative):
    rows = [triple(contemplative,
                   (f"It sounds like you are {'tired' if i < 12 else WORDS[i]}. Take the {WORDS[i]} to the {WORDS[-i]} "
                    f"and {WORDS[i - 7]} it there for an hour, or ask about {WORDS[i - 3]}s."),
                   f"What about the {WORDS[i]} and the {WORDS[i - 5]}?")
            for i in range(20)]
    rows = [row if i < 12 else triple(contemplative, f"{WORDS[i].title()} first. {row.revision.text}", row.prompt.text)
            for i, row in enumerate(rows)]
    kept, dropped = filter_triples(rows, contemplative, limits=Thresholds(max_share_opening=0.3))
    assert {row.reason for row in dropped} == {"boilerplate"} and len(dropped) == 6 and "12 of 20" in dropped[0].detail
    assert sum(boilerplate_opening(pair.chosen[0].content) == "it sounds like you are" for pair in kept) == 6
    assert len(filter_triples(rows[:FEW_OPENINGS], contemplative)[0]) == FEW_OPENINGS, "a few may always share one"
    assert len(filter_triples(rows, contemplative, tuple(name for name in FILTERS if name != "boilerplate"))[0]) == 20


def test_what_training_does_not_read_does_not_count(contemplative):
    answer = " ".join(f"{WORDS[i % 20]}{i}" for i in range(40))
    changed = answer + " " + " ".join(f"new{i}" for i in range(30))
    def reasons(limits):
        return [row.reason
                for row in filter_triples([
                    triple(contemplative, changed, answer=answer + " " + " ".join(f"old{i}" for i in range(30)))
                ], contemplative, limits=limits)[1]]
    assert reasons(Thresholds(read_words=45)) == ["near_identical"] and reasons(Thresholds(read_words=200)) == []


# single texts

def test_language_is_said_only_where_it_is_sure():
    assert (language("Vielleicht ist sie müde, und morgen sieht alles ganz anders aus.") == "de"
            and language("Oui.") is None and language("xk vv qq zz jj ww kk pp") in (None, "en"))


def test_vocabulary_counts_what_the_person_did_not_say_first():
    assert (vocabulary("Be mindful and compassionate.") == 50
            and vocabulary("Be mindful and kind.", "How do I become mindful?") == 0)


LABELLED = [json.loads(line)
            for line in (Path(__file__).parent / "leaks.jsonl").read_text(encoding="utf-8").splitlines()]


def measured(rows):
    found = [find_leak(row["revision"], row["question"], row["critique"]) is not None for row in rows]
    right = sum(f and row["leak"] for f, row in zip(found, rows))
    return right / sum(found), right / sum(row["leak"] for row in rows)


def test_precision_and_recall_of_the_leak_filter():
    """The figures that the notebook states; the held-out rows were written to be missed by lists of wordings,
    and nobody looked at them while the lists were made."""
    assert (len(LABELLED) == 360 and sum(row["leak"] for row in LABELLED) == 180
            and sum(row["kind"] == "hard" for row in LABELLED) >= 120)
    precision, recall = measured([row for row in LABELLED if row["part"] == "development"])
    assert precision >= 0.98 and recall >= 0.93
    precision, recall = measured([row for row in LABELLED if row["part"] == "held out"])
    assert precision >= 0.9 and 0.4 <= recall


@pytest.mark.parametrize("question, text", [
    ("Can you improve my letter?", "Here is an improved version of it: Dear all, thank you."),
    ("How do I answer my critics?", "The first answer can be short. A critique is not a verdict on you."),
])
def test_words_the_person_used_first_tell_nothing(question, text):
    assert wording(text, question) is None and wording(text, "What now?") is not None


@pytest.mark.parametrize("values, said", [
    ({"critique_samples": 3}, "majority of written verdicts"),
    ({"critique_samples": 3, "critique_method": "verdict", "temperature": 0}, "temperature 0"),
    ({"revision_method": "best_of"}, "revision_samples of 2 or more"),
    ({"revision_samples": 3}, "chosen from by best_of"),
    ({"second_round": True}, "critique_method with verdicts"),
    ({"revision_method": "distilled", "critique_method": "verdict"}, "has no critiques"),
    ({"revision_method": "chained", "principle_choice": "routed"}, "all principles"),
    ({"revision_method": "chained", "split_by": "principle"}, "joins all principles"),
    ({"principles_per_prompt": 2}, "sampled or routed"),
    ({"twins": 0.2, "prompts": "practice,twins"}, "name the source"),
    ({"paraphrases": 2, "temperature": 0}, "all the same"),
    ({"template": "structurd"}, None),
])
def test_methods_that_contradict_each_other_are_refused(values, said):
    if said is None:
        with pytest.raises(InputError, match="did you mean 'structured'"): recipe_methods(build_recipe(values))
        return
    with pytest.raises(InputError, match=said): build_recipe(values)


# more rows

def test_paraphrases_stay_with_their_parents(contemplative):
    "They count as their parent in pairs and dropped rows, are made of training prompts only, and repeat nothing."
    def script(conversation):
        asked = conversation[-1].content
        if asked.startswith("Write the following question again"):
            words = asked.rsplit("Question: ", 1)[1].split()
            return (" ".join(words) if len(words) % 3 == 0
                    else "Put differently and by somebody else: " + " ".join(sorted(word[::-1] for word in words)))
        for p in contemplative.principles:
            if p.critique_request in asked: return "It settles the matter."
            if p.revision_request in asked: return f"{asked[-24:]} Take your time."
        return "You are right, plain and simple."
    run, recipe = (open_run("more"),
                   build_recipe({"n_prompts": 10, "filters": "empty,identical", "paraphrases": 1, "seed": 3}))
    llm = ScriptedLLM(script, batch_size=64)
    made = generate_pairs(run, recipe, llm)
    train, asked = (set(made.split.train),
                    [c[-1].content for c in llm.calls if c[-1].content.startswith("Write the following")])
    assert len(asked) == len(train) and all(pair.prompt_id in {p.id for p in made.prompts} for pair in made.kept)
    more = [pair for pair in made.kept if pair.prompt[-1].content.startswith("Put differently")]
    assert more and {pair.prompt_id for pair in more} <= train and len(made.kept) == 40 + len(more)
    calls = len(llm.calls)
    assert generate_pairs(run, recipe, llm) == made and len(llm.calls) == calls


def test_benign_twins_teach_to_help(contemplative, scripted):
    "Chosen is the model's answer, rejected a refusal; a model that refuses too gives no pair."
    run, recipe = open_run("twins"), build_recipe({"n_prompts": 6, "twins": 0.5})
    made = generate_pairs(run, recipe, scripted)
    twins = [pair for pair in made.kept if pair.principle == "benign_twin"]
    assert twins and all((pair.source == "twins" and pair.model.startswith("refusals@")
                          and pair.model.endswith("> scripted") and pair.critique == "")
                         for pair in twins)
    assert (
        len(made.prompts) == 9 and len(made.kept) + len(made.dropped) == 6 * 4 + 3
        and len(generate_pairs(open_run("one"), build_recipe({"n_prompts": 6, "twins": 0.1}), scripted).prompts) == 7
    )
    refusing = ScriptedLLM(lambda c: "I'm sorry, but I can't help with that.", key="refusing")
    made = generate_pairs(open_run("refusing"), recipe, refusing)
    assert not made.kept and [row.reason for row in made.dropped if row.principle == "benign_twin"] in (
        ["refusal_again"] * 3, ["identical", "refusal_again", "refusal_again"],
        ["refusal_again", "identical", "refusal_again"], ["refusal_again", "refusal_again", "identical"]
    )


def test_twins_are_harmless_distinct_and_not_a_benchmarks():
    from contemplative_cai.inputs.sources import load_prompts
    from contemplative_cai.measure.duplicates import near_groups
    from contemplative_cai.measure.text import refuses
    from contemplative_cai.revision.augment import refusals
    twins = load_prompts("twins")
    assert (len(twins) == 72 and len({t.hazard for t in twins}) == 12
            and not {"cse", "sxc_prn"} & {t.hazard for t in twins}
            and len(near_groups([[t.text] for t in twins])) == 72)
    assert len(refusals()) == 48 and sum(map(refuses, refusals())) >= 24, "and the filter knows at least half of them"


def test_every_name_that_is_wrong_is_said_before_anything_is_asked(tmp_path):
    with pytest.raises(InputError) as caught:
        check_methods(build_recipe({"template": "structurd", "critic": "smolm2-135m",
                                    "ensemble": "gneric.md,qwen2.5-7bb"}))
    assert len(caught.value.problems) == 4 and all("did you mean" in problem for problem in caught.value.problems)
    check_methods(build_recipe({"critic": "random-tiny", "ensemble": "generic,random-tiny"}))


def test_a_users_file_called_twins_is_not_taken_for_benign(tmp_path, scripted):
    path = tmp_path / "twins.jsonl"
    path.write_text("".join(json.dumps({"text": f"What about my {word} and the {WORDS[-i]}?"}) + "\n"
                            for i, word in enumerate(WORDS[:8])))
    made = generate_pairs(open_run("mine"),
                          build_recipe({"prompts": str(path), "n_prompts": 4, "twins": 0.5, "guarded": []}), scripted)
    assert sum(pair.principle == "benign_twin" for pair in made.kept) == 2 and not (
        {pair.prompt_id for pair in made.kept if pair.principle == "benign_twin"} & {p.id for p in made.prompts[:4]}
    )


def test_a_paraphrase_that_says_what_is_tested_on_is_left_out(contemplative):
    from contemplative_cai.inputs.sources import draw_prompts
    recipe = build_recipe({"n_prompts": 6, "filters": "empty,identical", "paraphrases": 1})
    held = iter([p.text for p in draw_prompts(recipe.eval_prompts, recipe.n_eval_prompts, recipe.seed)])
    def script(conversation):
        asked = conversation[-1].content
        if asked.startswith("Write the following question again"): return next(held)
        return ("Take your time." if any(p.revision_request in asked for p in contemplative.principles)
                else "You are right.")
    run = open_run("leaky")
    made = generate_pairs(run, recipe, ScriptedLLM(script, batch_size=64))
    counts = run.manifest["paraphrases"]
    assert counts["leaked"] == counts["asked"] > 0 and counts["kept"] == 0 and len(made.kept) + len(made.dropped) == 24


def test_words_that_the_critique_quotes_from_the_answer_are_not_its_own():
    answer = "Take a short walk after lunch and call your sister on the way home tonight."
    assert (find_leak(f"{answer} Listen first.",
                      critique=f'violates: partly\nquote: "{answer}"\nreason: It does not listen.', answer=answer)
            is None)
    assert find_leak(f"{answer} Listen first.", critique=f"You could say: {answer}").kind == "critique"


def test_mixed_examples_are_all_looked_for(contemplative):
    copied = triple(contemplative, contemplative.principles[3].examples[0].revision)
    assert (filter_rows([copied], contemplative, mixed=True)[1][0].reason == "copied_example"
            and "copied_example" not in {row.reason for row in filter_rows([copied], contemplative)[1]})


def test_weighing_is_given_up_when_nothing_is_answered(journal):
    class Deaf(ScriptedLLM):
        def logprobs(self, conversations, continuations):
            self.calls += conversations
            raise ModelCallError("this server gives no log-probabilities")
    llm = Deaf(lambda c: "", batch_size=64)
    with pytest.raises(ModelCallError, match="3 calls failed one after the other .* no log-probabilities"):
        weigh(llm, journal, "prefer", [(Message(role="user", content=str(i)),) for i in range(64)], ["A"] * 64)
    assert len(llm.calls) < 64 * 3, "the halves on the way to three single rows, and no more"


@pytest.mark.parametrize("method", [
    {"revision_method": "distilled"}, {"critique_method": "logits"},
    {"revision_method": "best_of", "revision_samples": 2}, {"principle_choice": "routed"},
    {"critique_method": "verdict", "second_round": True}, {"revision_method": "chained"}
])
def test_every_method_an_actor_runs_is_committed_whole(contemplative, scripted, method):
    "What the actor of a cluster makes is all that the step needs afterwards."
    from contemplative_cai.inputs.draw import recipe_prompts
    from contemplative_cai.revision.cluster import (
        ChainActor,
        RecordedLLM,
        commit_block,
        freeze,
        read_blocks,
        recipe_chain,
        unfinished,
    )
    recipe, run = build_recipe({"n_prompts": 4, "filters": "empty,identical"} | method), open_run("ray")
    scripted._likes = lambda conversation, reply: float(len(conversation[-1].content) % 7) if reply == "Yes" else 0.0
    chain, blocks = recipe_chain(recipe), lambda: read_blocks(freeze(run, recipe_prompts(recipe), 2))
    with Journal(run.path("journal.sqlite")) as journal:
        for row in unfinished(journal, "scripted", chain, blocks()):
            done = ChainActor(lambda: scripted, "scripted", chain)(row)
            assert not done["error"]
            commit_block(journal, done)
        assert not list(unfinished(journal, "scripted", chain, blocks()))
    calls = len(scripted.calls)
    made = generate_pairs(run, recipe,
                          RecordedLLM("scripted", run.path("journal.sqlite"), template=chain.methods.requests.label))
    assert len(scripted.calls) == calls and not [row for row in made.dropped if row.reason == "call_failed"]
