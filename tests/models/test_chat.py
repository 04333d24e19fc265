"""Chat templates as models have them, on a tokenizer of our own:
what is folded, split off, not weighed, refused and recorded."""
import copy
import json
import re
import shutil
from datetime import datetime
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import trl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import user
from test_endpoint import Server, hurried  # noqa: F401  (a fixture)

from contemplative_cai.core.journal import Journal
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import InputError, Message
from contemplative_cai.models.ask import ask
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.chat import (
    DATED,
    FOLDED,
    MOST_BLOCKS,
    THINKING,
    endless,
    option_lines,
    prepare_template,
    refuse_endless,
    split_reasoning,
    template_names,
    template_notes,
    thinking_marks,
    turn_end,
    weighed_texts,
)
from contemplative_cai.models.choose import choose_engine, for_model, open_llm
from contemplative_cai.models.llm import Completion, ModelCallError, Sampling
from contemplative_cai.models.local import load_llm
from contemplative_cai.models.weights import CHATML, load_tokenizer, model_key, model_source, named_ends

OPEN = "<|im_start|>assistant\n"
TURN = "'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n'"
PROMPTED = "{% if add_generation_prompt %}{{ '" + OPEN + "' }}{% endif %}"
EACH, END = "{% for m in messages %}", "{% endfor %}"
# an empty block of reasoning before the last reply, and where thinking is switched off
EMPTY_BLOCK = (EACH + "{% if m['role'] == 'assistant' and loop.last %}{{ '" + OPEN + "<think>\n\n</think>\n\n' + "
               "m['content'] + '<|im_end|>\n' }}{% else %}{{ " + TURN + " }}{% endif %}" + END
               + PROMPTED.replace("{% endif %}", "{% if enable_thinking is defined and enable_thinking is false %}"
                                  "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"))
REFUSING = (EACH + "{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
            "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
            "{% endif %}{{ " + TURN + " }}" + END + PROMPTED)
TEMPLATES = {"plain": CHATML, "refusing": REFUSING, "empty block": EMPTY_BLOCK,
             "silent": EACH + "{% if m['role'] != 'system' %}{{ " + TURN + " }}{% endif %}" + END + PROMPTED,
             "opening": CHATML.replace(OPEN, OPEN + "<think>\n") + "{# </think> #}",
             "trimming": CHATML.replace("m['content']", "m['content'] | trim"),
             "without a prompt": EACH + "{{ " + TURN + " }}" + END,
             "refusing and opening": REFUSING.replace(OPEN, OPEN + "<think>\n") + "{# </think> #}"}
TALKS = {"one question": user("Is it late?"),
         "told first": (Message(role="system", content="Be brief."), *user("Late?")),
         "told and long": (Message(role="system", content="Be brief."), *user("Late?"),
                           Message(role="assistant", content="Not yet."), *user("And now?"))}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "Puts a template on a copy of the random model."
    def put(template):
        folder = tmp_path_factory.mktemp("models") / "mine"
        shutil.copytree(model_source(model_spec("random-tiny"))[0], folder)
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        return folder
    return put


@pytest.fixture(scope="module")
def tokenizers(place): return {name: load_tokenizer(model_spec(str(place(text)))) for name, text in TEMPLATES.items()}


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_shows_every_message_once(name, talk, tokenizers):
    turns = [message.model_dump() for message in TALKS[talk]]
    text = tokenizers[name].apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert [text.count(turn["content"]) for turn in turns] == [1] * len(turns)


def test_a_template_that_needs_nothing_is_left_as_it_is(tokenizers):
    for name in ("plain", "empty block", "opening", "trimming", "without a prompt"):
        assert tokenizers[name].chat_template == TEMPLATES[name]


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", TEMPLATES)
@given(reply=st.sampled_from(["Yes", "Not yet.", "think", "</p>", "a\n\nb"]) | st.text("abc <>/\n.", min_size=1))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_weighed_is_the_reply_and_the_end_of_its_turn(name, talk, reply, tokenizers):
    context, whole = weighed_texts(tokenizers[name], TALKS[talk], reply)
    assert whole.removeprefix(context) in (reply + "<|im_end|>\n", reply.strip() + "<|im_end|>\n")


def test_a_block_that_the_template_adds_is_not_weighed(place):
    "The same reply in the same model: its tokens are those of the plain template, and no more."
    weighed = {name: load_llm(model_spec(str(place(TEMPLATES[name]))), "float32", "cpu").logprobs(
        [TALKS["one question"]] * 2, ["Yes", "No"]) for name in TEMPLATES}
    assert {tuple(each.tokens for each in row) for row in weighed.values()} == {
        tuple(each.tokens for each in weighed["plain"])}


def test_a_system_text_is_folded_and_recorded(place, runs):
    recipe, run = build_recipe({"model": str(place(REFUSING)), "device": "cpu", "dtype": "float32"}), open_run("folded")
    for _ in range(2):  # the second time the journal answers, and the record stays
        with open_llm(recipe, run) as llm, Journal(run.path("journal.sqlite")) as journal:
            assert isinstance(ask(llm, journal, "respond", [TALKS["told first"]], Sampling(max_tokens=4))[0],
                              Completion)
        assert run.manifest["engine"]["template"] == [FOLDED]
    with open_llm(recipe.model_copy(update={"model": "random-tiny"}), plain := open_run("plain")) as llm:
        llm.chat([TALKS["told first"]], Sampling(max_tokens=4))
    assert "template" not in plain.manifest["engine"]


@given(thought=st.text("ab \n.", max_size=20), answer=st.text("cd \n.", max_size=20), marks=st.sampled_from(THINKING),
       opened=st.booleans())
@settings(max_examples=200, deadline=None)
def test_reasoning_is_kept_beside_the_answer(thought, answer, marks, opened):
    "With both marks, with the closing one alone, and cut off before the answer was begun."
    opens, closes = marks
    kept = (answer.strip(), thought.strip() or None)
    assert split_reasoning(f"{opens}{thought}{closes}{answer}", marks, opened) == kept
    assert split_reasoning(f"{thought}{closes}{answer}", marks, opened) == kept
    assert split_reasoning(f"\n{opens}{thought}", marks) == ("", kept[1])
    assert split_reasoning(thought, marks, opened=True) == ("", kept[1])
    assert split_reasoning(answer, marks) == split_reasoning(answer, None) == (kept[0], None)
    assert split_reasoning(f"<think>{thought}</think>{answer}", None) == kept


def test_marks_are_those_of_the_template():
    assert thinking_marks(CHATML) is None and split_reasoning("He wrote </think> here.", None)[0].count("think") == 1
    for opens, closes in THINKING: assert thinking_marks("x" + closes) == (opens, closes)


@pytest.mark.parametrize("special", [False, True])
def test_a_model_that_thinks_answers_without_its_thoughts(special, place):
    "Its ids as it generated them, the marks as plain and as special tokens."
    llm = load_llm(model_spec(str(place(EMPTY_BLOCK))), "float32", "cpu")
    llm.tokenizer.add_tokens(["<think>", "</think>"], special_tokens=special)
    ids = llm.tokenizer("<think>\nIt is nine.\n</think>\n\nNot yet.<|im_end|>", add_special_tokens=False)["input_ids"]
    completion = llm._completion([1, 2], ids, 0)
    assert (completion.text, completion.reasoning, completion.finish_reason) == ("Not yet.", "It is nine.", "stop")
    assert completion.completion_tokens == len(ids)
    cut = llm._completion([1, 2], ids[:3], 0)
    assert cut.text == "" and cut.finish_reason == "length"


def test_an_old_row_of_a_journal_is_read():
    old = {"text": "Not yet.", "finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 2}
    assert Completion(**old).reasoning is None


def test_options_of_a_template_are_followed_and_in_the_key(place):
    spec, options = model_spec(str(place(EMPTY_BLOCK))), {"enable_thinking": False}
    turns = [message.model_dump() for message in TALKS["one question"]]
    texts = [load_tokenizer(spec, each).apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
             for each in (None, options, {"enable_thinking": True})]
    assert texts[1] == texts[0] + "<think>\n\n</think>\n\n" and texts[2] == texts[0]
    assert model_key(spec, "float32", options=options) == model_key(spec, "float32") + "/enable_thinking=false"
    assert load_llm(spec, "float32", "cpu", template_options=options).key.endswith("/enable_thinking=false")


@given(st.dictionaries(st.text(max_size=5), st.none() | st.lists(st.none()) | st.text("'{}%\n\\\"", min_size=1),
                       min_size=1))
@settings(max_examples=60, deadline=None)
def test_no_option_writes_a_template(options):
    with pytest.raises(InputError, match="template_options"): option_lines(options)


@pytest.mark.parametrize("template, what", [
    (CHATML.replace("<|im_end|>", "<|endoftext|>"), "<|endoftext|>"),
    (CHATML.replace("<|im_end|>", ""), "ends an answer"),
    ("{% for m in messages %}{{ m['content'] }", "TemplateSyntaxError"),
    ("{{ raise_exception('no') }}", "no"),
    ("{{ messages[7]['content'] }}", "UndefinedError"),
    ("hello", "leaves a message out"),
])
def test_a_template_that_cannot_be_used_is_found_before_generation(template, what, place):
    with pytest.raises(InputError) as refused: load_llm(model_spec(str(place(template))), "float32", "cpu")
    assert what in str(refused.value)


def test_the_end_of_a_turn_that_the_generation_config_names_will_do(place):
    folder = place(CHATML.replace("<|im_end|>", "<|endoftext|>"))
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [2, 0]}))
    load_llm(model_spec(str(folder)), "float32", "cpu")


def test_two_servers_are_two_models(runs):
    with Server() as one, Server() as other:
        recipes = [build_recipe({"model": "m", "base_url": server.url}) for server in (one, other)]
        keys = []
        for recipe in recipes:
            with open_llm(recipe, open_run("served")) as llm: keys.append(llm.key)
        assert len(set(keys)) == 2 and all(key.startswith("endpoint:m@127.0.0.1:") for key in keys)
    with open_llm(recipes[0], open_run("served")) as llm: assert llm.key == keys[0], "known although it is gone"


def test_a_run_begun_under_the_name_alone_goes_on(runs):
    run = open_run("begun")
    run.record(model="endpoint:m", engine={"engine": "endpoint", "why": "base_url names a server"})
    with Server() as server, Journal(run.path("journal.sqlite")) as journal:
        recipe = build_recipe({"model": "m", "base_url": server.url})
        with open_llm(recipe, run) as llm:
            assert llm.key == "endpoint:m"
            for _ in range(2): ask(llm, journal, "respond", [user("Is it late?")], Sampling(max_tokens=24))
        assert len(server.asked) == 1


def test_what_a_cluster_has_made_belongs_to_the_weights_that_made_it(place):
    from contemplative_cai.revision.cluster import folder_content
    folder = place(CHATML)
    recipe = build_recipe({"model": str(folder)})
    before = folder_content(recipe)
    (Path(folder) / "generation_config.json").write_text("{}")
    assert before != folder_content(recipe) and folder_content(build_recipe({"model": "random-tiny"})) == ""


# templates as they come with models: those that TRL brings along

SHIPPED = {path.stem: path.read_text(encoding="utf-8")
           for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))}
FOR_IMAGES = ("idefics3", "llava_next", "smolvlm")
SPOKEN = [name for name in SHIPPED if not name.startswith(FOR_IMAGES) and not name.endswith("_training")]


@cache
def bare_tokenizer():
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(model_source(model_spec("random-tiny"))[0])


def carrying(template, options=None):
    "The random model's tokenizer with a template whose marks are tokens."
    tokenizer = copy.deepcopy(bare_tokenizer())
    marks = sorted(set(re.findall(r"<[|/]?\w[\w ]*\|?>|<\uff5c[^\uff5c]+\uff5c>|\[/?[A-Z]+\]", template)))
    if marks: tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.chat_template = template
    prepare_template(tokenizer, "mine", options)
    return tokenizer


def said(tokenizer, talk="one question", **more):
    turns = [message.model_dump() for message in TALKS[talk]]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **more)


@pytest.mark.parametrize("name", SPOKEN)
def test_a_template_that_comes_with_a_model_can_be_used(name):
    "Every message once, what is weighed is the reply and its end, and a token ends it, at the latest the next turn's."
    tokenizer = carrying(SHIPPED[name])
    for talk, messages in TALKS.items():
        text = said(tokenizer, talk)
        assert [text.count(message.content) for message in messages] == [1] * len(messages)
        context, whole = weighed_texts(tokenizer, messages, "Perhaps.")
        assert (whole.startswith(context + "Perhaps.")
                and not re.search(r"\w\.", whole.removeprefix(f"{context}Perhaps.")))
    ends = {*turn_end(tokenizer), *turn_end(tokenizer, followed=True)} & set(tokenizer.all_special_ids)
    assert ends and not endless(tokenizer, ends) and "no answer would end" in endless(tokenizer, {10 ** 6})


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith(FOR_IMAGES)])
def test_a_template_for_images_says_so(name):
    with pytest.raises(InputError, match="a message in parts"): carrying(SHIPPED[name])


@pytest.mark.parametrize("name", SPOKEN)
def test_an_option_is_what_the_template_would_be_told(name):
    """Written in front of the template, it does what it does as an argument;
    one that the template cannot take is refused."""
    plain, told = carrying(SHIPPED[name]), carrying(SHIPPED[name])
    for option, value in product(template_names(SHIPPED[name]), (True, False, "low", 3)):
        told.chat_template = SHIPPED[name]
        try: wanted = said(plain, **{option: value})
        except Exception:
            with pytest.raises(InputError): prepare_template(told, "mine", {option: value})
        else:
            prepare_template(told, "mine", {option: value})
            assert said(told) == wanted


@pytest.mark.parametrize("name", SPOKEN)
def test_an_option_that_a_template_never_asks_for_is_refused(name):
    with pytest.raises(InputError, match="never asks for 'enable_thinkin'") as refused:
        carrying(SHIPPED[name], {"enable_thinkin": False})
    known = template_names(SHIPPED[name])
    assert ("did you mean 'enable_thinking'" in str(refused.value)) == ("enable_thinking" in known)
    assert ("no options at all" in str(refused.value)) == (not known)


DATED_TEMPLATES = [name for name in SPOKEN if "strftime_now" in SHIPPED[name]]


@pytest.fixture
def on(monkeypatch):
    "Sets the day that templates are told."
    def set_day(*day):
        class Then(datetime):
            "A clock that stands still."
            @classmethod
            def now(cls, tz=None): return cls(*day)
        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Then)
    return set_day


@pytest.mark.parametrize("name", DATED_TEMPLATES)
def test_a_prompt_is_the_same_on_every_day(name, on):
    tokenizer = carrying(SHIPPED[name])
    texts, bare = set(), set()
    for day in ((2019, 1, 1), (2031, 12, 24, 23, 59)):
        on(*day)
        texts.add(said(tokenizer))
        bare.add(said(tokenizer, chat_template=SHIPPED[name]))
    assert len(texts) == 1 and len(bare) == 2 and template_notes(tokenizer) == [DATED]


@pytest.mark.parametrize("sign",
                         "%d %-d %e %b %h %B %m %-m %Y %y %a %A %j %F %D %x %H %I %M %S %p %T %R %X %c %f %Z".split())
def test_the_day_that_is_told_is_one_day(sign, on):
    "However a template asks for it, as the clock itself would say it on that day."
    on(2024, 7, 26, 12)
    template = CHATML + "{{ strftime_now('<" + sign + ">') }}"
    assert said(carrying(template)) == said(carrying(CHATML)) + datetime(2024, 7, 26, 12).strftime(f"<{sign}>")


def test_the_day_is_recorded_and_can_be_set(place, runs):
    folder, run = str(place(SHIPPED["llama3_2"].replace("<|eot_id|>", "<|im_end|>"))), open_run("dated")
    recipe = build_recipe({"model": folder, "device": "cpu", "dtype": "float32"})
    with open_llm(recipe, run) as llm: llm.chat([TALKS["one question"]], Sampling(max_tokens=2))
    assert run.manifest["engine"]["template"] == [DATED]
    assert "26 Jul 2024" in said(load_tokenizer(model_spec(folder)))
    assert "1 May 2025" in said(load_tokenizer(model_spec(folder), {"date_string": "1 May 2025"}))


def test_options_of_a_saved_model_are_kept_and_can_be_set_anew(place, tmp_path):
    "What stands in front of a template does not pile up, and what the recipe says last holds."
    texts = {value: said(carrying(SHIPPED["qwen3"], {"enable_thinking": value})) for value in (True, False)}
    tokenizer = carrying(SHIPPED["qwen3"], {"enable_thinking": False})
    folder = place(tokenizer.chat_template)
    assert said(load_tokenizer(model_spec(str(folder)))) == texts[False] != texts[True]
    for value in (True, False, True):
        tokenizer = load_tokenizer(model_spec(str(folder)), {"enable_thinking": value})
        assert said(tokenizer) == texts[value]
    again = carrying(carrying(SHIPPED["llama3_2"]).chat_template)
    assert again.chat_template == carrying(SHIPPED["llama3_2"]).chat_template


def test_of_several_templates_the_one_for_conversations_is_taken(place):
    several = {"default": EMPTY_BLOCK, "tool_use": "{{ 1 }}"}
    tokenizer = carrying(CHATML)
    tokenizer.chat_template = several
    prepare_template(tokenizer, "mine", {"enable_thinking": False})
    assert said(tokenizer).endswith("<think>\n\n</think>\n\n") and thinking_marks(tokenizer.chat_template)
    for wrong in ({"tool_use": "x"}, {}, None, 3):
        tokenizer.chat_template = wrong
        with pytest.raises(InputError, match="chat template"): prepare_template(tokenizer, "mine")


# a turn that ends with the next one

GLM_LIKE = EACH + "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}" + END + PROMPTED


def test_a_model_that_stops_at_the_next_turn_generates_and_does_not_train(place):
    folder = place(GLM_LIKE)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [1, 2]}))
    spec = model_spec(str(folder))
    tokenizer = load_tokenizer(spec)
    refuse_endless(tokenizer, named_ends(spec, tokenizer), "mine")
    assert "learn to stop" in endless(tokenizer, named_ends(spec, tokenizer), trained=True)
    load_llm(spec, "float32", "cpu")


@pytest.mark.parametrize("ends", [[], [-1], [10 ** 9], [-1, 2 ** 70]])
def test_an_end_that_is_no_token_is_told(ends, place):
    with pytest.raises(InputError, match="no answer would end"):
        refuse_endless(load_tokenizer(model_spec(str(place(CHATML)))), ends, "mine")


def test_without_a_generation_config_the_model_itself_names_its_end(place):
    "The step, the server and the audit see the same ends."
    folder = place(CHATML.replace("<|im_end|>", "<|endoftext|>"))
    (folder / "generation_config.json").unlink()
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [2, 0]}))
    spec = model_spec(str(folder))
    llm = load_llm(spec, "float32", "cpu")
    assert llm._stop_ids() == named_ends(spec, llm.tokenizer) == [0, 2]


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("ends", ["<|im_end|>", "2", [2, "x"], 2.0, [[2]], True, {}, "", -1, [], None, [2, 2], 10 ** 9,
                                  2 ** 70])
def test_ends_that_are_no_tokens_are_refused_or_left_out(file, ends, place):
    "The same everywhere: where a model generates, is served, and is trained."
    folder = place(CHATML)
    if file == "config.json": (folder / "generation_config.json").unlink()
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": ends}))
    spec = model_spec(str(folder))
    if isinstance(ends, (str, float, bool, dict)) or (isinstance(ends, list) and ends and ends != [2, 2]):
        for act in (lambda: named_ends(spec, bare_tokenizer()), lambda: load_llm(spec, "float32", "cpu")):
            with pytest.raises(InputError, match="eos_token_id"): act()
        return
    assert set(named_ends(spec, bare_tokenizer())) - {10 ** 9, 2 ** 70} == {2}
    llm = load_llm(spec, "float32", "cpu")
    assert llm._stop_ids() == [2] and llm.chat([TALKS["one question"]], Sampling(max_tokens=2))


@pytest.mark.parametrize("template", ["{{ messages[-1]['content'] }}<|im_end|>",
                                      EACH + "{% if loop.last %}{{ " + TURN + " }}{% endif %}" + END + PROMPTED,
                                      EACH + "{% if m['role'] != 'assistant' %}{{ " + TURN + " }}{% endif %}" + END])
def test_a_template_that_forgets_earlier_turns_is_refused(template, place):
    with pytest.raises(InputError, match="leaves out what was said before"): load_tokenizer(
        model_spec(str(place(template))))


def test_a_conversation_that_a_template_refuses_fails_alone(place, runs):
    "Turns that do not alternate: the others are answered, and nothing is raised that is no word to the user."
    llm = load_llm(model_spec(str(place(REFUSING))), "float32", "cpu", batch_size=4)
    strange = (*user("Is it late?"), *user("And now?"))
    talks = [TALKS["one question"], strange, TALKS["told and long"]]
    outcomes = {}
    for batch in llm.batches(talks):
        for group in llm.stream([talks[i] for i in batch], Sampling(max_tokens=2)):
            outcomes |= {batch[i]: outcome for i, outcome in group.items()}
    assert [isinstance(outcomes[i], Completion) for i in range(3)] == [True, False, True]
    assert "roles must alternate" in outcomes[1].reason
    with pytest.raises(ModelCallError, match="does not take this conversation"): llm.logprobs([strange], ["Yes."])


# reasoning in more shapes

@given(thoughts=st.lists(st.text("ab ", max_size=5), min_size=1, max_size=6), answer=st.text("cd ", max_size=5),
       marks=st.sampled_from(THINKING), known=st.booleans())
@settings(max_examples=100, deadline=None)
def test_several_blocks_are_all_reasoning(thoughts, answer, marks, known):
    if not known: marks = THINKING[0]
    opens, closes = marks
    reply = "\n".join(f"{opens}{thought}{closes}" for thought in thoughts) + answer
    text, reasoning = split_reasoning(reply, marks if known else None)
    assert text == answer.strip() and (reasoning or "").split() == " ".join(thoughts).split()


@pytest.mark.parametrize("around", ["<answer>{}</answer>", "<response>{}",
                                    "<|begin_of_solution|>\n{}\n<|end_of_solution|>",
                                    "<|START_RESPONSE|>{}<|END_RESPONSE|>"])
def test_what_stands_around_an_answer_is_no_part_of_it(around):
    assert split_reasoning("<think>x</think>\n" + around.format("Not yet."), THINKING[0]) == ("Not yet.", "x")
    assert split_reasoning(around.format("Not yet."), THINKING[0])[0] == around.format("Not yet.")  # its own words


def test_blocks_without_end_are_no_work_without_end():
    text, _ = split_reasoning("<think></think>" * 100_000, THINKING[0])
    assert len(text) == 15 * (100_000 - MOST_BLOCKS)


# one option everywhere

def test_an_option_is_told_to_models_that_know_it(place):
    mine, theirs = str(place(EMPTY_BLOCK)), str(place(CHATML))
    recipe = build_recipe({"model": mine, "template_options": "enable_thinking=false"})
    assert for_model(recipe, mine) == recipe
    assert for_model(recipe, theirs).template_options == {} and for_model(recipe, theirs).model == theirs
    assert for_model(recipe, str(place(EMPTY_BLOCK))).template_options == {"enable_thinking": False}
    server = for_model(recipe, "judge", base_url="http://127.0.0.1:1/v1", engine="endpoint")
    assert server.template_options == {} and server.engine == "endpoint"
    with pytest.raises(InputError, match="never asks for 'enable_thinking'"):
        choose_engine(build_recipe({"model": theirs, "device": "cpu", "template_options": "enable_thinking=false"}))
