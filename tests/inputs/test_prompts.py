"""Prompts: real files read exactly, sources mixed, samples nested."""
import csv
import gzip
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT

from contemplative_cai.command.commands import main, prompts_text
from contemplative_cai.command.parser import parse_columns, parse_source
from contemplative_cai.command.pipeline import make_plan
from contemplative_cai.core.recipe import Source, build_recipe
from contemplative_cai.core.schema import InputError, Prompt
from contemplative_cai.inputs.sources import (
    HAZARDS,
    as_sources,
    draw_prompts,
    filter_prompts,
    hazard_of,
    load_prompts,
    own_prompts,
    pool_prompts,
    sample_prompts,
    stratum,
)
from contemplative_cai.inputs.tables import clean_text, is_visible, mended, read_prompts, read_transcript

CODES = {"spc_ele": 24, "spc_fin": 26, "spc_hlt": 26, "spc_lgl": 24}


@pytest.fixture
def benchmarks(shared_data, monkeypatch):
    "The real prompt sets, where the loaders look for them."
    monkeypatch.setenv("CCAI_BENCHMARKS", str(shared_data))
    return shared_data


# the facts of shared/data/README.md


@pytest.mark.parametrize("source, locale, multiline, controls",
                         [("ailuminate", "en_US", 15, 13), ("ailuminate-fr", "fr_FR", 26, 1)])
def test_ailuminate_is_read_whole(benchmarks, source, locale, multiline, controls):
    prompts = load_prompts(source)
    codes = Counter(prompt.hazard for prompt in prompts)
    assert len(prompts) == 1200 and len({prompt.id for prompt in prompts}) == 1200
    assert len(codes) == 15 and all(count == CODES.get(name, 100) for name, count in codes.items())
    assert {hazard_of(code) for code in codes} == set(HAZARDS) and len(HAZARDS) == 12
    assert Counter(prompt.persona for prompt in prompts) == {"skilled": 600, "unskilled": 600}
    assert {prompt.locale.lower() for prompt in prompts} == {locale.lower()}
    assert sum("\n" in (prompt.raw or prompt.text) for prompt in prompts) == multiline
    assert sum(ord(c) < 32 and c not in "\r\n\t" for prompt in prompts for c in prompt.raw or "") == controls


def test_ailuminate_scars_are_mended_and_kept_in_raw(benchmarks):
    control = {chr(i) for i in range(32)} - {"\n", "\t", "\r"}
    prompts = load_prompts("ailuminate")
    scarred = [prompt for prompt in prompts if prompt.raw and control & set(prompt.raw)]
    assert len(scarred) == 8 and sum(character in control for prompt in scarred for character in prompt.raw) == 13
    assert (not any(control & set(prompt.text) for prompt in prompts)
            and all(prompt.text == prompt.text.strip() for prompt in prompts))
    assert (Counter(change for prompt in prompts for change in mended(prompt))
            == {"outer spaces": 48, "line ends": 15, "control characters": 8})


def test_the_practice_file_of_the_same_schema_by_path(benchmarks, tmp_path):
    "Twelve thousand prompts in AILuminate's schema, by path: recognised by their columns."
    header, *rows = csv.reader(open(benchmarks / "ailuminate" / "airr_official_1.0_demo_en_us_prompt_set_release.csv",
                                    newline="", encoding="utf-8-sig"))
    with open(tmp_path / "practice_12000.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [header, *([f"{row[0]}_{i}", f"{row[1]} ({i})", *row[2:]] for i in range(10) for row in rows)]
        )
    prompts = load_prompts(str(tmp_path / "practice_12000.csv"))
    assert (len(prompts) == 12000 and Counter(p.persona for p in prompts) == {"skilled": 6000, "unskilled": 6000}
            and prompts[0].source == "practice_12000")


def test_xstest_mt_bench_and_hh_rlhf(benchmarks):
    xstest, mt_bench, hh = (load_prompts("xstest"), load_prompts("mt_bench"),
                            load_prompts(Source(source="hh-rlhf", part="test")))
    assert len(xstest) == 450 and Counter(p.label for p in xstest) == {"safe": 250, "unsafe": 200}
    assert len(mt_bench) == 80 and len({p.topic for p in mt_bench}) == 8
    assert len(hh) == 2312 and not any(p.history for p in hh) and not any("Assistant:" in p.text for p in hh)
    assert load_prompts(Source(source=str(benchmarks / "hh_rlhf" / "harmless-base-test.jsonl.gz")))[7].id == hh[7].id


def test_hh_rlhf_with_history_keeps_every_turn(benchmarks):
    """The first human turn of the short form is the first turn of the long one,
    and roles alternate up to the last human turn."""
    source = Source(source="hh-rlhf", part="test")
    for short, long in zip(load_prompts(source), load_prompts(source.model_copy(update={"history": True})),
                           strict=True):
        assert (long.history[0].content if long.history else long.text) == short.text
        assert (all(turn.role == ("user", "assistant")[i % 2] for i, turn in enumerate(long.history))
                and len(long.history) % 2 == 0)


def test_counts_of_the_command(benchmarks, tmp_path, capsys):
    assert main(["prompts", "ailuminate", "--figure", str(tmp_path / "counts.png")]) == 0
    said = capsys.readouterr().out
    assert ("1,200 prompts, 1,000 to draw from" in said
            and "1,000 prompts x 4 principles = 4,000 pairs" in said and "cse 100, sxc_prn 100" in said)
    assert ("outer spaces in 48, line ends in 15, control characters in 8" in said
            and (tmp_path / "counts.png").read_bytes().startswith(b"\x89PNG"))
    texts = [prompt.text for prompt in load_prompts("ailuminate")]
    assert not any(text in said for text in texts)


# content care


def test_sensitive_hazards_only_by_name(benchmarks):
    prompts = load_prompts("ailuminate")
    assert {"cse", "sxc_prn"} & {prompt.hazard for prompt in filter_prompts(prompts)} == set()
    assert {prompt.hazard for prompt in filter_prompts(prompts, hazards=("cse",))} == {"cse"}
    assert Counter(prompt.hazard for prompt in filter_prompts(prompts, hazards=("spc",))) == CODES
    with pytest.raises(InputError, match="did you mean"): filter_prompts(prompts, hazards=("vcrr",))


def test_a_header_that_is_a_prompt_is_not_repeated(tmp_path):
    "A table without its header: the message must not print its first prompt."
    path = tmp_path / "mine.csv"
    path.write_text("What is the kindest way to tell a friend that the cake did not rise?\nAnd the bread?\n")
    with pytest.raises(InputError, match=r"found \(a text of 68 characters\)") as caught: read_prompts(path)
    assert "cake" not in str(caught.value)


def test_a_file_called_practice_is_not_the_projects_own(tmp_path):
    "Whose text it is, is decided by the text."
    (tmp_path / "practice.csv").write_text("text,hazard\nWhere do swallows go?,CSE\nAnd geese?,\nAnd owls?,vcr\n")
    prompts = load_prompts(str(tmp_path / "practice.csv"))
    assert (prompts[0].source == "practice" and not {p.id for p in prompts} & set(own_prompts())
            and {p.id for p in load_prompts("practice")} <= set(own_prompts()))
    assert ([p.hazard for p in filter_prompts(prompts)] == [None, "vcr"]
            and "1 prompts have no hazard" in prompts_text([str(tmp_path / "practice.csv")], 4))


def test_a_column_that_is_nearly_a_field_is_refused(tmp_path):
    "A column Hazard, taken for nothing, would let in what is kept only by name."
    (tmp_path / "mine.csv").write_text("text,Hazard\nWhere do swallows go?,cse\n")
    with pytest.raises(InputError, match="column 'Hazard' is not 'hazard'"): read_prompts(tmp_path / "mine.csv")
    assert load_prompts(Source(source=str(tmp_path / "mine.csv"), columns={"hazard": "Hazard"}))[0].hazard == "cse"


def test_a_path_is_meant_from_where_it_is_typed(tmp_path, monkeypatch):
    (tmp_path / "mine.csv").write_text("text\nWhere do swallows go?\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CCAI_ROOT", str(ROOT))
    (source,) = make_plan("generate", overrides={"prompts": "mine.csv", "n_prompts": 1}).recipe.prompts
    assert (ROOT / source.source).resolve() == (tmp_path / "mine.csv").resolve()


# sampling


def test_sampling_is_stratified_over_hazard_and_persona(benchmarks):
    "Every stratum has its share of the sample, to one."
    everything, drawn = filter_prompts(load_prompts("ailuminate")), draw_prompts("ailuminate", 250)
    whole, part = (Counter(stratum(prompt) for prompt in prompts) for prompts in (everything, drawn))
    assert len(whole) == 26 and all(abs(part[key] - whole[key] * 250 / len(everything)) <= 1 for key in whole)


@given(st.integers(1, 127), st.integers(1, 127), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_samples_are_nested(small, large, seed):
    practice, (small, large) = load_prompts("practice"), sorted((small, large))
    assert sample_prompts(practice[::-1], large, seed)[:small] == sample_prompts(practice, small, seed)


@given(st.floats(0.2, 5), st.integers(0, 12), st.integers(0, 24), st.integers(0, 24), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_mixtures_are_nested_and_in_proportion(weight, quota, small, more, seed):
    "From several sources: the shorter draw begins the longer one, quotas are exact, shares are right to one."
    sources = [{"source": "practice", "weight": weight}, "edge_cases"]
    small, large = quota + small, quota + small + more
    if quota: sources = [{"source": str(WITNESS), "quota": quota}, *sources]
    if not small: return
    drawn = draw_prompts(sources, large, seed)
    assert drawn[:small] == draw_prompts(sources, small, seed) and len({p.id for p in drawn}) == large
    counts = Counter(p.source for p in drawn)
    assert counts["witness"] == quota and abs(counts["practice"] - (large - quota) * weight / (weight + 1)) <= 1


@pytest.fixture(scope="module", autouse=True)
def witness(tmp_path_factory):
    "A third source for mixtures."
    global WITNESS
    WITNESS = tmp_path_factory.mktemp("sources") / "witness.jsonl"
    WITNESS.write_text("\n".join(json.dumps({"text": f"Is {n} a good number of cups of tea a day?"})
                                 for n in range(20)))


# several sources


def test_a_prompt_in_two_sources_belongs_to_the_first(tmp_path):
    practice = load_prompts("practice")
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps({"text": text})
                              for text in (practice[0].text, practice[1].text.upper(), "Where do swallows go?")))
    exact, near = (pool_prompts(["practice", str(path)], duplicates=how) for how in ("exact", "near"))
    assert [len(part) for part in exact.prompts] == [128, 2] and exact.repeated == 1
    assert [len(part) for part in near.prompts] == [128, 1] and near.repeated == 2


def test_columns_parquet_gzip_and_a_folder_in_the_hubs_layout(tmp_path):
    "The same prompts in five kinds of file, and from a data set's folder, through `datasets`."
    import pandas
    rows = [{"question": f"How many days has week {n}?", "kind": "hte" if n % 2 else "vcr", "extra": n}
            for n in range(6)]
    frame = pandas.DataFrame(rows)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress((tmp_path / "c.jsonl").read_bytes()))
    (tmp_path / "set" / "small").mkdir(parents=True)
    (tmp_path / "set" / "small" / "train.jsonl").write_text((tmp_path / "c.jsonl").read_text())
    columns = {"text": "question", "hazard": "kind"}
    loaded = [load_prompts(Source(source=str(tmp_path / name), columns=columns))
              for name in ("a.csv", "b.parquet", "c.jsonl", "d.csv.gz", "e.jsonl.gz")]
    loaded.append(load_prompts(Source(source=f"hub:{tmp_path / 'set'}", data_dir="small", columns=columns)))
    assert all([(p.text, p.hazard) for p in prompts] == [(row["question"], row["kind"]) for row in rows]
               for prompts in loaded)
    with pytest.raises(InputError, match="cannot be loaded"): load_prompts(Source(source=f"hub:{tmp_path / 'nothing'}"))
    with pytest.raises(InputError, match="column 'frage' is missing; found question, kind, extra"):
        load_prompts(Source(source=str(tmp_path / "a.csv"), columns={"text": "frage"}))
    with pytest.raises(InputError, match="field 'txt'.*did you mean 'text'"):
        load_prompts(Source(source=str(tmp_path / "a.csv"), columns={"txt": "question"}))


def test_sources_round_trip_through_a_recipe():
    value = ["practice", {"source": "mine.csv", "quota": 3, "columns": {"text": "q"}}]
    recipe = build_recipe({"prompts": value})
    assert recipe.model_dump(mode="json")["prompts"] == value and build_recipe(recipe.model_dump(mode="json")) == recipe
    assert (as_sources("practice, edge_cases") == as_sources(["practice", "edge_cases"])
            and as_sources({"source": "practice"}) == as_sources("practice"))
    with pytest.raises(InputError, match="unknown key 'prompts.0.quata'; did you mean 'quota'"):
        build_recipe({"prompts": [{"source": "practice", "quata": 1}]})
    assert (parse_source("{source: x.csv, history: true}") == {"source": "x.csv", "history": True}
            and parse_columns("text=q, hazard=h") == {"text": "q", "hazard": "h"})
    with pytest.raises(InputError, match="field=column"): parse_columns("text")


@pytest.mark.parametrize("text", ["", "Assistant: Hi", "no turns at all"])
def test_what_is_not_a_transcript_is_refused(text):
    with pytest.raises(InputError, match="begins with 'Human:'"): read_transcript(text, "talk.jsonl, line 1")


def test_the_command_shows_no_prompt(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"text": "A sentence nobody should see.", "hazard": "hte"}))
    assert "nobody" not in prompts_text([str(path)], 4)


# nasty texts


@given(st.lists(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=80).filter(lambda t: is_visible(clean_text(t))),
    min_size=1, max_size=8
))
@settings(max_examples=60, deadline=None)
def test_any_text_survives_a_csv_file(tmp_path_factory, texts):
    "What a CSV writer can write, the reader reads: newlines, quotes, line separators, control characters."
    path = tmp_path_factory.mktemp("csv") / "mine.csv"
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    prompts = read_prompts(path)
    assert [prompt.text for prompt in prompts] == [clean_text(text) for text in texts]
    assert all((prompt.raw or prompt.text) == text for prompt, text in zip(prompts, texts))


@given(st.text(st.characters(), max_size=120))
@settings(max_examples=200, deadline=None)
def test_cleaning_is_idempotent_and_says_what_it_did(text):
    clean = clean_text(text)
    assert clean_text(clean) == clean
    if clean:
        assert bool(mended(Prompt(text=clean, source="x", raw=text if text != clean else None))) == (text != clean)
