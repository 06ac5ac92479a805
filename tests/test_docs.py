"""Every Python block and every command in the README and the docs does what it says.

The blocks of a page share one namespace. A block with a title is a file of that name, which the page's commands find.
"""

from __future__ import annotations

import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks import pages
from benchmarks.pictures import PICTURES, THEMES
from fastcheck.cli import main
from fastcheck.report.jsonfile import SCHEMA

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPTIONAL = ("torch", "jax", "pandas", "autograd", "numdifftools")  # what pages are about and need not be installed
FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def fences(page, language):
    """Yield (line number, options, text) of the code fences of a language."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        indent, found, options, body = match.groups()
        if found == language:
            yield text.count("\n", 0, match.start()) + 1, options, re.sub(f"^{indent}", "", body, flags=re.MULTILINE)


def commands(page):
    """Yield (line number, words, lines shown below) of every fastcheck command of a page."""
    for line, _, body in fences(page, "console"):
        parts = re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]
        for part, following in zip(parts, [*parts[1:], ""], strict=True):
            typed, *shown = part.strip("\n").split("\n")
            status = following.split("\n")[1] if following.startswith("echo $?") else None
            for one in typed.split("&&"):
                words = shlex.split(one, comments=True)
                if words and Path(words[0]).name == "fastcheck":
                    yield line, words[1:], shown, status


def names(pages):
    return [str(page.relative_to(ROOT)) for page in pages]


@pytest.fixture
def _beside(monkeypatch, tmp_path):
    """Work in an empty folder, and forget the modules that were loaded from it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.usefixtures("_beside")
@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_python_blocks_run(page, capsys):
    if page.stem in OPTIONAL:
        pytest.importorskip(page.stem)
    namespace = {"__name__": "__page__"}
    for line, options, body in fences(page, "python"):
        needed = set(re.findall(r"^(?:import|from) (\w+)", body, flags=re.MULTILINE)) & set(OPTIONAL)
        if "title=" in options or not all(map(find_spec, needed)):
            continue
        code = compile("\n" * line + body, str(page), "exec")
        exec(code, namespace)


@pytest.mark.usefixtures("_beside")
@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_commands_parse_and_do_what_is_shown(page):
    for _, options, body in fences(page, "python"):
        title = re.search(r'title="([^"]+)"', options)
        if title:
            Path(title[1]).write_text(body)
    for line, words, shown, status in commands(page):
        where = f"{page.name}:{line}: fastcheck {' '.join(words)}"
        command = main.get_command(click.Context(main), words[0]) if words else None
        assert command is not None, where
        command.make_context(words[0], words[1:])  # raises on an option that is not there
        if not any(Path(word).is_file() for word in words):
            continue
        result = CliRunner().invoke(main, words)
        if shown:
            assert result.output.splitlines()[: len(shown)] == shown, where
        if status is not None:
            assert result.exit_code == int(status), where


def test_something_was_found():
    assert sum(1 for page in PAGES for _ in fences(page, "python")) >= 20
    assert sum(1 for page in PAGES for _ in commands(page)) >= 2


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", pages.PARTS)
def test_parts_made_of_data_are_as_they_would_be_made(page):
    assert (ROOT / page).read_text(encoding="utf-8") == pages.renewed(page), "run: python -m benchmarks.pages"


def test_the_schema_of_a_report_is_published_as_it_is():
    assert (ROOT / "docs" / "report.schema.json").read_bytes() == SCHEMA.read_bytes()


def test_pictures_are_there_for_light_and_dark_pages_and_load_nothing():
    pictures = sorted((ROOT / "docs" / "pictures").iterdir())
    light, dark = ({path.name.partition("-")[0] for path in pictures if theme in path.stem} for theme in THEMES)
    assert light == dark == set(PICTURES)
    for path in pictures:
        if path.suffix != ".svg":
            continue
        assert not re.search(r"(href|src|url\()\W*http|@import", path.read_text(encoding="utf-8")), path.name
