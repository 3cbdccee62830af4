"""What the site has besides the pages in docs/: README, the notebook, and references made of the code."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from trunkline.cli import app

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/trunkline/trunkline/blob/main/"
MARKS = {"no-run", "slow"}
"""Words behind a block's language that are for the tests."""

PYTHON = {
    "trunkline.model": ["load", "Model"],
    "trunkline.results": None,
    "trunkline.adapt": ["LoraSettings"],
    "trunkline.export.bundle": ["ExportOptions"],
    "trunkline.data.load": ["load_examples"],
    "trunkline.integrations.sklearn": None,
    "trunkline.integrations.spacy": ["TrunklineNer", "TrunklineTextcat"],
    "trunkline.integrations.presidio": ["TrunklineRecognizer"],
    "trunkline.encoder.peft_format": ["import_peft", "export_peft"],
    "trunkline.errors": ["TrunklineError"],
}
"""Module -> what of it users call; None for all that is public."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made here."""
    made = {
        "index.md": readme(),
        "first-feature.md": notebook(ROOT / "docs" / "first-feature.ipynb"),
        "reference-python.md": python_reference(),
        "reference-cli.md": "\n".join(cli_reference()),
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Blocks named as files get a title, and links that lead out of docs/ go to the repository."""

    def block(match: re.Match[str]) -> str:
        language, name = match[1], match[2]
        return f"```{language}" if name in MARKS else f'```{language} title="{name}"'

    def link(match: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join("docs", match[1]))
        inside = place.startswith("docs/") and not place.endswith(".json")
        return match[0] if inside else f"]({REPOSITORY}{place})"

    markdown = re.sub(r"^```(\w+) ([\w./-]+)$", block, markdown, flags=re.M)
    return re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", link, markdown)


def readme() -> str:
    """README as the first page, its links as from docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", lambda m: f"]({posixpath.relpath(m[1], 'docs')})", text)


def notebook(path: Path) -> str:
    """A notebook as a page: text, code, and what the code printed."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        printed = "".join(line for output in cell.get("outputs", []) for line in output["text"])
        parts += [f"```text\n{printed.rstrip()}\n```"] if printed else []
    parts.append(f"This page is a [notebook]({REPOSITORY}docs/{path.name}).")
    return "\n\n".join(parts)


def python_reference() -> str:
    """Directives for mkdocstrings."""
    parts = ["# Python reference", "Made of the docstrings. [python](python.md) has the same by job, with examples."]
    for module, names in PYTHON.items():
        parts += [f"::: {module}.{name}" for name in names] if names else [f"::: {module}"]
    return "\n\n".join(parts)


def cli_reference() -> Iterator[str]:
    """Every command with its arguments and options, as `--help` has them."""
    yield "# Command reference\n\nMade of the commands themselves. [commands](cli.md) has them by job, with examples.\n"
    for path, command in commands(typer.main.get_command(app), ("trunkline",)):
        context = command.make_context(path[-1], [], resilient_parsing=True)
        context.info_name = " ".join(path)
        yield f"## {' '.join(path)}\n\n```text\n{context.get_usage().removeprefix('Usage: ')}\n```\n"
        yield paragraphs(command.help or "")
        rows = [row for parameter in command.params if (row := parameter.get_help_record(context))]
        if rows:
            yield "| argument or option | meaning |\n|---|---|"
            yield "\n".join(f"| `{' '.join(name.split())}` | {cell(text)} |" for name, text in rows) + "\n"


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The commands below one, groups left out."""
    for name, child in sorted(getattr(command, "commands", {}).items()):
        if hasattr(child, "commands"):
            yield from commands(child, (*path, name))
        elif not child.hidden:
            yield (*path, name), child


def paragraphs(text: str) -> str:
    """A command's help; its examples, which are indented, as a block."""
    plain, _, examples = text.partition("\b")
    plain = plain.replace("<", "&lt;")
    return f"{plain.strip()}\n" + (f"\n```text\n{examples.strip()}\n```\n" if examples.strip() else "")


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
