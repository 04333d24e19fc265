"""Work that takes minutes is seen while it goes on: tokens, not batches."""
import pytest
from support import user

from contemplative_cai.core.files import read_record
from contemplative_cai.core.journal import Journal
from contemplative_cai.core.run import open_run
from contemplative_cai.core.terminal import Progress, Standing
from contemplative_cai.models import told
from contemplative_cai.models.ask import ask, weigh
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.llm import ModelCallError, Sampling
from contemplative_cai.models.local import load_llm

ASKED = [user(text) for text in ("Is it late?", "Why?", "Tell me about rivers.", "And the stones?", "Who is there?")]


@pytest.fixture
def lines(monkeypatch):
    "What each call of `hear` and `advance` left in the line."
    seen = []
    def noting(method):
        def noted(self, *arguments, **named):
            method(self, *arguments, **named)
            seen.append((method.__name__, self.state["read"], self.state["written"], self.state["done"]))
        return noted
    for name in ("hear", "advance", "settle"): monkeypatch.setattr(Progress, name, noting(getattr(Progress, name)))
    return seen


@pytest.mark.parametrize("flows", [False, True])
def test_tokens_are_seen_before_the_first_row_is_done(runs, lines, flows):
    llm, run = load_llm(model_spec("random-tiny"), "float32", "cpu", batch_size=2), open_run("seen")
    llm.flows = flows
    with Journal(run.path("journal.sqlite")) as journal:
        rows = ask(llm, journal, "respond", ASKED, Sampling(max_tokens=9), run=run)
    before = lines[:[line[0] for line in lines].index("advance")]
    assert before and before[0][1] > 0 and any(line[2] > 0 for line in before)
    assert lines[-1] == ("settle", 0, 0, len(ASKED))
    standing = read_record(run.path("progress.json"), Standing)
    assert standing.tokens == sum(row.completion_tokens for row in rows) and not standing.written


def test_reading_is_seen_where_nothing_is_written(runs, lines):
    llm, run = load_llm(model_spec("random-tiny"), "float32", "cpu", batch_size=2), open_run("weighed")
    with Journal(run.path("journal.sqlite")) as journal:
        weigh(llm, journal, "judge weigh", ASKED, ["Yes."] * len(ASKED), run=run)
    assert lines[0][0] == "hear" and lines[0][1] > 0 and all(line[2] == 0 for line in lines)


def test_nobody_listens_after_a_failure(runs, monkeypatch):
    llm, run = load_llm(model_spec("random-tiny"), "float32", "cpu"), open_run("failed")
    def fails(*_): raise ModelCallError("no")
    monkeypatch.setattr(type(llm), "stream", fails)
    with Journal(run.path("journal.sqlite")) as journal, pytest.raises(ModelCallError):
        ask(llm, journal, "respond", ASKED, Sampling(max_tokens=9), run=run)
    assert told._LISTENERS == []
