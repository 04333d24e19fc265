"""Feeds setuptools from settings.ini, the one place where metadata is kept."""
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

settings = ConfigParser(delimiters=["="], interpolation=None)
settings.read("settings.ini", encoding="utf-8")
meta = settings["DEFAULT"]
package = meta["lib_name"]
PROJECT = ("configs", "data", "nbs/pipelines", "runs/README.md")  # what `ccai init` lays out; as in core/project
NOT_CARRIED = shutil.ignore_patterns("benchmarks", ".*", "__pycache__")


class WithProject(build_py):
    "Puts recipes, data and pipeline notebooks into the wheel; an editable install reads them where they are."

    def run(self):
        if self.editable_mode: return super().run()
        shutil.rmtree(self.build_lib, ignore_errors=True)  # modules that are no longer in the tree
        super().run()
        folder = Path(self.build_lib) / package / "project"
        for part in PROJECT:
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            if Path(part).is_file(): shutil.copyfile(part, folder / part)
            else: shutil.copytree(part, folder / part, ignore=NOT_CARRIED)


setup(
    name=package,
    version=meta["version"],
    description=meta["description"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=meta["author"],
    license="Apache-2.0",
    keywords=meta["keywords"],
    python_requires=f">={meta['min_python']}",
    packages=find_packages(include=[package, f"{package}.*"]),
    package_data={"": ["*"]},  # templates and py.typed lie beside the modules
    cmdclass={"build_py": WithProject},
    install_requires=meta["requirements"].split(),
    extras_require={key.removesuffix("_requirements"): meta[key].split()
                    for key in meta if key.endswith("_requirements")},
    entry_points={"console_scripts": meta["console_scripts"].split(), "ccai.launchers": meta["launchers"].split()},
)
