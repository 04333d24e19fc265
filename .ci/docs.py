"""Build the documentation site, offline: notebooks to Markdown, Markdown to HTML, every link and every size checked."""
import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import nbformat
import yaml
from nbconvert import MarkdownExporter
from nbformat.v4 import new_output
from readme import relinked

ROOT = Path(__file__).resolve().parents[1]
NBS, BUILD, SITE = ROOT / "nbs", ROOT / "build", ROOT / "_docs"
SOURCES = BUILD / "docs"  # the site in Markdown
LARGEST = 300_000  # bytes that a page or a picture may have
DOCS = ("engines", "cluster", "aws", "prompts", "pairs", "training", "evaluation", "studies", "run", "command", "keys",
        "risks", "contributing")
LIST_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s")
HIDDEN = re.compile(r"^#\|\s*(?:default_exp|hide)\b", re.M)
SILENT = re.compile(r"^#\|\s*echo:\s*false", re.M)  # a cell of which only the outputs are shown
DIRECTIVE = re.compile(r"^#\|.*\n?", re.M)
SHIM = "https://unpkg.com/iframe-worker/shim"  # what the theme would load; nbs/docs/worker.js does the same


class Page(NamedTuple):
    "A page of the site."
    notebook: Path
    target: str  # its Markdown file in the site, such as docs/engines.md
    title: str
    summary: str


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def opening(notebook: Path) -> tuple[str, str]:
    "A notebook's title and the paragraph after it; refuses a notebook without them."
    cells = nbformat.read(notebook, as_version=4).cells
    first = next((cell.source for cell in cells if cell.cell_type == "markdown"), "")
    title, _, rest = first.partition("\n")
    summary = " ".join(line.lstrip("> ").strip() for line in rest.strip().partition("\n\n")[0].splitlines())
    if not (title.startswith("# ") and summary):
        raise SystemExit(f"{notebook.relative_to(ROOT)}: expected '# title' and a summary after it in the first "
                         f"Markdown cell, found '{first[:60]}'; write both")
    return title.removeprefix("# ").strip(), summary


def page(notebook: Path) -> Page:
    return Page(notebook, notebook.relative_to(NBS).with_suffix(".md").as_posix(), *opening(notebook))


# --- a notebook becomes Markdown ---

def spaced(text: str) -> str:
    "The same Markdown with a blank line before each list, which the site's dialect needs and a notebook does not."
    lines, fenced = [], False
    for line in text.splitlines():
        before = lines[-1] if lines else ""
        goes_on = LIST_ITEM.match(before) or before.startswith("  ") or not before.strip()
        if LIST_ITEM.match(line) and not goes_on and not fenced: lines.append("")
        if line.lstrip().startswith("```"): fenced = not fenced
        lines.append(line)
    return "\n".join(lines)


def site_address(address: str, notebook: Path) -> str:
    "Where the site has what a notebook links to: a page, a room's page, or a copy of one of the project's files."
    path, hash_, heading = address.partition("#")
    there = (notebook.parent / unquote(path)).resolve()
    if path.endswith(".ipynb"): return f"{path.removesuffix('.ipynb')}.md{hash_}{heading}"
    if any(there.glob("*.ipynb")): return f"{path.rstrip('/')}/index.md"
    if not there.is_file() or not there.is_relative_to(ROOT): return address
    name = f"files/{there.relative_to(ROOT)}" + ("" if there.suffix == ".png" else ".txt")
    (SOURCES / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(there, SOURCES / name)
    return os.path.relpath(name, notebook.parent.relative_to(NBS))


def fenced(text: str) -> nbformat.NotebookNode:
    "Text that a cell has printed, as a block that the style sheet tells from code."
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return new_output("display_data", {"text/markdown": f"{ticks} {{ .text .output }}\n{text.rstrip()}\n{ticks}"})


NAMED_INDEX = re.compile(r"<th></th>((?:\s*<th>[^<]*</th>)+\s*</tr>)"  # a head without the index's name
                         r"\s*<tr[^>]*>\s*<th>([^<]+)</th>(?:\s*<th></th>)+\s*</tr>")  # and the row that has it


def table(text: str) -> str:
    "A data frame's HTML without a style of its own, its head in one row."
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r'<table[^>]*class="dataframe[^>]*>', "<table>", text)
    return re.sub(r"\n\s*\n", "\n", NAMED_INDEX.sub(r"<th>\2</th>\1", text, count=1))


def rich(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    "A picture, Markdown or a table; None for what is text."
    data = output.get("data", {})
    kind = next((kind for kind in ("image/png", "text/markdown", "text/html") if kind in data), None)
    if kind is None: return None
    return new_output("display_data", {kind: table(data[kind]) if kind == "text/html" else data[kind]})


def printed(output: nbformat.NotebookNode) -> str:
    if output.output_type == "stream": return output.text
    if output.output_type == "error": return "\n".join(output.traceback)
    return output.data.get("text/plain", "").rstrip() + "\n"


def shown(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    "A cell's outputs as the page has them; text that follows text is one block."
    blocks: list = []
    for output in outputs:
        block = rich(output) or printed(output)
        if isinstance(block, str) and blocks and isinstance(blocks[-1], str): blocks[-1] += block
        else: blocks.append(block)
    said = [block for block in blocks if not isinstance(block, str) or block.strip()]
    return [fenced(block) if isinstance(block, str) else block for block in said]


def prepared(notebook: Path) -> nbformat.NotebookNode:
    "The notebook without directives and hidden cells, its links and outputs as the site wants them."
    nb = nbformat.read(notebook, as_version=4)
    nb.metadata["language_info"] = {"name": "python"}
    nb.cells = [cell for cell in nb.cells if cell.cell_type != "raw" and not HIDDEN.search(cell.source)]
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = spaced(relinked(cell.source, lambda address: site_address(address, notebook)))
        else:
            cell.metadata["transient"] = {"remove_source": bool(SILENT.search(cell.source))}
            cell.source = DIRECTIVE.sub("", cell.source).strip("\n")
            cell.outputs = shown(cell.outputs)
    return nb


def convert(page: Page) -> dict[str, str]:
    "Write a page and its pictures; returns its entry in the navigation."
    names = {"output_files_dir": f"{page.notebook.stem}_files", "unique_key": page.notebook.stem}
    text, resources = MarkdownExporter().from_notebook_node(prepared(page.notebook), names)
    target = SOURCES / page.target
    write(target, text)
    for name, picture in resources["outputs"].items():
        (target.parent / name).parent.mkdir(exist_ok=True)
        (target.parent / name).write_bytes(picture)
    return {page.title: page.target}


# --- the site's pages, in the order of the line ---

def pages(folder: Path) -> list[Page]: return [page(path) for path in sorted(folder.glob("*.ipynb"))]


def docs() -> list[Page]:
    "The pages behind the front page, in the order of DOCS."
    there = {path.stem for path in (NBS / "docs").glob("*.ipynb")} - {"tutorial"}
    if there != set(DOCS):
        names = ", ".join(sorted(there ^ set(DOCS)))
        raise SystemExit(f"nbs/docs and the list DOCS in .ci/docs.py differ in {names}; mend one of them")
    return [page(NBS / "docs" / f"{name}.ipynb") for name in DOCS]


def sentence(room: str) -> str:
    "What a room is for: the docstring of its package."
    module = ROOT / "contemplative_cai" / room / "__init__.py"
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    if not text:
        raise SystemExit(f"{module.relative_to(ROOT)}: expected the room's sentence as docstring, found none; write it")
    return text


def write_room(folder: Path) -> dict[str, list]:
    "Write a room's pages, and the page that lists them; returns its entry in the navigation."
    room, inside = folder.name.partition("_")[2], pages(folder)
    rows = [f"| [{page.title}]({Path(page.target).name}) | {page.summary.replace('|', '&#124;')} |" for page in inside]
    write(SOURCES / folder.name / "index.md",
          "\n".join([f"# {room}", "", sentence(room), "", "| notebook | what is in it |", "|---|---|", *rows, ""]))
    return {room: [f"{folder.name}/index.md", *map(convert, inside)]}


def write_sources() -> list:
    "The whole site as Markdown; returns the navigation."
    for name in ("site.css", "worker.js"):
        SOURCES.mkdir(parents=True, exist_ok=True)
        shutil.copy(NBS / "docs" / name, SOURCES / name)
    rooms = sorted(folder for folder in NBS.glob("[0-9]*_*") if folder.is_dir())
    more = [page(NBS / f"{name}.ipynb") for name in ("browse", "builder", "demo")]
    return [{"Front page": convert(page(NBS / "index.ipynb")).popitem()[1]},
            {"Tutorial": convert(page(NBS / "docs" / "tutorial.ipynb")).popitem()[1]},
            {"Guide": list(map(convert, docs()))},
            {"Notebooks": list(map(convert, [*pages(NBS / "pipelines"), *more]))},
            {"Rooms": list(map(write_room, rooms))},
            {"Studies": list(map(convert, pages(NBS / "studies")))}]


def build(navigation: list) -> None:
    "Markdown to HTML; afterwards nothing in the site is loaded from the web."
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    settings |= {"docs_dir": SOURCES.name, "site_dir": "site", "nav": navigation}
    write(BUILD / "mkdocs.yml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--clean", "-f", str(BUILD / "mkdocs.yml")]
    done = subprocess.run(command, cwd=BUILD, capture_output=True, text=True)
    if done.returncode: raise SystemExit(f"{done.stdout}{done.stderr}\nzensical could not build {BUILD / 'mkdocs.yml'}")
    shutil.move(BUILD / "site", SITE)
    for path in SITE.rglob("*.html"):
        worker = os.path.relpath(SITE / "worker.js", path.parent)
        path.write_text(path.read_text(encoding="utf-8").replace(SHIM, worker), encoding="utf-8")


# --- the built site is checked ---

FOLLOWED = ("canonical", "prev", "next")  # kinds of <link> that a browser does not load


class Parsed(HTMLParser):
    "What a page links to, what it loads, and the headings inside it."
    def __init__(self, path: Path):
        super().__init__()
        self.links, self.loads, self.headings = [], [], {"", "__"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if values.get("id"): self.headings.add(values["id"])
        if tag == "a" and values.get("href"): self.links.append(values["href"])
        if tag == "link" and values.get("rel") not in FOLLOWED: self.loads.append(values.get("href", ""))
        if values.get("src"): self.loads.append(values["src"])


def in_notebook(page: Path) -> str: return f"mend it in nbs/{page.with_suffix('.ipynb')}"


def broken(site: Path) -> Iterator[str]:
    "Each link that leads nowhere, with its page."
    parsed = {path: Parsed(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    for path, found in parsed.items():
        name = path.relative_to(site)
        for address in dict.fromkeys(found.links + found.loads):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc: continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not there.is_file():
                yield f"{name}: link '{address}' leads to no page; {in_notebook(name)}"
            elif there in parsed and unquote(parts.fragment) not in parsed[there].headings:
                yield f"{name}: link '{address}' leads to no heading; {in_notebook(name)}"


def fetched(site: Path) -> Iterator[str]:
    "Each thing that a page or a style sheet would load from the web."
    for path in sorted(site.rglob("*.html")):
        for address in Parsed(path).loads:
            if urlsplit(address).netloc:
                yield f"{path.relative_to(site)}: loads '{address}'; the site works offline, so keep a copy of it here"
    for path in sorted(site.rglob("*.css")):
        for address in re.findall(r"url\(['\"]?((?:https?:)?//[^)'\"]*)", path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)}: loads '{address}'; the site works offline, so keep a copy of it here"


def large(site: Path) -> Iterator[str]:
    "Pages and pictures above the limit."
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.png")]):
        size = path.stat().st_size
        if size > LARGEST:
            yield f"{path.relative_to(site)}: {size:,} bytes, more than {LARGEST:,}; store less in its notebook"


def main() -> int:
    begun = time.monotonic()
    for folder in (SOURCES, BUILD / "site", SITE): shutil.rmtree(folder, ignore_errors=True)
    build(write_sources())
    problems = [*broken(SITE), *fetched(SITE), *large(SITE)]
    for problem in problems: print(problem, file=sys.stderr)
    sizes = [path.stat().st_size for path in SITE.rglob("*.html")]
    took = time.monotonic() - begun
    print(f"{len(sizes)} pages, the largest {max(sizes) / 1000:.0f} kB, in {took:.0f} s: {SITE / 'index.html'}")
    return 1 if problems else 0


if __name__ == "__main__": sys.exit(main())
