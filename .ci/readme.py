"""Render README.md from nbs/index.ipynb; with --check, say whether it is up to date."""
import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.M | re.S)
ADDRESS = re.compile(r"\]\(([^()\s]+)\)")


def relinked(text: str,  # Markdown
             change: Callable[[str], str],  # an address in the project to another
             ) -> str:
    "The same Markdown with other addresses; code, headings of the same page and the web stay as they are."
    def changed(match: re.Match) -> str:
        stays = urlsplit(match[1]).scheme or match[1].startswith("#")
        return match[0] if stays else f"]({change(match[1])})"
    code = [part if CODE.fullmatch(part) else None for part in CODE.split(text)]
    hidden = "".join("\0" if part else prose for part, prose in zip(code, CODE.split(text)))
    kept = iter(part for part in code if part)
    return re.sub("\0", lambda _: next(kept), ADDRESS.sub(changed, hidden))


def from_root(address: str) -> str:
    "An address in nbs/ as the project's root sees it."
    return posixpath.normpath(posixpath.join("nbs", address)) + ("/" if address.endswith("/") else "")


def rendered() -> str:
    "The README the index notebook says."
    text, _ = MarkdownExporter().from_filename(ROOT / "nbs" / "index.ipynb")
    text = relinked(text, from_root).strip()
    return f"<!-- Rendered from nbs/index.ipynb by .ci/readme.py: edit the notebook. -->\n\n{text}\n"


def main() -> None:
    readme = ROOT / "README.md"
    if "--check" not in sys.argv: readme.write_text(rendered(), encoding="utf-8")
    elif readme.read_text(encoding="utf-8") != rendered():
        sys.exit("README.md differs from nbs/index.ipynb; render it with: python .ci/readme.py")


if __name__ == "__main__": main()
