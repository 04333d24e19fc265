"""Chat templates as models have them, on a tokenizer of our own:
what is folded, split off, not weighed, refused and recorded."""
import json
import shutil
from pathlib import Path

import pytest
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
from contemplative_cai.models.chat import FOLDED, THINKING, option_lines, split_reasoning, thinking_marks, weighed_texts
from contemplative_cai.models.choose import open_llm
from contemplative_cai.models.llm import Completion, Sampling
from contemplative_cai.models.local import load_llm
from contemplative_cai.models.weights import CHATML, load_tokenizer, model_key, model_source

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
