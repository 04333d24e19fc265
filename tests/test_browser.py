"""The two things only a browser shows: the review widget and the progress line, in a real JupyterLab and a real Chromium."""
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from contemplative_cai.constitution import load_constitution
from contemplative_cai.llm import ScriptedLLM
from contemplative_cai.pairs import generate_pairs
from contemplative_cai.pipeline import begin
from contemplative_cai.store import Run

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium")
REQUIRED = os.environ.get("CCAI_BROWSER") == "required"
PATIENCE = 60  # seconds to wait for anything a slow machine does
HOSTILE = {"question": "<i>Who</i> is right?", "answer": '<img src=x onerror="window.ran=true"> He is.', "revision": "<b>Nobody</b> yet. <script>window.ran=true</script> Ask & listen."}

pytestmark = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="no chromium on PATH (CCAI_BROWSER=required makes this a failure)")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    "A copy of what the notebooks read, and nothing outside it known to this process or its children."
    base = tmp_path_factory.mktemp("browser")
    for name in ("configs", "data", "nbs/pipelines"):
        shutil.copytree(ROOT / name, base / "tree" / name, ignore=shutil.ignore_patterns("benchmarks", ".ipynb_checkpoints"))
    shutil.copy(ROOT / "settings.ini", base / "tree")
    jupyter = {f"JUPYTER_{name}_DIR": str(base / f"jupyter_{name.lower()}") for name in ("CONFIG", "DATA", "RUNTIME")}
    places = {"HOME": str(base / "home"), "IPYTHONDIR": str(base / "ipython"), "CCAI_ROOT": str(base / "tree"), "CCAI_RUNS": str(base / "runs"), **jupyter}
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("JUPYTER", "XDG_"))]: patch.delenv(name)
        for name, value in places.items(): patch.setenv(name, value)
        (base / "home").mkdir()
        yield base / "tree"


@pytest.fixture(scope="module")
def lab(tree) -> str:
    "A JupyterLab on the copied tree, as the start of its notebooks' addresses."
    quiet = Path(os.environ["JUPYTER_CONFIG_DIR"], "lab", "user-settings", "@jupyterlab", "apputils-extension", "notification.jupyterlab-settings")
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={tree}"]
    log = tree.parent / "server.log"
    with log.open("w") as file: server = subprocess.Popen(command, cwd=tree, env=os.environ | {"JUPYTER_TOKEN": "only-a-test"}, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        def started(): return next(Path(os.environ["JUPYTER_RUNTIME_DIR"]).glob(f"jpserver-{server.pid}.json"), None)
        deadline = time.monotonic() + PATIENCE
        while not started() and server.poll() is None and time.monotonic() < deadline: time.sleep(0.1)
        assert started(), log.read_text()[-3000:]
        yield json.loads(started().read_text())["url"] + "lab/tree/{path}?token=only-a-test"
    finally:
        server.terminate()  # which ends the kernels too
        try: server.wait(20)
        except subprocess.TimeoutExpired: server.kill()


@pytest.fixture
def page(lab, tree, request) -> Page:
    "An empty page; what it showed last is kept beside the tree."
    assert CHROMIUM, "CCAI_BROWSER=required, and there is no chromium on PATH"
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 1200})
            page.set_default_timeout(PATIENCE * 1000)
            yield page
            page.screenshot(path=tree.parent / f"{request.node.name}.png")
        finally: browser.close()


def run_all(page: Page, lab: str, path: str) -> None:
    "Open a notebook of the tree and choose Run > Run All Cells."
    page.goto(lab.format(path=path))
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_visible()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("li[data-command='runmenu:run-all']").click()


def prepared_run(base: Path) -> Run:
    "A run whose questions, answers and revisions all hold HTML."
    prompts = base / "hostile.jsonl"
    prompts.write_text("".join(json.dumps({"text": f"{HOSTILE['question']} About the {thing}."}) + "\n" for thing in ("fence between us", "money he owes", "job I lost")))
    run, recipe = begin("reviewed", None, {"prompts": str(prompts), "n_prompts": 3, "filters": "empty,identical"})
    principles = load_constitution(recipe.constitution).principles

    def reply(conversation):
        asked = conversation[-1].content
        if any(p.critique_request in asked for p in principles): return "It settles the matter."
        return HOSTILE["revision"] if any(p.revision_request in asked for p in principles) else HOSTILE["answer"]

    generate_pairs(run, recipe, ScriptedLLM(reply))
    return run


def test_review_widget(page, lab, tree):
    "A reviewer's click appends a decision and shows the next pair, and no text a model wrote becomes part of the page."
    run = prepared_run(tree.parent)
    notebook = tree / "nbs" / "pipelines" / "04_review.ipynb"
    source = notebook.read_text(encoding="utf-8")
    assert source.count('run: str = \\"demo\\"') == 1
    notebook.write_text(source.replace('run: str = \\"demo\\"', f'run: str = \\"{run.name}\\"'), encoding="utf-8")
    total = len(run.path("pairs.jsonl").read_text().splitlines())

    run_all(page, lab, "nbs/pipelines/04_review.ipynb")
    widget = page.locator(".jp-OutputArea-output").filter(has=page.get_by_role("button", name="A is better"))
    expect(widget).to_contain_text(f"0 decided, {total} to go")
    for text in HOSTILE.values(): expect(widget).to_contain_text(text)
    assert widget.locator("img, script, i").count() == 0
    assert widget.locator("b").all_text_contents() == ["Question", "A", "B"]
    assert page.evaluate("window.ran") is None
    decisions = run.path("reviews", "me.jsonl")
    assert not decisions.exists()

    note = widget.get_by_placeholder("a note, kept with the decision")
    note.fill("plainer")
    widget.get_by_role("button", name="A is better").click()
    expect(widget).to_contain_text(f"1 decided, {total - 1} to go")
    expect(note).to_have_value("")
    [row] = map(json.loads, decisions.read_text(encoding="utf-8").splitlines())
    assert (row["reviewer"], row["preferred"], row["note"]) == ("me", "A", "plainer")
    assert row["decision"] == ("accept" if row["shown_as_a"] == "chosen" else "reject")
    assert page.evaluate("window.ran") is None


PROGRESS_CELL = """import time
from pathlib import Path
from contemplative_cai.store import Progress

progress = Progress(None, "answers", 3)
for i in range(1, 4):
    while not Path(f"go{i}").exists(): time.sleep(0.05)
    time.sleep(0.5)
    progress.advance(tokens=7)
"""


def test_progress_line(page, lab, tree):
    "The progress line of a cell changes in place while the cell runs, and ends as one line that says done."
    import nbformat.v4 as v4
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    (tree / "progress.ipynb").write_text(json.dumps(v4.new_notebook(cells=[v4.new_code_cell(PROGRESS_CELL)], metadata=kernel)), encoding="utf-8")

    run_all(page, lab, "progress.ipynb")
    lines = page.locator(".jp-Cell .jp-OutputArea-output")
    expect(lines).to_have_text(["answers: 0 of 3 calls · estimating the time to go"])
    for i, shown in enumerate(("answers: 1 of 3 calls", "answers: 2 of 3 calls", "done in"), 1):
        (tree / f"go{i}").touch()  # the cell goes on only now, so every line is seen
        expect(lines).to_contain_text([shown])
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_visible()
    expect(lines).to_have_count(1)
    text = lines.inner_text().strip()
    assert text.startswith("answers: 3 of 3 calls") and "done in" in text and "\n" not in text
