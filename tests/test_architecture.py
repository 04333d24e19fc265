"""The shape of the project: one straight line, light to import, notebooks as the source."""
import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contemplative_cai.config import Recipe, recipe_names
from contemplative_cai.pipeline import KINDS, STEPS, notebook_parameters, notebook_path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
ORDER = [path.stem.split("_", 1)[1] for path in NOTEBOOKS]


def cells(path): return json.loads(path.read_text())["cells"]


def imports(module):
    "Names of the project's modules that a module imports, anywhere in it."
    found = set()
    for node in ast.walk(ast.parse((ROOT / "contemplative_cai" / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level: found.add(node.module)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found |= {name.split(".")[1] for name in names if name.startswith("contemplative_cai.")}
    return found


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_lower_numbered_ones(module):
    assert imports(module) <= set(ORDER[:ORDER.index(module)])


def test_every_numbered_notebook_exports_a_module():
    assert sorted(ORDER) == sorted(path.stem for path in (ROOT / "contemplative_cai").glob("[a-z]*.py"))


def test_import_is_light():
    heavy = "torch transformers trl peft datasets pandas sklearn scipy matplotlib papermill boto3 IPython ipywidgets nbdev fastcore".split()
    code = f"import sys\n{'; '.join(f'import contemplative_cai.{module}' for module in ORDER)}\nprint([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("module", ORDER)
def test_exported_code_imports_neither_nbdev_nor_fastcore(module):
    text = (ROOT / "contemplative_cai" / f"{module}.py").read_text()
    assert "import nbdev" not in text and "from nbdev" not in text and "fastcore" not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_library_notebook_opens_with_its_sentence(path):
    first = "".join(cells(path)[0]["source"]).split("\n")
    assert first[0] == f"# {path.stem.split('_', 1)[1]}" and first[2].startswith("> ")


def test_parameters_tags_survive_nbdev_clean(tmp_path):
    shutil.copytree(ROOT, tmp_path / "tree", ignore=shutil.ignore_patterns(".venv*", ".git", "runs", "__pycache__", "benchmarks"))
    subprocess.run([str(Path(sys.executable).with_name("nbdev_clean"))], cwd=tmp_path / "tree", check=True, capture_output=True)
    for step in STEPS:
        tagged = [cell for cell in cells(tmp_path / "tree" / "nbs" / "pipelines" / notebook_path(step).name) if "parameters" in cell["metadata"].get("tags", [])]
        assert len(tagged) == 1, step


def test_recipe_keys_equal_notebook_parameters():
    named = {name for step in ("generate", "train", "evaluate") for name in notebook_parameters(step)}
    assert named - {"run", "recipe", "show_text", "on", "actors"} == set(Recipe.model_fields)


@pytest.mark.parametrize("step", STEPS)
def test_parameters_are_typed_literals_with_a_meaning(step):
    for parameter in notebook_parameters(step).values():
        assert parameter.meaning and parameter.kind.split(" | ")[0] in KINDS, parameter
        if parameter.name in Recipe.model_fields and step != "review": assert parameter.default is None and "as the recipe says" in parameter.meaning


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_says_what_it_is_and_is_valid(name):
    from contemplative_cai.config import load_recipe, recipe_summary
    assert load_recipe(name) and len(recipe_summary(name)) > 20


def test_the_submodule_is_pinned():
    entry = subprocess.run(["git", "ls-files", "-s", "data/benchmarks/ailuminate"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert entry[:2] == ["160000", "769cc2be9d20c8d4fb26ce53b68865ed41dfb8e2"]
