"""The front page stays short, the pages behind it say what is there, and the site builds with every link checked."""
import ast
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contemplative_cai.core.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "nbs" / "docs").glob("*.ipynb"))


def cells(notebook: Path, kind: str) -> list[dict]:
    "The notebook's cells of one kind, their sources joined."
    found = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == kind]
    return [cell | {"source": "".join(cell["source"])} for cell in found]


@pytest.fixture
def site(monkeypatch):
    "The program that builds the site, as a module."
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    for name in ("docs", "readme"): monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("docs")


def copied(folder: Path) -> Path:
    "A copy of the tree to build in."
    unwanted = shutil.ignore_patterns(".venv*", ".git", "runs", "build", "_docs", "__pycache__", "*.egg-info",
                                      "benchmarks")
    project = Path(shutil.copytree(ROOT, folder / "project", ignore=unwanted))
    shutil.copytree(ROOT / "runs" / "content", project / "runs" / "content")  # what is kept of a run: pages link to it
    return project


def build(project: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ".ci/docs.py"], cwd=project, capture_output=True, text=True)


def test_front_page_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 8192, (
        "README.md has more than 8 kB: move a part of nbs/index.ipynb to nbs/docs/"
    )


@pytest.mark.parametrize("notebook", PAGES, ids=lambda path: path.stem)
def test_page_opens_with_a_title_and_a_summary(notebook):
    title, blank, summary, *_ = cells(notebook, "markdown")[0]["source"].split("\n")
    assert title.startswith("# ") and not blank and summary.startswith("> ") and summary.endswith(".")


@pytest.mark.parametrize("notebook", PAGES, ids=lambda path: path.stem)
def test_page_holds_small_outputs_of_the_last_run(notebook):
    assert notebook.stat().st_size < 150_000
    for cell in cells(notebook, "code"):
        outputs = cell["outputs"]
        assert not any(output["output_type"] == "error" or output.get("name") == "stderr"
                       for output in outputs), cell["source"]
        last = ast.parse(cell["source"]).body[-1]
        assert outputs or not isinstance(last, ast.Expr), f"{notebook.name} has not been executed: {cell['source']}"
    assert str(Path.home()) not in notebook.read_text() and str(ROOT) not in notebook.read_text()


def test_key_page_is_what_the_recipe_says():
    notebook = ROOT / "nbs" / "docs" / "keys.ipynb"
    cell = cells(notebook, "code")[-1]
    stored = next("".join(output["data"]["text/markdown"])
                  for output in cell["outputs"] if "text/markdown" in output.get("data", {}))
    body = ast.parse(cell["source"]).body
    names: dict = {}
    exec(compile(ast.Module(body[:-1], []), str(notebook), "exec"), names)
    now = eval(compile(ast.Expression(body[-1].value), str(notebook), "eval"), names)
    assert stored == now.data, "keys have changed; execute nbs/docs/keys.ipynb again"
    assert [key for key in Recipe.model_fields if stored.count(f"\n| `{key}` |") != 1] == []


@pytest.mark.long
def test_site_builds_offline_and_a_broken_link_is_named(tmp_path):
    project = copied(tmp_path)
    built = build(project)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {path.relative_to(project / "_docs").as_posix() for path in (project / "_docs").rglob("*.html")}
    assert {"index.html", "docs/tutorial.html", "05_revision/index.html", "05_revision/03_revise.html"} <= pages
    notebook = project / "nbs" / "docs" / "run.ipynb"
    text = notebook.read_text()
    assert "../01_core/05_run.ipynb" in text and "../01_core/04_files.ipynb" in text
    notebook.write_text(text.replace("../01_core/05_run.ipynb",
                                     "../01_core/lost.ipynb").replace("04_files.ipynb", "04_files.ipynb#lost"))
    broken = build(project)
    assert broken.returncode == 1
    assert "docs/run.html: link '../01_core/lost.html' leads to no page; mend it in nbs/docs/run.ipynb" in broken.stderr
    assert "docs/run.html: link '../01_core/04_files.html#lost' leads to no heading" in broken.stderr
    assert len(broken.stderr.splitlines()) == 2


def test_what_a_page_would_fetch_from_the_web_is_named(site, tmp_path):
    (tmp_path / "a.html").write_text('<img src="https://example.org/a.png"><a href="https://example.org">a link '
                                     'may</a><script src="b.js"></script>')
    (tmp_path / "a.css").write_text("body { background: url('//example.org/b.png') } p { background: url(c.png) }")
    assert [problem.partition(";")[0] for problem in site.fetched(tmp_path)] == [
        "a.html: loads 'https://example.org/a.png'", "a.css: loads '//example.org/b.png'"]


def test_links_in_code_stay_as_they_are(site):
    text = "[`a`](x.ipynb) and `[b](x.ipynb)`\n\n```\n[c](x.ipynb)\n```\n[d](https://example.org/x.ipynb) [e](#there)"
    assert site.relinked(text, str.upper) == text.replace("[`a`](x.ipynb)", "[`a`](X.IPYNB)")


def test_lists_get_the_blank_line_they_need(site):
    assert (site.spaced("such as\n- a\n- b\n  - c\n\n```\nx\n- y\n```")
            == "such as\n\n- a\n- b\n  - c\n\n```\nx\n- y\n```")


def test_a_table_has_one_row_of_heads(site):
    import pandas as pd
    frame = pd.DataFrame({"claim": ["words"], "before": [91], "after": [83]}).set_index("claim")
    heads = site.table(frame.to_html(classes="dataframe")).partition("<tbody>")[0]
    assert heads.count("<tr") == 1 and heads.index("claim") < heads.index("before") < heads.index("after")


@pytest.mark.slow
def test_tutorial_runs(runs):
    from nbclient import NotebookClient
    from nbformat import read
    NotebookClient(read(ROOT / "nbs" / "docs" / "tutorial.ipynb", 4), timeout=1800,
                   resources={"metadata": {"path": str(ROOT)}}).execute()
    assert (runs / "tutorial" / "report.html").is_file()
