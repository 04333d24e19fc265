"""Render README.md from nbs/index.ipynb; with --check, say whether it is up to date."""
import posixpath
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]


def from_root(link: re.Match) -> str:
    "A link of nbs/index.ipynb as the project's root sees it."
    text, address = link.groups()
    if urlsplit(address).scheme or address.startswith("#"): return link[0]
    slash = "/" if address.endswith("/") else ""
    return f"{text}({posixpath.normpath(posixpath.join('nbs', address))}{slash})"


def rendered() -> str:
    "The README the index notebook says."
    text, _ = MarkdownExporter().from_filename(ROOT / "nbs" / "index.ipynb")
    text = re.sub(r"(\[[^\]]*\])\(([^()\s]+)\)", from_root, text)
    return "<!-- Rendered from nbs/index.ipynb by .ci/readme.py: edit the notebook. -->\n\n" + text.strip() + "\n"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    if "--check" not in sys.argv: readme.write_text(rendered(), encoding="utf-8")
    elif readme.read_text(encoding="utf-8") != rendered():
        sys.exit("README.md differs from nbs/index.ipynb; render it with: python .ci/readme.py")
