"""Every pipeline notebook, executed on the random model: what a reader sees in it is data, words and nothing else."""
import re

import nbformat
import pytest
from support import ROOT

from contemplative_cai.core.project import STEPS, notebook_path

pytestmark = pytest.mark.long  # one line of runs, from setup to report

# runs in the kernel: a figure that is shown while axes of it hold no data is reported on stderr, which fails the test
WATCH_FIGURES = '''
import sys
from contemplative_cai.measure import plot
drawn_before = plot.png

def holds_data(axes):
    lines = [line for line in axes.lines if line.get_transform() == axes.transData and len(line.get_xdata())]
    return bool(lines or axes.patches or axes.collections or axes.images)

def watched_png(figure):
    empty = [axes for axes in figure.axes if axes.axison and axes.get_visible() and not holds_data(axes)]
    if empty or not (figure.axes or figure.words): print("a figure without data:", empty, file=sys.stderr)
    return drawn_before(figure)

plot.png = watched_png
'''
LINE = [("setup", {}), ("generate", {"recipe": "smoke", "settings": {"n_few_shot": 1}}), ("review", {}), ("train", {}),
        ("evaluate", {"n_games": 0, "settings": {"capability": "choices"}}), ("quickstart", {"recipe": "smoke"}),
        ("smoke-test", {"settings": {"answer_tokens": 20}})]
assert {step for step, _ in LINE} == set(STEPS)


def begin_kernel(folder):
    "One kernel for all notebooks, each of which finds it empty: the libraries are loaded once."
    import os

    from jupyter_client import KernelManager
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(ROOT), env=os.environ | {"CCAI_RUNS": str(folder)},
                         extra_arguments=["--IPKernelApp.log_level=CRITICAL"])
    return manager


@pytest.fixture(scope="module")
def folder(tmp_path_factory): return tmp_path_factory.mktemp("notebooks") / "runs"


@pytest.fixture(scope="module")
def executed(folder):
    "By step: its notebook as it was executed."
    from nbclient import NotebookClient
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook
    manager, notebooks = begin_kernel(folder), {}
    try:
        for step, parameters in LINE:
            name = "smoke-test" if step == "smoke-test" else "line"
            notebook = parameterize_notebook(load_notebook_node(str(notebook_path(step))),
                                             {"run": name} | parameters)
            hook = nbformat.v4.new_code_cell(f"%reset -f\nexec({WATCH_FIGURES!r}, {{}})")
            notebook.cells.insert(0, hook)
            NotebookClient(notebook, km=manager, timeout=300).execute()
            notebooks[step] = notebook
    finally: manager.shutdown_kernel(now=True)
    return notebooks


def outputs(notebook): return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def shown(output): return str(output.get("text", "")) + "".join(map(str, output.get("data", {}).values()))


@pytest.mark.parametrize("step", STEPS)
def test_nothing_is_said_on_stderr_and_no_figure_is_empty(executed, step):
    notebook = executed[step]
    assert [output.text for output in outputs(notebook) if output.get("name") == "stderr"] == []
    assert not [output for output in outputs(notebook) if output.output_type == "error"]


def test_the_smoke_test_ends_with_a_report(executed, folder): assert (folder / "smoke-test" / "report.html").is_file()


@pytest.mark.parametrize("step", STEPS)
def test_there_is_no_bar_no_warning_and_no_numbered_table(executed, step):
    texts = [shown(output) for output in outputs(executed[step])
             if "image/png" not in output.get("data", {})]
    assert texts
    for text in texts:
        assert not re.search(r"it/s|\d%\|", text), "a bar of tqdm"
        assert not re.search(r"\b(Future|Deprecation|User|Pandas4)Warning\b", text), text[:400]
        assert 'class="dataframe"' not in text, "a table that did not go through grid"
        assert not re.search(r"\b0 of 0\b", text), text


@pytest.mark.parametrize("step", STEPS)
def test_a_stage_has_one_line_of_progress_in_a_cell(executed, step):
    for cell in executed[step].cells:
        lines = [str(output.data.get("text/plain", "")) for output in cell.get("outputs", []) if "data" in output]
        stages = [line.split(":")[0] for line in lines if re.match(r"[a-z ]+: \d+ of \d+ ", line)]
        twice = [stage for stage in set(stages) if stages.count(stage) > 1 + stage.startswith("judge ")]
        assert not twice, f"{twice}: only a judge may have two lines, being measured before it is asked"


@pytest.mark.parametrize("step", STEPS)
def test_the_recipe_in_force_is_shown_with_what_differs(executed, step):
    notebook = executed[step]
    tables = [shown(output) for output in outputs(notebook) if "<div style='columns" in shown(output)]
    assert len(tables) == 1 and "n_prompts" in tables[0]
    if step == "generate": assert "every key as in its file" in tables[0]
    if step == "smoke-test": assert "answer_tokens 20 (file: 24)" in tables[0] and "font-weight:bold" in tables[0]


@pytest.mark.parametrize("step, figures", [("generate", 3), ("train", 2), ("evaluate", 2), ("quickstart", 3)])
def test_pictures_are_there(executed, step, figures):
    assert sum("image/png" in output.get("data", {}) for output in outputs(executed[step])) >= figures
