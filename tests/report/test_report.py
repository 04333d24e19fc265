"""The report and the comparison of runs: everything escaped,
nothing from outside, no number that is not in a file, and no claim by a judge below the bar."""
import functools
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from contemplative_cai.command.commands import main
from contemplative_cai.core.files import read_json, read_record, write_json, write_rows
from contemplative_cai.core.journal import Ledger
from contemplative_cai.core.recipe import build_recipe
from contemplative_cai.core.run import open_run
from contemplative_cai.core.schema import Answer, InputError, Verdict
from contemplative_cai.evaluation.calibration import Calibration
from contemplative_cai.evaluation.claims import (
    all_comparisons,
    breakdowns,
    columns,
    declaration,
    judges_agree,
    level,
    weights_table,
)
from contemplative_cai.evaluation.questions import Item
from contemplative_cai.inputs.rubrics import load_rubric
from contemplative_cai.inputs.sources import own_prompts
from contemplative_cai.measure.bar import Figure, Measured
from contemplative_cai.measure.stats import estimate_accuracy
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.report.card import _card_head, _shown_value
from contemplative_cai.report.compare import (
    compare_runs,
    costs,
    differences_of,
    scaling_rows,
    seconds_in_all,
    stage_of,
    write_comparison,
)
from contemplative_cai.report.limits import limits
from contemplative_cai.report.page import CAVEAT, Headline
from contemplative_cai.report.report import report_page, side_by_side, write_report
from contemplative_cai.report.sheet import SCRIPT, page_policy
from contemplative_cai.report.summary import collect, headline

BAD = "<script>alert('x')</script><img src=http://example.org/a.png> ![p](http://example.org/b.png)"
ARMS = ("base", "prompted", "dpo")
JUDGE, SECOND = "logit judge@1 abc", "generative other@1 def"
PER_ARM = {"base": 0.6, "prompted": 0.4, "dpo": 0.15}  # share of yes to what is bad
SAFETY, PRINCIPLES = ([c.id for c in load_rubric("safety").criteria],
                      ["emptiness", "non_duality", "boundless_care", "mindfulness"])


def measured(name, good):
    value = Figure(value=0.95 if good else 0.5, low=0.4, high=1.0)
    return Measured(criterion=name, n=40, yes=20, no=20, prompts=20, auc_direct=value, auc_turned=value,
                    flip_rate=Figure(value=0.0), kappa=value, unscored=Figure(value=0.0), unread=0.0, auc_length=0.5)


def calibration(judge, good):
    return Calibration(judge=judge, rubric="safety@1", answers="labels",
                       criteria=tuple(measured(name, good) for name in (*SAFETY, *PRINCIPLES, "over_refusal")))


def verdicts(items):
    "Of two judges and of rules; one answer in ten is unscored."
    opinions = []
    def say(judge, arm, id, criterion, value):
        opinions.append(Verdict(arm=arm, prompt_id=id, criterion=criterion, value=value,
                            reason="" if value is not None else "unread", judge=judge, rubric="r@1"))
    for arm in ARMS:
        for n, item in enumerate(items):
            for name in {"safety": SAFETY, "safe": ["over_refusal"], "contemplative": PRINCIPLES}[item.set]:
                bad = float((n * 7 + len(name)) % 20 / 20 < PER_ARM[arm])
                for judge in (JUDGE, SECOND):
                    say(judge, arm, item.prompt_id, name,
                        (None if (n + len(name) + len(arm)) % 10 == 0 and item.set == "safety"
                         else bad if name in ("violation", "harmfulness", "over_refusal") else 1 - bad))
            say("detector@1", arm, item.prompt_id, "refusal", float(n % 9 == 0 and arm == "dpo"))
            say("style@1", arm, item.prompt_id, "words", 20.0 + n % 5)
    return opinions


@functools.cache
def numbers(calibrated):
    "Metrics, calibrations and items of an evaluation with opinions-up verdicts."
    recipe = build_recipe({"resamples": 100, "eval_arms": ",".join(ARMS),
                           "secondary_outcomes": "refusal,composite,emptiness"})
    own = list(own_prompts())
    items = [Item(set=name, prompt_id=f"{name}{i}" if name != "contemplative" else own[i], cluster=f"{name}{i}",
                  source={"safety": "ailuminate", "safe": "xstest"}.get(name, "practice"),
                  hazard="vcr" if name == "safety" and i % 2 else "hte" if name == "safety" else None,
                  persona="skilled" if name == "safety" else None)
             for name, n in (("safety", 40), ("safe", 30), ("contemplative", 12)) for i in range(n)]
    clusters, declared, opinions, calibrations = (
        {item.prompt_id: item.cluster for item in items}, declaration(recipe, "dpo"), verdicts(items),
        [calibration(JUDGE, calibrated), calibration(SECOND, calibrated),
         Calibration(judge="detector@1", rubric="surface@1", answers="labels", criteria=(measured("refusal", True),))]
    )
    seen = columns(opinions, items, calibrations)
    reward = estimate_accuracy([1.0] * 10 + [0.0] * 2, [f"p{i}" for i in range(12)]).model_dump()
    metrics = {
        "prompts": len(items),
        "attempts": 0,
        "declared": declared.model_dump(),
        "trained": "dpo",
        "arms": ARMS,
        "margin": 0.05,
        "samples": 1,
        "judges": ["logits", "reasoned"],
        "detectable": 0.4,
        "written": "2026-01-01T00:00:00+00:00",
        "earlier": [],
        "unknown_training": [],
        "humans": [],
        "sets": {name: {"prompts": sum(item.set == name for item in items), "left_out": [],
                        "note": "" if name != "helpful" else "not asked for"}
                 for name in ("contemplative", "safety", "safe", "unsafe", "helpful", "robustness")},
        "probed": [{"arm": arm, "key": "tiny@1" + ("+abc" if arm == "dpo" else ""), "system": None, "nats": 0.1,
                    "note": ""}
                   for arm in ARMS],
        "seats": [{"name": "logits", "judge": JUDGE, "disclosed": ["The judge is of the same family as the critic."]},
                  {"name": "reasoned", "judge": SECOND, "disclosed": []}],
        "preference": ({name: reward for name in ("reward", "length_rule", "bag_of_words")}
                       | {"likelihood": {"base": 0.4, "tuned": 0.6, "difference": reward}}),
        "levels": [level(column, arm, clusters, 100).model_dump()
                   for column in seen for arm in ARMS if arm in column.values],
        "comparisons": [c.model_dump() for c in all_comparisons(seen, ARMS, "dpo", declared, clusters, 0.05, 100)],
        "breakdowns": [c.model_dump() for c in breakdowns(seen, items, ("dpo", "base"), clusters, 100)],
        "weights": [w.model_dump() for w in weights_table(opinions, calibrations, ("dpo", "base"), clusters, 100)],
        "agreement": [row.model_dump() for row in judges_agree(seen, 50)],
        "robustness": [],
        "cooperation": [],
        "openings": [],
    }
    return metrics, calibrations, items


def evaluate_by_hand(run, calibrated=True, **changes):
    "Write what an evaluation writes."
    metrics, calibrations, items = numbers(calibrated)
    write_json(run.path("metrics.json"), metrics | changes)
    write_json(run.path("calibration.json"), [one.model_dump(mode="json") for one in calibrations])
    write_json(run.path("arms.json"),
               [{"name": arm, "description": BAD, "system": None, "adapter": None, "model": None} for arm in ARMS])
    write_rows(run.path("items.jsonl"), items)
    write_rows(run.path("answers.jsonl"), [
        Answer(arm=arm, prompt_id=item.prompt_id, source=item.source, text=f"{BAD} {arm}", model="tiny@1")
        for item in items for arm in ARMS
    ])
    return metrics


def trained_by_hand(run, adapter="abc"):
    "What training leaves behind."
    run.path("dpo").mkdir(exist_ok=True)
    write_json(run.path("dpo", "training.json"), {"status": "done", "stage": "dpo", "pairs": 9, "helpful": 0,
                                                  "digest": "abc", "prompts": ["a", "b"],
                                                  "loss_first": 0.693, "loss_last": 0.4,
                                                  "steps": 4, "adapter": adapter, "tokens": 900.0, "peak_mb": 700})
    run.record(trained="dpo", model="tiny@1/float32",
               recipe=build_recipe({"model": "random-tiny"}).model_dump(mode="json"), seed=0,
               constitution="contemplative@1")


@pytest.fixture(autouse=True)
def drawn(request, monkeypatch):
    "Figures are made but not painted, which is most of the time; where a test asks for `painted`, they are."
    if "painted" not in request.fixturenames:
        monkeypatch.setattr("contemplative_cai.report.page.png", lambda figure: b"a picture")


@pytest.fixture
def painted(): pass


@pytest.fixture
def generated(scripted):
    "A run that has generated."
    run = open_run("demo")
    generate_pairs(run, build_recipe({"n_prompts": 4, "filters": "empty"}), scripted)
    return run


@pytest.fixture
def evaluated(generated):
    trained_by_hand(generated)
    evaluate_by_hand(generated)
    return generated


class Seen(HTMLParser):
    "Tags, and whatever a browser would fetch."

    def __init__(self, page):
        super().__init__()
        self.tags, self.fetched = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.fetched += [value
                         for name, value in attributes if name in ("src", "href", "srcset", "data", "action", "poster")]


def written(run, **options):
    page = write_report(run, **options).read_text()
    return page, run.path("report.md").read_text()


def assert_harmless(page, markdown):
    seen = Seen(page)
    assert page.count("<script>") == 1 and f"<script>{SCRIPT}</script></body>" in page
    assert page_policy() in html.unescape(page)
    assert (not seen.tags & {"iframe", "link", "object", "form", "base"}
            and all(value.startswith(("data:image/png;base64,", "#")) for value in seen.fetched))
    assert ("<script " not in page and "url(" not in page and "@import" not in page
            and not re.search(r"<(?!-)[a-z/!]", markdown) and "](http" not in markdown)


def test_what_models_and_files_say_is_escaped_and_nothing_comes_from_outside(generated):
    trained_by_hand(generated)
    sets = evaluate_by_hand(generated)["sets"]
    evaluate_by_hand(generated, sets=sets | {"helpful": {"prompts": 0, "left_out": [], "note": BAD}},
                     unknown_training=["prompted"], seats=[{"name": BAD, "judge": JUDGE, "disclosed": [BAD]}])
    generated.record(model=f"{BAD}@1", constitution=BAD)
    page, markdown = written(generated, show_text=True)
    assert_harmless(page, markdown)
    assert ("&lt;script&gt;" in page and "nobody can tell" in page
            and "nothing says what that arm was trained on" in page)


@pytest.mark.parametrize("step", ["generated", "trained", "evaluated"])
def test_every_stage_of_a_run_has_a_report(generated, step):
    if step != "generated": trained_by_hand(generated)
    if step == "evaluated": evaluate_by_hand(generated)
    page, markdown = written(generated)
    cards = {one.what: one.number for one in headline(collect(generated))}
    cut = ["Answers cut at the token limit"] if step == "evaluated" else []
    assert (list(cards) == ["Trained", "Primary outcome", "Over-refusal", *cut, "Capability", "Pairs kept",
                            "Pairs that mend", "Held-out preference"]
            and cards["Capability"] == "not measured" and [cards[name] for name in cut] == ["not recorded"] * len(cut))
    assert ((cards["Trained"] == "not yet") == (step == "generated")
            and (cards["Primary outcome"] == "not yet") == (step != "evaluated"))
    assert (("Declared claims" in page) == (step == "evaluated") == ("### Declared claims" in markdown)
            and "What this run does not show" in page)
    assert tuple(headline(collect(generated))) == read_record(generated.path("headline.json"), Headline).figures


def test_every_number_of_the_headline_is_in_the_metrics(evaluated):
    cards = {one.what: one for one in headline(collect(evaluated))}
    numbers = []
    def walk(value):
        if isinstance(value, dict | list): [walk(one) for one in (value.values() if isinstance(value, dict) else value)]
        elif isinstance(value, int | float): numbers.append(value)
    walk(read_json(evaluated.path("metrics.json")))
    for what in ("Primary outcome", "Over-refusal", "Held-out preference"):
        card_text = (f"{cards[what].number} {cards[what].basis}".replace("−", "-")
                .replace("< 0.001", "").replace("0.50 before", ""))
        for text in re.findall(r"(?<![\w.])[-+]?\d+(?:\.\d+)?", card_text):
            digits = len(text.partition(".")[2])
            assert any(abs(round(abs(value), digits) - abs(float(text))) < 1e-9 for value in numbers), (what, text)
    assert ("DEMO set by judge logits, unofficial" in cards["Primary outcome"].basis
            and "metrics.json" in cards["Primary outcome"].source)


@pytest.mark.parametrize("outcome, cards", [("violation", ["Over-refusal"]), ("refusal", ["Safety"]),
                                            ("words", ["Safety", "Over-refusal"])])
def test_safety_and_over_refusal_are_in_the_headline_whatever_is_primary(evaluated, outcome, cards):
    metrics = read_json(evaluated.path("metrics.json"))
    write_json(evaluated.path("metrics.json"),
               metrics | {"declared": metrics["declared"] | {"primary": f"{outcome}: dpo - base"}})
    figures = headline(collect(evaluated))
    assert ([one.what for one in figures]
            == ["Trained", "Primary outcome", *cards, "Answers cut at the token limit", "Capability", "Pairs kept",
                "Pairs that mend",
                "Held-out preference"])
    assert all("DEMO set" in one.basis for one in figures if one.what == "Safety")


def test_each_table_and_figure_names_its_file(evaluated):
    from contemplative_cai.pairs.health import health
    page = report_page(collect(evaluated), health(collect(evaluated).kept))
    parts = [part for section in page.sections for part in section.parts if hasattr(part, "source")]
    assert (len(parts) > 25 and all(re.search(r"\.(json|jsonl|yaml)", part.source) for part in parts)
            and all(part.alt for part in parts if hasattr(part, "alt")))


def test_a_judge_below_the_bar_gets_its_banner_no_p_and_no_composite(generated):
    trained_by_hand(generated)
    shown = {}
    for good in (True, False):
        evaluate_by_hand(generated, good)
        shown[good] = written(generated)
    for page, markdown in [shown[False]]:
        assert page.count("UNCALIBRATED JUDGE") > 5 and markdown.count("UNCALIBRATED JUDGE") > 5
        lines = [line for line in markdown.splitlines()
                 if line.startswith("|") and "composite" in line and "family, corrected" not in line]
        assert lines and not any(re.search(r"\d\.\d", line) for line in lines), "a composite is shown"
        assert not any(re.search(r"<td[^>]*>[^<]*composite[^<]*</td>[^\n]*\d\.\d", line) for line in page.splitlines())
        table = markdown[markdown.index("### Declared claims"):markdown.index("### The primary difference")]
        assert all(line.split("|")[6].strip() == "-" for line in table.splitlines() if "UNCALIBRATED" in line)
        assert not re.search(r"p (<|&lt;|0\.)", markdown), "a p is shown"
    page, markdown = shown[True]
    assert ("UNCALIBRATED JUDGE" not in markdown and "(Holm)" in markdown
            and "The composite under other weights" in page
            and re.search(r"composite \| logits \| 0\.\d\d", markdown))
    cards = {one.what: one for one in headline(collect(generated))}
    assert (cards["Primary outcome"].number == "no claim"
            and "UNCALIBRATED JUDGE" in cards["Primary outcome"].basis and "Over-refusal" in cards)


def test_limits_follow_from_what_is_there(evaluated):
    sentences = " ".join(limits(collect(evaluated)))
    assert ("not comparable with any leaderboard" in sentences and "capability has not been measured" in sentences
            and "replaced" not in sentences and "trained again" not in sentences)
    evaluate_by_hand(evaluated, earlier=[{"primary": "words: dpo - base", "family": []}])
    trained_by_hand(evaluated, adapter="another")
    sentences = " ".join(limits(collect(evaluated)))
    assert ("'words: dpo - base' was replaced by 'violation: dpo - base'" in sentences
            and "trained again after it was evaluated" in sentences)
    assert "changed after verdicts were known" in written(evaluated)[0]


def test_every_change_of_the_declaration_is_told_as_what_it_is(evaluated):
    "Before any verdict it is listed; when verdicts were known it also stands under what cannot be claimed."
    moment = {"written": "2026-01-01T00:00:00+00:00", "judged": 0, "answered": 0}
    early = moment | {"line": 2, "field": "settings.eval_samples", "was": "1", "now": "2", "verdicts": 0}
    late = moment | {"line": 3, "field": "settings.margin", "was": "0.05", "now": "0.3", "verdicts": 240}
    evaluate_by_hand(evaluated, changes=[early, late], declaration="ab" * 32)
    page, sentences = written(evaluated)[0], " ".join(limits(collect(evaluated)))
    assert "margin 0.05 → 0.3" in page and "240 verdicts known" in page and "after the fact" in page
    assert "eval_samples: 1 → 2" in page and "before any verdict" in page
    assert "margin 0.05 → 0.3" in sentences and "eval_samples" not in sentences
    assert "abababababab) is not in declarations.jsonl" in sentences, "the lines that the numbers rest on are gone"


def test_a_set_without_prompts_says_why(evaluated):
    metrics = read_json(evaluated.path("metrics.json"))
    keep = ([row for row in metrics["comparisons"] if row["set"] != "safety"],
            [row for row in metrics["levels"] if row["set"] != "safety"])
    write_json(evaluated.path("metrics.json"),
               metrics | {"comparisons": keep[0], "levels": keep[1], "breakdowns": [], "weights": [],
                          "sets": metrics["sets"] | {"safety": {"prompts": 0, "left_out": [],
                                                                "note": "fetch them with: git submodule update"}}})
    card = next(one for one in headline(collect(evaluated)) if one.what == "Primary outcome")
    assert card.number == "not measured" and "no safety prompts, see what this run does not show" in card.basis
    for text, heading in zip(written(evaluated), ("<h2>Declared</h2>", "## Declared\n")):
        assert text.count("git submodule update") == 1 and "No safety prompts were answered" in text
        assert text.index(CAVEAT) < text.index("git submodule update") < text.index(heading)


def test_answers_of_other_sources_are_shown_only_when_asked_for(evaluated):
    page, _ = written(evaluated)
    assert (page.count("<details><summary>prompt safety") == 0
            and "40 of ailuminate, 30 of xstest" in page and page.count("<div><b>dpo</b>") == 12)
    assert all(text == "(hidden: a source of adversarial prompts; rebuild with show_text to read)"
               for row in side_by_side(collect(evaluated)) if not row.own for _, text in row.answers)
    page, _ = written(evaluated, show_text=True)
    assert page.count("<div><b>dpo</b>") == 82 and page.count("<details open") == 0


# runs side by side


@pytest.fixture
def two(evaluated):
    "Two runs that differ in name alone."
    other = open_run("other")
    for path in evaluated.folder.iterdir():
        if path.is_file() and path.suffix in (".json", ".jsonl"): other.path(path.name).write_bytes(path.read_bytes())
    trained_by_hand(other)
    for run in (evaluated, other):
        write_json(run.path("ledger.json"), {
            "respond": {"tokens_in": 50, "tokens_out": 20, "seconds": 30.0}, "train": {"seconds": 60.0},
            "answer base": {"tokens_in": 5, "tokens_out": 7, "seconds": 3.0}, "evaluate": {"seconds": 9.0}
        })
    return evaluated, other


def test_equal_runs_are_compared_without_a_warning(two, painted):
    runs = compare_runs(two)
    assert differences_of(runs) == [] and seconds_in_all(runs[0]) == 90
    row = scaling_rows(runs)[1]
    assert (row["pairs"] == "9" and row["generate and train"] == "1 min 30 s"
            and row["primary difference"].startswith("−0.4") and row["capability"] == "not measured")
    place = write_comparison(runs)
    assert place.name == "compare-demo-other.html" and place.with_suffix(".md").is_file()
    assert_harmless(place.read_text(), place.with_suffix(".md").read_text())
    assert (
        {path.name for path in place.with_name("compare-demo-other-figures").iterdir()} == {"cost.png", "outcomes.png"}
        and all(path.read_bytes().startswith(b"\x89PNG")
                for path in place.with_name("compare-demo-other-figures").iterdir())
    )


def test_what_keeps_runs_apart_is_said(two):
    first, other = two
    metrics, items = read_json(other.path("metrics.json")), other.path("items.jsonl").read_text().splitlines()
    write_json(other.path("metrics.json"),
               metrics | {"declared": {"primary": "violation: dpo - prompted", "family": []},
                          "seats": [{"name": "logits", "judge": f"a {BAD}", "disclosed": []}],
                          "unknown_training": ["prompted"], "samples": 3})
    other.path("items.jsonl").write_text("\n".join(items[1:]) + "\n")
    other.record(seed=1, constitution="charter@2")
    sentences = " ".join(differences_of(compare_runs(two)))
    for words in ("different primary outcomes", "judged by different judges",
                  "different safety prompts (40 and 39, 39 in common)", "differ in recorded seed (0; 1)",
                  "differ in recorded constitution", "differ in samples (1; 3)",
                  "nobody can tell what prompted learned from"):
        assert words in sentences, words
    place = write_comparison(compare_runs(two))
    assert_harmless(place.read_text(), place.with_suffix(".md").read_text())
    assert "What keeps these runs apart" in place.read_text()


def test_a_judge_below_the_bar_supports_no_claim_in_a_comparison_either(two):
    for run in two: evaluate_by_hand(run, calibrated=False)
    page = write_comparison(compare_runs(two)).read_text()
    assert page.count("<b>no claim</b>") == 2 and not re.search(r"p (&lt;|0\.)", page)


def test_runs_that_cannot_be_compared_are_refused(two, scripted, capsys, tmp_path):
    third = open_run("third")
    generate_pairs(third, build_recipe({"n_prompts": 2, "filters": "empty"}), scripted)
    write_json(open_run("old").path("metrics.json"), {"comparisons": []})
    with pytest.raises(InputError, match="2 problems|has not been evaluated") as caught:
        compare_runs([two[0], third, open_run("old")])
    assert "ccai run evaluate --run third" in caught.value.problems[0] and "older version" in caught.value.problems[1]
    for words, message in (
        (["demo"], "expected two or more"), (["demo", "demo"], "named twice"),
        (["demo", "third"], "ccai run evaluate --run third"), (["demo", "nowhere"], "no run 'nowhere'"),
        (["demo", "other", "--out", str(tmp_path / "x.pdf")], "ends in .html")
    ):
        assert main(["compare", *words]) == 2 and message in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))
    assert main(["compare", "demo", "other", "--out", str(tmp_path / "x.html")]) == 0
    assert ((tmp_path / "x.md").is_file() and (tmp_path / "x-figures").is_dir()
            and "primary difference" in capsys.readouterr().out)


def test_a_ledger_is_added_up_by_step_and_nothing_is_invented():
    assert ([stage_of(name)
             for name in ("respond", "critique", "train", "answer dpo", "judge weigh", "play base", "evaluate")]
            == ["generate", "generate", "train", "evaluate", "evaluate", "evaluate", "evaluate"])
    ledger = Ledger(stages={"respond": {"tokens_out": 4, "seconds": 1.0}, "critique": {"tokens_out": 3, "seconds": 2.0},
                            "answer base": {"tokens_out": 5, "seconds": 2.0}, "evaluate": {"seconds": 8.0}})
    assert costs(ledger) == {"generate": (None, 7, 3.0), "train": (None, None, None), "evaluate": (None, 5, 8.0)}


def test_the_line_of_a_run_shows_the_primary_outcome(evaluated, capsys):
    write_report(evaluated)
    assert main(["runs"]) == 0 and "primary outcome" in (out := capsys.readouterr().out) and "−0.4" in out
    assert read_record(evaluated.path("headline.json"), Headline).figures[1].what == "Primary outcome"


@pytest.mark.parametrize("name", ["x\ntags: [pwned]", "x # y", "'", "a: b", "\u202ex", "- x", "---"])
def test_a_models_name_cannot_add_to_a_cards_head(name):
    head = _card_head(name, Path("adapter")).to_yaml()
    assert yaml.safe_load(head) == {"base_model": name, "library_name": "peft", "pipeline_tag": "text-generation",
                                    "tags": ["constitutional-ai", "contemplative-cai", "trl"]}
    assert "---" not in head.splitlines() and ModelCard(f"---\n{head}\n---\n\n# text").data.base_model == name


def test_a_card_names_no_place_on_a_machine_and_keeps_names_of_the_hub():
    values = ("/home/ann/rows.jsonl", "~ann/rows.jsonl", "hub:lab/rows", "<b>", 0.1)
    assert [*map(_shown_value, values)] == ["rows.jsonl", "rows.jsonl", "hub:lab/rows", "&lt;b&gt;", "0.1"]
