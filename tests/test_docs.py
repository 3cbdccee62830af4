"""The user's pages: what they show runs, what they name exists, what they say is short."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml
from typer.testing import CliRunner

import trunkline
from trunkline.cli import app
from trunkline.config import FamilySection, PrefinetuneRecipe, parse_recipe
from trunkline.encoder.resolve import INSTALL

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
TEXTS = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
MOST_PAGES = 14
MOST_WORDS = 25
OTHER_OPTIONS = {"--no-deps"}
"""Options that pages name and that are not ours."""

NEAR, POINTS = 0.05, 5.0
"""How far printed fractions (those above 1 by their size), and percentages, may be from those of a page: 8-bit weights
give other numbers on other processors."""


class Block(NamedTuple):
    """A fenced block: its line, language, file name or mark, and content."""

    line: int
    language: str
    name: str
    content: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```(\w+)?(?: ([\w./-]+))?\n(.*?)^```$", text, flags=re.S | re.M):
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(line, match[1] or "", match[2] or "", match[3]))
    return found


def prose(page: Path) -> str:
    """A page without its blocks and comments."""
    text = re.sub(r"^```.*?^```$", "\n", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return re.sub(r"<!--.*?-->|<[^>]+>", " ", text, flags=re.S)


def command_lines(block: Block) -> list[list[str]]:
    """The commands of ours in a block of bash, as words."""
    lines = block.content.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("trunkline ")]


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file) if file else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.M)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_named_files_of_the_repository_exist(page: Path) -> None:
    named = re.findall(r"(?<![\w/])(?:lab|src|docs|tests)/[\w./-]*\w", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_there_are_few_pages_and_the_readme_links_all() -> None:
    assert len(DOCS) <= MOST_PAGES
    readme = PAGES[0].read_text(encoding="utf-8")
    assert [page.name for page in DOCS if f"(docs/{page.name})" not in readme] == []


@pytest.mark.parametrize("page", [*TEXTS, *(ROOT / part / "README.md" for part in ("web", "kotlin"))], ids=str)
def test_a_sentence_is_short(page: Path) -> None:
    assert [s for s in sentences(prose(page)) if len(re.findall(r"\w[\w'.,/-]*", s)) > MOST_WORDS] == []


def sentences(text: str) -> Iterator[str]:
    """Sentences of Markdown: of paragraphs, items of lists and cells of tables."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "code", text)
    text = re.sub(r"^(?:#+|\s*[-*]|\s*\d+\.) ", "\n\n", text, flags=re.M)
    for paragraph in re.split(r"\n\s*\n", re.sub(r"[ \t]*\|[ \t]*", "\n\n", text)):
        yield from re.split(r"(?<=[.!?])[\s)*]+(?=\S)", paragraph.strip())


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its path."""
    command = command or typer.main.get_command(app)
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, child in command.commands.items():
        yield from commands(child, (*path, name))


def options(command: Any) -> set[str]:
    return {name for item in command.params for name in (*item.opts, *item.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    known = dict(commands())
    shown = [words for block in blocks(page) if block.language == "bash" for words in command_lines(block)]
    inline = re.findall(r"`trunkline ([^`]+)`", prose(page))
    for words in (*(words[1:] for words in shown), *map(shlex.split, inline)):
        path = next((path for path in known if tuple(words[: len(path)]) == path), None)
        groups = {path[:1] for path in known if len(path) > 1}
        assert path or tuple(words) in groups or words[0].startswith("--"), words
        if path:
            assert {word for word in words if word.startswith("--")} <= options(known[path]), words
    every = set().union(*map(options, known.values())) | {"--version", "--verbose"} | OTHER_OPTIONS
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8"))) <= every


def test_the_page_of_commands_has_all_commands_and_options() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for path, command in commands():
        assert f"trunkline {' '.join(path)}" in page
        missing = {name for name in options(command) if name.startswith("--") and f"`{name}" not in page}
        assert missing <= {"--help"}, (path, missing)


def test_the_page_of_python_has_all_methods_and_parameters() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    doors = {"trunkline.load": trunkline.load}
    doors |= {f"model.{name}": value for name, value in vars(trunkline.Model).items() if inspect.isfunction(value)}
    for name, door in doors.items():
        if name.startswith("model._") or name == "model.labelled":
            continue
        shown = re.search(rf"^#+ `{re.escape(name)}\((.*?)\)`$", page, flags=re.M)
        assert shown, name
        given = [part.partition("=")[0].strip(" *") for part in shown[1].split(",")]
        expected = [p for p in inspect.signature(door).parameters if p != "self"]
        assert [part for part in given if part] == expected, name
    properties = [name for name, value in vars(trunkline.Model).items() if isinstance(value, property)]
    assert [name for name in properties if f"`model.{name}`" not in page] == []


def test_recipes_on_pages_parse_and_their_keys_are_those_that_are_explained() -> None:
    shown = [block.content for page in PAGES for block in blocks(page) if block.language == "yaml"]
    assert [parse_recipe(yaml.safe_load(one), PrefinetuneRecipe, "page").name for one in shown] == [
        "plant",
        "plant-text",
    ]
    page = (ROOT / "docs" / "own-domain.md").read_text(encoding="utf-8")
    rows = page.partition("| key of a recipe |")[2].partition("\n\n")[0].splitlines()[2:]
    keys = [key for row in rows for key in re.findall(r"`([\w.]+)`", row.split("|")[1])]
    assert len(keys) > 10
    assert {key.split(".")[0] for key in keys if not key.startswith(".")} <= set(PrefinetuneRecipe.model_fields)
    for key in keys:
        if key.startswith(("families.F.", ".")):
            assert key.rpartition(".")[2] in FamilySection.model_fields, key


def test_the_readme_installs_what_the_package_asks_for() -> None:
    install = next(block.content for block in blocks(PAGES[0]) if block.language == "bash")
    assert INSTALL.removeprefix("Run ").strip("`") in install


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_what_a_page_shows_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, {"no-run", "slow"})


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "slow" in {block.name for block in blocks(page)}])
def test_what_a_page_shows_runs_to_its_end(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, {"no-run"})


def run_page(page: Path, left_out: set[str]) -> None:
    """Runs a page in the folder that it is in, block by block, but for those with one of the marks `left_out`."""
    names: dict[str, Any] = {"__name__": "__main__"}
    said = ""
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.name in left_out:
            if block.language == "python":
                compile(block.content, where, "exec")
        elif block.language == "python":
            run_python(block, names, where)
        elif block.language == "bash":
            said = "".join(run_command(words, where) for words in command_lines(block))
        elif block.name:
            path = Path(block.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.content, encoding="utf-8")
        elif block.language == "text":
            assert said, f"{where}: nothing before it prints anything"
            assert matches(block.content, said), f"{where}: the commands before it print\n{said}"
            said = ""


def run_python(block: Block, names: dict[str, Any], where: str) -> None:
    """Runs a block; what a statement prints must be the comment that follows it."""
    lines = block.content.splitlines()
    for statement in ast.parse(block.content).body:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(ast.Module([statement], []), where, "exec"), names)  # type: ignore[arg-type]
        comment = []
        for line in lines[statement.end_lineno or 0 :]:
            if not line.startswith("# "):
                break
            comment.append(line[2:])
        if out.getvalue():
            assert matches("\n".join(comment), out.getvalue()), f"{where}: {out.getvalue()}"


def run_command(words: list[str], where: str) -> str:
    """Runs a command of ours, its output into a file if it ends in `> FILE`, and returns what it prints."""
    into = words[-1] if words[-2:-1] == [">"] else None
    result = CliRunner().invoke(app, words[1:-2] if into else words[1:], catch_exceptions=False)
    assert result.exit_code == 0, f"{where}: {shlex.join(words)}\n{result.output}"
    if into is None:
        return str(result.stdout)
    Path(into).write_text(result.stdout, encoding="utf-8")
    return ""


def matches(wanted: str, got: str) -> bool:
    """Whether an output is as shown: `...` stands for anything, a blank for a line end, fractions are near."""
    pattern, shown = "", []
    for part in re.split(r"(\.\.\.|\d+\.\d+(?:e-\d+)?(?: ?%)?|\d+ ?%)", " ".join(wanted.split())):
        if re.match(r"\d", part) and ("." in part or "%" in part):
            number, sign, _ = part.partition("%")
            shown.append((float(number), POINTS if sign else NEAR))
            pattern += r"(\d+(?:\.\d+)?(?:e-\d+)?)" + (" ?%" if sign else "")
        else:
            pattern += ".*?" if part == "..." else re.escape(part)
    found = re.fullmatch(pattern, " ".join(got.split()))
    return found is not None and all(
        abs(float(number) - right) <= most * max(1.0, right if most == NEAR else 1.0)
        for number, (right, most) in zip(found.groups(), shown, strict=True)
    )


@pytest.mark.parametrize(
    ("wanted", "got", "same"),
    [
        ("{'label': 'a', 'score': 0.97}", "{'label': 'a', 'score': 0.9312}", True),
        ("{'label': 'a', 'score': 0.97}", "{'label': 'b', 'score': 0.97}", False),
        ("{'score': 0.375794}", "{'score': 0.781542}", False),
        ("{'delivery': 0.93134}", "{'delivery': 0.98937}", False),
        ("accuracy  1.0 %", "accuracy 100.00 %", False),
        ("accuracy 87.50 %", "accuracy\n83.33 %", True),
        ("accuracy 87.50 %", "accuracy 79.17 %", False),
        ("intent: delivery (99%)", "intent: delivery (96%)", True),
        ("intent: delivery (99%)", "intent: delivery (90%)", False),
        ("... 6 files, 29.1 MB", "bundle: 6 files, 29.9 MB", True),
        ("6 files, 29.1 MB", "7 files, 29.1 MB", False),
        ("one ... score 0.98", "one two three score 0.6", False),
    ],
)
def test_what_counts_as_the_output_that_a_page_shows(wanted: str, got: str, same: bool) -> None:
    assert matches(wanted, got) is same
