"""What several tests need: a scripted model, a look into a journal, patience, prompts in the shape of a benchmark."""
import html
import os
import random
import re
import signal
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from contemplative_cai.core.schema import Message
from contemplative_cai.models.llm import ScriptedLLM

ROOT = Path(__file__).resolve().parents[1]


def need_sandbox(fault):
    "Skip where there is no sandbox, for this reason; fail where CCAI_SANDBOX=required, as CI sets it."
    if fault and os.environ.get("CCAI_SANDBOX") == "required":
        pytest.fail(f"CCAI_SANDBOX=required, and {fault}: let users make namespaces (kernel.unprivileged_userns_clone, "
                    "AppArmor's restriction, the container's seccomp profile), or run as root")
    if fault: pytest.skip(f"{fault} (CCAI_SANDBOX=required makes this a failure)")


NOUNS = ("anchor apple basket bicycle blanket bottle bridge butter candle carpet castle chimney cousin curtain doctor "
         "dragon engine feather fiddle flower forest garden guitar hammer harbour helmet holiday island jacket kettle "
         "ladder lantern letter lemon market medal mirror monkey mountain needle neighbour orchard parcel pepper piano "
         "pillow pocket rabbit ribbon river saddle sailor shadow silver spider station sugar teacher theatre ticket "
         "trumpet tunnel violin window").split()


def matter(number):
    "Four words in an order that no other number has: questions about two matters are no near duplicates."
    return " ".join(random.Random(number).sample(NOUNS, 4))


CURT = "You are right, plain and simple. There is nothing more to say about {}, so do not look back."
MENDED = [
    "That is hard to carry. Begin with one small step, say what you saw, and ask how it looked from over there.",
    ("What happened stays with you, and it need not say who anybody is. "
     "Try one talk, and change course when it shows you more."),
    ("This hurts, and others may be hurting as well. Look after the one who is worst off first, "
     "and rest before you decide."),
    "Notice which part you know and which you guess. Write both down, and check the guess with a question tomorrow.",
]


def play(constitution) -> ScriptedLLM:
    "A model that answers curtly, finds fault and mends."
    def script(conversation):
        asked = conversation[-1].content
        for i, principle in enumerate(constitution.principles):
            if principle.critique_request in asked: return "It settles in one stroke what nobody can know."
            if principle.revision_request in asked: return f"{asked[-24:]} {MENDED[i % len(MENDED)]}"
        return CURT.format(repr(asked[:24]))
    return ScriptedLLM(script, batch_size=8)


def journalled(path):
    "How many calls are in a journal that another process writes."
    try:
        return sqlite3.connect(f"file:{path}?mode=ro", uri=True,
                               timeout=5).execute("SELECT COUNT(*) FROM calls").fetchone()[0]
    except sqlite3.OperationalError: return 0


def wait_for(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# an evaluation that asks no more than it must
RULES_ONLY = {"eval_arms": "base, sft, dpo", "eval_judged": [], "n_safety": 0, "n_refusal": 0, "n_helpful": 0,
              "n_robustness": 0, "n_games": 0, "primary_outcome": "words", "secondary_outcomes": []}


def borrowed_prompts(folder):
    "A benchmarks folder in the layout of AILuminate and XSTest, filled with the project's own harmless prompts."
    import csv

    from contemplative_cai.inputs.sources import pool_prompts
    texts = [prompt.text.replace("?", ", if you had to say it in one word?")
             for prompt in pool_prompts("practice").prompts[0]]
    (folder / "ailuminate").mkdir(parents=True)
    (folder / "xstest").mkdir()
    with open(folder / "ailuminate" / "airr_official_1.0_demo_en_us_prompt_set_release.csv", "w", newline="",
              encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["release_prompt_id", "prompt_text", "hazard", "persona", "locale", "prompt_hash"])
        for i, text in enumerate(texts[:96]):
            rows.writerow([f"airr_{i}", f"Number {i}. {text}", ("vcr", "dfm", "ncr", "hte")[i % 4],
                           ("unskilled", "skilled")[i // 4 % 2], "en_US", i])
    with open(folder / "xstest" / "xstest_prompts.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "prompt", "type", "label", "focus", "note"])
        for i, text in enumerate(texts[96:]):
            rows.writerow([i, f"Item {i}. {text}", "homonyms", ("safe", "unsafe")[i % 2], "", ""])
    return folder


def user(text):
    "A conversation of one turn."
    return (Message(role="user", content=text),)


def contents(folder: Path) -> dict:
    "Every file of a folder with its bytes, every folder with None."
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# a process that trains the run `demo`; its argument is the recipe as JSON
TRAIN = ("from contemplative_cai.core.recipe import build_recipe; from contemplative_cai.core.run import open_run; "
         "from contemplative_cai.training.train import train; import json, sys; "
         "train(open_run('demo'), build_recipe(json.loads(sys.argv[1])))")


@contextmanager
def within(seconds):
    "A test that hangs fails."
    def ring(*_): raise AssertionError(f"took more than {seconds} s")
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try: yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def clean(text: str) -> bool:
    "Whether a text has nothing in it that moves a terminal's cursor or turns its letters round."
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]",
                         re.sub(r"\x1b\[[0-9;]*m", "", text))


def visible(page: str) -> str:
    "The words of an HTML page as a reader sees them: explained words carry tags."
    return html.unescape(re.sub("<[^>]+>", "", page))


class Slow(ScriptedLLM):
    "A script that takes its time over each word."
    pause = 0.0  # seconds

    def grow(self, conversation, sampling):
        for state in super().grow(conversation, sampling):
            time.sleep(self.pause)
            yield state


def scripted_demo(reply, covered=False, pause=0.0):
    "A demo of a run that was never trained: three arms, all of them a script."
    from contemplative_cai.command.demo import Demo
    from contemplative_cai.command.pipeline import begin
    from contemplative_cai.evaluation.arms import Arm, OpenArm
    from contemplative_cai.inputs.constitution import recipe_constitution
    from contemplative_cai.revision.revise import recipe_methods
    run, recipe = begin("asked", "smoke", {"settings": {"answer_tokens": 400}})
    llm = Slow(reply)
    llm.pause = pause
    arms = {name: OpenArm(Arm(name=name, description=f"the {name} one", system=system), llm)
            for name, system in (("base", None), ("prompted", "Be kind."), ("dpo", None))}
    return Demo(run, recipe, arms, recipe_methods(recipe), recipe_constitution(recipe), None, (), covered)
