"""What only a browser shows: the review widget and the progress line, in a real JupyterLab and a real Chromium."""
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat.v4 as v4
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from support import ROOT, scripted_demo, wait_for

from contemplative_cai.command.pipeline import begin
from contemplative_cai.core.files import read_rows, write_rows
from contemplative_cai.core.run import Run
from contemplative_cai.core.schema import Answer, Message, PreferencePair
from contemplative_cai.inputs.constitution import load_constitution, parse_constitution, recipe_constitution
from contemplative_cai.inputs.sources import own_prompts
from contemplative_cai.review.session import open_review

CHROMIUM = shutil.which("chromium")
PATIENCE = 60  # seconds to wait for anything a slow machine does
# in the status bar; the dot beside the kernel's name says idle before there is a kernel
KERNEL_IDLE = re.compile(r"\| Idle$")
QUESTION, ANSWER = "<u>Who</u> is right?", '<img src=x onerror="window.ran=true"> He is.'
REVISION = "<b>Nobody</b> yet. <script>window.ran=true</script> $x^2$ Ask \u202e& listen."

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


def prepared_run(monkeypatch, lab: Lab, n: int = 500) -> Run:
    "A run whose questions, answers and revisions all hold HTML, and signs that turn a line round."
    monkeypatch.setenv("CCAI_ROOT", str(lab.tree))
    monkeypatch.setenv("CCAI_RUNS", str(lab.folder / "runs"))
    run, recipe = begin("reviewed", None, {})
    constitution = recipe_constitution(recipe)
    def turn(role, text): return (Message(role=role, content=text),)
    def pair(i):
        filler = " ".join(f"word{i % 7}{k}" for k in range(120))
        return PreferencePair(
            prompt=turn("user", f"{QUESTION} It is about matter {i}."), prompt_id=f"p{i}",
            rejected=turn("assistant", f"{ANSWER} {filler}"), chosen=turn("assistant", f"{REVISION} {filler}"),
            principle=constitution.principles[i % 4].id, critique="It settles the matter.", model="m", seed=0,
            constitution=f"{constitution.id}@{constitution.digest}", template="t@0", locale="en_US", source="demo")
    write_rows(run.path("pairs.jsonl"), [pair(i) for i in range(n)])
    write_rows(run.path("dropped.jsonl"), [])
    return run


def with_parameters(lab: Lab, run: Run) -> str:
    "The review notebook on that run and all its pairs; returns its place in the tree."
    notebook = lab.tree / "nbs" / "pipelines" / "04_review.ipynb"
    source = notebook.read_text(encoding="utf-8")
    changes = ((r'run: str = \"demo\"', rf'run: str = \"{run.name}\"'), ("sample: int = 40", "sample: int = 0"))
    for before, after in changes:
        assert source.count(before) == 1
        source = source.replace(before, after)
    notebook.write_text(source, encoding="utf-8")
    return "nbs/pipelines/04_review.ipynb"


WATCH = """(root) => {
  window.took = [];
  let at = 0, place = root.querySelector("[data-name=place]").textContent;
  root.addEventListener("keydown", () => { at = performance.now(); }, true);
  new MutationObserver(() => {
    const now = root.querySelector("[data-name=place]")?.textContent;
    if (now && now !== place) { place = now; window.took.push(performance.now() - at); }
  }).observe(root, { childList: true, subtree: true, characterData: true });
}"""


def rows_of(path: Path) -> list[dict]:
    "The lines of a reviewer's file, but for drafts, of which a slow machine makes more."
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["decision"] != "draft"]


def test_review_widget(page, lab, monkeypatch):
    """Ten decisions by keyboard and ten by mouse, an edit, an undo, a jump back, a reload, a restart, another window:
    the file on disk is right, no text a model wrote becomes part of the page, and no other machine is asked."""
    run = prepared_run(monkeypatch, lab)
    errors, asked = [], []
    def failed(message):  # JupyterLab's debugger asks the kernel that is being restarted
        if message.type == "error" and "debugger state" not in message.text: errors.append(message.text)
    page.on("console", failed)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    path = run.path("reviews", "me.jsonl")
    run_all(page, lab, notebook := with_parameters(lab, run))
    widget, notebook_cells = page.locator(".ccr"), page.locator(".jp-Notebook .jp-Cell")
    place, count, told = (widget.locator(f"[data-name={name}]") for name in ("place", "count", "told"))
    expect(count).to_contain_text("0 of 500 decided")
    expect(page.get_by_text(KERNEL_IDLE)).to_be_visible()
    for text in (QUESTION, ANSWER, REVISION.replace("\u202e", "\\u202e")): expect(widget).to_contain_text(text)
    cells = notebook_cells.count()
    widget.scroll_into_view_if_needed()
    widget.focus()

    page.keyboard.press("a")
    expect(told).to_contain_text("say first of A and of B whether it falls short")
    assert not path.exists()
    widget.evaluate(WATCH)
    for i in range(10):
        for key in ("1", "4", "abtn"[i % 4]): page.keyboard.press(key)
        expect(count).to_contain_text(f"{i + 1} of 500 decided")
    took = sorted(page.evaluate("window.took"))
    assert took[5] < 150, f"a decision shows the next pair within 150 ms; it took {took}"
    for i in range(10):
        vote = ("A is better", "B is better", "Alike", "Neither will do")[i % 4]
        for name in ("A keeps to it", "B falls short", vote):
            widget.get_by_role("button", name=name).click()
        expect(count).to_contain_text(f"{i + 11} of 500 decided")
    assert [row["preferred"] for row in rows_of(path)] == 2 * (["A", "B", "tie", "neither"] * 3)[:10]
    assert [(row["a_falls_short"], row["b_falls_short"]) for row in rows_of(path)] == (
        [(True, False)] * 10 + [(False, True)] * 10)

    page.keyboard.press("e")
    widget.get_by_role("textbox", name="as it should read").fill("As it should read: a, b, t and n.")
    page.keyboard.press("Escape")
    for key in ("d", "2", "3", "b"): page.keyboard.press(key)
    expect(count).to_contain_text("21 of 500 decided")
    page.keyboard.press("u")
    expect(count).to_contain_text("20 of 500 decided")
    expect(widget).to_contain_text("said before: B is better (not decided)")
    page.keyboard.press("b")
    expect(count).to_contain_text("21 of 500 decided")
    page.keyboard.press("j")
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    expect(place).to_contain_text("pair 3 of 500")
    expect(widget).to_contain_text("said before: alike")
    page.keyboard.press("m")
    page.keyboard.type("a better note: stunt")
    page.keyboard.press("Enter")
    page.keyboard.press("n")
    expect(place).to_contain_text("pair 22 of 500")
    edited, taken_back, again, changed = rows_of(path)[20:]
    assert taken_back["decision"] == "undo" and edited["edit"] == again["edit"] != ""
    assert (changed["note"], changed["preferred"]) == ("a better note: stunt", "neither")
    assert notebook_cells.count() == cells, "a key reached the notebook"

    page.locator(".jp-NotebookPanel").get_by_role("button", name=re.compile("^Save")).first.click()
    deadline = time.monotonic() + PATIENCE
    while "widget-view" not in (lab.tree / notebook).read_text(encoding="utf-8") and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    page.reload()
    expect(count).to_contain_text("21 of 500 decided")
    expect(place).to_contain_text("pair 22 of 500")
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.locator("li[data-command='kernelmenu:restart']").click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    expect(widget).to_contain_text("Asleep.")
    widget.focus()
    page.keyboard.press("Enter")
    expect(widget).not_to_contain_text("Asleep.")
    for key in ("1", "4", "a"): page.keyboard.press(key)
    expect(count).to_contain_text("22 of 500 decided")

    other = open_review(run, "me")  # another window
    assert other.decide("A").pair_id == other.order[22]
    for key in ("1", "4", "a"): page.keyboard.press(key)
    expect(told).to_contain_text("decided in another window of me")
    expect(place).to_contain_text("pair 24 of 500")
    assert len(rows_of(path)) == 26 and len(open_review(run, "me").decisions) == 23
    assert widget.locator("img, script, u").count() == 0 and widget.locator("b", has_text="Nobody").count() == 0
    assert page.evaluate("window.ran") is None
    assert errors == [] and {re.sub(r"^(blob:)?\w+://", "", url).split("/")[0].split(":")[0] for url in asked
                             if not url.startswith("data:")} == {"127.0.0.1"}, (errors, set(asked))


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


def test_a_run_is_browsed(page, lab, monkeypatch):
    """Pairs of other sources are covered until one is asked for; sorting, filtering, searching and reading work by
    mouse and keyboard; nothing a model wrote becomes part of the page."""
    run = prepared_run(monkeypatch, lab, 120)
    rows = read_rows(run.path("pairs.jsonl"), PreferencePair)
    write_rows(run.path("pairs.jsonl"), [
        row.model_copy(update={"hazard": "vcr"}) if i == 7 else row for i, row in enumerate(rows)])
    shutil.copy(ROOT / "nbs" / "browse.ipynb", lab.tree / "nbs")
    notebook = lab.tree / "nbs" / "browse.ipynb"
    source = notebook.read_text(encoding="utf-8")
    assert source.count(r'run: str = \"demo\"') == 1
    notebook.write_text(source.replace(r'run: str = \"demo\"', rf'run: str = \"{run.name}\"'), encoding="utf-8")
    write_rows(run.path("answers.jsonl"), [
        Answer(arm=arm, prompt_id=id, source="practice", model="m", text=f"<i>{arm}</i> speaks of what it saw. " * k)
        for k, id in enumerate(sorted(own_prompts())[:3], 2) for arm in ("base", "dpo")])
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    run_all(page, lab, "nbs/browse.ipynb")
    widget = page.locator(".ccb")
    count, reading = widget.locator("[data-name=count]"), widget.locator(".ccb-read")
    expect(count).to_contain_text("120 of 120 pairs · page 1 of 3")
    widget.scroll_into_view_if_needed()
    widget.get_by_role("button", name="change").click()
    expect(widget.locator("th[aria-sort=descending]")).to_contain_text("change")
    widget.get_by_role("searchbox").fill("matter 7.")
    expect(count).to_contain_text("1 of 120 pairs")
    widget.locator("tbody tr").focus()
    page.keyboard.press("Enter")
    expect(reading).to_contain_text("covered (vcr)")
    assert "It is about matter 7" not in widget.inner_html()
    reading.get_by_role("button", name="Show the text").click()
    for text in ("It is about matter 7.", ANSWER, REVISION.replace("\u202e", "\\u202e")):
        expect(reading).to_contain_text(text)
    widget.get_by_role("searchbox").fill("")
    expect(count).to_contain_text("120 of 120 pairs")
    widget.get_by_label("principle", exact=True).select_option(index=1)
    expect(count).to_contain_text("30 of 120 pairs")
    widget.locator("tbody tr").nth(0).click()
    page.keyboard.press("ArrowDown")
    expect(reading).to_contain_text("first answer (rejected)")
    widget.get_by_role("button", name="answers").click()
    expect(count).to_contain_text("3 of 3 answers")
    widget.locator("tbody tr").nth(0).click()
    beside = [reading.get_by_text(f"<i>{arm}</i> speaks").bounding_box() for arm in ("base", "dpo")]
    assert beside[0]["y"] == beside[1]["y"] and beside[0]["x"] < beside[1]["x"], "arms stand beside each other"
    page.screenshot(path=lab.folder / "browse.png")
    widget.get_by_role("button", name="games").click()
    expect(count).to_contain_text("0 of 0 games")
    assert page.evaluate("window.ran") is None and not errors, errors


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


ACTING = '<img src=x onerror="window.ran=true"> ${window.ran=true} {{window.ran=true}} Ask \u202eher.'


@pytest.fixture
def demo_page() -> Iterator[tuple]:
    "The demo's page on a port of its own, and every address that this process connects to meanwhile."
    import uvicorn

    from contemplative_cai.command.demo_page import demo_app, loopback_socket
    connected, heard = [], [True]  # a hook stays for good
    sys.addaudithook(lambda event, args: connected.append(args[1]) if event == "socket.connect" and heard else None)
    demo = scripted_demo(lambda c: ACTING if c[0].role == "system" else "Of course you may. " * 12, pause=0.02)
    with loopback_socket() as listening:
        port = listening.getsockname()[1]
        app = demo_app(demo, "s3cret", port, "ann")
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_for(lambda: server.started, PATIENCE)
            yield demo, f"http://127.0.0.1:{port}", connected
        finally:
            heard.clear()
            server.should_exit = True
            thread.join(20)


def test_demo_page(demo_page, browser, tmp_path):
    "Refused without the token; a question streams, a clause restarts one arm, a vote lands; nobody else is asked."
    demo, url, connected = demo_page
    expect.set_options(timeout=PATIENCE * 1000)
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    for refused in (url, f"{url}/config", f"{url}/?token=wrong"):
        assert page.goto(refused).status == 403
    page.goto(f"{url}/?token=s3cret")
    assert page.url == f"{url}/"
    base, prompted = page.locator(".ccd").nth(0), page.locator(".ccd").nth(1)
    page.get_by_label("Question").fill("May I read her diary?")
    page.get_by_label("Question").press("Enter")
    expect(base).to_contain_text("writing ...")
    lengths = []
    while "ended" not in base.inner_text(): lengths.append(len(base.inner_text()))
    assert len(set(lengths)) > 3, "it grows"
    expect(prompted).to_contain_text("Ask \\u202eher.")
    page.screenshot(path=tmp_path / "answers.png")
    text = page.get_by_label("Constitution")
    text.fill(text.input_value().replace("## Emptiness", "## Openness", 1))
    expect(page.get_by_text("The prompted arm answers anew.")).to_be_visible()
    wait_for(lambda: any("Openness" in c[0].content for c in demo.base.calls), PATIENCE)
    expect(prompted).to_contain_text("ended")
    page.get_by_label("keeps to it").nth(1).check()
    page.get_by_role("radio", name="prompted", exact=True).check()
    page.get_by_role("button", name="Criticise").click()
    page.get_by_role("button", name="Vote").click()
    expect(page.get_by_text("1 votes, 0 of them blind")).to_be_visible()
    row = json.loads(demo.run.path("reviews/demo/ann.jsonl").read_text())
    assert row["preferred"] == "prompted" and [one["falls_short"] for one in row["answers"]] == [None, False, None]
    assert not page.evaluate("window.ran") and not errors
    assert {address.split("/")[2] for address in asked if not address.startswith(("data:", "blob:"))} == {url[7:]}
    assert all(isinstance(address, (str, bytes)) or address[0] in ("127.0.0.1", "::1") for address in connected)
    page.close()
