"""One option of a chat template, everywhere: in what is generated, weighed, judged, trained on and scored."""
import json
import shutil
from pathlib import Path

import pytest
import trl
from support import RULES_ONLY, play

from contemplative_cai.core.journal import Journal
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Message, PreferencePair, digest
from contemplative_cai.evaluation.arms import recipe_arms
from contemplative_cai.evaluation.judge import Asked, open_judge, read_seats
from contemplative_cai.inputs.rubrics import load_rubric
from contemplative_cai.models import content
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.chat import prepare_template, turn_end
from contemplative_cai.models.choose import open_llm
from contemplative_cai.models.llm import Sampling
from contemplative_cai.models.weights import load_tokenizer, model_source
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.report.look import as_trained
from contemplative_cai.revision.cluster import MODEL_KEYS, _model_settings
from contemplative_cai.training.audit import encode_pair, template_faults
from contemplative_cai.training.heldout import base_and_trained
from contemplative_cai.training.rows import LATER_SETTINGS, TRAINING_SETTINGS, stage_digest, training_data
from contemplative_cai.training.train import prepare_stage, train
from contemplative_cai.training.trainer import build_trainer, load_trainable

OPEN, BLOCK = "<|im_start|>assistant\n", "<think>\n\n</think>\n\n"
# an empty block in front of the last reply; where thinking is switched off it is in the prompt already
THINKING_MODEL = ("{% for m in messages %}{% if m['role'] == 'assistant' and loop.last %}{{ '" + OPEN + BLOCK
                  + ("' + m['content'] + '<|im_end|>\n' }}{% else %}{{ '<|im_start|>' + m['role'] + '\n"
                     "' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '")
                  + OPEN + "' }}{% if enable_thinking is defined and not enable_thinking %}{{ '" + BLOCK
                  + "' }}{% endif %}{% endif %}")
RECIPE = {"dtype": "float32", "device": "cpu", "n_prompts": 10, "filters": "empty,identical", "max_steps": 2,
          "learning_rate": 0.01, "max_length": 256, "train_batch_size": 4, "accumulation": 1, "test_share": 0.4,
          "n_eval_prompts": 2, "answer_tokens": 4, "resamples": 200} | RULES_ONLY
PAIR = PreferencePair(prompt=(Message(role="user", content="How late is it?"),),
                      chosen=(Message(role="assistant", content="Look at the sun."),),
                      rejected=(Message(role="assistant", content="Late."),), principle="mindfulness", prompt_id="p",
                      locale="en_US", source="mine", critique="", constitution="c", model="m", seed=0, template="t")
QUESTION = (Message(role="user", content="Is it late?"),)


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    "The same model without the option and with it."
    folder = tmp_path_factory.mktemp("models") / "thinking"
    shutil.copytree(model_source(model_spec("random-tiny"))[0], folder)
    (folder / "chat_template.jinja").write_text(THINKING_MODEL, encoding="utf-8")
    plain = RECIPE | {"model": str(folder)}
    return build_recipe(plain), build_recipe(plain | {"template_options": {"enable_thinking": False}})


@pytest.fixture
def run(runs, contemplative, recipes):
    run = open_run("demo")
    generate_pairs(run, recipes[1], play(contemplative))
    return run


@pytest.fixture
def read(monkeypatch):
    "Every text that a model in this process reads."
    texts, ids = [], content._plain_ids
    monkeypatch.setattr(content, "_plain_ids", lambda tokenizer, text: texts.append(text) or ids(tokenizer, text))
    return texts


def test_in_generation_weighing_and_judging(recipes, read, tmp_path):
    for recipe, prompt in zip(recipes, (OPEN, OPEN + BLOCK)):
        with open_llm(recipe) as llm, Journal(tmp_path / "journal.sqlite") as journal:
            llm.chat([QUESTION], Sampling(max_tokens=4))
            assert read[-1].endswith(prompt)
            llm.logprobs([QUESTION], ["Not yet."])
            assert [text for text in read[-2:] if not text.endswith("<|im_end|>\n")] == [read[-2]]
            assert read[-2].endswith(OPEN + BLOCK) and read[-1].endswith(OPEN + BLOCK + "Not yet.<|im_end|>\n")
            criterion, key = load_rubric("safety").criteria[0], llm.key
            for kind in ("logits", "reasoned"):
                [seat] = read_seats(recipe.model_copy(update={"eval_judges": (kind,)}))
                del read[:]
                with open_judge(recipe, seat, journal) as seated:
                    seated.judge.opinions([Asked(question="Is it late?", answer="Not yet.", criterion=criterion)])
                    assert seated.key == key
                assert read and all(text.endswith((OPEN + BLOCK, prompt, "<|im_end|>\n")) for text in read)
    assert key.endswith("/enable_thinking=false")


@pytest.mark.long
def test_in_training(recipes, run):
    "What TRL makes of the rows, what the audit counts and what is shown begin an answer where generation does."
    trained = {}
    for recipe, prompt in zip(recipes, (OPEN, OPEN + BLOCK)):
        data = training_data(run, recipe)
        tokenizer = load_tokenizer(model_spec(recipe.model), recipe.template_options)
        assert all(tokenizer.decode(row.prompt).endswith(prompt) for row in data.encoded)
        folder = run.path(f"stage-{len(trained)}")
        prepare_stage(run, recipe, data, "dpo", folder)
        trainer = build_trainer(recipe, "dpo", folder, load_trainable(recipe), run.path(f"cache-{len(trained)}"))
        rows = trainer.train_dataset
        assert all(tokenizer.decode(ids).endswith(prompt) for ids in rows["prompt_ids"])
        assert sorted(rows["prompt_ids"]) == sorted(list(row.prompt) for row in data.encoded)
        assert str(as_trained(data, recipe)).count(f"{prompt}\n[learned]") == 2
        trained[stage_digest(recipe, data, "dpo")] = folder
    assert len(trained) == 2, "a training with the option has a name of its own"
    assert [json.loads((folder / "stage.json").read_text())["recipe"].get("template_options")
            for folder in trained.values()] == [None, {"enable_thinking": False}]


THINKING_TEMPLATES = {path.stem: text for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
                      if "enable_thinking" in (text := path.read_text(encoding="utf-8"))
                      and not path.stem.endswith("_training")}


@pytest.mark.parametrize("name", THINKING_TEMPLATES)
def test_an_answer_is_learned_without_what_a_template_puts_before_it(name):
    """With thinking switched off a template that comes with a model is fit for training,
    or the fault says how it will be."""
    faults, learned = {}, {}
    for options in ({}, {"enable_thinking": False}):
        tokenizer = load_tokenizer(model_spec("random-tiny"))
        tokenizer.bos_token, tokenizer.chat_template = None, THINKING_TEMPLATES[name]
        prepare_template(tokenizer, name, options)
        row = encode_pair(tokenizer, PAIR)
        ends = {*turn_end(tokenizer)}
        faults[len(options)] = template_faults(tokenizer, ends, PAIR)
        learned[len(options)] = tokenizer.decode(row.chosen)
    if name != "glm4moe":  # it ends an answer with nothing
        assert learned[1].startswith("Look at the sun.") and faults[1] == []
    assert all("enable_thinking: false" in fault for fault in faults[0] if "rendered differently" in fault)


def test_names_of_trainings_without_the_option_stay(recipes, run, monkeypatch):
    data = training_data(run, recipes[0])
    now = stage_digest(recipes[0], data, "dpo")
    monkeypatch.setattr("contemplative_cai.training.rows.TRAINING_SETTINGS",
                        [name for name in TRAINING_SETTINGS if name not in LATER_SETTINGS])
    assert stage_digest(recipes[0], data, "dpo") == now


@pytest.mark.long
def test_in_a_trained_model_and_its_arms(recipes, run, read):
    "An adapter, a merged model and a model trained whole are asked and scored as they were trained."
    for changes in ({"merge": True}, {"adapter": "none", "learning_rate": 0.001}):
        recipe = recipes[1].model_copy(update=changes)
        run.record(recipe=recipe.model_dump(mode="json"))
        train(run, recipe)
        del read[:]
        for llm in base_and_trained(recipe, run.path("dpo")): llm.chat([QUESTION], Sampling(max_tokens=2))
        assert len(read) == 2 and all(text.endswith(OPEN + BLOCK) for text in read)
        place = run.path("dpo", "merged" if "merge" in changes else "model")
        assert load_tokenizer(model_spec(str(place)), recipe.template_options).apply_chat_template(
            [QUESTION[0].model_dump()], tokenize=False, add_generation_prompt=True).endswith(OPEN + BLOCK)
    assert [arm.name for arm in recipe_arms(recipe, run)] == ["base", "dpo"]


def test_on_a_cluster_another_option_is_another_model(recipes):
    "What was made with one setting is not taken for the other's; without the option the name stays."
    plain, told = map(_model_settings, recipes)
    assert (told != plain
            == digest([str(getattr(recipes[0], name)) for name in MODEL_KEYS if name != "template_options"]))
