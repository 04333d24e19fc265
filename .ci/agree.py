"""Check that notebooks, exported modules and README agree: export and clean a copy of the tree, and compare."""
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def differences(left: Path, right: Path, pattern: str) -> list[str]:
    "Files under both folders that are not the same, as relative names."
    names = {path.relative_to(side)
             for side in (left, right) for path in side.rglob(pattern) if ".ipynb_checkpoints" not in path.parts}
    return sorted(str(name) for name in names if not ((left / name).exists() and (right / name).exists()
                                                      and (left / name).read_bytes() == (right / name).read_bytes()))


def with_outputs(folder: Path) -> list[str]:
    "Pipeline notebooks that keep outputs; their sources keep none."
    return [path.name for path in sorted(folder.glob("*.ipynb"))
            if any(cell.get("outputs") for cell in json.loads(path.read_text())["cells"])]


def main() -> int:
    problems = [f"nbs/pipelines/{name} holds outputs; clear them" for name in with_outputs(ROOT / "nbs" / "pipelines")]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / ROOT.name
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv*", ".git", "runs", "__pycache__", "*.egg-info",
                                                                  "benchmarks"))
        for command in ("nbdev_export", "nbdev_clean"):
            subprocess.run([str(Path(sys.executable).with_name(command))], cwd=copy, check=True, capture_output=True)
        problems += [f"contemplative_cai/{name} is not what its notebook exports; run nbdev_export"
                     for name in differences(ROOT / "contemplative_cai", copy / "contemplative_cai", "*.py")]
        problems += [f"nbs/{name} is not clean; run nbdev_clean"
                     for name in differences(ROOT / "nbs", copy / "nbs", "*.ipynb")]
    checked = subprocess.run([sys.executable, str(ROOT / ".ci" / "readme.py"), "--check"], capture_output=True,
                             text=True)
    if checked.returncode: problems.append(checked.stderr.strip())
    for problem in problems: print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__": sys.exit(main())
