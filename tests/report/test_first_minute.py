"""A report answers in one minute: what is read first, what is folded, what is said once;
and in a real Chromium its tables sort, its folds open by their links, and nothing overflows or leaves the page."""
import functools
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright
from support import ROOT

from contemplative_cai.core.files import read_json, write_json
from contemplative_cai.core.run import Run
from contemplative_cai.pairs.health import health
from contemplative_cai.report.limits import limits
from contemplative_cai.report.page import CAVEAT, Page, PageSection, Table, page_html, page_markdown
from contemplative_cai.report.report import first_pictures, report_page, whole_row, write_report
from contemplative_cai.report.sheet import PAGE_STYLE, SHEET
from contemplative_cai.report.summary import collect, pairs_checked, verdict

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.long
in_a_browser = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CCAI_BROWSER") != "required",
    reason="no chromium on PATH (CCAI_BROWSER=required makes this a failure)")


@functools.cache
def made_up_runs() -> tuple[Run, Run]:
    "A run that has only generated, and one that was trained and evaluated; read by all, written by none."
    sys.path.insert(0, str(ROOT / "nbs" / "09_report"))
    try:
        from made_up import evaluated_run, generated_run
        return generated_run(), evaluated_run()
    finally:
        sys.path.pop(0)
        sys.modules.pop("made_up", None)


@pytest.fixture
def full(tmp_path) -> Run:
    return Run("full", Path(shutil.copytree(made_up_runs()[1].folder, tmp_path / "full")))


@pytest.fixture
def generated(tmp_path) -> Run:
    return Run("generated", Path(shutil.copytree(made_up_runs()[0].folder, tmp_path / "generated")))


@pytest.fixture
def one_arm(full) -> Run:
    "Base alone was measured, and nothing was trained."
    metrics = read_json(full.path("metrics.json"))
    of_base = {name: [row for row in metrics[name] if row["arm"] == "base"]
               for name in ("levels", "openings", "cooperation", "probed")}
    nothing = dict.fromkeys(("comparisons", "breakdowns", "weights", "robustness"), [])
    write_json(full.path("metrics.json"), metrics | of_base | nothing | {"arms": ["base"]})
    shutil.rmtree(full.path("dpo"))
    return full


def page_of(run) -> Page:
    facts = collect(run)
    return report_page(facts, health(facts.kept))


@functools.cache
def full_page() -> Page:
    "The page of the run that was trained and evaluated, as it is."
    return page_of(made_up_runs()[1])


def html_of(page: Page) -> str:
    parts = [*page.pictures, *(part for section in page.sections for part in section.parts)]
    return page_html(page, {part.name: b"a picture" for part in parts if hasattr(part, "alt")})


class Outline(HTMLParser):
    "The headings in the order in which they come, each with how many folds are around it; and all tags."

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.headings: list[tuple[str, str, int]] = []
        self.folds, self.heading = 0, ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "details": self.folds += 1
        if tag in ("h1", "h2", "h3"): self.heading = tag

    def handle_endtag(self, tag):
        if tag == "details": self.folds -= 1
        if tag == self.heading: self.heading = ""

    def handle_data(self, data):
        if self.heading and data.strip(): self.headings.append((self.heading, data.strip(), self.folds))


# what is read first


def test_the_first_part_is_open_and_the_rest_is_folded():
    outline = Outline(html_of(full_page()))
    opened = [text for tag, text, folds in outline.headings if folds == 0]
    assert opened == ["Contemplative constitutional AI: run demo", "One row", "In figures", CAVEAT, "Main figures"]
    assert outline.tags.count("h1") == 1
    assert outline.tags.count("details") == outline.tags.count("summary") > 15
    assert all(folds for tag, _, folds in outline.headings if tag == "h3")


@pytest.mark.parametrize("which, verdict_begins, pictures", [
    ("full", "The primary outcome got better: share of violating answers on the DEMO set by judge logits", 3),
    ("one_arm", "No difference is claimed, since base alone answered: share of violating answers on the DEMO set", 3),
    ("generated", "Nothing has been evaluated, so there is no verdict yet.", 2),
])
def test_every_kind_of_run_has_a_verdict_a_row_figures_and_limits(request, which, verdict_begins, pictures):
    page = page_of(request.getfixturevalue(which))
    assert page.words[0].startswith(verdict_begins) and page.limits and len(page.pictures) == pictures
    assert [name.partition(",")[0] for name, _ in page.row.parts] == ["first answer (rejected)", "critique",
                                                                      "revision (chosen)"]
    assert all(text for _, text in page.row.parts) and page.row.question
    assert html_of(page).count("<h1>") == 1 and page_markdown(page).count("\n# ") == 0


def test_a_run_without_a_row_says_so(generated):
    for name in ("pairs", "dropped"): generated.path(f"{name}.jsonl").write_text("")
    facts = collect(generated)
    assert whole_row(facts).parts == () and "No pair was kept" in whole_row(facts).words
    assert not first_pictures(facts, health([])) and "0 of 0 revised answers" in " ".join(verdict(facts))
    assert "No pair was kept" in html_of(page_of(generated))


def test_a_row_of_an_adversarial_source_stays_covered(generated):
    facts = collect(generated)
    foreign = [pair.model_copy(update={"prompt_id": f"x{i}"}) for i, pair in enumerate(facts.kept)]
    generated.path("pairs.jsonl").write_text("".join(pair.model_dump_json() + "\n" for pair in foreign))
    facts = collect(generated)
    assert not whole_row(facts).parts and "--show-text" in whole_row(facts).words
    assert whole_row(facts, show_text=True).question == foreign[0].prompt[-1].content


def test_markdown_says_the_same_sentences_and_keeps_everything():
    page = full_page()
    markdown = page_markdown(page)
    order = [markdown.index(heading) for heading in ("## One row", "## In figures", f"## {CAVEAT}", "## Main figures",
                                                     "## Declared", "## Words used here")]
    assert order == sorted(order) and markdown.index(page.words[0][:40]) < order[0]
    assert all(f"## {section.title}\n" in markdown for section in page.sections)
    assert "**critique, by emptiness:**" in markdown and "- **AUC:**" in markdown


@pytest.mark.parametrize("low, high, better, words", [
    (-0.4, -0.1, "lower", "The primary outcome got better"), (0.1, 0.4, "lower", "The primary outcome got worse"),
    (0.1, 0.4, "higher", "The primary outcome got better"), (-0.4, -0.1, "higher", "The primary outcome got worse"),
    (0.1, 0.4, "neither", "The primary outcome rose"), (-0.4, -0.1, "neither", "The primary outcome fell"),
    (-0.1, 0.4, "lower", "No change of the primary outcome is shown"),
])
def test_the_verdict_is_chosen_by_the_interval(full, low, high, better, words):
    metrics = read_json(full.path("metrics.json"))
    for row in metrics["comparisons"]:
        if (row["outcome"], row["arm"], row["against"]) == ("violation", "dpo", "base"):
            row["better"] = better
            row["difference"] |= {"mean": (low + high) / 2, "low": low, "high": high, "p": 0.01}
    write_json(full.path("metrics.json"), metrics)
    assert verdict(collect(full))[0].startswith(f"{words}: ")


def test_a_primary_outcome_below_the_bar_has_no_verdict(full):
    metrics = read_json(full.path("metrics.json"))
    for row in [*metrics["comparisons"], *metrics["levels"]]: row["calibrated"] &= row["outcome"] != "violation"
    write_json(full.path("metrics.json"), metrics)
    assert verdict(collect(full))[0] == ("No claim is made on the primary outcome, violation: dpo - base: "
                                         "UNCALIBRATED JUDGE.")


def test_given_pairs_are_no_revised_answers_and_no_older_runs_pairs(generated):
    generated.record(given={"pairs": "mine.jsonl"}, gate=None)
    said = " ".join([*verdict(collect(generated)), *limits(collect(generated))])
    assert "33 of 48 given rows became pairs." in said and "revised answers" not in said
    assert "nobody here has checked them" in said and said.count("not checked") == 0
    assert "they were given, and no judge here looked at them" in pairs_checked(collect(generated)).basis


def test_a_level_of_base_alone_that_is_no_number_says_why(one_arm):
    whole = read_json(one_arm.path("metrics.json"))
    rows = [row | {"calibrated": row["outcome"] != "violation"} for row in whole["levels"]]
    for levels, words in (([], "The primary outcome, violation of base alone, was not measured: nobody judged"),
                          (rows, "No claim is made on the primary outcome, violation of base alone: UNCALIBRATED")):
        write_json(one_arm.path("metrics.json"), whole | {"levels": levels})
        assert verdict(collect(one_arm))[0].startswith(words)
    assert "The arm base is the model as it came." in page_of(one_arm).lead


# what is said once


def test_each_missing_thing_is_explained_once(full):
    metrics = read_json(full.path("metrics.json"))
    notes = {"safety": "fetch the hazards", "safe": "put the file of twins", "unsafe": "put the file of twins"}
    for name, note in notes.items(): metrics["sets"][name] |= {"note": note}
    for name in ("safety", "unsafe"): metrics["sets"][name]["prompts"] = 0
    metrics["levels"] = [row for row in metrics["levels"] if row["set"] != "safety"]
    metrics["comparisons"] = [row for row in metrics["comparisons"] if row["set"] != "safety"]
    write_json(full.path("metrics.json"), metrics)
    page = page_of(full)
    for text in (html_of(page), page_markdown(page), " ".join(limits(collect(full)))):
        assert text.count("fetch the hazards") == 1 and text.count("put the file of twins") == 1
        assert "What more safe and unsafe prompts would have shown: put the file of twins." in text


def test_what_is_not_on_this_machine_is_named_once_among_the_leaks():
    leaks = next(section for section in full_page().sections if section.title == "Leaks")
    sets = [row["held out"] for row in leaks.parts[0].rows]
    absent = re.search(r"Not on this machine, so not compared: (.*)\.", " ".join(leaks.words))
    assert absent and not set(absent[1].split(", ")) & set(sets)


def test_arms_and_terms_are_explained_where_they_first_appear():
    page = html_of(full_page())
    body = page[page.index("<main>"):page.index("Words used here</h2>")]
    for term in ("arms", "base", "prompted", "primary outcome", "judge", "critique", "AUC", "Holm"):
        marked = re.search(rf'<abbr tabindex="0" title="[^"]+">{term}</abbr>', body)
        assert marked, term
        assert body.lower().count(f">{term.lower()}</abbr>") == 1
    assert "Of the arms, base is the model as it came; prompted is the model told the " in body
    assert "<dt>AUC</dt><dd" in page and "<dt>critique</dt><dd" in page


def test_colours_have_a_light_and_a_dark_side():
    light, dark = (set(re.findall(r"--(\w+): #", part)) for part in PAGE_STYLE.split("@media screen"))
    assert light == dark
    later = SHEET.removeprefix(PAGE_STYLE)
    assert not re.findall(r"#[0-9a-fA-F]{3,6}", later), "a colour without a name has no dark side"


def test_every_table_has_headings_to_sort_by():
    page = html_of(full_page())
    assert page.count("<table>") == page.count("<thead>") == page.count("<tbody>") > 20
    assert page.count("<th ") == page.count('<th scope="col">')


def test_what_a_file_rests_on_is_in_it_once_and_in_no_sentence(full):
    "Seen: the digests in every sentence that has a term, so that three printed pages became five."
    place = write_report(full)
    for path in (place, place.with_suffix(".md")): assert path.read_text().count("rests_on") == 1
    assert "rests_on" not in place.read_text().partition("</head>")[2]


def test_a_report_is_no_larger_than_its_pictures_make_it():
    assert len(html_of(full_page())) < 400_000


# in a browser


@pytest.fixture
def chromium():
    assert CHROMIUM, "CCAI_BROWSER=required, and there is no chromium on PATH"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try: yield browser
        finally: browser.close()


def opened(browser, place: Path, **options):
    "The page, with every request and every complaint kept."
    page = browser.new_page(**options)
    page.told = []
    page.on("request", lambda request: page.told.extend(re.findall(r"^(?!file:|data:).*", request.url)))
    page.on("console", lambda message: page.told.append(message.text))
    page.on("pageerror", lambda error: page.told.append(str(error)))
    page.goto(place.as_uri())
    return page


NUMBERS = [{"what": what, "how much": much, "p": p, "time": time} for what, much, p, time in (
    ("b", "0.48 [0.31, 0.66]", "0.500 (Holm)", "25 s"), ("a", "−0.05 [−0.20, 0.10]", "-", "2 min 24 s"),
    ("d", "1,200 of 3,000", "< 0.001", "1 h 00 min"), ("c", "not measured: no prompts", "0.001", "-"),
    ("e", "7%", "0.027", "2 min 05 s"))]


@in_a_browser
def test_tables_sort_by_number_by_letter_and_back(chromium, tmp_path):
    (tmp_path / "page.html").write_text(page_html(
        Page("A", "", [], [], [], [PageSection("Part", [], [Table("Numbers", NUMBERS, "x.json")])], ""), {}))
    page = opened(chromium, tmp_path / "page.html")
    def order(): return "".join(page.locator("tbody tr td:first-child").all_inner_texts())
    def sort(column): page.get_by_role("button", name=f"sort by {column}", exact=True).press("Enter")
    heads = page.locator("th")
    for column, upwards, downwards in (("how much", "abedc", "debac"), ("p", "dceba", "becda"),
                                       ("what", "abcde", "edcba"), ("time", "beadc", "daebc")):
        place = list(NUMBERS[0]).index(column)
        sort(column)
        assert order() == upwards, column
        expect(heads.nth(place)).to_have_attribute("aria-sort", "ascending")
        sort(column)
        assert order() == downwards, column
        expect(heads.nth(place)).to_have_attribute("aria-sort", "descending")
        sort(column)
        assert order() == "badce" and page.locator("th[aria-sort]").count() == 0
    assert not page.told


@in_a_browser
def test_links_open_what_they_lead_to_and_nothing_overflows(chromium, full):
    place = write_report(full)
    wide = opened(chromium, place, viewport={"width": 1280, "height": 720})
    claims = wide.locator("details.fold", has=wide.locator("#claims"))
    expect(claims).not_to_have_attribute("open", "")
    wide.locator("nav.side").get_by_role("link", name="Claims").click()
    expect(claims).to_have_attribute("open", "")
    expect(wide.locator("nav.side")).to_be_in_viewport()
    direct = opened(chromium, Path(f"{place}"), viewport={"width": 1280, "height": 720})
    direct.goto(f"{place.as_uri()}#judges")
    expect(direct.locator("#judges")).to_be_visible()
    phone = opened(chromium, place, viewport={"width": 390, "height": 844}, color_scheme="dark")
    expect(phone.locator("nav.side")).to_be_hidden()
    phone.locator("nav.top summary").click()
    phone.locator("nav.top").get_by_role("button", name="open all parts").click()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.locator("nav.top").get_by_role("link", name="Style").click()
    expect(phone.locator("#style")).to_be_visible()
    expect(phone.locator("nav.top details")).not_to_have_attribute("open", "")
    expect(phone.locator("nav.top")).to_be_in_viewport()
    term = phone.locator("abbr").first
    term.focus()
    assert "(" in term.evaluate("element => getComputedStyle(element, '::after').content")
    assert not [*wide.told, *phone.told, *direct.told]


@in_a_browser
def test_three_printed_pages_hold_what_is_read_first(chromium, full, tmp_path):
    page = opened(chromium, write_report(full))
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes())) <= 3
