"""The door of everything that is printed: whoever printed it, and in whichever pieces, it is seen and does nothing."""
import io
import json
import logging
import re
import sys
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contemplative_cai.command import commands
from contemplative_cai.core.foreign import ShownStream, json_text, visible
from contemplative_cai.core.screen import INKS

PIECES = ["\x1b[2J", "\x1b]0;owned\a", "\x1b[8m", "\x1b[31m", "\x1b[0m", "\r", "\r\x1b[2K", "\x1b[1A", "\n", "\r\n",
          "\t", "\u202e", "\u2066", "\x9b31m", "\x7f", "\b\b", "\x00", "\U000e0041", "\ud83d", "done", "ccai: ", " 中 ",
          ""]
writes = st.lists(st.lists(st.sampled_from(PIECES), max_size=4).map("".join), max_size=8)


def through(texts):
    "What a stream receives of texts that are written one after the other."
    stream = io.StringIO(newline="")
    door = ShownStream(stream)
    for text in texts: assert door.write(text) == len(text)
    return stream.getvalue()


@given(writes)
@example(["a", "\rb"])
@example(["\r\r\x1b[2Kb"])
@settings(deadline=None, max_examples=300)
def test_nothing_acts_but_our_colours_and_a_line_drawn_anew(texts):
    shown = through(texts)
    left = re.sub(r"\x1b\[(?:0|31|32|33|36)m", "", shown)
    for line in left.split("\n"):
        drawn = re.split(r"\r(?:\x1b\[2K)?", line)
        assert len(drawn) == 1 or drawn[0] == "", "a line that began with words is not drawn over"
        assert all(visible(part) == part for part in drawn), repr(line)


@given(st.lists(st.text(st.characters(categories=("L", "N", "P", "Zs", "S"))).map(lambda text: text + "\n"),
                max_size=4))
@settings(deadline=None)
def test_plain_text_passes_as_it_is(texts):
    assert through(texts) == "".join(map(visible, texts))


@pytest.mark.parametrize("colour", INKS)
def test_every_colour_of_ours_passes(colour):
    text = f"\x1b[{INKS[colour]}mdone\x1b[0m\n"
    assert through([text]) == text


values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(st.characters(categories=None)),
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@given(values)
@example({"a\u202e": "\U000e0041\x7f\ud800\u2028"})
@settings(deadline=None, max_examples=200)
def test_json_is_exact_and_passes_as_it_is(value):
    text = json_text(value)
    assert json.loads(text) == value and through([text]) == text


WAYS = {
    "stdout": lambda text: print(text),
    "stderr": lambda text: print("note:", text, file=sys.stderr),
    "pieces": lambda text: sys.stdout.writelines([*text, "\n"]),
    "a log": lambda text: logging.StreamHandler().emit(logging.makeLogRecord({"msg": text})),
    "a warning": lambda text: warnings.warn(text, stacklevel=1),
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("way", WAYS)
def test_whatever_a_command_prints_passes_the_door(monkeypatch, capfd, way):
    before = sys.stdout, sys.stderr
    if way == "a warning": monkeypatch.setattr(warnings, "showwarning", lambda text, *_: sys.stderr.write(f"{text}\n"))
    monkeypatch.setitem(commands._COMMANDS, "runs",
                        lambda _: WAYS[way]("forged\x1b[2J\r\x1b[2Kccai: all is well\u202e") or 0)
    assert commands.main(["runs"]) == 0 and (sys.stdout, sys.stderr) == before
    printed = "".join(capfd.readouterr())
    assert "forged" in printed and not re.search("[\x1b\r\u202e]", printed), repr(printed)
