"""Feeds setuptools from settings.ini, the one place where metadata is kept."""
from configparser import ConfigParser

from setuptools import find_packages, setup

settings = ConfigParser(delimiters=["="], interpolation=None)
settings.read("settings.ini", encoding="utf-8")
meta = settings["DEFAULT"]
EXTRAS = ("dev", "sagemaker", "vllm", "cluster", "quantize", "track", "search", "capability", "demo")

setup(
    name=meta["lib_name"],
    version=meta["version"],
    description=meta["description"],
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    author=meta["author"],
    license="Apache-2.0",
    keywords=meta["keywords"],
    python_requires=f">={meta['min_python']}",
    packages=find_packages(include=[meta["lib_name"]]),
    install_requires=meta["requirements"].split(),
    extras_require={extra: meta[f"{extra}_requirements"].split() for extra in EXTRAS},
    entry_points={"console_scripts": meta["console_scripts"].split(), "ccai.launchers": meta["launchers"].split()},
)
