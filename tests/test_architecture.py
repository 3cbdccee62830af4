"""The house: arrows run down, small files, and what must stay fast to import."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "trunkline"

# A part may import parts of a lower level, and modules of its own folder.
LEVELS = [
    {"errors", "versions", "samples"},
    {"problems"},
    {"config"},
    {"data"},
    {"decoding"},
    {"objectives"},
    {"model"},
    {"families", "training", "runtime"},
    {"prefinetune", "adapt", "inference"},
    {"benchmark", "export"},
    {"ui"},
    {"quickstart"},
    {"cli"},
]
LEVEL = {part: number for number, parts in enumerate(LEVELS) for part in parts}
TORCH_FREE = ("config", "data", "decoding", "errors", "problems", "runtime", "samples", "versions", "cli")


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            if node.module == "trunkline":
                yield from (f"trunkline.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_down_and_sizes_stay_small(path):
    part = part_of(path)
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if part != "__init__":
        for name in imports(tree):
            target = name.split(".")[1] if name.startswith("trunkline.") else None
            if target in LEVEL and target != part:
                assert LEVEL[target] < LEVEL[part], f"{path}: {part} imports {target}, which is not below it"
    assert len(text.splitlines()) <= 400
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 60, f"{path}:{node.lineno} {node.name} is too long"


def test_every_part_has_a_level():
    parts = {part_of(path) for path in modules()} - {"__init__"}
    assert parts == LEVEL.keys()


def top_level_imports(tree: ast.Module):
    for node in tree.body:
        yield from imports(node) if isinstance(node, ast.Import | ast.ImportFrom) else ()


@pytest.mark.parametrize("path", [path for path in modules() if part_of(path) in TORCH_FREE], ids=lambda p: p.name)
def test_data_and_config_import_no_torch(path):
    heavy = {"torch", "transformers", "accelerate", "datasets", "sklearn", "scipy"}
    found = {name.split(".")[0] for name in top_level_imports(ast.parse(path.read_text(encoding="utf-8")))}
    assert not found & heavy


@pytest.mark.parametrize(
    "arguments", [["-c", "import trunkline"], ["-m", "trunkline.cli", "--help"]], ids=["import", "help"]
)
def test_import_and_help_load_no_torch(arguments):
    command = [sys.executable, "-X", "importtime", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert "trunkline" in loaded
    assert not loaded & {"torch", "transformers", "datasets", "accelerate", "sklearn"}


@pytest.mark.parametrize(
    "arguments", [["-c", "import trunkline"], ["-m", "trunkline.cli", "--help"]], ids=["import", "help"]
)
def test_import_and_help_take_less_than_half_a_second(arguments):
    def seconds():
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        return time.perf_counter() - began

    # The best of five, because other work on the machine only ever adds.
    assert min(seconds() for _ in range(5)) < 0.5


def test_nothing_is_unpickled_and_no_remote_code_is_run():
    for path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not {"pickle", "dill", "joblib", "cloudpickle"} & {name.split(".")[0] for name in imports(tree)}, path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                assert "trust_remote_code" not in {keyword.arg for keyword in node.keywords}, path
                assert ast.unparse(node.func) != "torch.load", path


def test_recipes_parse():
    from trunkline.config import MixtureRecipe, PrefinetuneRecipe, SweepRecipe, load_recipe
    from trunkline_lab.benchmark.suite import SuiteRecipe
    from trunkline_lab.data.cards import load_card

    found = [*ROOT.glob("recipes/**/*.yaml"), *PACKAGE.glob("recipes/*.yaml")]
    assert len(found) >= 6
    for path in found:
        if path.parent.name == "suites":
            suite = load_recipe(path, SuiteRecipe)  # knows the cards of its tasks, and what splits they need
            assert suite.name == path.stem
            continue
        sweep = "tasks:" in path.read_text(encoding="utf-8").replace("against: tasks", "")
        kind = MixtureRecipe if path.parent.name == "mixtures" else SweepRecipe if sweep else PrefinetuneRecipe
        recipe = load_recipe(path, kind)
        names = recipe.tasks if sweep else {n for family in recipe.families.values() for n in family.sources}
        for name in names:
            card, _, split = name.partition("@")
            assert (split or "train") in load_card(card).splits, f"{path}: {name}"
