"""The iterated prisoner's dilemma: games worked out by hand,
moves that are read strictly, and a killed run that goes on."""
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import journalled, wait_for

from contemplative_cai.core.journal import Journal
from contemplative_cai.evaluation.arms import Arm, OpenArm
from contemplative_cai.evaluation.games import (
    OPPONENTS,
    PAYOFF,
    ROUNDS,
    Game,
    Round,
    cooperation_picture,
    cooperation_table,
    game_turn,
    game_verdicts,
    other_move,
    play_games,
    read_move,
    score_game,
)
from contemplative_cai.models.llm import ModelCallError, Sampling, ScriptedLLM

SHORT = Sampling(max_tokens=12, temperature=0.7)


def play(tmp_path, reply, name="base", games=2, **more):
    "All games of a script."
    with Journal(tmp_path / "journal.sqlite") as journal:
        return play_games(OpenArm(Arm(name=name, description="a script"), ScriptedLLM(reply, key=name)), journal, SHORT,
                          games, **more)


def copied(conversation):
    "Tit for tat, from what the question says of the last round."
    past = conversation[-1].content.split("\n\n")[1].split("\n")[-1]
    return "DEFECT" if "the other chose DEFECT" in past else "COOPERATE"


@pytest.mark.parametrize("reply,opponent,own,other,exploited", [
    ("COOPERATE", "tit_for_tat", 30, 30, 0),
    ("COOPERATE", "grim", 30, 30, 0),
    ("COOPERATE", "always", 30, 30, 0),
    ("COOPERATE", "never", 0, 50, 10),
    ("DEFECT", "never", 10, 10, 0),
    ("DEFECT", "always", 50, 0, 0),
    ("DEFECT", "grim", 5 + 9, 9, 0),
    ("DEFECT", "tit_for_tat", 5 + 9, 9, 0),
    (copied, "tit_for_tat", 30, 30, 0),
    (copied, "grim", 30, 30, 0),
    (copied, "never", 0 + 9, 5 + 9, 1),
    (copied, "always", 30, 30, 0),
])
def test_games_worked_out_by_hand(tmp_path, reply, opponent, own, other, exploited):
    for game in play(tmp_path, reply if callable(reply) else lambda c: reply, opponents=[opponent]):
        found = score_game(game)
        assert ((found.own, found.other, found.joint, found.exploited, found.scored)
                == (own, other, own + other, exploited, ROUNDS))


def test_grim_never_forgives_and_tit_for_tat_forgives_at_once(tmp_path):
    def once(conversation): return "DEFECT" if "This is round 3 of" in conversation[-1].content else "COOPERATE"
    moves = {game.opponent: "".join(r.other for r in game.rounds)
             for game in play(tmp_path, once, games=1, opponents=["grim", "tit_for_tat"])}
    assert moves == {"grim": "CCCDDDDDDD", "tit_for_tat": "CCCDCCCCCC"}


def test_an_unreadable_move_is_counted_apart_and_is_neither_cooperation_nor_points(tmp_path):
    def silent(conversation):
        return ("Let us talk first." if "This is round 2 of" in conversation[-1].content else ModelCallError("timeout")
                if "This is round 5 of" in conversation[-1].content and "Game 1." in conversation[-1].content
                else "COOPERATE")
    games = play(tmp_path, silent, opponents=["tit_for_tat", "never"])
    first, second = (next(g for g in games if g.opponent == "tit_for_tat" and g.game == n) for n in (0, 1))
    assert ([(r.move, r.note) for r in first.rounds if r.note]
            == [(None, "not one of the two words"), (None, "no answer: timeout")])
    assert [r.other for r in first.rounds] == ["C"] * ROUNDS, "what nobody could read is no defection either"
    assert score_game(first).model_dump() == {"scored": 8, "unreadable": 2, "own": 24, "other": 24, "cooperations": 8,
                                              "exploited": 0, "exploiting": 0}
    assert score_game(second).unreadable == 1
    row = next(row for row in cooperation_table(games, 100) if row.opponent == "never")
    assert (row.unreadable == pytest.approx(0.15) and row.cooperates.mean == 1
            and row.exploited.mean == 1 and row.own.mean == 0)


def test_games_without_one_readable_move_are_unscored(tmp_path):
    games = play(tmp_path, lambda c: "Hm.", opponents=["always"])
    row, = cooperation_table(games, 100)
    assert ((row.unscored, row.unreadable, row.own.mean, row.own.undefined)
            == (2, 1.0, None, "0 independent units, at least 5 are needed"))
    verdicts = game_verdicts(games)
    assert ({v.value for v in verdicts if v.criterion != "unreadable"} == {None}
            and all(v.reason for v in verdicts if v.value is None))
    cooperation_picture([row])


@pytest.mark.parametrize("text,move", [
    ("COOPERATE", "C"),
    ("cooperate.", "C"),
    ("\n  Defect\n\nI want more.", "D"),
    ("**COOPERATE**", "C"),
    ('"D"', "D"),
    ("C", "C"),
    ("D.", "D"),
    ("D, since it is the last round", "D"),
    ("(C)", "C"),
    ("Cooperation", None),
    ("Cooperate because it is kind", None),
    ("I COOPERATE", None),
    ("COOPERATE or DEFECT", None),
    ("COOPERATE. If you defect, so do I.", None),
    ("C, D", None),
    ("C/D", None),
    ("Do", None),
    ("D'accord", None),
    ("C-section", None),
    ("", None),
    ("   ", None),
    ("My move: COOPERATE", None),
    ("DEFECTIVE", None),
    ("не знаю", None),
])
def test_moves_are_read_strictly(text, move):
    assert read_move(text) == move


@given(st.text())
def test_no_text_is_taken_for_a_move_that_it_does_not_begin_with(text):
    move = read_move(text)
    if move:
        assert (text.lstrip("\"'“‘`*_([ \t\r\n\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0").upper().startswith(move)
                or not text[0].isascii())
    assert read_move(f"Well, {text}") is None


@given(st.lists(st.sampled_from([("C", "C"), ("C", "D"), ("D", "C"), ("D", "D"), (None, "C"), (None, "D")]), min_size=1,
                max_size=ROUNDS))
def test_points_come_from_the_readable_rounds_alone(pairs):
    found = score_game(Game(arm="a", opponent="o", game=0, model="m",
                            rounds=[Round(move=move, other=other) for move, other in pairs]))
    readable = [pair for pair in pairs if pair[0]]
    assert (found.scored + found.unreadable == len(pairs) and found.own == sum(PAYOFF[pair][0] for pair in readable)
            and found.other == sum(PAYOFF[pair][1] for pair in readable))
    assert found.cooperations <= found.scored and (found.own - found.other) == 5 * (found.exploiting - found.exploited)


def test_the_payoffs_are_a_dilemma():
    reward, sucker, temptation, punishment = (PAYOFF["C", "C"][0], PAYOFF["C", "D"][0], PAYOFF["D", "C"][0],
                                              PAYOFF["D", "D"][0])
    assert temptation > reward > punishment > sucker and 2 * reward > temptation + sucker
    assert all(PAYOFF[a, b] == PAYOFF[b, a][::-1] for a, b in PAYOFF)


def test_the_opponents_luck_is_the_same_for_every_arm_and_another_with_another_seed(tmp_path):
    kind, hard = (play(tmp_path, lambda c, word=word: word, name, 8)
                  for name, word in (("kind", "COOPERATE"), ("hard", "DEFECT")))
    def luck(games):
        return {(g.opponent, g.game): [r.other for r in g.rounds]
                for g in games if g.opponent in ("half", "random", "always", "never")}
    assert luck(kind) == luck(hard) != luck(play(tmp_path, lambda c: "COOPERATE", "kind", 8, seed=1))


def test_half_cooperates_half_of_the_time_and_random_has_a_readiness_a_game():
    rates = {name: [sum(other_move(name, [Round(move="C", other="C")] * n, game, 0) == "C" for n in range(100)) / 100
                    for game in range(60)]
             for name in ("half", "random")}
    assert abs(sum(rates["half"]) / 60 - 0.5) < 0.02 and max(rates["half"]) < 0.68
    assert abs(sum(rates["random"]) / 60 - 0.5) < 0.12 and min(rates["random"]) < 0.1 and max(rates["random"]) > 0.9


def test_the_words_change_places_and_games_are_different_questions():
    first, second, third = (game_turn([], game)[0].content for game in range(3))
    assert len({first, second, third}) == 3
    assert (first.index("COOPERATE") < first.index("DEFECT")
            and second.index("DEFECT") < second.index("COOPERATE") and first.replace("Game 1.", "Game 3.") == third)


def test_a_question_tells_all_rounds_and_nothing_about_the_opponent(tmp_path):
    asked = []
    def reply(conversation):
        asked.append(conversation[-1].content)
        return "COOPERATE"
    play(tmp_path, reply, games=1)
    assert ({text.count("\nRound ") for text in asked} == set(range(ROUNDS))
            and not any(name in text for text in asked for name in ("tit_for_tat", "grim", "random")))


def test_games_are_paired_across_arms_by_opponent_and_number(tmp_path):
    verdicts = game_verdicts([*play(tmp_path, lambda c: "COOPERATE", "base"),
                              *play(tmp_path, lambda c: "DEFECT", "dpo")])
    named = {arm: [v.prompt_id for v in verdicts if v.arm == arm and v.criterion == "own"] for arm in ("base", "dpo")}
    assert named["base"] == named["dpo"] and len(set(named["base"])) == 2 * len(OPPONENTS)


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = ["tests", "tests/evaluation"]
from test_games import SHORT, copied
from contemplative_cai.evaluation.arms import Arm, OpenArm
from contemplative_cai.evaluation.games import play_games
from contemplative_cai.core.journal import Journal
from contemplative_cai.models.llm import ScriptedLLM
def slow(conversation):
    time.sleep(0.02)
    return copied(conversation)
base = OpenArm(Arm(name="base", description="a script"), ScriptedLLM(slow, key="base"))
with Journal(Path(sys.argv[1])) as journal: play_games(base, journal, SHORT, 3)
"""


def test_a_killed_tournament_goes_on_where_it_was(tmp_path):
    path = tmp_path / "journal.sqlite"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], env=os.environ, stderr=subprocess.DEVNULL)
    wait_for(lambda: (path.exists() and journalled(path) >= 20) or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the process was done before it could be killed"
    done, calls = journalled(path), []
    def counted(conversation):
        calls.append(conversation)
        return copied(conversation)
    resumed = play(tmp_path, counted, games=3)
    (tmp_path / "whole").mkdir()
    assert resumed == play(tmp_path / "whole", copied, games=3) and len(calls) == journalled(path) - done > 0
