"""The pages of docs/ and README.md as tests read them: their code, their shell commands, the options they name."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import SkipTest

from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted((REPOSITORY / "docs").rglob("*.md"))

README = REPOSITORY / "README.md"
_CODE_SPAN = re.compile(r"`([^`\n]+)`")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def parsed(page: Path, substitutes: Mapping[str, str]) -> Document:
    """A page's Python blocks, those in comments (`<!-- invisible-code-block: python`) and `<!-- skip: ... -->` too.

    Args:
        page: Its file.
        substitutes: What stands in its text, and what is run in its place.
    """
    text = page.read_text(encoding="utf-8")
    for written, meant in substitutes.items():
        text = text.replace(written, meant)
    document = Document(text, str(page))
    for parser in (PythonCodeBlockParser(), SkipParser()):
        for region in parser(document):
            document.add(region)
    return document


def run(document: Document) -> None:
    """Run a page's blocks in order, in one namespace. Those that it says to skip, with a reason, are left out."""
    for example in document.examples():
        with contextlib.suppress(SkipTest):
            example.evaluate()


def has_code(page: Path) -> bool:
    """Whether there is anything to run."""
    return "```python" in page.read_text(encoding="utf-8")


def commands(page: Path) -> Iterator[list[str]]:
    """The words behind `millpond` of every such command line in a page's blocks."""
    is_code = False
    for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            is_code = not is_code
        elif is_code and line.startswith("millpond "):
            yield shlex.split(line, comments=True)[1:]


def options_named(page: Path) -> set[str]:
    """Options in a page's text: `--like-this`, but not those behind another program's name."""
    spans = _CODE_SPAN.findall(page.read_text(encoding="utf-8"))
    ours = [span for span in spans if span.startswith(("--", "millpond"))]
    return {option for span in ours for option in _OPTION.findall(span)}
