"""What only a browser shows: the review widget and the progress line, in a real JupyterLab and a real Chromium."""
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat.v4 as v4
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from support import ROOT

from contemplative_cai.command.pipeline import begin
from contemplative_cai.core.run import Run
from contemplative_cai.inputs.constitution import load_constitution, parse_constitution
from contemplative_cai.models.llm import ScriptedLLM
from contemplative_cai.pairs.generate import generate_pairs

CHROMIUM = shutil.which("chromium")
PATIENCE = 60  # seconds to wait for anything a slow machine does
# in the status bar; the dot beside the kernel's name says idle before there is a kernel
KERNEL_IDLE = re.compile(r"\| Idle$")
QUESTION, ANSWER = "<u>Who</u> is right?", '<img src=x onerror="window.ran=true"> He is.'
REVISION = "<b>Nobody</b> yet. <script>window.ran=true</script> Ask & listen."

pytestmark = [pytest.mark.long, pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CCAI_BROWSER") != "required",
    reason="no chromium on PATH (CCAI_BROWSER=required makes this a failure)")]


@dataclass(frozen=True)
class Lab:
    "A running JupyterLab."
    folder: Path  # holds all it reads and writes: the copied tree, runs, settings
    tree: Path  # the copy, which it serves
    url: str


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    "A headless Chromium with a home of its own."
    assert CHROMIUM, "CCAI_BROWSER=required, and there is no chromium on PATH"
    home = os.environ | {"HOME": str(tmp_path_factory.mktemp("home"))}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"],
                                             env=home)
        try: yield browser
        finally: browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    "A JupyterLab on a copy of what the notebooks read, which neither reads nor writes settings or runs elsewhere."
    folder = tmp_path_factory.mktemp("lab")
    tree, log, quiet = folder / "tree", folder / "server.log", (
        folder / "config/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    )
    for name in ("configs", "data", "nbs/pipelines"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("benchmarks", ".ipynb_checkpoints"))
    shutil.copy(ROOT / "settings.ini", tree)
    shutil.copy(ROOT / "nbs" / "builder.ipynb", tree / "nbs")
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    places = {"HOME": "home", "IPYTHONDIR": "ipython", "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data",
              "JUPYTER_RUNTIME_DIR": "runtime", "CCAI_ROOT": "tree", "CCAI_RUNS": "runs"}
    for name in places.values(): (folder / name).mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "XDG_"))}
    environment |= {name: str(folder / place) for name, place in places.items()} | {"JUPYTER_TOKEN": "only-a-test"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
               "--ServerApp.port=0", f"--ServerApp.root_dir={tree}"]
    with log.open("w") as file:
        server = subprocess.Popen(command, cwd=tree, env=environment, stdin=subprocess.DEVNULL, stdout=file,
                                  stderr=file)

    def url():
        try: return json.loads((folder / "runtime" / f"jpserver-{server.pid}.json").read_text())["url"]
        except (OSError, ValueError): return None

    try:
        deadline = time.monotonic() + PATIENCE
        while not url() and server.poll() is None and time.monotonic() < deadline: time.sleep(0.1)
        assert url(), log.read_text()[-3000:]
        yield Lab(folder, tree, url())
    finally:
        server.terminate()  # which ends its kernels too
        try: server.wait(20)
        except subprocess.TimeoutExpired: server.kill()


@pytest.fixture
def page(browser, lab, request) -> Iterator[Page]:
    "An empty page; what it showed last is kept as a picture beside the copied tree."
    expect.set_options(timeout=PATIENCE * 1000)
    page = browser.new_page(viewport={"width": 1280, "height": 1200})
    page.set_default_timeout(PATIENCE * 1000)
    yield page
    page.screenshot(path=lab.folder / f"{request.node.name}.png")
    page.close()


def run_all(page: Page, lab: Lab, path: str) -> None:
    "Open a notebook of the tree in a workspace of its own and, when its kernel is there, choose Run > Run All Cells."
    page.goto(f"{lab.url}lab/workspaces/{Path(path).stem}/tree/{path}?token=only-a-test")
    expect(page.get_by_text(KERNEL_IDLE)).to_be_visible()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("li[data-command='runmenu:run-all']").click()


def prepared_run(folder: Path) -> Run:
    "A run whose questions, answers and revisions all hold HTML."
    prompts = folder / "hostile.jsonl"
    prompts.write_text("".join(json.dumps({"text": f"{QUESTION} It is about the {thing}."}) + "\n"
                               for thing in ("fence between us", "money he owes", "job I lost")))
    run, recipe = begin("reviewed", None, {"prompts": str(prompts), "n_prompts": 3, "filters": "empty,identical"})
    principles = load_constitution(recipe.constitution).principles

    def reply(conversation):
        asked = conversation[-1].content
        for principle in principles:
            if principle.critique_request in asked: return "It settles the matter."
            if principle.revision_request in asked: return f"{REVISION} ({principle.title})"
        return ANSWER

    generate_pairs(run, recipe, ScriptedLLM(reply))
    return run


def test_review_widget(page, lab, monkeypatch):
    """A reviewer's click appends a decision and brings the next pair,
    and no text a model wrote becomes part of the page."""
    monkeypatch.setenv("CCAI_ROOT", str(lab.tree))
    monkeypatch.setenv("CCAI_RUNS", str(lab.folder / "runs"))
    run = prepared_run(lab.folder)
    notebook = lab.tree / "nbs" / "pipelines" / "04_review.ipynb"
    source = notebook.read_text(encoding="utf-8")
    assert source.count(r'run: str = \"demo\"') == 1
    notebook.write_text(source.replace(r'run: str = \"demo\"', rf'run: str = \"{run.name}\"'), encoding="utf-8")
    decisions, total = run.path("reviews", "me.jsonl"), len(run.path("pairs.jsonl").read_text().splitlines())

    run_all(page, lab, "nbs/pipelines/04_review.ipynb")
    widget = page.locator(".jp-OutputArea-output").filter(has=page.get_by_role("button", name="A is better"))
    expect(widget).to_contain_text(f"0 decided, {total} to go")
    for text in (QUESTION, ANSWER, REVISION): expect(widget).to_contain_text(text)
    assert not decisions.exists()
    before = widget.inner_text()

    note = widget.get_by_placeholder("a note, kept with the decision")
    note.fill("plainer")
    widget.get_by_role("button", name="A is better").click()
    expect(widget).to_contain_text("say first of A and of B whether it falls short")
    assert not decisions.exists()
    for said in ("A keeps to it", "B falls short"): widget.get_by_role("button", name=said).click()
    widget.get_by_role("button", name="A is better").click()
    expect(widget).to_contain_text(f"1 decided, {total - 1} to go")
    expect(note).to_have_value("")
    assert (widget.inner_text().partition("to go")[2]
            != before.partition("to go")[2]), "the pair that was decided is still shown"
    [row] = map(json.loads, decisions.read_text(encoding="utf-8").splitlines())
    assert (row["reviewer"], row["preferred"], row["note"]) == ("me", "A", "plainer")
    assert (row["a_falls_short"], row["b_falls_short"]) == (False, True)
    assert row["decision"] == ("accept" if row["shown_as_a"] == "chosen" else "reject")

    for text in (QUESTION, ANSWER, REVISION): expect(widget).to_contain_text(text)
    assert widget.locator("img, script, u").count() == 0 and widget.locator("b", has_text="Nobody").count() == 0
    assert page.evaluate("window.ran") is None


def test_builder_widget(page, lab):
    """The form in JupyterLab: a clause is emptied and lint says so at once,
    a question goes through critique and revision on a real transformer, and the saved file can be read."""
    notebook = lab.tree / "nbs" / "builder.ipynb"
    source = notebook.read_text(encoding="utf-8")
    assert source.count(r'recipe: str = \"smollm2-135m\"') == 1
    notebook.write_text(source.replace(r'recipe: str = \"smollm2-135m\"', r'recipe: str = \"smoke\"'), encoding="utf-8")

    run_all(page, lab, "nbs/builder.ipynb")
    form = page.locator(".jp-OutputArea-output").filter(has=page.get_by_role("button", name="Try it"))
    expect(form).to_contain_text("Nothing to find fault with.")
    form.get_by_role("tab", name="Principle").click()
    clauses = form.locator("textarea").nth(3)  # after preamble, meta-principles and description
    expect(clauses).to_have_value(re.compile("The answer speaks of what a person did"))
    clauses.fill("")
    clauses.blur()
    expect(form).to_contain_text("1 to be mended before it can be saved")
    expect(form.get_by_role("button", name="Save")).to_be_disabled()
    clauses.fill("<b>Bold</b> claims are left open.")
    clauses.blur()
    expect(form).to_contain_text("Nothing to find fault with.")

    form.get_by_placeholder("a question to try it on").fill("Is my neighbour simply rude?")
    form.get_by_role("button", name="Try it").click()
    expect(form).to_contain_text("As a pair:")
    form.get_by_role("button", name="Save").click()
    expect(form).to_contain_text("Saved as mine.md")
    saved = parse_constitution((lab.tree / "data" / "constitutions" / "mine.md").read_text(encoding="utf-8"), "mine.md")
    assert (saved.principles[0].clauses == ("<b>Bold</b> claims are left open.",)
            and saved.principles[1:] == load_constitution("contemplative").principles[1:])
    assert form.locator("b", has_text="Bold").count() == 0


PROGRESS = """\
import time
from pathlib import Path
from contemplative_cai.core.terminal import Progress

progress = Progress(None, "answers", 3)
for i in range(1, 4):
    while not Path(f"go{i}").exists(): time.sleep(0.05)
    time.sleep(0.5)
    progress.advance(tokens=7)"""


def test_progress_line(page, lab):
    "The progress line of a cell changes in place while the cell runs, and ends as one line that says done."
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    (
        lab.tree / "progress.ipynb"
    ).write_text(json.dumps(v4.new_notebook(cells=[v4.new_code_cell(PROGRESS)], metadata=kernel)), encoding="utf-8")

    run_all(page, lab, "progress.ipynb")
    outputs = page.locator(".jp-OutputArea-output")
    expect(outputs).to_have_text(["answers: 0 of 3 calls · estimating the time to go"])
    for i, shown in enumerate(("answers: 1 of 3 calls", "answers: 2 of 3 calls", "done in"), 1):
        (lab.tree / f"go{i}").touch()  # the cell goes on only now, so every line is seen
        expect(outputs).to_contain_text([shown])
    expect(page.get_by_text(KERNEL_IDLE)).to_be_visible()
    expect(outputs).to_have_text([re.compile(r"^answers: 3 of 3 calls · .*done in \d+ s\n?$")])
