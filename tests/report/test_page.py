"""A page of foreign texts: whichever field they stand in,
they are shown, run in their own direction, and do nothing."""
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from contemplative_cai.report.page import (
    MainFigure,
    Page,
    PageSection,
    Plot,
    Table,
    Texts,
    WholeRow,
    page_html,
    page_markdown,
    plain,
    write_page,
)
from contemplative_cai.report.terms import GLOSSARY, explainer

TEXTS = [
    "<script>alert(1)</script>", "</style><img src=x onerror=alert(1)>", '" onload="x', "{{ 7 * 7 }}", "\u202egnol",
    "[x](javascript:alert(1))", "[a]: javascript:alert(1)", "[a]", "[1]: javascript:x", "[1]", "![p](http://h/p.png)",
    "# heading", "- item", "1. item", "> quoted", "a | b", "```", "`code`", "\x1b[2J", "سلام", "---", "&lt;b&gt;"
]


def page_of(text):
    "A page in which a text stands wherever one can stand."
    figure, rows = MainFigure(text, text, text, text), [{"column": text, text: text}]
    parts = [Table(text, rows, text, text), Table(text, rows, text, folded=True),
             Texts(text, [(text, text), ("b", text)])]
    return Page(f"Run {text}", text, [figure], [text], [text], [PageSection(f"Part {text}", [text], parts, [text])],
                text, text, WholeRow(text, text, [(text, text)]), [Plot("small", None, text, text, text)], folded=True)


def html_of(text):
    return page_html(page_of(text), {"small": b"a picture"})


def tags_in(markup):
    "The tags of a page, with their attributes."
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(markup)
    return tags


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_acts_in_a_page(text):
    markup = html_of(text)
    calm = tags_in(html_of("calm"))
    seen = tags_in(markup)
    assert [tag for tag, _ in seen] == [tag for tag, _ in calm] and "\u202e" not in markup and "\x1b" not in markup
    for (_, attributes), (_, usual) in zip(seen, calm): assert attributes.keys() == usual.keys()
    assert "49" not in markup.replace("&#39;", "").split("<body>")[1].split("<script>")[0]


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_acts_in_its_markdown(text):
    markdown = page_markdown(page_of(text))
    allowed = {"h1", "h2", "h3", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "strong", "em", "code"}
    seen = tags_in(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))
    acting = [attributes for tag, attributes in seen if attributes and tag != "img"]
    assert {tag for tag, _ in seen} <= {*allowed, "img"} and not acting, markdown
    assert {attributes["src"] for tag, attributes in seen if tag == "img"} <= {"figures/small.png"}
    assert "\u202e" not in markdown and "\x1b" not in markdown


def test_a_text_runs_in_the_direction_of_its_script():
    "A cell, a question, an answer: each by itself, whatever stands before it."
    around = [attributes for tag, attributes in tags_in(html_of("سلام"))
              if tag in ("td", "summary", "span", "p", "li") and attributes.get("class") != "from"]
    assert around and all(attributes.get("dir") == "auto" for attributes in around)


@pytest.mark.parametrize("text", ["0.62 [0.50, 0.70]", "-0.10 [-0.2, +0.1]", "12 %", "x_y", "2 * 3"])
def test_numbers_stay_readable(text): assert plain(text) == text


# words that are explained


def test_a_word_is_explained_where_it_first_comes_and_once():
    explained = explainer({"arm": "who answers", "unseen pairs": "new ones", "pair": "two texts"})
    first, second = explained("Arms of unseen pairs."), explained("A pair of pairs, an arm.")
    assert first == ('<abbr tabindex="0" title="who answers">Arms</abbr> of '
                     '<abbr tabindex="0" title="new ones">unseen pairs</abbr>.')
    assert second == 'A <abbr tabindex="0" title="two texts">pair</abbr> of pairs, an arm.'


@pytest.mark.parametrize("text", TEXTS)
def test_an_explained_text_acts_no_more_than_another(text):
    marked = explainer(GLOSSARY | {"dpo": text, "lt": "no part of an entity"})(f"the arm dpo: {text}")
    assert {tag for tag, _ in tags_in(marked)} == {"abbr"} and all(
        attributes.keys() == {"tabindex", "title"} for _, attributes in tags_in(marked))


def test_what_others_need_not_know_is_taken_out_before_a_word_in_it_is_explained(tmp_path):
    place = "/home/ann/our pair of files"
    page = Page("A", place, [], [place], [place], [], "", terms={"pair": "two texts"})
    told = write_page(page, tmp_path / "page.html", told=lambda text: text.replace(place, "files")).read_text()
    assert "ann" not in told and "our pair" not in told and "<p dir=\"auto\">files</p>" in told


def test_no_name_of_a_file_is_explained():
    text = "in pairs.jsonl and a/pair and pair/b"
    assert explainer({"pair": "two texts"})(text) == text


def test_no_word_is_explained_by_itself():
    assert all(term not in meaning.split() for term, meaning in GLOSSARY.items())
