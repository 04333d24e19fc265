"""The shape of the project: one straight line, light to import, notebooks as the source."""
import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from contemplative_cai.command.pipeline import PARAMETER_KINDS, STEPS, notebook_parameters, notebook_path
from contemplative_cai.core.recipe import Recipe, recipe_names

NOTEBOOKS = sorted((ROOT / "nbs").glob("[0-9]*_*/[0-9]*_*.ipynb"))


def room_and_name(path): return f"{path.parent.name.split('_', 1)[1]}.{path.stem.split('_', 1)[1]}"


ORDER = [room_and_name(path) for path in NOTEBOOKS]
ROOMS = list(dict.fromkeys(module.split(".")[0] for module in ORDER))


def cells(path): return json.loads(path.read_text())["cells"]


def source(module): return (ROOT / "contemplative_cai" / f"{module.replace('.', '/')}.py").read_text()


def imports(module):
    "The project's modules that a module imports, anywhere in it."
    for node in ast.walk(ast.parse(source(module))):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("contemplative_cai.")
                        for alias in node.names if alias.name.startswith("contemplative_cai."))
        if not isinstance(node, ast.ImportFrom): continue
        if not node.level and not f"{node.module}.".startswith("contemplative_cai."): continue
        package = ({0: "", 1: f"{module.split('.')[0]}.", 2: ""}[node.level]
                   + (node.module or "").removeprefix("contemplative_cai").removeprefix("."))
        if package in ORDER: yield package
        else: yield from (f"{package}.{alias.name}".lstrip(".") for alias in node.names)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_earlier_rooms_and_lower_numbered_files_of_its_own(module):
    assert set(imports(module)) <= set(ORDER[:ORDER.index(module)])


def test_every_numbered_notebook_exports_a_module():
    modules = [path.relative_to(ROOT / "contemplative_cai").with_suffix("")
               for path in (ROOT / "contemplative_cai").glob("*/[a-z]*.py")]
    assert sorted(ORDER) == sorted(".".join(path.parts) for path in modules)
    assert not list((ROOT / "contemplative_cai").glob("[a-z]*.py")), "a module without a room"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_in_one_sentence_what_it_is_for(room):
    sentence = ast.get_docstring(ast.parse((ROOT / "contemplative_cai" / room / "__init__.py").read_text()))
    assert sentence and sentence.endswith(".") and sentence.count(".") == 1


def test_a_name_is_defined_once():
    homes = {}
    for module in ORDER:
        for node in ast.parse(source(module)).body:
            named = [node] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
            targets = (node.targets if isinstance(node, ast.Assign)
                       else [node.target] if isinstance(node, ast.AnnAssign) else [])
            names = ([item.name for item in named]
                     + [leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)])
            for name in names:
                if not name.startswith("_") and name != "main": homes.setdefault(name, []).append(module)
    assert {name: there for name, there in homes.items() if len(there) > 1} == {}


@pytest.mark.parametrize("module", ORDER)
def test_no_line_needs_the_page_turned(module):
    "nbdev breaks the lines of `__all__` itself, ten characters later."
    assert not [line for line in source(module).split("\n") if len(line) > 120 and not line.startswith("__all__")]


def test_import_is_light():
    heavy = ("torch transformers trl peft datasets pandas sklearn scipy matplotlib papermill boto3 IPython "
             "ipywidgets nbdev fastcore").split()
    code = (f"import sys\n{'; '.join(f'import contemplative_cai.{module}' for module in ORDER)}\n"
            f"print([m for m in {heavy!r} if m in sys.modules])")
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize("module", ORDER)
def test_exported_code_imports_neither_nbdev_nor_fastcore(module):
    text = source(module)
    assert "import nbdev" not in text and "from nbdev" not in text and "fastcore" not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_library_notebook_opens_with_its_sentence(path):
    first = "".join(cells(path)[0]["source"]).split("\n")
    assert first[0] == f"# {path.stem.split('_', 1)[1]}" and first[2].startswith("> ")


def test_parameters_tags_survive_nbdev_clean(tmp_path):
    shutil.copytree(ROOT, tmp_path / "tree",
                    ignore=shutil.ignore_patterns(".venv*", ".git", "runs", "__pycache__", "benchmarks"))
    subprocess.run([str(Path(sys.executable).with_name("nbdev_clean"))], cwd=tmp_path / "tree", check=True,
                   capture_output=True)
    for step in STEPS:
        tagged = [cell for cell in cells(tmp_path / "tree" / "nbs" / "pipelines" / notebook_path(step).name)
                  if "parameters" in cell["metadata"].get("tags", [])]
        assert len(tagged) == 1, step


@pytest.mark.parametrize("step", STEPS)
def test_parameters_are_few_typed_literals_with_a_meaning(step):
    parameters = notebook_parameters(step)
    named = [parameter for parameter in parameters.values() if parameter.name != "settings"]
    assert len(named) <= 14
    assert step == "review" or (parameters["settings"].kind, parameters["settings"].default) == ("dict", {})
    for parameter in named:
        assert parameter.meaning and parameter.kind.split(" | ")[0] in PARAMETER_KINDS, parameter
        if parameter.name in Recipe.model_fields and step != "review": assert parameter.default is None


@pytest.mark.parametrize("step", STEPS)
def test_a_pipeline_notebook_begins_with_two_lines_of_import_and_has_lines_one_can_read(step):
    code = ["".join(cell["source"]) for cell in cells(notebook_path(step)) if cell["cell_type"] == "code"]
    lines = [line for text in code for line in text.split("\n")]
    assert max(map(len, lines)) <= 120
    assert sum(line.startswith(("import ", "from ")) for line in lines) <= 2
    assert not any(cell.get("outputs") for cell in cells(notebook_path(step)))


@pytest.mark.parametrize("step", STEPS)
def test_no_cell_of_a_pipeline_notebook_gives_a_key_of_the_recipe_another_meaning(step):
    "The first cell reads the notebook's names when it is run again."
    for cell in cells(notebook_path(step)):
        if cell["cell_type"] != "code" or "parameters" in cell["metadata"].get("tags", []): continue
        names = {node.id for node in ast.walk(ast.parse("".join(cell["source"])))
                 if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        assert not names & {*Recipe.model_fields, "settings"}, names


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_says_what_it_is_and_is_valid(name):
    from contemplative_cai.core.recipe import load_recipe, recipe_summary
    assert load_recipe(name) and len(recipe_summary(name)) > 20


def test_the_submodule_is_pinned():
    entry = subprocess.run(["git", "ls-files", "-s", "data/benchmarks/ailuminate"], cwd=ROOT, capture_output=True,
                           text=True, check=True).stdout.split()
    assert entry[:2] == ["160000", "769cc2be9d20c8d4fb26ce53b68865ed41dfb8e2"]
