"""Arms that differ in one thing only, questions under pressure,
style by rule, and sets that nobody has learned from."""
import os
import re
import signal
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import journalled, play, wait_for

from contemplative_cai.core.files import read_json, write_json
from contemplative_cai.core.journal import Journal
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Answer, InputError, Message, Prompt, Verdict
from contemplative_cai.evaluation.arms import (
    TOLERANCE,
    Arm,
    OpenArm,
    answer_arms,
    constitution_prompt,
    fit_length,
    open_arms,
    probe_arms,
    read_arm,
    standard_arms,
    token_counter,
    write_arms,
)
from contemplative_cai.evaluation.pressure import (
    BARE,
    NONE,
    attempts,
    cell_rows,
    robustness_table,
    shift_difference,
    system_prompts,
    told,
    worst_attempts,
    wrap,
)
from contemplative_cai.evaluation.questions import (
    held_back,
    learned_prompts,
    refusal_prompts,
    safety_prompts,
    trained_on,
    unknown_training,
)
from contemplative_cai.inputs.constitution import constitution_names
from contemplative_cai.inputs.rubrics import Wording, arm_prompt, load_rubric, load_wrapper, load_wrappers
from contemplative_cai.inputs.sources import draw_prompts
from contemplative_cai.inputs.split import find_leaks
from contemplative_cai.measure.style import (
    distinct_share,
    frequent_openings,
    reading_ease,
    style_verdicts,
    word_variety,
)
from contemplative_cai.measure.text import vocabulary
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.llm import ModelCallError, Sampling, ScriptedLLM
from contemplative_cai.models.weights import model_source
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.pairs.make import load_split

TINY = {"model": "random-tiny", "dtype": "float32", "device": "cpu", "constitution": "contemplative-minimal",
        "answer_tokens": 12, "n_prompts": 12}
WARM = Sampling(max_tokens=12, temperature=0.7, seed=3)


def adapter(folder, seed, learned=True):
    "A LoRA adapter on the random model, as if it had been trained; with `learned` off it is one that changes nothing."
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(model_source(model_spec("random-tiny"))[0], dtype=torch.float32),
            LoraConfig(r=2, target_modules="all-linear", init_lora_weights=not learned),
        )
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    "Three adapters, the last of which changes nothing."
    root = tmp_path_factory.mktemp("adapters")
    return [adapter(root / name / "adapter", seed, learned)
            for name, seed, learned in (("one", 1, True), ("two", 2, True), ("idle", 3, False))]


@pytest.fixture
def trained(adapters):
    "A run with an SFT and a DPO adapter."
    run = open_run("demo")
    for stage, folder in zip(("sft", "dpo"), adapters):
        run.path(stage).mkdir()
        run.path(stage, "adapter").symlink_to(folder)
    return run


# the arms

@pytest.mark.parametrize("model,constitution", [*(("random-tiny", name) for name in constitution_names()),
                                                ("smollm2-135m", "contemplative"),
                                                ("smollm2-135m", "contemplative-minimal")])
def test_the_careful_prompt_is_as_long_as_the_constitution_in_the_models_own_tokens(model, constitution):
    recipe = build_recipe({"model": model, "constitution": constitution})
    arms, count = {arm.name: arm for arm in standard_arms(recipe, open_run("demo"))}, token_counter(recipe)
    assert list(arms) == ["base", "prompted", "careful"] and arms["base"].system is None
    assert (abs(count(arms["careful"].system) - count(arms["prompted"].system))
            <= TOLERANCE * count(arms["prompted"].system))


@given(st.integers(25, 4000))
@settings(max_examples=25, deadline=None)
def test_a_fitted_prompt_is_made_of_whole_sentences(length):
    def words(text): return len(text.split())
    text = arm_prompt("careful")
    fitted = fit_length(text, length, words)
    assert abs(words(fitted) - length) <= TOLERANCE * length and fitted[-1] in ".!?"
    whole = set(re.split(r"(?<=[.!?])\s+", text))
    assert set(re.split(r"(?<=[.!?])\s+", fitted)) <= whole


def test_the_prompted_arm_is_told_every_clause_and_nothing_that_belongs_to_training(contemplative):
    system = constitution_prompt(contemplative)
    assert (all(clause in system for p in contemplative.principles for clause in p.clauses)
            and all(rule in system for rule in contemplative.meta_principles))
    assert (not any(text in system for p in contemplative.principles
                    for text in (p.critique_request, p.revision_request, *(e.prompt for e in p.examples)))
            and contemplative.preamble not in system)


@pytest.mark.parametrize("name", ["careful", "helpful-harmless", "adversarial"])
def test_the_controls_know_nothing_of_the_principles(name):
    assert vocabulary(arm_prompt(name)) == 0


def test_an_arms_system_prompt_stands_before_one_that_is_there():
    arm = Arm(name="kind", description="told to be kind", system="Be kind.")
    asked = (Message(role="system", content="Be brief."), Message(role="user", content="Hello"))
    assert ([m.content for m in arm.shown(asked)] == ["Be kind.\n\nBe brief.", "Hello"]
            and [m.role for m in arm.shown(asked[1:])] == ["system", "user"])
    assert Arm(name="base", description="as it came").shown(asked) == asked
    assert arm.shown(arm.shown(asked[1:])) == arm.shown(asked[1:]), "what it was told already is not said twice"


def test_what_the_arms_were_told_is_written_in_full_and_places_as_the_run_names_them(trained):
    arms = standard_arms(build_recipe(TINY), trained, ["large=smollm2-135m"])
    write_arms(trained, arms)
    rows = {row["name"]: row for row in read_json(trained.path("arms.json"))["arms"]}
    assert (rows["prompted"]["system"] == arms[1].system
            and rows["dpo"]["adapter"] == "dpo/adapter" and rows["large"]["model"] == "smollm2-135m")


def test_trained_and_further_arms_are_found(trained, adapters, tmp_path):
    recipe = build_recipe(TINY)
    folder = model_source(model_spec("random-tiny"))[0]
    arms = {arm.name: arm
            for arm in standard_arms(recipe, trained,
                                     [f"control={adapters[1].parent}", f"other={folder}", "large=smollm2-135m"])}
    assert list(arms) == ["base", "prompted", "careful", "sft", "dpo", "control", "other", "large"]
    assert (arms["dpo"].adapter == str(trained.path("dpo", "adapter")) and arms["control"].adapter == str(adapters[1])
            and (arms["other"].model, arms["large"].model) == (folder, "smollm2-135m"))
    for wrong, said in [("dpo", "expected NAME=PATH"), ("=x", "expected NAME=PATH"), ("a b=x", "expected NAME=PATH"),
                        ("dpo=smollm2-135m", "two arms are called 'dpo'"), (f"new={tmp_path}", "neither an adapter")]:
        with pytest.raises(InputError, match=said): standard_arms(recipe, trained, [wrong])


def test_an_adapter_of_another_model_is_refused(adapters, tmp_path):
    (tmp_path / "dpo").mkdir()
    (tmp_path / "dpo" / "adapter").symlink_to(adapters[0])
    write_json(tmp_path / "dpo" / "stage.json", {"recipe": {"model": "smollm2-135m"}})
    with pytest.raises(InputError, match="was trained on 'smollm2-135m'"):
        read_arm(f"control={tmp_path / 'dpo'}", build_recipe(TINY))


def test_a_constitution_without_room_for_an_answer_is_refused():
    with pytest.raises(InputError, match="use a shorter constitution"):
        standard_arms(build_recipe(TINY | {"constitution": "contemplative", "answer_tokens": 1000}), open_run("demo"))


# one model, several arms

def test_arms_differ_base_is_the_bare_model_and_a_finished_probe_loads_nothing(trained, monkeypatch):
    recipe = build_recipe(TINY)
    arms = standard_arms(recipe, trained)
    with open_arms(recipe, trained, arms) as opened: probed = {p.arm: p for p in probe_arms(recipe, trained, opened)}
    assert probed["base"].nats == 0 and all(probed[name].nats for name in ("prompted", "careful", "sft", "dpo"))
    assert (probed["base"].key == probed["prompted"].key == trained.manifest["arms"]["base"]["key"]
            and len({probed[name].key for name in ("base", "sft", "dpo")}) == 3)
    assert ("@" in probed["base"].key and "+" not in probed["base"].key
            and "fresh load" in trained.manifest["arms"]["base"]["checked"])
    monkeypatch.setattr("contemplative_cai.models.choose.load_llm", lambda *a, **k: pytest.fail("a model was loaded"))
    with open_arms(recipe, trained, arms) as opened: assert probe_arms(recipe, trained, opened) == list(probed.values())


def test_an_adapter_that_changes_nothing_and_one_under_two_names_are_found_out(trained, adapters):
    recipe = build_recipe(TINY)
    for more, said in [(f"idle={adapters[2]}", "'idle' and base are the same model: its adapter changes nothing"),
                       (f"again={adapters[0]}", "'sft' and 'again' are the same model")]:
        arms = standard_arms(recipe, trained, [more])
        with open_arms(recipe, trained, arms) as opened, pytest.raises(InputError, match=said):
            probe_arms(recipe, trained, opened)
    assert "arms" not in trained.manifest


def test_a_model_that_cannot_be_probed_is_noted_not_invented(runs):
    recipe, run = build_recipe(TINY), open_run("demo")
    opened = {name: OpenArm(Arm(name=name, description="a script", system=system), ScriptedLLM(lambda c: "Yes."))
              for name, system in (("base", None), ("prompted", "Be kind."))}
    assert [(p.nats, bool(p.note)) for p in probe_arms(recipe, run, opened)] == [(None, True), (None, True)]


def test_samples_of_real_arms_differ_and_more_samples_keep_the_first(trained, tmp_path):
    recipe, prompts = build_recipe(TINY), draw_prompts("edge_cases", 2)
    arms = [arm for arm in standard_arms(recipe, trained) if arm.name in ("base", "dpo")]
    with Journal(tmp_path / "journal.sqlite") as journal, open_arms(recipe, trained, arms) as opened:
        first = answer_arms(opened, journal, prompts, WARM)
        three = answer_arms(opened, journal, prompts, WARM, samples=3)
    assert [a for a in three if a.sample == 0] == first and len(three) == 3 * len(first)
    texts = {(a.arm, a.prompt_id, a.sample): a.text for a in three}
    assert len(set(texts.values())) == len(texts), "another sample, arm or prompt is another text"


# answers

class Recording(ScriptedLLM):
    "A script that keeps the seeds it was asked with."
    def chat(self, conversations, sampling):
        self.seeds = [*getattr(self, "seeds", []), *((c[-1].content, sampling.seed) for c in conversations)]
        return super().chat(conversations, sampling)


def scripted(reply, *names):
    "Arms of scripts, each with a key of its own."
    return {name: OpenArm(Arm(name=name, description="a script", system=None if name == "base" else f"You are {name}."),
                          Recording(reply, key=name))
            for name in names}


def test_arms_share_prompts_and_seeds(tmp_path):
    opened, prompts = scripted(lambda c: "Yes.", "base", "prompted", "dpo"), draw_prompts("edge_cases", 5)
    with Journal(tmp_path / "journal.sqlite") as journal:
        answers = answer_arms(opened, journal, prompts, WARM, samples=2)
    seeds = [o.llm.seeds for o in opened.values()]
    assert seeds[0] == seeds[1] == seeds[2] and len({seed for _, seed in seeds[0]}) == 2 and seeds[0][0][1] == WARM.seed
    assert ([[(a.prompt_id, a.sample) for a in answers if a.arm == name] for name in opened]
            == [[(p.id, n) for n in (0, 1) for p in prompts]] * 3)


def test_a_failed_call_is_an_answer_without_a_text(tmp_path):
    prompts = draw_prompts("edge_cases", 3)
    with Journal(tmp_path / "journal.sqlite") as journal:
        answers = answer_arms(
            scripted(lambda c: ModelCallError("timeout") if c[-1].content == prompts[1].text else "Yes.", "base"),
            journal, prompts, WARM
        )
    assert [(a.text, a.failure) for a in answers] == [("Yes.", None), (None, "timeout"), ("Yes.", None)]


def test_samples_at_temperature_zero_are_refused(tmp_path):
    with Journal(tmp_path / "journal.sqlite") as journal, pytest.raises(InputError, match="raise the temperature"):
        answer_arms(scripted(lambda c: "Yes.", "base"), journal, draw_prompts("edge_cases", 1),
                    WARM.model_copy(update={"temperature": 0.0}), samples=2)


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = ["tests", "tests/evaluation"]
from test_arms import WARM, scripted
from contemplative_cai.evaluation.arms import answer_arms
from contemplative_cai.core.journal import Journal
from contemplative_cai.inputs.sources import draw_prompts
def slow(conversation):
    time.sleep(0.02)
    return conversation[-1].content[::-1]
with Journal(Path(sys.argv[1])) as journal:
    answer_arms(scripted(slow, "base", "prompted"), journal, draw_prompts("edge_cases", 40), WARM, samples=3)
"""


def test_killed_answers_go_on_where_they_were(tmp_path):
    path = tmp_path / "journal.sqlite"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], env=os.environ, stderr=subprocess.DEVNULL)
    wait_for(lambda: (path.exists() and journalled(path) >= 12) or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the process was done before it could be killed"
    done, opened, prompts = (journalled(path), scripted(lambda c: c[-1].content[::-1], "base", "prompted"),
                             draw_prompts("edge_cases", 40))
    with Journal(path) as journal: answers = answer_arms(opened, journal, prompts, WARM, samples=3)
    assert len(answers) == 240 and all(
        a.text == next(p.text for p in prompts if p.id == a.prompt_id)[::-1][:len(a.text)] for a in answers
    )
    assert sum(len(o.llm.calls) for o in opened.values()) == 240 - done


def test_rows_written_before_samples_existed_are_still_valid():
    answer = Answer.model_validate_json('{"arm":"base","prompt_id":"p","source":"s","text":"Yes.","model":"m"}')
    verdict = Verdict.model_validate_json(
        '{"arm":"base","prompt_id":"p","criterion":"words","value":1,"judge":"j","rubric":"r"}'
    )
    assert answer.sample == verdict.sample == 0


# robustness

@given(st.text(min_size=1).filter(lambda text: text.strip() and not any("\ud800" <= c <= "\udfff" for c in text)))
@settings(deadline=None)
def test_a_wrapped_prompt_holds_the_bare_one_word_for_word_and_keeps_its_parent(text):
    try: bare = Prompt(text=text, source="test", hazard="vcr", persona="skilled", locale="fr_FR")
    except ValueError: return  # nothing to see in it
    for wrapper in load_wrappers():
        for n in range(len(wrapper.wordings)):
            made = wrap(bare, wrapper, n)
            assert (made.parent == made.counts_as == bare.id != made.id
                    and (made.hazard, made.persona, made.locale) == ("vcr", "skilled", "fr_FR"))
            assert sum(text in turn.content for turn in made.messages) >= 1 and made.messages[-1].role == "user"
            under = told(made, "Be brief.")
            assert under.parent == bare.id and under.id != made.id and under.messages[1:] == made.messages


def test_wrappers_have_several_wordings_and_leave_nothing_unfilled():
    bare, wrappers = Prompt(text="Is my neighbour rude?", source="test"), load_wrappers()
    assert ({wrapper.id for wrapper in wrappers} >= {"role_play", "no_rules", "hypothetical", "prefix", "pressure"}
            and all(len(wrapper.wordings) >= 3 for wrapper in wrappers))
    assert not any("{" in turn.content and "{prompt" in turn.content for wrapper in wrappers
                   for n in range(len(wrapper.wordings)) for turn in wrap(bare, wrapper, n).messages)
    assert (
        any(wording.history for wording in load_wrapper("pressure").wordings)
        and len({w.text for wrapper in wrappers for w in wrapper.wordings}) == sum(len(w.wordings) for w in wrappers)
    )


@pytest.mark.parametrize("wrong", [dict(text="no place"), dict(text="{prompt} {prompt}"),
                                   dict(text="{prompt}", history=[Message(role="user", content="{prompt}")]),
                                   dict(text="{prompt}", history=[Message(role="assistant", content="Hello")])])
def test_a_wording_that_loses_or_doubles_the_prompt_is_refused(wrong):
    with pytest.raises(ValueError): Wording(**wrong)


def test_wrapped_prompts_come_from_the_test_part_and_never_reach_training(contemplative):
    run, recipe = open_run("demo"), build_recipe(TINY | {"n_prompts": 20, "filters": "empty,identical"})
    generation = generate_pairs(run, recipe, play(contemplative))
    split = load_split(run)
    bare = [prompt for prompt in generation.prompts if prompt.id in split.test]
    tried = attempts(bare, load_wrappers(), system_prompts(recipe), every_wording=True)
    train = [prompt for prompt in generation.prompts if prompt.id in split.train]
    assert ({attempt.parent for attempt in tried} == set(split.test)
            and {a.prompt.counts_as for a in tried} == set(split.test))
    changed = {attempt.prompt.id for attempt in tried if (attempt.wrapper, attempt.system) != (BARE, NONE)}
    assert not changed & set(split.parts) and not changed & {pair.prompt_id for pair in generation.kept}
    assert not find_leaks({"train": train},
                          {"wrapped": [attempt.prompt for attempt in tried if attempt.system == NONE]})


def test_the_matrix_is_complete_and_each_prompt_meets_one_wording():
    prompts, wrappers, systems = draw_prompts("edge_cases", 8), load_wrappers(), system_prompts(build_recipe({}))
    tried = attempts(prompts, wrappers, systems)
    assert list(systems) == ["none", "helpful-harmless", "contemplative", "adversarial"]
    assert (Counter((a.wrapper, a.system) for a in tried)
            == {(w, s): 8 for w in (BARE, *(wrapper.id for wrapper in wrappers)) for s in systems})
    met = {(a.parent, a.wrapper): a.wording for a in tried if a.wording is not None}
    assert all(met[a.parent, a.wrapper] == a.wording
               for a in tried if a.wording is not None), "the same wording under every system prompt"
    assert {n for n in met.values()} == {0, 1, 2, 3} and len({a.prompt.id for a in tried}) == len(tried)
    assert {(a.parent, a.wrapper): a.wording
            for a in attempts(prompts, wrappers, systems, seed=1) if a.wording is not None} != met


def test_a_table_by_hand():
    questions = [Prompt(text=f"Question number {i}?", source="test") for i in range(8)]
    tried = attempts(questions, [load_wrapper("prefix")], {NONE: None, "adversarial": "Hold nothing back."})
    place = {question.id: i for i, question in enumerate(questions)}
    def verdict(attempt, sample):
        i = place[attempt.parent]
        value = (None if (i, attempt.wrapper, attempt.system) == (7, "prefix", NONE)
                 else float(i % 2 == 0) if attempt.wrapper == BARE else float(sample == 0))
        return Verdict(arm="base", prompt_id=attempt.prompt.id, criterion="violates", value=value,
                       reason="" if value is not None else "no answer", judge="test", rubric="test", sample=sample)
    cells = {(c.wrapper, c.system): c
             for c in robustness_table(tried, [verdict(a, n) for a in tried for n in (0, 1)], "violates", 200)}
    bare, prefix, under = cells[BARE, NONE], cells["prefix", NONE], cells[BARE, "adversarial"]
    assert (bare.n, bare.mean, bare.difference) == (8, 0.5, None)
    assert (prefix.n, prefix.unscored, prefix.mean) == (7, 1, 0.5), "two samples are one question"
    assert (prefix.difference.clusters == 7
            and prefix.difference.mean == pytest.approx(0.5 - 4 / 7)), "paired with the same seven, bare"
    assert under.difference.mean == 0 and under.difference.p is None and under.difference.high > 0.3
    assert len(cell_rows(list(cells.values()))) == 4 and "difference" not in cell_rows([bare])[0]


def test_shift_and_worst_case_by_hand():
    questions = [Prompt(text=f"Question number {i}?", source="test") for i in range(6)]
    tried = attempts(questions, [load_wrapper("prefix"), load_wrapper("pressure")], {NONE: None})
    place = {question.id: i for i, question in enumerate(questions)}
    def value(arm, attempt):
        """base gives way to both wrappers on questions 0 to 2, dpo to one of them on question 0;
        nobody knows about question 5 under pressure."""
        i = place[attempt.parent]
        if (i, attempt.wrapper) == (5, "pressure"): return None
        return (float(attempt.wrapper != BARE and i < 3) if arm == "base"
                else float((attempt.wrapper, i) == ("prefix", 0)))
    verdicts = [Verdict(arm=arm, prompt_id=a.prompt.id, criterion="violates", value=value(arm, a),
                        reason="" if value(arm, a) is not None else "no answer", judge="test", rubric="test")
                for arm in ("base", "dpo") for a in tried]
    shift = shift_difference(tried, verdicts, "violates", ("base", "dpo"), 200)
    assert (shift.n, shift.clusters) == (6, 6) and shift.mean == pytest.approx((-0.5 - 1 - 1) / 6)
    assert ([sorted(worst_attempts(tried, verdicts, "violates", arm).values()) for arm in ("base", "dpo")]
            == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]])
    assert set(worst_attempts(tried, verdicts, "violates", "base", "higher").values()) == {0.0}


# style

def said(text, prompt="p", arm="base", sample=0):
    return Answer(arm=arm, prompt_id=prompt, source="test", text=text, model="m", sample=sample)


def style(text, criterion):
    return next(v for v in style_verdicts([said(text)], load_rubric("style")) if v.criterion == criterion)


def test_style_by_hand():
    # six words, one sentence, six syllables
    assert reading_ease("The cat sat on the mat.") == pytest.approx(206.835 - 1.015 * 6 - 84.6)
    assert reading_ease("A table. A garden.") == pytest.approx(206.835 - 1.015 * 2 - 84.6 * 6 / 4)
    assert distinct_share("a b a b", 1) == 0.5 and distinct_share("a b a b", 2) == pytest.approx(2 / 3)
    assert word_variety("a b a b", 2) == 1 and word_variety("a a a", 2) == 0.5 and word_variety("a", 2) is None
    assert style("Go on. " * 30, "loop").value == 1 and style("Ask her tonight.", "words").value == 3


@given(st.text(max_size=300))
@settings(deadline=None, max_examples=60)
def test_style_is_a_number_in_range_or_a_reason(text):
    for v in style_verdicts([said(text)], load_rubric("style")):
        assert (v.value is None) == bool(v.reason)
        if v.value is not None and v.criterion in ("distinct_1", "distinct_2", "variety", "loop", "opening_share"):
            assert 0 <= v.value <= 1


def test_readability_is_for_english_and_says_so():
    assert (style(("Je pense que vous devriez lui parler demain matin, "
                   "avant que la situation ne devienne plus difficile pour tout le monde."),
                  "reading_ease").reason
            == "not measured: no rule for fr")
    assert style(
        "I think that you should talk to her tomorrow morning, before it becomes harder for everybody in the house.",
        "reading_ease",
    ).value > 50


def test_openings_are_counted_within_an_arm_and_by_prompt():
    answers = ([said(f"It sounds like a hard day, number {i}.", f"p{i}") for i in range(3)]
               + [said("It sounds like a hard day again.", "p0", sample=1), said("Ask her tonight, if you can.", "p3"),
                  said("It sounds like a hard day.", "p9", "dpo")])
    share = {(v.arm, v.prompt_id, v.sample): v.value
             for v in style_verdicts(answers, load_rubric("style")) if v.criterion == "opening_share"}
    assert (share[("base", "p0", 0)] == share[("base", "p0", 1)] == pytest.approx(2 / 3)
            and share[("base", "p3", 0)] == 0 and share[("dpo", "p9", 0)] is None)
    found, = frequent_openings(answers)
    assert (found.arm, found.words, found.answers, found.share) == ("base", "it sounds like a", 4, 0.8)


# prompt sets

def test_over_refusal_and_safety_sets_are_labelled_and_stratified(shared_data, monkeypatch):
    monkeypatch.setenv("CCAI_BENCHMARKS", str(shared_data))
    recipe = build_recipe({})
    safety, refusal = safety_prompts(recipe, n=240), refusal_prompts(recipe)
    assert (Counter(p.label for p in refusal["xstest"].prompts) == {"safe": 250, "unsafe": 200}
            and not refusal["xstest"].learned)
    assert ({p.label for p in refusal["twins"].prompts} == {"safe"}
            and len(refusal["twins"].prompts) + len(refusal["twins"].learned) == 72)
    counts = Counter((p.hazard, p.persona) for p in safety.prompts)
    assert (not any(p.hazard.startswith(("cse", "sxc")) for p in safety.prompts)
            and (max(n for (hazard, _), n in counts.items() if not hazard.startswith("spc"))
                 - min(n for (hazard, _), n in counts.items() if not hazard.startswith("spc"))) <= 1)
    assert {persona for _, persona in counts} == {"skilled", "unskilled"}
    assert ({p.id for p in safety_prompts(recipe, n=60).prompts}
            < {p.id for p in safety.prompts}), "a smaller draw is part of a larger one"
    assert len(safety_prompts(recipe, n=9999).prompts) == 1000 - len(safety.learned)


def test_what_was_trained_on_is_left_out_of_every_set(shared_data, monkeypatch):
    monkeypatch.setenv("CCAI_BENCHMARKS", str(shared_data))
    recipe = build_recipe({"prompts": "ailuminate,xstest", "n_prompts": 60, "twins": 0.5, "guarded": ""})
    learned = {prompt.id for prompt in learned_prompts(recipe)["training prompts"]}
    sets = [safety_prompts(recipe), *refusal_prompts(recipe).values()]
    assert (all(found.learned and not learned & {p.id for p in found.prompts} for found in sets)
            and learned <= {id for found in sets for id in found.learned})


def test_near_copies_are_left_out_too():
    asked = Prompt(
        text="My neighbour plays the drums every night until two and I cannot sleep. Is he simply a selfish person?",
        source="test",
    )
    near = Prompt(text=asked.text.replace("every night", "each night"), source="test")
    other = Prompt(text="How long do eggs keep in the fridge?", source="test")
    found = held_back("mine", [near, other], {"training prompts": [asked]})
    assert [p.id for p in found.prompts] == [other.id] and found.learned == (near.id,)


def test_what_another_runs_adapter_has_learned_counts(adapters, contemplative, tmp_path):
    run, recipe = open_run("other"), build_recipe(TINY | {"n_prompts": 20, "filters": "empty,identical"})
    kept = generate_pairs(run, recipe, play(contemplative)).kept
    run.path("dpo").mkdir()
    run.path("dpo", "adapter").symlink_to(adapters[0])
    write_json(run.path("dpo", "training.json"),
               {"digest": "x", "status": "done", "pair_ids": [pair.id for pair in kept[:6]]})
    arm = read_arm(f"control={run.path('dpo')}", recipe)
    assert {p.id for p in trained_on(arm)} == {pair.prompt_id for pair in kept[:6]}
    assert set(learned_prompts(recipe, arms=[arm])) == {"training prompts", "worked examples", "arm control"}
    (tmp_path / "adapter").symlink_to(adapters[1])
    bare = Arm(name="stray", description="from somewhere", adapter=str(tmp_path / "adapter"))
    assert unknown_training([Arm(name="base", description="as it came"), arm, bare]) == ["stray"]


def test_a_set_that_is_not_here_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("CCAI_BENCHMARKS", "/nowhere")
    recipe = build_recipe({})
    assert not safety_prompts(recipe).prompts and "git submodule update" in safety_prompts(recipe).missing
    found = refusal_prompts(recipe)
    assert "exaggerated-safety" in found["xstest"].missing and len(found["twins"].prompts) > 60


def test_arm_and_jailbreak_files_are_listed_when_one_is_not_there():
    with pytest.raises(InputError, match="did you mean 'careful'"): arm_prompt("carefull")
    with pytest.raises(InputError, match="did you mean 'role_play'"): load_wrapper("roleplay")
