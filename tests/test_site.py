"""The documentation as a site: its notebook runs, it builds without a network, and no link of it leads nowhere."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from test_docs import commands, matches

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "first-feature.ipynb"


def test_the_notebook_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 4
    for number, cell in enumerate(cells):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
        shown = "".join(line for output in cell["outputs"] for line in output["text"])
        assert matches(shown, out.getvalue()), f"cell {number}: {out.getvalue()}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_and_command_is_there(site: Path) -> None:
    pages = {page.stem for page in site.glob("*.html")}
    assert pages >= {page.stem for page in (ROOT / "docs").glob("*.md")} | {"index", "first-feature"}
    reference = (site / "reference-cli.html").read_text(encoding="utf-8")
    headings = re.findall(r'<h2 id="(trunkline[\w-]*)"', reference)
    assert len(headings) == len(set(headings)) == len(list(commands()))
    api = (site / "reference-python.html").read_text(encoding="utf-8")
    for name in ("trunkline.model.Model.fit", "trunkline.model.load", "trunkline.results.FitReport"):
        assert f'id="{name}"' in api
    assert 'id="trunkline.model.Model._learnt"' not in api


def test_a_page_asks_no_other_host_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]*rel="(?:stylesheet|preload|preconnect|icon)"[^>]*href="([^"]+)"', text)
        assert loaded
        assert [place for place in loaded if re.match(r"\w+:|//", place)] == []
