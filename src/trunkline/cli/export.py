"""Commands of deployment: export a bundle, and look at, change, sign and verify deployed ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from trunkline.cli.base import JsonFlag, app
from trunkline.errors import TrunklineError

SignOption = Annotated[Path | None, typer.Option(help="File with an Ed25519 private key; signs the bundle.")]
Texts = Annotated[
    Path | None,
    typer.Option(help="Real texts, one a line or .jsonl with a text key: for comparison and calibration."),
]


Names = Annotated[list[str] | None, typer.Option("--task", help="Only this task; repeatable.")]
Form = Annotated[
    Literal["bundle", "merged", "onnx-adapter", "litert"],
    typer.Option("--format", help="A bundle, one --task as a model, adapters for ONNX Runtime, or LiteRT files."),
]
Weights = Annotated[Literal["float32", "int8", "int4"], typer.Option(help="How weights are stored.")]
Variants = Annotated[
    list[str] | None,
    typer.Option("--variants", help="required: for browsers and OpenVINO; bank: for mixed rows. Repeatable."),
]
Slots = Annotated[str, typer.Option(help="LoRA inputs beside those in use, such as qkv,out.")]
Fork = Annotated[int | None, typer.Option(min=0, help="First layer of the branches; the bundle's.")]
Dev = Annotated[
    list[str] | None,
    typer.Option(help="NAME=FILE, examples of a task to judge rounded weights by; repeatable. As for adapt."),
]
Gate = Annotated[bool, typer.Option("--gate/--no-gate", help="Refuse rounded weights that cost a task too much.")]
Drop = Annotated[float, typer.Option(min=0, help="Points of a hundred that a task may lose.")]
Mixed = Annotated[bool, typer.Option("--mixed", help="Keep layers in float32 if the gate refuses.")]
Pieces = Annotated[int | None, typer.Option(min=1, help="Keep this many pieces of the vocabulary, chosen by --texts.")]
Mask = Annotated[Literal["portable", "fast"], typer.Option(help="fast: for ONNX Runtime alone, not OpenVINO.")]
Peft = Annotated[list[str] | None, typer.Option(help="FAMILY=FOLDER, a PEFT adapter of this encoder; repeatable.")]


@app.command()
def export(
    source: Annotated[str, typer.Argument(help="A training bundle's folder, or an encoder by folder or name.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    form: Form = "bundle",
    weights: Weights = "float32",
    task: Names = None,
    variants: Variants = None,
    slots: Slots = "",
    fork: Fork = None,
    name: Annotated[str, typer.Option(help="The bundle's name; that of the source.")] = "",
    texts: Texts = None,
    dev: Dev = None,
    gate: Gate = True,
    max_drop: Drop = 0.5,
    mixed: Mixed = False,
    vocabulary: Pieces = None,
    attention: Mask = "portable",
    peft: Peft = None,
    sign: SignOption = None,
    report: Annotated[Path | None, typer.Option(help="Write what was compared as JSON here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write what devices run: graphs, adapters and tasks, compared with torch.

    Example: trunkline export runs/quickstart/run/bundle --out deployed
    """
    from trunkline.atomic import write_atomic
    from trunkline.engine.command import read_texts
    from trunkline.export.options import ExportOptions
    from trunkline.ui import say

    options = ExportOptions(
        name=name,
        weights=weights,
        variants=tuple(variants or ()),  # type: ignore[arg-type]  # checked when graphs are made
        slots=tuple(part for part in slots.split(",") if part),
        fork=fork,
        tasks=tuple(task) if task else None,
        attention=attention,
        texts=tuple(read_texts([], texts, None)) if texts is not None else (),
        peft={key: Path(value) for key, value in _pairs(peft or (), "--peft").items()},
        vocabulary=vocabulary,
        examples=_examples(source, _pairs(dev or (), "--dev")),
        gate=gate,
        allowed=max_drop,
        mixed=mixed,
    )
    record = _export(form, source, out, options, None if sign is None else _key(sign), say)
    if report is not None:
        write_atomic(report, json.dumps(record, indent=2) + "\n")
    typer.echo(json.dumps(record, indent=2) if as_json else _said(record, out))


@app.command("report-size")
def report_size_command(
    bundles: Annotated[list[Path], typer.Argument(help="Deployed bundles' folders.")],
    task: Names = None,
    length: Annotated[
        list[int] | None, typer.Option(help="Tokens of a text; repeatable. 16, 32, 64 and 128 by default.")
    ] = None,
    separate: Annotated[
        bool, typer.Option("--separate/--no-separate", help="Open as many models as there are tasks, to compare.")
    ] = True,
    plot: Annotated[Path | None, typer.Option(help="PNG to draw the bundles in, by what they cost.")] = None,
    scores: Annotated[
        Path | None, typer.Option(help="JSON file, BUNDLE -> score in [0, 1], for the plot; the gate's by default.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the records as JSON here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure bytes, memory and milliseconds of deployed bundles, beside separate models.

    Example: trunkline report-size deployed
    """
    from trunkline.atomic import write_atomic
    from trunkline.export.size import LENGTHS, SizeOptions, pareto, read_scores, report_size

    options = SizeOptions(tuple(task) if task else None, tuple(length or LENGTHS), separate=separate)
    known = read_scores(scores) if scores is not None else None
    records = [report_size(bundle, options) for bundle in bundles]
    if report is not None:
        write_atomic(report, json.dumps(records, indent=2) + "\n")
    if plot is not None:
        from trunkline.ui.sizes import pareto_plot

        shared = [n for n in options.lengths if all(str(n) in record["times"] for record in records)]
        chosen = shared[0] if shared and 32 not in shared else 32
        pareto_plot(pareto(records, chosen, known), chosen, plot)
    if as_json:
        typer.echo(json.dumps(records, indent=2))
        return
    from trunkline.ui.sizes import print_sizes

    for record in records:
        print_sizes(record)


def _export(form: str, source: str, out: Path, options: Any, key: bytes | None, say: Any) -> dict[str, Any]:
    if form == "bundle":
        from trunkline.export.bundle import export_bundle

        return export_bundle(source, out, options, key=key, say=say).record()
    if key is not None:
        raise TrunklineError(f"--sign with --format {form}", expected="--format bundle; only bundles are signed")
    from trunkline.export.single import export_merged, export_onnx_adapters

    if form == "merged":
        if options.tasks is None or len(options.tasks) != 1:
            raise TrunklineError("--format merged without one --task", expected="the task that is merged")
        return export_merged(source, options.tasks[0], out, options).record()
    if form == "onnx-adapter":
        files = export_onnx_adapters(source, out, options)
        return {"folder": out.name, "bytes": sum(files.values()), "files": files}
    from trunkline.export.phone import litert_record

    return litert_record(source, out, options)


def _said(record: dict[str, Any], out: Path) -> str:
    lines = [f"{file}: {size} bytes" for file, size in record["files"].items()]
    for graph, found in record.get("parity", {}).items():
        features, probabilities = found["largest_feature_difference"], found["largest_probability_difference"]
        lines.append(
            f"{graph} beside torch, {found['runs']} runs: features differ by {features:.2g}, probabilities by "
            f"{probabilities:.2g}, least cosine {found['least_cosine']:.5f}"
        )
    return "\n".join([*lines, f"{record['bytes'] / 1e6:.2f} MB in {out}"])


def _pairs(given: Sequence[str], option: str) -> dict[str, str]:
    found = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not (key and equals and value) or key in found:
            raise TrunklineError(f"{option} {pair}", expected=f"{option} NAME=PLACE, each name once")
        found[key] = value
    return found


def _examples(source: str, given: dict[str, str]) -> dict[str, Any]:
    if not given:
        return {}
    from trunkline.data.load import load_examples
    from trunkline.encoder.bundle_files import load_any

    tasks = load_any(source).tasks
    unknown = sorted(given.keys() - tasks.keys())
    if unknown:
        raise TrunklineError(f"--dev {unknown[0]}", expected="a task of the bundle: " + (", ".join(tasks) or "(none)"))
    return {name: load_examples(place, tasks[name].family)[1] for name, place in given.items()}


def _key(path: Path) -> bytes:
    from trunkline.bundle.tensors import read_file

    return read_file(path, 2**16)
