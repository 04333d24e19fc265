"""An expert study: dealt evenly, blind, read whatever comes back, and simulated raters of known bias found again."""
import functools
import json
import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

from contemplative_cai.core.schema import Answer, InputError, Prompt
from contemplative_cai.review import experts_page
from contemplative_cai.review.experts_analysis import analyse_ratings, analyse_study, arm_contrast, severities
from contemplative_cai.review.experts_collect import collect_returned, collect_study, summed_line
from contemplative_cai.review.experts_page import pack_study, page_data, rater_page, rating_widget, text_blocks
from contemplative_cai.review.experts_plan import (
    ExpertItem,
    StudyShape,
    deal_figures,
    deal_questions,
    expert_items,
    make_experts_plan,
    read_expert_questions,
    read_experts_plan,
    read_practice,
    write_experts_plan,
)
from contemplative_cai.review.experts_simulated import SimulatedExperts, simulated_files, simulated_strictness

GROUPS = {"practice": ["p1", "p2", "p3", "p4"], "safety": ["s1", "s2", "s3", "s4"]}
ARMS = ("base", "hidden-arm")


@functools.cache
def _planned(questions, groups, more):
    items = [ExpertItem(id=f"i{2 * i + k:03d}", arm=arm, prompt_id=f"q{i}", question=f"Question {i}?",
                        answer=f"Answer {i}{k}") for i in range(questions) for k, arm in enumerate(ARMS)]
    return make_experts_plan("study", items, ARMS, StudyShape(json.loads(groups), **dict(more)), seed=5)


def planned(questions=24, groups=GROUPS, **more):
    "A plan, made once."
    return _planned(questions, json.dumps(groups), tuple(more.items()))


@pytest.mark.parametrize("raters, readers, questions, common",
                         [(4, 2, 24, 0), (5, 2, 30, 0), (7, 3, 35, 5), (3, 1, 12, 0)])
def test_loads_are_equal_and_pairs_as_even_as_numbers_let_them_be(raters, readers, questions, common):
    groups = {"one": [f"a{k}" for k in range(raters)], "two": [f"b{k}" for k in range(raters)]}
    ids = [f"q{k}" for k in range(questions)]
    dealt = deal_questions(ids, groups, readers, common, seed=1)
    figures = deal_figures(dealt)
    again, other = (deal_questions(ids, groups, readers, common, seed) for seed in (1, 2))
    assert dealt == again != other
    assert figures.loads[1] - figures.loads[0] <= 1 and figures.connected
    assert figures.readers == (2 * readers, 2 * raters if common else 2 * readers)
    within = (questions - common) * readers * (readers - 1) / (raters * (raters - 1)) + common
    across = (questions - common) * (readers / raters) ** 2 + common
    assert figures.shared[0] >= min(within, across) - 1.5 and figures.shared[1] <= max(within, across) + 1.5


def test_a_rater_sees_every_arm_of_a_question_far_apart_and_no_arm_always_first():
    plan = planned()
    items = {one.id: one for one in plan.items}
    for rater in plan.raters:
        places = {}
        for place, id in enumerate(rater.items): places.setdefault(items[id].prompt_id, []).append(place)
        half = len(places) // 2
        assert all(len(two) == 2 and two[1] - two[0] >= half for two in places.values())
        first = [items[id].arm for id in rater.items[:len(places)]]
        assert abs(first.count("base") - first.count("hidden-arm")) <= 1


def test_a_pack_holds_no_arm_and_asks_for_nothing(tmp_path):
    plan = planned(6, {"safety": ["s1", "s2"]})
    packs, notes = pack_study(plan, tmp_path)
    texts = [path.read_text() for pack in packs for path in pack.iterdir()]
    assert len(texts) == 8 and not any("hidden-arm" in text or '"arm"' in text for text in texts)
    assert not any(word in text for text in texts for word in ("http://", "https://", "fetch(", "XMLHttpRequest"))
    assert "texts/consent.md still holds" in notes[0]
    data = page_data(plan, "s1", {"instructions": "# </script><script>", "consent": "x"}, read_practice())
    page = rater_page(data)
    assert page.count("<script") == 2 and "default-src 'none'" in page
    held = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert held == json.loads(json.dumps(data)) and text_blocks("*a* b\nc") == [("p", "a b c")]


def test_a_notebook_keeps_what_is_said_beside_it_and_goes_on(tmp_path):
    plan = planned(6, {"safety": ["s1", "s2"]})
    packs, _ = pack_study(plan, tmp_path)
    widget = rating_widget(packs[0])
    assert widget.state is None and widget.data["rater"] == "s1"
    widget.state = {"agreed": "now", "session": "x", "practice": {}, "items": {"i000": {"ratings": {"overall": 4}}}}
    assert rating_widget(packs[0]).state == widget.state
    widget._give(widget, {"give": "a line\n", "name": "../../study-s1.jsonl"}, [])
    assert (packs[0] / "....study-s1.jsonl").read_text() == "a line\n"
    nbformat.validate(nbformat.read(packs[0] / "rate.ipynb", 4))


def test_two_kernels_on_one_folder_keep_what_both_were_told_and_another_plan_is_refused(tmp_path):
    plan = planned(6, {"safety": ["s1", "s2"]})
    (pack, _), _ = pack_study(plan, tmp_path)
    first, second = rating_widget(pack), rating_widget(pack)
    def state(**items): return {"agreed": "now", "session": "x", "practice": {}, "items": {
        id: {"ratings": ratings, "at": at} for id, (at, ratings) in items.items()}}
    first.state = state(i000=("1", {"overall": 4, "harm": 1}), i001=("1", {"overall": 2}))
    second.state = state(i000=("2", {"overall": 5}))
    assert {id: one["ratings"] for id, one in rating_widget(pack).state["items"].items()} == {
        "i000": {"overall": 5, "harm": 1}, "i001": {"overall": 2}}
    assert any("kept.json" in note for note in pack_study(plan, tmp_path)[1])
    pack_study(plan.model_copy(update={"seed": 6}), tmp_path)
    with pytest.raises(InputError, match="ratings of another plan"): rating_widget(pack)


needs_node = pytest.mark.skipif(
    shutil.which("node") is None and os.environ.get("CCAI_BROWSER") != "required",
    reason="no node on PATH (CCAI_BROWSER=required makes this a failure)")


def in_node(code):
    "What code prints that is run behind the page's script."
    script = (Path(experts_page.__file__).with_name("experts.js")).read_text(encoding="utf-8")
    done = subprocess.run([shutil.which("node"), "-"], input=script + code, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


WINDOWS = """
let store = null, writes = 0;
const host = { load: () => JSON.parse(store), keep(state) { store = JSON.stringify(state); writes += 1; } };
const said = (at, ratings) => ({ ratings, note: "", at });
const fresh = (session, items) => ({ agreed: session, session, practice: {}, items });
"""


@needs_node
def test_a_window_that_read_an_empty_store_costs_no_rating():
    items, ratings, writes = in_node(WINDOWS + """
    let one = fresh("1", { a: said("1", { x: 1, y: 2 }), b: said("1", { x: 3 }) });
    let two = fresh("2", { a: said("2", { x: 5 }) });
    host.keep(one);
    host.keep(two); // it had read nothing
    one = together(one, host); two = together(two, host); one = together(one, host);
    const kept = JSON.parse(store);
    const same = JSON.stringify(one) === JSON.stringify(two);
    console.log(JSON.stringify([Object.keys(kept.items), [kept.items.a.ratings, kept.agreed, same], writes]));
    """)
    assert sorted(items) == ["a", "b"] and ratings == [{"x": 5, "y": 2}, "1", True]
    assert writes == 3  # the first window wrote back once, and no window answers another for ever


@needs_node
def test_a_page_reads_what_python_sums_and_leaves_out_lines_that_were_changed():
    plan = planned(6, {"safety": ["s1", "s2"]})
    mine = next(one.items for one in plan.raters if one.name == "s1")
    rows = [row(plan, id, 2) | {"note": "\u00e9 \u2028 \U0001f600"} for id in mine]
    text = saved(plan, "s1", rows).decode().replace('"overall":2', '"overall":5', 1)[:-20]
    data = {"study": plan.study, "digest": plan.digest, "rater": "s1"}
    state, lost, again, refused = in_node(f"""
    const data = {json.dumps(data)}, text = {json.dumps(text)};
    const {{ state, lost }} = imported(data, text);
    let refused = "";
    try {{ imported({{ ...data, rater: "s2" }}, text); }} catch (error) {{ refused = error.message; }}
    console.log(JSON.stringify([state, lost, exported(data, state), refused]));
    """)
    assert lost == 2 and set(state["items"]) == set(mine[1:-1]) and "another study or rater" in refused
    collected, kept = collect_returned(plan, {"a.jsonl": again.encode()})
    assert [one.item for one in kept] == list(mine[1:-1]) and not any(one.edited for one in kept)
    assert {note.fault for note in collected.notes} == {"missing"} and kept[0].note == rows[0]["note"]


@needs_node
def test_a_notebook_model_gets_a_copy_for_it_sends_only_what_differs():
    sent = in_node(experts_page._WIDGET.replace("export default", "const shown =") + """
    let host = null, state = null, sent = 0;
    globalThis.document = { createElement: () => ({ append() {} }) };
    experts = (root, data, its) => { host = its; };
    const same = (one, two) => JSON.stringify(one) === JSON.stringify(two);
    shown.render({ el: { append() {} }, model: { get: (name) => (name === "state" ? state : {}), save_changes() {},
      set(name, value) { if (!same(state, value)) sent += 1; state = value; } } });
    let mine = { agreed: "1", session: "x", practice: {}, items: {} };
    host.keep(mine);
    for (const id of ["a", "b"]) {
      mine.items[id] = { ratings: {}, at: id };
      mine = merged(mine, host.load());
      host.keep(mine);
    }
    console.log(sent);
    """)
    assert sent == 3


def test_hazards_by_name_only_stay_out_and_others_are_covered():
    prompts = {one.id: one for k, hazard in enumerate(["cse", "sxc_prn", "ssh", None, "hte"] * 3)
               if (one := Prompt(text=f"Question {k}?", source="demo", hazard=hazard))}
    answers = [Answer(arm=arm, prompt_id=id, source="demo", text=f"{arm} {id}", model="m")
               for id in prompts for arm in ARMS]
    def kinds(**more):
        return {prompts[one.prompt_id].hazard: one.hazard for one in expert_items(answers, prompts, ARMS, **more)}
    assert kinds(questions=9, hazards=["ssh", "hte", "none"]) == {"ssh": "ssh", "hte": "hte", None: ""}
    with pytest.raises(InputError, match="9 have an answer"): kinds(questions=10)
    assert kinds(questions=3, hazards=["cse"]) == {"cse": "cse"}
    clustered = expert_items(answers, prompts, ARMS, 2, {id: prompts[id].hazard or "x" for id in prompts})
    assert len({prompts[one.prompt_id].hazard for one in clustered}) == 2


def test_a_cluster_of_near_duplicates_is_drawn_as_often_as_a_question_that_stands_alone():
    prompts = {one.id: one for k in range(24) if (one := Prompt(text=f"Question {k}?", source="demo"))}
    answers = [Answer(arm=arm, prompt_id=id, source="demo", text=f"{arm} {id}", model="m")
               for id in prompts for arm in ARMS]
    clusters = {id: f"three {k // 3}" if k < 12 else id for k, id in enumerate(prompts)}  # 4 of three, 12 alone
    drawn = [clusters[one.prompt_id] for seed in range(150) for one in expert_items(answers, prompts, ARMS, 4, clusters,
                                                                                    seed=seed)]
    share = sum(name.startswith("three") for name in drawn) / len(drawn)
    assert share == pytest.approx(4 / 16, abs=0.06)  # standard error 0.018
    for arms, many, match in ((ARMS, 0, "expected 1 or more"), (("base", "base"), 2, "stands twice")):
        with pytest.raises(InputError, match=match): expert_items(answers, prompts, arms, many)


@pytest.mark.parametrize("more, match", [({"readers": 5}, "expected 1 to 4"), ({"common": 99}, "common 99"),
                                         ({"primary": "overal"}, "did you mean 'overall'"),
                                         ({"groups": {"a": ["Ann", "ann"]}}, "more than capitals"),
                                         ({"questions": 1, "groups": {"a": ["x", "y", "z"]}}, "would get no question"),
                                         ({"groups": {}}, "no raters"), ({"groups": {"a": ["x", "x"]}}, "stands twice"),
                                         ({"groups": {"a": ["../x"]}}, "reviewer's name")])
def test_what_no_study_can_be_is_said(more, match):
    with pytest.raises(InputError, match=match): planned(**{"groups": GROUPS, **more})


def test_questions_of_a_file_are_read_or_refused_by_place(write):
    own = write("q.yaml", "questions:\n- {id: a, question: 'How?', anchors: emptiness}\n"
                          "- {id: b, question: 'Why?', low: [x], high: [y]}\n")
    assert [len(one.low) for one in read_expert_questions(own)] == [4, 1]
    for text, match in (("questions:\n- {id: a, question: 'How?', anchors: emptines}\n", "did you mean 'emptiness'"),
                        ("questions:\n- {id: a, question: 'How?'}\n", "question 1: low"),
                        ("a: 1\n", "expected a list")):
        with pytest.raises(InputError, match=match): read_expert_questions(write("w.yaml", text))


def test_a_plan_is_written_once(tmp_path):
    write_experts_plan(planned(), tmp_path)
    write_experts_plan(planned(), tmp_path)
    with pytest.raises(InputError, match="there is a plan already"): write_experts_plan(planned(6), tmp_path)
    assert read_experts_plan(tmp_path) == planned()
    with pytest.raises(InputError, match="ccai experts plan"): read_experts_plan(tmp_path / "no")


def row(plan, item, grade, at="2026-02-01T10:00:00Z"):
    return {"kind": "rating", "item": item, "ratings": {one.id: grade for one in plan.questions}, "at": at}


def saved(plan, rater, rows, session="one", **head):
    head = {"kind": "header", "digest": plan.digest, "rater": rater, "session": session, "lines": len(rows), **head}
    return "".join(summed_line(one, plan.digest, rater) + "\n" for one in (head, *rows)).encode()


def test_whatever_comes_back_is_read_once_and_told(tmp_path):
    plan = planned(6, {"safety": ["s1", "s2", "s3"]}, until="2026-02-28")
    mine = {one.name: one.items for one in plan.raters}
    whole = saved(plan, "s1", [row(plan, id, 4) for id in mine["s1"]])
    changed = saved(plan, "s2", [row(plan, id, 2) for id in mine["s2"]]).replace(b'"overall":2', b'"overall":5', 1)
    foreign_item = next(one.id for one in plan.items if one.id not in mine["s3"])
    files = {"a.jsonl": whole, "copy.jsonl": whole, "torn.jsonl": whole[:-40], "edited.jsonl": changed,
             "other.jsonl": saved(plan, "s1", [row(plan, mine["s1"][0], 1, "2026-03-05T09:00:00Z")], "two"),
             "study.jsonl": saved(plan, "s1", [], digest="0" * 16), "junk.bin": b"\x00\xff\x01", "empty.jsonl": b"",
             "strange.jsonl": saved(plan, "s3", [row(plan, foreign_item, 3), row(plan, mine["s3"][0], 9),
                                                 {"kind": "rating", "item": mine["s3"][1], "ratings": {"taste": 3}},
                                                 {"kind": "rating", "item": ["x"], "ratings": 7}])}
    collected, ratings = collect_returned(plan, files)
    kept = {(one.rater, one.item): one for one in ratings}
    assert len(kept) == len(ratings) == 2 * len(mine["s1"])
    assert kept["s1", mine["s1"][0]].ratings["overall"] == 1 and kept["s1", mine["s1"][0]].late
    assert kept["s1", mine["s1"][1]].ratings["overall"] == 4
    assert [one.item for one in ratings if one.edited] == [mine["s2"][0]]
    told = {fault: [note.words for note in collected.notes if note.fault == fault] for fault in
            ("missing", "doubled", "late", "edited", "foreign", "damaged")}
    assert [len(words) for words in told.values()] == [1, 3, 1, 1, 1, 8], told
    assert "s3: nothing came back" in told["missing"] and "study.jsonl" in told["foreign"][0]
    assert any("was not given to s3" in words for words in told["damaged"])
    assert collect_returned(plan, dict(reversed(files.items()))) == (collected, ratings)
    with pytest.raises(InputError, match="no rating by 'overall' counts"): analyse_ratings(plan, [])


def test_a_lost_first_line_is_found_out_and_kept_files_are_read_again(tmp_path):
    plan = planned(6, {"safety": ["s1", "s2"]})
    mine = next(one.items for one in plan.raters if one.name == "s2")
    (tmp_path / "in").mkdir()
    whole = saved(plan, "s2", [row(plan, id, 3) for id in mine])
    (tmp_path / "in" / "x.jsonl").write_bytes(whole.split(b"\n", 1)[1].replace(b"\n", b"\r\n"))
    first = collect_study(plan, tmp_path, [tmp_path / "in"])
    assert first.rated == {"s1": (0, len(mine)), "s2": (len(mine), len(mine))}
    assert any("its first line is lost" in note.words for note in first.notes)
    assert collect_study(plan, tmp_path) == first == collect_study(plan, tmp_path, [tmp_path / "in" / "x.jsonl"])
    with pytest.raises(InputError, match="not there"): collect_study(plan, tmp_path, [tmp_path / "gone.jsonl"])
    with pytest.raises(InputError, match="collected for another plan"):
        analyse_study(plan.model_copy(update={"seed": 6}), tmp_path)


@pytest.mark.parametrize("ratings", [7, True, None, "abc", [[1]], [{}], {"overall": []}])
def test_a_line_of_any_shape_costs_itself(ratings):
    plan = planned(6, {"safety": ["s1", "s2"]})
    one, two, *_ = next(rater.items for rater in plan.raters if rater.name == "s1")
    strange = {"kind": "rating", "item": one, "ratings": ratings}
    collected, kept = collect_returned(plan, {"a.jsonl": saved(plan, "s1", [strange, row(plan, two, 3)])})
    assert [each.item for each in kept] == [two]
    assert [note.fault for note in collected.notes] == ["damaged", "missing", "missing"]


def test_an_item_that_was_only_opened_is_not_rated_and_takes_nothing_back():
    plan = planned(6, {"safety": ["s1", "s2"]})
    one, two, *_ = next(rater.items for rater in plan.raters if rater.name == "s1")
    opened = [row(plan, id, 1, "2026-02-09T10:00:00Z") | {"ratings": {}, "uncovered": True} for id in (one, two)]
    changed = row(plan, two, 4, "2026-02-10T10:00:00Z") | {"ratings": {"overall": None}}
    collected, _ = collect_returned(plan, {"a.jsonl": saved(plan, "s1", opened)})
    assert collected.rated["s1"][0] == 0 and any("12 of 12 items are not rated" in each.words
                                                 for each in collected.notes)
    collected, kept = collect_returned(plan, {"a.jsonl": saved(plan, "s1", [row(plan, id, 2) for id in (one, two)]),
                                              "b.jsonl": saved(plan, "s1", opened, "two"),
                                              "c.jsonl": saved(plan, "s1", [changed], "two")})
    assert collected.rated["s1"][0] == 2 and set(kept[0].ratings.values()) == {2}
    assert kept[1].ratings == {each.id: None if each.id == "overall" else 2 for each in plan.questions}


def test_what_a_program_drew_is_never_told_as_peoples_word():
    plan = planned(6, {"safety": ["s1", "s2", "s3"]})
    _, drawn = collect_returned(plan, simulated_files(plan, SimulatedExperts()))
    assert analyse_ratings(plan, drawn, resamples=5).simulated == "drawn by a program"
    with pytest.raises(InputError, match="of simulated raters"):
        analyse_ratings(plan, [drawn[0].model_copy(update={"session": "x"}), *drawn[1:]])


def test_raters_whom_no_answer_compares_are_not_said_to_be_strict():
    plan = planned()
    items, (one, two, *_) = {each.id: each.prompt_id for each in plan.items}, plan.raters
    _, ratings = collect_returned(plan, simulated_files(plan, SimulatedExperts()))
    asked = {items[id] for id in one.items}
    apart = [each for each in ratings if each.rater == one.name
             or (each.rater == two.name and items[each.item] not in asked)]
    assert {each.leniency for each in severities(plan, apart)} == {None}


def test_a_next_round_is_reckoned_from_the_ratings_that_came():
    plan = planned()
    _, ratings = collect_returned(plan, simulated_files(plan, SimulatedExperts()))
    some = [one for one in ratings if one.rater in ("p1", "p2", "s1")]
    first = analyse_ratings(plan, some, resamples=5).rounds[0]
    assert (first.raters, first.readers) == (3, 2)  # 4 of each question were planned


@pytest.mark.long
def test_simulated_raters_of_known_bias_and_noise_are_recovered():
    groups = {"practice": [f"p{k}" for k in range(6)], "safety": [f"s{k}" for k in range(6)]}
    plan = planned(48, groups, readers=3)
    model = SimulatedExperts({"hidden-arm": 0.4}, {("practice", "hidden-arm"): 0.4}, strictness=0.5, taste=0.1,
                             quality=0.3, noise=0.5, middle=2.7)  # far from the ends, which would cut effects off
    _, ratings = collect_returned(plan, simulated_files(plan, model, seed=2))
    strict = simulated_strictness(plan, model, 2)
    centre = sum(strict.values()) / len(strict)
    for one in severities(plan, ratings): assert one.leniency == pytest.approx(strict[one.rater] - centre, abs=0.3)
    analysis = analyse_ratings(plan, ratings, difference=0.3, simulated=model.words, resamples=40)
    primary, *by_group = [one for one in analysis.contrasts if one.role != "secondary"]
    assert primary.estimate.low < 0.6 < primary.estimate.high and primary.p_holm < 0.01 and primary.ordinal.low > 0
    assert [one.estimate.low < true < one.estimate.high for one, true in zip(by_group, (0.8, 0.4))] == [True, True]
    expected = 2 * 0.5 ** 2 + 2 / 12  # the noise of two ratings, and of cutting both to whole steps
    assert primary.estimate.parts.rest == pytest.approx(expected, rel=0.25)
    assert len(analysis.agreement) == 6 * 3 and all(0 < one.alpha.value < 1 for one in analysis.agreement)
    assert analysis.rounds[0].power > 0.5 and analysis.rounds[-1].shows < analysis.rounds[0].shows


@pytest.mark.long
def test_where_arms_are_alike_one_simulated_study_in_twenty_says_otherwise():
    "Whole files each time, cut to five steps, some skipped. Of 80 about 4 are expected; 10 and more come once in 150."
    plan = planned(14, {"all": [f"r{k}" for k in range(6)]}, readers=3)
    model = SimulatedExperts(taste=0.3, skips=0.05)
    alarms = 0
    for seed in range(80):
        _, ratings = collect_returned(plan, simulated_files(plan, model, seed))
        one = arm_contrast(plan, ratings, "overall", "hidden-arm", "primary", ordinal=False)
        alarms += one.estimate.p < 0.05
    assert alarms < 10
