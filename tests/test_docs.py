"""The documentation: links lead somewhere, commands exist, and the Python in it runs on a bundle."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from trunkline.adapt.fit import TaskData, adapt
from trunkline.cli import app
from trunkline.config import AdaptSection, PrefinetuneRecipe, parse_recipe
from trunkline.encoder.adapter_file import AdapterFile
from trunkline.encoder.bundle_files import Loaded, add_task, save_bundle
from trunkline.encoder.lora import LoraAdapter, LoraConfig
from trunkline_lab.data.cards import load_card

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
    for name in re.findall(
        r"\brecipes/[\w.-]+\.yaml|\bresults/[\w./-]+\.jsonl?|src/trunkline/[\w./-]+\.(?:py|yaml)", text
    ):
        assert "NAME" in name or (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    for line in re.findall(r"^trunkline (.+)$", text, flags=re.M):
        command: Any = typer.main.get_command(app)
        for word in line.split():
            if word not in getattr(command, "commands", {}):
                break
            command = command.commands[word]
        assert not hasattr(command, "commands"), f"no such command: {line}"
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert set(re.findall(r"--[a-z-]+", line)) <= known, line


def test_yaml_in_the_documentation_parses():
    import yaml

    found = [block for page in PAGES for block in blocks(page, "yaml")]
    assert found
    for block in found:
        parse_recipe(yaml.safe_load(block), PrefinetuneRecipe, "documentation")


@pytest.fixture
def bundle(tiny, tmp_path, monkeypatch):
    """A small bundle where the documentation says that the quickstart puts one."""
    monkeypatch.chdir(tmp_path)
    config = LoraConfig(2, 4.0, ("query",), (2, 3))
    primaries = {
        family: AdapterFile(family, tiny.backbone, tiny.encoder.fork, LoraAdapter(config, tiny.encoder.config).eval())
        for family in ("ner", "classification")
    }
    start = Loaded(tiny.encoder, tiny.tokenizer, tiny.config, tiny.backbone, primaries, {}, {})
    folder = tmp_path / "runs/quickstart/run/bundle"
    save_bundle(start, folder)
    for name in ("sample_events", "sample_intents"):
        card = load_card(name)
        task = TaskData(name, card.family, card.load("train")[:30], card.load("dev")[:20])
        result = adapt(task, start, AdaptSection(penalties=(0.1,)))
        add_task(folder, name.removeprefix("sample_"), result.adapter)
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_in_the_documentation_runs(page, bundle):
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), {})
