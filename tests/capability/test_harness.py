"""lm-evaluation-harness on a model in memory: its own command line, adapters, a killed run, what is refused before."""
import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from contemplative_cai.capability import harness, harness_tasks, measured
from contemplative_cai.capability.battery import ItemResult, battery_kept, battery_table, measure_battery
from contemplative_cai.capability.benchmark import BenchmarkItem
from contemplative_cai.capability.harness import (
    Benchmarked,
    follows_by_harness,
    harness_results,
    likelihood_shift,
)
from contemplative_cai.capability.harness_tasks import harness_plan
from contemplative_cai.capability.instructions import follows
from contemplative_cai.capability.items import Check, battery_items
from contemplative_cai.capability.measured import check_capability, measure_abilities
from contemplative_cai.core.files import read_rows
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.llm import LazyLLM, ModelCallError, ScriptedLLM
from contemplative_cai.models.local import load_llm

ABSENT = find_spec("lm_eval") is None
needs_harness = [pytest.mark.long, pytest.mark.skipif(
    ABSENT and os.environ.get("CCAI_HARNESS") != "required",
    reason="needs the extra 'harness' (CCAI_HARNESS=required makes this a failure)")]
SUBJECTS = ("anatomy", "astronomy")


def write(folder, name, rows): folder.joinpath(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def sum_row(n):
    return {"question": f"Ada has {n} pears and finds {n + 1} more. How many pears does she have now?",
            "answer": f"{n} + {n + 1} = {2 * n + 1}.\n#### {2 * n + 1}"}


def fill(folder, count=6):
    "A file of every benchmark, with questions of our own."
    ends = [["a drum", "a lamp", "a spoon", "a shoe"], ["rain", "bread", "wool", "sand"]]
    asked = ["What does one play?", "What falls from clouds?"]
    def key(n): return n // 2 % 4
    def turned(n): return ends[n % 2][-key(n):] + ends[n % 2][:-key(n)]  # the right one is first in `ends`
    write(folder, "arc.jsonl", [{"question": f"{asked[n % 2]} ({n})", "answerKey": "ABCD"[key(n)],
                                 "choices": {"text": turned(n), "label": list("ABCD")}} for n in range(count)])
    write(folder, "hellaswag.jsonl", [{
        "activity_label": ("Baking", "Rowing")[n % 2], "ctx_a": f"[title] Day {n}. She looks at the sky.",
        "ctx_b": "then she", "endings": ["[step] goes home.", "eats  the sky and the sea.", "is a stone.", "two."],
        "label": "0"} for n in range(count)])
    write(folder, "mmlu.jsonl", [{"question": f"{asked[n % 2]} ({n})", "subject": SUBJECTS[n % 2], "answer": key(n),
                                  "choices": turned(n)} for n in range(count)])
    write(folder, "truthfulqa.jsonl", [{"question": f"{asked[n % 2]} ({n})", "mc1_targets": {
        "choices": ends[n % 2], "labels": [1, 0, 0, 0]}} for n in range(count)])
    write(folder, "gsm8k.jsonl", [sum_row(n) for n in range(count)])
    write(folder, "gsm8k.shots.jsonl", [sum_row(n) for n in range(20, 27)])
    write(folder, "ifeval.jsonl", [
        {"key": n, "prompt": "Say a word without a comma.", "instruction_id_list": ["punctuation:no_comma"],
         "kwargs": [{}]} for n in range(count)])
    return folder


CHOSEN = ["arc", "hellaswag", "mmlu", "truthfulqa"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory): return fill(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="module")
def llm(adapter): return load_llm(model_spec("random-tiny"), "float32", "cpu", {"other": adapter})


# before a model is loaded

def test_a_missing_extra_is_told_with_how_to_install_it(monkeypatch, folder):
    monkeypatch.setattr(harness_tasks, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"arc, ifeval are measured by lm-evaluation-harness, and lm_eval, langdetect, "
                                         r"immutabledict, nltk is not installed; install it with: .*\[harness\]"):
        harness_plan(["arc", "ifeval"], folder)


class TestPlans:
    pytestmark = needs_harness

    def test_the_setting_says_what_was_asked_and_how(self, folder):
        plan = harness_plan([*CHOSEN, "gsm8k"], folder, limit=4, seed=3, chat_template=True)
        assert plan.setting.harness == "0.4.13" and len(plan.tasks) == 6, "mmlu has a task a subject"
        assert plan.setting.words[0] == (
            "arc: 4 of 6 items of arc.jsonl, 0 worked examples before each, as a conversation, by the model's chat "
            "template, acc_norm, lm-evaluation-harness 0.4.13.")
        assert "5 worked examples before each" in plan.setting.words[4]
        assert "as plain text" in harness_plan(["arc"], folder).setting.words[0]

    @pytest.mark.parametrize(("name", "row", "message"), [
        ("mmlu", {"question": "Why?", "subject": "anatmy", "choices": list("abcd"), "answer": 0},
         "no subject 'anatmy' in mmlu; did you mean 'anatomy'"),
        ("ifeval", {"key": 1, "prompt": "Say.", "instruction_id_list": ["punctuation:no_coma"], "kwargs": [{}]},
         "no instruction 'punctuation:no_coma'; did you mean 'punctuation:no_comma'"),
        *(("ifeval", {"key": 1, "prompt": "Say.", "instruction_id_list": ["length_constraints:number_words"],
                      "kwargs": [given]}, f"ifeval.jsonl, row 1: instruction 'length_constraints:number_words' {why}")
          for given, why in (({"num_words": 3}, "takes num_words and relation, found num_words"),
                             ({"num_words": 3, "relatio": "at least"}, "takes num_words and relation, found"),
                             ({"num_words": 3, "relation": "at most"}, "cannot be checked by"),
                             ({"num_words": "three", "relation": "at least"}, "cannot be checked by"))),
    ])
    def test_rows_that_the_harness_cannot_use_are_refused(self, tmp_path, name, row, message):
        write(tmp_path, f"{name}.jsonl", [row])
        with pytest.raises(InputError, match=message): harness_plan([name], tmp_path)

    def test_a_column_of_several_kinds_is_refused(self, tmp_path):
        write(tmp_path, "ifeval.jsonl", [
            {"key": n, "prompt": "Say.", "instruction_id_list": [name], "kwargs": [{"keywords": given}]}
            for n, (name, given) in enumerate([("keywords:existence", ["a"]), ("keywords:existence", "b")])])
        with pytest.raises(InputError, match=r"ifeval\.jsonl: a column holds values of several kinds"):
            harness_plan(["ifeval"], tmp_path)

    def test_too_few_worked_examples_are_refused(self, folder):
        with pytest.raises(InputError, match="8 worked examples are shown before each item, and 7 are there"):
            harness_plan(["gsm8k"], folder, shots=8)

    def test_sentences_need_a_table_of_nltk(self, tmp_path, monkeypatch):
        import nltk
        monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "none")])
        write(tmp_path, "ifeval.jsonl", [{
            "key": 1, "prompt": "Say.", "instruction_id_list": ["length_constraints:number_sentences"],
            "kwargs": [{"num_sentences": 2, "relation": "at least"}]}])
        with pytest.raises(InputError, match="number_sentences need nltk's punkt_tab, which is not on this machine"):
            harness_plan(["ifeval"], tmp_path)


class TestResults:
    pytestmark = needs_harness

    def test_likelihoods_are_those_of_a_plain_forward_pass(self, llm, folder):
        plan = harness_plan(["arc"], folder)
        came = harness_results(llm, plan)
        for row, one in zip(plan.tasks[0].items.rows, came.results, strict=True):
            context = f"Question: {row['question']}\nAnswer:"
            before = llm.tokenizer(context)["input_ids"]
            for end, total in zip(row["choices"]["text"], one.summed, strict=True):
                ids = llm.tokenizer(f"{context} {end}")["input_ids"]
                with torch.inference_mode(), llm.model.disable_adapter():
                    scores = torch.log_softmax(llm.model(torch.tensor([ids])).logits[0], -1)
                plain = sum(scores[i - 1, ids[i]].item() for i in range(len(before), len(ids)))
                assert total == pytest.approx(plain, abs=1e-4)
            assert one.per_character == pytest.approx([total / len(end) for total, end
                                                       in zip(one.summed, row["choices"]["text"])])
            assert one.right == ("ABCD"[one.chosen] == row["answerKey"])

    def test_an_adapter_changes_its_own_likelihoods_and_not_the_base_s(self, llm, folder):
        plan = harness_plan(CHOSEN, folder)
        alone = harness_results(load_llm(model_spec("random-tiny"), "float32", "cpu"), plan)
        base, arm = harness_results(llm, plan), harness_results(llm.with_adapter("other"), plan)
        assert harness_results(llm, plan) == base
        for one, loaded, other in zip(alone.results, base.results, arm.results, strict=True):
            assert one.summed == pytest.approx(loaded.summed, abs=1e-4)
            assert max(abs(x - y) for x, y in zip(loaded.summed, other.summed)) > 0.01
        shift = likelihood_shift(base.results, arm.results, "hellaswag")
        assert shift.n == 6 and 0 < shift.distance.mean < 1
        assert likelihood_shift(base.results, base.results, "arc").distance.mean == 0

    def test_answers_are_kept_by_model_and_item(self, llm, folder, journal, monkeypatch):
        plan = harness_plan([*CHOSEN, "gsm8k"], folder, limit=2)
        asked = count_requests(monkeypatch)
        came = harness_results(llm, plan, journal=journal)
        first = dict(asked)
        assert first["generate_until"] == 2 and first["loglikelihood"] > 20
        assert harness_results(llm, plan, journal=journal) == came and asked == first, "nothing is asked twice"
        other = harness_results(llm.with_adapter("other"), plan, journal=journal)
        assert asked == {kind: 2 * count for kind, count in first.items()}, "another model is asked itself"
        assert other.results != came.results
        harness_results(llm, harness_plan(["arc"], folder, limit=2, chat_template=True), journal=journal)
        assert asked["loglikelihood"] == 2 * first["loglikelihood"] + 8, "a conversation is another question"

    def test_a_killed_run_goes_on_where_it_was(self, llm, folder, journal, monkeypatch):
        monkeypatch.setattr(harness, "ANSWERS_TOGETHER", 4)
        plan = harness_plan(CHOSEN, folder)
        whole = harness_results(llm, plan)
        said, kept = [], []
        add = harness._Answers.add_partial
        def dying(self, *args):
            add(self, *args)
            said.append(1)
            if len(said) == 10:
                kept.append(journal.totals()["harness"]["calls"])
                raise KeyboardInterrupt
        monkeypatch.setattr(harness._Answers, "add_partial", dying)
        with pytest.raises(KeyboardInterrupt): harness_results(llm, plan, journal=journal)
        monkeypatch.setattr(harness._Answers, "add_partial", add)
        asked = count_requests(monkeypatch)
        again = harness_results(llm, plan, journal=journal)
        assert kept == [8], "what a kill would have left"
        assert asked["loglikelihood"] == 6 * 4 * 4 - 10, "an interrupted run writes down what it has"
        assert [one.chosen for one in again.results] == [one.chosen for one in whole.results]

    def test_progress_is_told_while_the_harness_is_silent(self, llm, folder, monkeypatch, capfd):
        told = []
        class Told(harness.Progress):
            def _show(self, force):
                told.append(sys.stderr is sys.__stderr__ or "StringIO" not in type(sys.stderr).__name__)
        monkeypatch.setattr(harness, "Progress", Told)
        harness_results(llm, harness_plan(["arc", "gsm8k"], folder, limit=1))
        assert told and all(told), "a line that is drawn reaches the terminal"
        assert capfd.readouterr().err == "", "no progress bars of the harness"

    def test_a_chat_template_changes_what_is_asked(self, llm, folder):
        plain, talked = (harness_results(llm, harness_plan(["arc"], folder, limit=2, chat_template=chat))
                         for chat in (False, True))
        assert plain.results[0].summed != talked.results[0].summed
        assert not plain.setting.chat_template and talked.setting.chat_template

    def test_a_likelihood_that_is_no_number_is_unscored_and_asked_again(self, llm, folder, journal, monkeypatch):
        from lm_eval.models.huggingface import HFLM
        call = HFLM._model_call
        monkeypatch.setattr(HFLM, "_model_call", lambda self, *args, **more: call(self, *args, **more) * math.nan)
        came = harness_results(llm, harness_plan(["truthfulqa"], folder), journal=journal)
        assert [one.right for one in came.results] == [None] * 6, "the harness takes the first end"
        monkeypatch.setattr(HFLM, "_model_call", call)
        again = harness_results(llm, harness_plan(["truthfulqa"], folder), journal=journal)
        assert None not in [one.right for one in again.results]

    def test_half_as_many_go_together_where_memory_does_not_suffice(self, llm, folder, monkeypatch):
        from lm_eval.models.huggingface import HFLM
        call, rows = HFLM._model_call, []
        def narrow(self, inps, *args, **more):
            rows.append(len(inps))
            if len(inps) > 3: raise RuntimeError("out of memory")
            return call(self, inps, *args, **more)
        plan = harness_plan(["arc"], folder)
        before = harness_results(llm, plan)
        monkeypatch.setattr(HFLM, "_model_call", narrow)
        assert [one.chosen for one in harness_results(llm, plan).results] == [one.chosen for one in before.results]
        assert max(rows) > 3 >= rows[-1]
        def never(self, *args, **more): raise RuntimeError("out of memory")
        monkeypatch.setattr(HFLM, "_model_call", never)
        with pytest.raises(ModelCallError, match="memory"): harness_results(llm, plan)

    def test_a_model_elsewhere_is_refused_what_needs_likelihoods(self, folder):
        lazy = LazyLLM("scripted", lambda: ScriptedLLM(lambda conversation: "no"))
        with pytest.raises(ModelCallError, match="arc: scripted is not in this process and gives no likelihoods"):
            harness_results(lazy, harness_plan(["arc", "gsm8k"], folder, chat_template=True))
        with pytest.raises(ModelCallError, match="takes conversations alone; put the items as such"):
            harness_results(lazy, harness_plan(["gsm8k"], folder))

    def test_a_model_elsewhere_is_asked_in_conversations(self, folder, journal):
        "It adds what it is asked to add, then says more than it is asked."
        def reply(conversation):
            numbers = [word for word in conversation[-1].content.split() if word.isdigit()]
            return f"Surely #### {sum(map(int, numbers))}\nQuestion: and 7?"
        script = ScriptedLLM(reply)
        plan = harness_plan(["gsm8k"], folder, chat_template=True)
        came = harness_results(LazyLLM("scripted", lambda: script), plan, journal=journal)
        assert [one.right for one in came.results] == [True] * 6
        assert came.results[1].text == "Surely #### 3\n", "cut at the task's stop"
        assert [turn.role for turn in script.calls[0]] == ["user", "assistant"] * 5 + ["user"], "examples are turns"
        assert harness_results(LazyLLM("scripted", lambda: script), plan, journal=journal) == came
        assert len(script.calls) == 6, "nothing is asked twice"

    def test_a_call_that_failed_leaves_its_item_unscored_and_is_asked_again(self, folder, journal):
        failing = ["has 4 pears"]
        def reply(conversation):
            return ModelCallError("too long") if any(words in conversation[-1].content for words in failing) else "5"
        script = ScriptedLLM(reply)
        plan = harness_plan(["gsm8k"], folder, chat_template=True)
        came = harness_results(script, plan, journal=journal)
        assert [(one.right is None, one.unscored) for one in came.results].count((True, "too long")) == 1
        assert sum(one.right is None for one in came.results) == 1
        right = [one.right for one in came.results if one.right is not None]
        assert came.shares["gsm8k"]["exact_match, flexible-extract"] == sum(right) / 5, "of those that were scored"
        failing.clear()
        script.calls.clear()
        assert None not in [one.right for one in harness_results(script, plan, journal=journal).results]
        assert len(script.calls) == 1

    def test_where_no_call_is_answered_the_reason_is_told(self, folder):
        with pytest.raises(ModelCallError, match="all 6 items failed: no answer"):
            harness_results(ScriptedLLM(lambda asked: ModelCallError("no answer")),
                            harness_plan(["gsm8k"], folder, chat_template=True))

    def test_ifeval_is_asked_and_checked_by_the_harness(self, llm, folder, monkeypatch):
        plan = harness_plan(["ifeval"], folder, limit=2)
        for part in plan.tasks: part.task.config.generation_kwargs["max_gen_toks"] = 8
        came = harness_results(llm, plan)
        assert set(came.shares["ifeval"]) == {"prompt_level_strict_acc", "inst_level_strict_acc",
                                              "prompt_level_loose_acc", "inst_level_loose_acc"}
        assert [one.right for one in came.results] == [bool(one.text.strip()) and "," not in one.text
                                                       for one in came.results]

    def test_results_are_paired_by_item_as_the_battery_s_and_survive_their_file(self, llm, folder):
        plan = harness_plan(CHOSEN, folder)
        base, arm = harness_results(llm, plan), harness_results(llm.with_adapter("other"), plan)
        assert Benchmarked.model_validate_json(base.model_dump_json()) == base
        rows = {row.kind: row for row in battery_table(base.results)}
        assert {kind: row.n for kind, row in rows.items()} == dict.fromkeys(CHOSEN, 6)
        for name in CHOSEN:
            assert rows[name].share.mean == pytest.approx(
                base.shares[name]["acc_norm" if name in ("arc", "hellaswag") else "acc"])
        change = battery_kept(base.results, arm.results, 0.05, "arc")
        assert change.n == 6 and change.unpaired == 0
        assert change.gained - change.lost == sum(one.right for one in arm.results if one.kind == "arc") - sum(
            one.right for one in base.results if one.kind == "arc")


def count_requests(monkeypatch):
    "How many requests the harness' model is given from here on, by kind."
    from lm_eval.models.huggingface import HFLM
    asked: dict[str, int] = {}
    def counting(kind):
        theirs = getattr(HFLM, kind)
        def ask(self, requests, **more):
            asked[kind] = asked.get(kind, 0) + len(requests)
            return theirs(self, requests, **more)
        return ask
    for kind in ("loglikelihood", "generate_until"): monkeypatch.setattr(HFLM, kind, counting(kind))
    return asked


def test_equal_accuracy_can_hide_other_choices():
    def one(id, chosen, *summed):
        return ItemResult(id=id, kind="arc", subject=id, right=chosen == 0, chosen=chosen, summed=summed)
    base = [one("a", 1, -3.0, -1.0, -2.0), one("b", 0, -1.0, -2.0, -3.0)]
    arm = [one("a", 2, -3.0, -2.0, -1.0), one("b", 0, -1.0, -2.0, -3.0)]
    shift = likelihood_shift(base, arm, "arc")
    assert (shift.n, shift.other, shift.hidden) == (2, 1, 1)
    total = sum(math.exp(-k) for k in (1, 2, 3))
    assert shift.distance.mean == pytest.approx((math.exp(-1) - math.exp(-2)) / total / 2)


# IFEval's rules beside ours

class TestChecks:
    pytestmark = needs_harness

    @pytest.mark.parametrize(("check", "yes", "no"), [
        (Check(check="keywords:existence", keywords=["cow"]), "The cow sleeps.", "The hen sleeps."),
        (Check(check="keywords:forbidden_words", forbidden_words=["rose"]), "A tulip.", "A rose."),
        (Check(check="length_constraints:number_words", relation="less than", num_words=3), "Two words.",
         "Now three words."),
        (Check(check="detectable_format:number_bullet_lists", num_bullets=2), "* one\n* two", "* one"),
        (Check(check="detectable_format:title"), "<<Snails>>\nSlow.", "Snails"),
        (Check(check="detectable_content:postscript", postscript_marker="P.S."), "Dear you.\nP.S. Write.", "Dear you."),
        (Check(check="detectable_content:number_placeholders", num_placeholders=1), "Dear [name],", "Dear Ann,"),
        (Check(check="change_case:english_lowercase"), "the snail is slow and it knows that.", "The snail is slow."),
        (Check(check="startend:end_checker", end_phrase="See you."), "Come soon. See you.", "See you. Come soon."),
        (Check(check="startend:quotation"), '"Good morning."', "Good morning."),
        (Check(check="punctuation:no_comma"), "One and two.", "One, two."),
        (Check(check="language:response_language", language="de"), "Der Hund schläft heute im Garten.",
         "The dog sleeps in the garden today."),
    ])
    def test_plain_answers_are_judged_as_the_harness_judges_them(self, check, yes, no):
        for rule in (follows, follows_by_harness): assert rule(check, yes) and not rule(check, no), rule.__name__

    @pytest.mark.slow
    def test_answers_of_the_embedded_model_are_judged_alike(self):
        "Every answer to its own instruction, and nearly all answers to the others'."
        import nltk
        try: unasked = nltk.data.find("tokenizers/punkt_tab/english/collocations.tab") and set()
        except LookupError: unasked = harness_tasks._SENTENCES  # these alone need it; all others are compared
        items = [item for item in battery_items() if item.kind == "instruction"]
        texts = [one.text for one in measure_battery(load_llm(model_spec("smollm2-135m"), "bfloat16", "cpu"), items)]
        asked = [(check, text) for item, text in zip(items, texts, strict=True) for check in item.checks
                 if check.check not in unasked]
        for check, text in asked: assert follows(check, text) == follows_by_harness(check, text), (check, text)
        checks = list({check.model_dump_json(): check for check, _ in asked}.values())
        alike = [follows(check, text) == follows_by_harness(check, text) for check in checks for text in texts]
        print(f"{sum(alike)} of {len(alike)} judgements alike")
        assert sum(alike) / len(alike) > 0.97


def test_padding_on_the_left_is_not_read_while_the_harness_asks(llm):
    row, fill = torch.arange(5, 25)[None], torch.full((1, 9), 3)
    padded, mask = torch.cat([fill, row], 1), torch.cat([torch.zeros_like(fill), torch.ones_like(row)], 1)
    def last(ids, **more): return llm.on_weights(lambda model, tokenizer: model(ids, **more).logits[0, -1])
    def last_padded(): return last(padded, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
    alone = last(row)
    with harness._masked_attention(llm.model): assert torch.allclose(last_padded(), alone, atol=1e-4)
    assert not torch.allclose(last_padded(), alone, atol=1e-4), "the project's own attention takes no mask"


# beside the harness' own command line

def command_line_task(plan, part, place):
    "A file of the harness for a task of the plan, over the same rows."
    name = part.task.config.task
    asked = [part.items.rows[i] for i in part.positions]
    write(place, f"{name}.jsonl", asked)
    files = {"asked": str(place / f"{name}.jsonl")}
    if part.items.shots:
        write(place, f"{name}.shots.jsonl", part.items.shot_rows)
        files["shots"] = str(place / f"{name}.shots.jsonl")
    theirs = Path(sys.modules["lm_eval"].__file__).parent / "tasks" / part.items.benchmark.definition.format(
        subject=part.items.rows[part.positions[0]].get("subject"))
    own = {"include": str(theirs), "task": f"local_{name}", "dataset_path": "json", "dataset_name": None,
           "dataset_kwargs": {"data_files": files}, "test_split": "asked", "training_split": None,
           "validation_split": None, "fewshot_split": "shots" if part.items.shots else None, "tag": None}
    if part.items.benchmark.name == "truthfulqa": own["doc_to_target"] = "{{mc1_targets.labels.index(1)}}"
    place.joinpath(f"local_{name}.yaml").write_text(json.dumps(own))
    return f"local_{name}"


def by_the_command_line(plan, place, weights, *more):
    "What the harness' command line logs of each item, task by task in the plan's order."
    names = [command_line_task(plan, part, place) for part in plan.tasks]
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args",
               f"pretrained={weights},dtype=float32,softmax_dtype=float32", "--tasks", ",".join(names),
               "--include_path", str(place), "--device", "cpu", "--batch_size", "8", "--log_samples", "--output_path",
               str(place / "out"), *more]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {
        "HF_DATASETS_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    logged = []
    for name in names:
        [file] = (place / "out").rglob(f"samples_{name}_*.jsonl")
        logged += sorted(map(json.loads, file.read_text().splitlines()), key=lambda one: one["doc_id"])
    return logged


# in the step that evaluates

def field_recipe(folder, adapter, **more):
    return build_recipe({"model": "random-tiny", "dtype": "float32", "device": "cpu", "capability": "mmlu,gsm8k",
                         "capability_files": f"mmlu={folder},gsm8k={folder}", "capability_items": 3,
                         "eval_arms": f"base,prompted,other={adapter}", **more})


class TestEvaluated:
    pytestmark = needs_harness

    @pytest.mark.usefixtures("runs")
    def test_what_is_wrong_with_a_benchmark_is_told_before_a_model_is_loaded(self, folder, adapter, monkeypatch):
        monkeypatch.setattr(measured, "open_arms", None)
        with pytest.raises(InputError, match="mmlu.jsonl or mmlu.parquet with the columns"):
            measure_abilities(open_run("demo"), field_recipe(folder / "..", adapter))
        with pytest.raises(InputError, match="no such folder"):
            check_capability(field_recipe(folder, adapter, capability_files=f"mmlu={folder / 'elsewhere'}"))
        check_capability(field_recipe(folder, adapter, capability_items=1000))

    @pytest.mark.usefixtures("runs")
    def test_arms_are_compared_on_a_benchmarks_items(self, folder, adapter):
        run = open_run("demo")
        first, second = measure_abilities(run, field_recipe(folder, adapter)).benchmarks
        assert (first.name, first.measure, second.measure) == ("mmlu", "acc", "exact_match, flexible-extract")
        assert "3 of 6 items of mmlu.jsonl, 0 worked examples before each, as plain text" in first.setting
        assert [(row.arm, row.share.n) for row in first.arms] == [("base", 3), ("other", 3)]
        assert [words.partition(":")[0] for words in first.unmeasured] == ["prompted"]
        lines = [line for line in read_rows(run.path("benchmarks.jsonl"), BenchmarkItem) if line.benchmark == "mmlu"]
        base, other = ([line.score.detail["summed"] for line in lines if line.arm == arm] for arm in ("base", "other"))
        assert len(base) == len(other) == 3 and all(x != y for x, y in zip(base, other, strict=True))
        again = measure_abilities(run, field_recipe(folder, adapter, capability_chat=True)).benchmarks[0]
        assert "as a conversation" in again.setting and again.items == first.items


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
def test_every_item_is_as_the_command_line_of_the_harness_has_it(tmp_path, chat):
    folder = Path(os.environ.get("CCAI_BENCHMARKS") or fill(tmp_path, 12))
    limit = int(os.environ.get("CCAI_BENCHMARK_ITEMS", "8"))
    names = [*CHOSEN, "gsm8k"]
    llm = load_llm(model_spec("smollm2-135m"), "float32", "cpu")
    weights = tmp_path / "weights"
    llm.model.save_pretrained(weights)
    llm.tokenizer.save_pretrained(weights)
    plan = harness_plan(names, folder, limit=limit, chat_template=chat)
    came = harness_results(llm, plan)
    logged = by_the_command_line(plan, tmp_path, weights, *(["--apply_chat_template"] if chat else []))
    decided = [one for one in logged if one["filter"] in ("none", "flexible-extract")]
    apart, figures = [], {one.name: one.figure.split(",")[0] for one in plan.setting.benchmarks}
    for one, theirs in zip(came.results, decided, strict=True):
        assert one.right == bool(theirs[figures[one.kind]]), one.id
        if one.text is not None: assert one.text == theirs["resps"][0][0], one.id
        if one.summed: apart += [abs(total - float(end[0][0])) for total, end in zip(one.summed, theirs["resps"])]
    print(f"{len(decided)} items, {len(apart)} ends, at most {max(apart):.1e} nats apart")
    assert max(apart) < 1e-2
