"""Texts of others in filters, cards and reviews: bounded, shown, and never acting."""
import html.parser
import re
import stat
import threading
import time
from importlib.resources import files

import pytest
import yaml
from markdown_it import MarkdownIt

from contemplative_cai.core.files import write_rows
from contemplative_cai.core.foreign import visible
from contemplative_cai.core.recipe import Recipe, build_recipe
from contemplative_cai.core.run import Run, open_run
from contemplative_cai.core.schema import (
    Critique,
    InputError,
    Message,
    PreferencePair,
    Prompt,
    Response,
    Revision,
    Triple,
)
from contemplative_cai.inputs.constitution import load_constitution
from contemplative_cai.pairs.data_card import SHARED_KEYS, _code, _prose, _quotation, _shown, shared_recipe
from contemplative_cai.pairs.filters import LONGEST_ANSWER
from contemplative_cai.pairs.make import filter_triples
from contemplative_cai.review.session import ReviewSession
from contemplative_cai.review.votes import read_decisions
from contemplative_cai.review.widget import shown_state

GENERIC = load_constitution("generic")


def triple(answer, critique, revision, question="How do I tell my friend that I forgot her birthday?"):
    prompt, principle = Prompt(text=question, source="mine"), GENERIC.principles[0].id
    more = {"finish_reason": "stop", "model": "m", "seed": 0}
    response = Response(prompt_id=prompt.id, text=answer, **more)
    written = Critique(prompt_id=prompt.id, response_id=response.id, principle=principle, text=critique, **more)
    revised = Revision(prompt_id=prompt.id, critique_id=written.id, principle=principle, text=revision, **more)
    return Triple(prompt=prompt, principle=principle, response=response, critique=written, revision=revised)


def reasons(*rows):
    kept, dropped = filter_triples(rows, GENERIC)
    assert len(kept) + len(dropped) == len(rows)
    return [row.reason for row in dropped]


# filters

PARTS = ["the ", "\n", "“", "对不起我忘了", "[[", "a\n", "here ", "the answer is kind. ", "* ", "\u0e02", "<|", "x",
         "😬"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("size", [LONGEST_ANSWER - 100, 1_000_000])
def test_filters_come_to_an_end_on_long_texts(part, size):
    text, started = part * (size // len(part)), time.monotonic()
    told = reasons(triple(text, text, text + " yes"))
    assert time.monotonic() - started < 30 and (told == ["too_long"]) == (size > LONGEST_ANSWER)


@pytest.mark.parametrize("answer, revision", [
    ("直接说对不起就行了。", "你可以坦诚地告诉她，你忘记了她的生日，真心道歉，"
     "再提出补过，问问她想怎么庆祝。让她知道，你在乎。"),
    ("謝ればいいです。", "正直に忘れていたことを伝えて、心から謝り、"
     "改めてお祝いの席を設けたいと提案してみてください。"),
    ("แค่ขอโทษก็พอ", "บอกเธอตรงๆว่าคุณลืมและขอโทษจากใจแล้วเสนอว่าจะฉลองให้ใหม่เธอจะรู้ว่าคุณใส่ใจ"),
    ("Just say sorry and move on, she will get over it.",
     "Tell her that you forgot, that you are sorry, and offer a day."),
])
def test_a_good_revision_of_any_script_is_kept_and_a_loop_is_not(answer, revision):
    assert reasons(triple(answer, "It is cold.", revision)) == []
    assert reasons(triple(answer, "It is cold.", revision * 60)) in (["repetition_loop"], ["near_duplicate"])
    assert reasons(triple(revision, "It is cold.", revision + "a")) == ["near_identical"]


@pytest.mark.parametrize("tag", ["<think>\nIt was too curt.\n</think>\n\n", "Kinder, then.\n</think>\n\n"])
def test_thinking_is_no_revision(tag):
    assert (reasons(triple("Just say sorry.", "It is cold.", f"{tag}Tell her that you forgot, and that you are sorry."))
            == ["leaked_preamble"])


# cards

ACTIVE = ["<script>alert(1)</script>", "<iframe src=x>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))",
          "![x](http://somewhere/p.png)", "<javascript:alert(1)>", "[a]: javascript:alert(1)\n\n[a]", "` <b>x</b>",
          "a | b\n|---|", "\u202egnol", "# heading", "```\n<script>", "&lt;script&gt;<svg onload=x>"]


def sentence(text): return _prose(f"The source is {text}")


def tags_in(markdown: str) -> list[tuple]:
    "The tags that a reader of HTML finds in it, with their attributes."
    tags: list[tuple] = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, attributes))  # type: ignore[method-assign]
    parser.feed(markdown)
    return tags


@pytest.mark.parametrize("door", [_shown, _code, _quotation, sentence])
@pytest.mark.parametrize("text", ACTIVE)
@pytest.mark.parametrize("around", ["{}", "- {}", "| {} | x |\n|---|---|", "### {}", "> {}"])
def test_no_text_acts_in_a_card(door, text, around):
    shown = around.format(door(text))
    for markdown in (shown, MarkdownIt("commonmark", {"html": True}).enable("table").render(shown)):
        seen = tags_in(markdown)
        allowed = {"p", "li", "ul", "table", "thead", "tbody", "tr", "th", "td", "h3", "blockquote", "code"}
        assert ({tag for tag, _ in seen} <= allowed
                and "\u202e" not in markdown and not any(a for _, a in seen)), markdown


def test_a_shared_recipe_is_what_differs():
    recipe = build_recipe({"model": "x", "constitution": "generic"})
    assert yaml.safe_load(shared_recipe(recipe)) == {"model": "x", "constitution": "generic"}


PLACES = ["/home/ann/secret", "~/ann/secret", "../ann/secret", "C:\\Users\\ann\\secret", "\\\\host\\ann\\secret"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", [name for name, field in Recipe.model_fields.items() if "str" in str(field.annotation)])
def test_no_key_takes_a_folder_or_an_address_onto_a_card(place, key):
    for value in (place, f"name={place}", (place,), (f"name={place}",), f"http://user:ann@host/{key}"):
        text = shared_recipe(Recipe().model_copy(update={key: value}))
        assert "ann" not in text.replace("annotation", "") and "user" not in text, text
        assert key in SHARED_KEYS or key == "base_url" or key not in text


# reviews

def pairs(n=4):
    def turn(role, text): return (Message(role=role, content=text),)
    return [PreferencePair(prompt=turn("user", f"Question {i}?"), chosen=turn("assistant", f"Revised {i}"),
                           rejected=turn("assistant", f"First {i}"), prompt_id=f"p{i}", principle="emptiness",
                           locale="en_US", source="demo", critique="x", constitution="c@0", model="m", seed=0,
                           template="t@0") for i in range(n)]


@pytest.mark.parametrize("damage",
                         [b'{"pair_id": "x", "revi', b"\xff\xfe\x00", b"[]", b"{}", b'{"pair_id": 3}\n\n\n', b"\x00"])
@pytest.mark.parametrize("at", ["first", "middle", "last"])
def test_a_damaged_line_costs_itself_and_is_told(damage, at, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CCAI_RUNS", str(tmp_path))
    run = open_run("demo")
    write_rows(run.path("pairs.jsonl"), pairs())
    path = run.path("reviews", "ada.jsonl")
    session = ReviewSession(pairs(), path, "ada")
    rows = [session.decide("A"), session.decide("B")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = path.read_bytes().splitlines(keepends=True)
    place = {"first": 0, "middle": 1, "last": 2}[at]
    path.write_bytes(b"".join([*lines[:place], damage + (b"" if at == "last" else b"\n"), *lines[place:]]))
    again = ReviewSession(pairs(), path, "ada")
    assert list(again.decisions.values()) == rows and again.damage and "rerun" not in " ".join(again.damage)
    again.decide("neither")
    assert len(read_decisions(run)) == 3 and "rerun" not in capsys.readouterr().err
    assert damage.strip() in path.read_bytes(), "somebody's work is not taken away"


@pytest.mark.parametrize("copy", ["ada (1)", "ada-backup", "a copy", "zoe"])
@pytest.mark.parametrize("after", [False, True], ids=["a copy of today", "a copy of before"])
def test_a_copy_of_a_reviewers_file_gives_nobody_a_second_voice(tmp_path, capsys, copy, after):
    run = Run("mine", tmp_path)
    session = ReviewSession(pairs(), run.path("reviews", "ada.jsonl"), "ada")
    for preferred in ("neither", "neither"): session.decide(preferred)
    run.path("reviews", f"{copy}.jsonl").write_bytes(session.path.read_bytes())
    if after:
        session.undo()
        session.decide("A" if session._side_a(session.current.pair_id) == "chosen" else "B")
    decisions = read_decisions(run)
    assert {id: [row.reviewer for row in rows] for id, rows in decisions.items()} == {id: ["ada"] for id in decisions}
    assert (sorted(rows[0].decision for rows in decisions.values())
            == (["accept", "reject"] if after else ["reject"] * 2))
    assert f"{copy}.jsonl: holds lines of 'ada'" in capsys.readouterr().err


def test_two_windows_of_one_reviewer_lose_nothing(tmp_path):
    path = tmp_path / "ada.jsonl"
    windows = [ReviewSession(pairs(40), path, "ada") for _ in range(2)]
    refused = []

    def review(session, preferred):
        while session.current:
            try: session.decide(preferred)
            except InputError as error: refused.append(str(error))

    threads = [threading.Thread(target=review, args=(session, side)) for session, side in zip(windows, "AB")]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    again = ReviewSession(pairs(40), path, "ada")
    assert len(again.decisions) == 40 and not again.damage and all("another window" in line for line in refused)


@pytest.mark.parametrize("text", ACTIVE)
def test_a_reviewer_sees_texts_and_runs_none(text, tmp_path):
    "The page sets them as text; what an eye would act on is written out before."
    def turn(role, content): return (Message(role=role, content=content),)
    one = PreferencePair(**pairs(1)[0].model_dump(exclude={"id", "prompt", "chosen", "rejected", "critique"}),
                         prompt=turn("user", text), chosen=turn("assistant", text + "."),
                         rejected=turn("assistant", text), critique=text)
    shown = shown_state(ReviewSession([one], tmp_path / "ada.jsonl", "ada"))["pair"]
    assert shown["question"] == shown["critique"] == visible(text)
    assert {shown["a"], shown["b"]} == {visible(text), visible(text + ".")} and "\u202e" not in str(shown)
    script = (files("contemplative_cai.review") / "widget.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


# the card of a whole run

HOSTILE = [*ACTIVE, "</code></details><!--", "***\n---\nbase_model: x\n---", "[1]: javascript:alert(1)",
           "{{ 7 * 7 }}{% raw %}"]


def hostile_run(texts, folder, make_run=open_run):
    "A run whose constitution, prompts, columns, answers and file names are such texts."
    import csv

    from contemplative_cai.models.llm import ScriptedLLM
    from contemplative_cai.pairs.generate import generate_pairs
    said = "\n\n".join(texts)
    line = " ".join(said.split())
    (folder / "garden.md").write_text(
        (f"---\nid: garden\ntitle: {yaml.safe_dump(line, width=10**6, default_style=chr(34)).strip()}\nlanguage: en\n"
         f"version: \"1 <b>\"\n---\n\n## Kind {line} {{#kindness}}\n\nIt says {line}\n\n"
         f"### Clauses\n\n- It is kind. {line}\n\n"
         f"### Critique request\n\nLook again. {line}\n\n```\n<script>\n```\n\n### Revision request\n\n"
         f"Write again. {line}\n"),
        encoding="utf-8",
    )
    table = folder / "x<script>y`z|[w](javascript:1).csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "hazard", "persona", "locale"])
        for i in range(8): rows.writerow([f"How do I cook {i} grains? {said}", f"hz{i % 2} {line}"[:200], line[:50],
                                          ("en_US\ntags: [x]", "<b>zh")[i % 2]])
    answers = iter(range(10**6))
    recipe = build_recipe({"model": "random-tiny", "constitution": str(folder / "garden.md"), "prompts": [str(table)],
                           "n_prompts": 4, "filters": "empty"})
    run = make_run("hostile")
    generate_pairs(run, recipe, ScriptedLLM(lambda _: f"Answer {next(answers)} {said}"))
    run.record(recipe=recipe.model_dump(mode="json"), recipe_name=line)
    return run


@pytest.mark.parametrize("texts", [HOSTILE, *([text] for text in HOSTILE)], ids=lambda texts: texts[0][:20])
def test_the_card_of_a_run_of_hostile_texts_is_a_card(texts, tmp_path, monkeypatch):
    "No active content, its own head alone, and the data set as it was written."
    from contemplative_cai.pairs.dataset import read_dataset, write_dataset
    from contemplative_cai.pairs.make import load_pairs
    monkeypatch.setenv("CCAI_RUNS", str(tmp_path / "runs"))
    (tmp_path / "inputs").mkdir()
    run = hostile_run(texts, tmp_path / "inputs")
    folder = write_dataset(run)
    card = (folder / "README.md").read_text(encoding="utf-8")
    _, head, body = card.split("---\n", 2)
    assert set(yaml.safe_load(head)) <= {"annotations_creators", "language_creators", "language", "license", "configs",
                                         "size_categories", "task_categories", "pretty_name", "tags", "rests_on"}
    assert "pwned" not in head and "\u202e" not in card and "\x1b" not in card
    markup = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    allowed = {"p", "li", "ul", "table", "thead", "tbody", "tr", "th", "td", "h1", "h2", "h3", "blockquote", "code",
               "pre", "strong"}
    seen = [(tag, attributes) for tag, attributes in tags_in(markup)
            if not {name for name, _ in attributes} <= {"style"} and ("class", "language-yaml") not in attributes
            and ("class", "language-python") not in attributes]
    assert not seen and {tag for tag, _ in tags_in(markup)} <= allowed, seen
    assert str(tmp_path) not in card
    pairs = load_pairs(run)
    assert len(pairs) == 4 and sorted(pair.id for rows in read_dataset(folder).values() for pair in rows) == sorted(
        pair.id for pair in pairs)
    assert all(texts[-1].strip() in pair.chosen[0].content for pair in pairs)
