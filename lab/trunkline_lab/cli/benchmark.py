"""Commands of the benchmark: run, list, report and pack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.tasks import JsonFlag
from trunkline.errors import TrunklineError

benchmark_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Many tasks, encoders, methods and label budgets: run, compare."
)

SuiteArgument = Annotated[Path, typer.Argument(help="A suite, see lab/recipes/suites/.")]
FolderArgument = Annotated[Path, typer.Argument(help="A folder of results, of a run or packed.")]
OnlyOption = Annotated[list[str] | None, typer.Option(help="Only this task; repeatable.")]
MethodOption = Annotated[list[str] | None, typer.Option(help="Only this method: head, lora ...; repeatable.")]
EncoderOption = Annotated[list[str] | None, typer.Option(help="Only this encoder of the suite; repeatable.")]


@benchmark_app.command("run")
def run(
    suite: SuiteArgument,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; runs/benchmark/NAME by default.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes at once; one for every two cores by default.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each; the cores divided by the workers by default.")
    ] = None,
    only: OnlyOption = None,
    budget: Annotated[list[str] | None, typer.Option(help="Only this budget: 16, 10%, all ...; repeatable.")] = None,
    method: MethodOption = None,
    encoder: EncoderOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Run the cells of a suite that are missing; stop it at any time and run it again to go on.

    Exit code 1 says that cells failed; the others are finished, and the next run tries the failed ones again.

    Example: trunkline-lab benchmark run lab/recipes/suites/smoke.yaml
    """
    from trunkline.config import load_recipe
    from trunkline.ui import say
    from trunkline_lab.benchmark.run import RunOptions, run_suite
    from trunkline_lab.benchmark.suite import SuiteRecipe
    from trunkline_lab.ui.benchmark import benchmark_progress, print_summary

    recipe = load_recipe(suite, SuiteRecipe)
    chosen = (tuple(names or ()) for names in (only, budget, method, encoder))
    options = RunOptions(workers, threads, *chosen)
    folder = out or _default_folder(recipe.name)
    summary = run_suite(recipe, folder, options, say=say, watch=benchmark_progress())
    typer.echo(json.dumps(summary.to_json(), indent=2)) if as_json else print_summary(summary)
    raise typer.Exit(1 if summary.failures else 0)


@benchmark_app.command("list")
def list_cells(
    suite: SuiteArgument,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; runs/benchmark/NAME by default.")] = None,
    only: OnlyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Count the cells of a suite and those that are done, task by task and method by method.

    Example: trunkline-lab benchmark list lab/recipes/suites/paper.yaml
    """
    from trunkline.config import load_recipe
    from trunkline_lab.benchmark.run import count_cells
    from trunkline_lab.benchmark.suite import SuiteRecipe
    from trunkline_lab.ui.benchmark import print_cells

    recipe = load_recipe(suite, SuiteRecipe)
    rows = count_cells(recipe, out or _default_folder(recipe.name), tuple(only or ()))
    typer.echo(json.dumps(rows, indent=2)) if as_json else print_cells(rows)


@benchmark_app.command("report")
def report(
    folder: FolderArgument,
    out: Annotated[Path | None, typer.Option(help="Folder of the report; FOLDER/report by default.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The encoder to compare with; the suite's baseline by default.")
    ] = None,
    pair: Annotated[
        list[str] | None, typer.Option(help="FIRST,SECOND: encoders to compare beside the usual pairs; repeatable.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare what was run: tables, plots and JSON, made of the results alone.

    Example: trunkline-lab benchmark report runs/benchmark/smoke --out report
    """
    from trunkline_lab.benchmark.store import baseline_of, read_results
    from trunkline_lab.ui.benchmark import print_report, write_report

    pairs = [_pair(text) for text in pair or ()]
    first = baseline or baseline_of(folder)
    path = write_report(read_results(folder), out or folder / "report", baseline=first, pairs=pairs)
    text = path.with_name("report.json").read_text(encoding="utf-8")
    if as_json:
        typer.echo(text, nl=False)
    else:
        print_report(json.loads(text))
        typer.echo(f"{path}")


@benchmark_app.command("pack")
def pack(
    folder: FolderArgument,
    out: Annotated[Path, typer.Option(help="Folder to write into, such as lab/results/NAME.")],
    encoder: EncoderOption = None,
    method: MethodOption = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Only tasks and label budgets with all encoders and seeds of a method.")
    ] = False,
) -> None:
    """Write the finished cells of a run as one JSONL file a task, without predictions; reports read these, too.

    Example: trunkline-lab benchmark pack runs/benchmark/smoke --out lab/results/smoke
    """
    from trunkline_lab.benchmark.store import pack as write_packed

    for path in write_packed(folder, out, encoders=encoder or (), methods=method or (), complete=complete):
        typer.echo(f"{path}")


def _pair(text: str) -> tuple[str, str]:
    first, _, second = text.partition(",")
    if not (first and second) or "," in second:
        raise TrunklineError(f"--pair {text}", expected="two names with a comma between them")
    return first, second


def _default_folder(name: str) -> Path:
    return Path("runs") / "benchmark" / name
