"""The command of deployment: a bundle with weights for torch becomes one with graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from trunkline.cli.tasks import Delimiter, JsonFlag, LabelColumn, SetOption, TextColumn, app, print_json, settings_of
from trunkline.errors import TrunklineError

Dev = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FILE",
        help="Labelled examples that task NAME was not fitted on; repeatable.",
        rich_help_panel="Gate",
    ),
]
Gate = Annotated[
    bool, typer.Option("--gate/--no-gate", help="Refuse weights that cost a task too much.", rich_help_panel="Gate")
]
Drop = Annotated[
    float, typer.Option(min=0, help="Points of a hundred that a task's score may drop.", rich_help_panel="Gate")
]
Variants = Annotated[
    list[str] | None,
    typer.Option(
        "--variant", help="required: for browsers, OpenVINO; bank: for mixed batches.", rich_help_panel="Graphs"
    ),
]
Pieces = Annotated[
    int | None,
    typer.Option(min=1, help="Keep this many pieces of the vocabulary, by --texts.", rich_help_panel="Graphs"),
]


@app.command()
def export(
    source: Annotated[str, typer.Argument(help="The folder of a bundle with weights for torch, or an encoder.")],
    out: Annotated[Path, typer.Option(help="A new or empty folder.")],
    weights: Annotated[Literal["float32", "int8", "int4"], typer.Option(help="How weights are stored.")] = "float32",
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeatable.")] = None,
    name: Annotated[str, typer.Option(help="The bundle's name; that of the source's folder else.")] = "",
    texts: Annotated[
        Path | None, typer.Option(help="Texts as `predict` reads them, for calibration; the samples' else.")
    ] = None,
    sign: Annotated[Path | None, typer.Option(help="File with an Ed25519 private key; signs the bundle.")] = None,
    dev: Dev = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    delimiter: Delimiter = None,
    gate: Gate = True,
    max_drop: Drop = 0.5,
    variant: Variants = None,
    vocabulary: Pieces = None,
    settings: SetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write what devices run: graphs, adapters and tasks, compared with torch; needs the extra [train].

    Weights of 8 or 4 bits are judged by the tasks' scores on --dev. Rarer settings: attention=fast (without masks, for
    ONNX Runtime alone), lora_targets=qkv,out,up,down (where tasks that are added later may have LoRA).

    Example: trunkline export support-bot --weights int8 --dev intents=dev.csv --out deployed
    """
    from trunkline.bundle.tensors import read_file
    from trunkline.data.load import load_texts
    from trunkline.extras import needs
    from trunkline.ui import say

    with needs("train", "export"):
        from trunkline.export.bundle import export_bundle
        from trunkline.export.options import ExportOptions
    more = settings_of(settings, {"attention": "portable", "lora_targets": "qkv"})
    targets = tuple(part for part in str(more.pop("lora_targets", "")).split(",") if part)
    columns = {"text_column": text_column, "label_column": label_column, "delimiter": delimiter}
    read = {key: value for key, value in columns.items() if key != "label_column"}
    options = ExportOptions(
        name=name,
        weights=weights,
        variants=tuple(variant or ()),  # type: ignore[arg-type]  # checked by the options
        lora_targets=targets,
        tasks=tuple(task) if task else None,
        texts=tuple(text for text, _ in load_texts(texts, **read)) if texts is not None else (),
        vocabulary=vocabulary,
        examples=_examples(source, dev or (), columns),
        gate=gate,
        max_drop=max_drop,
        **more,
    )
    key = None if sign is None else read_file(sign, 2**16)
    record = export_bundle(source, out, options, key=key, say=say).record()
    print_json(record) if as_json else typer.echo(_said(record, out))


def _examples(source: str, given: Sequence[str], columns: dict[str, str | None]) -> dict[str, Any]:
    """Task -> examples; refused before anything is loaded where the bundle has no such task."""
    from trunkline.bundle.files import read_manifest
    from trunkline.data.load import load_examples

    found: dict[str, Any] = {}
    for pair in given:
        name, equals, place = pair.partition("=")
        if not (name and equals and place) or name in found:
            raise TrunklineError(f"--dev {pair}", expected="--dev NAME=FILE, each name once")
        tasks = read_manifest(Path(source).expanduser()).tasks
        if name not in tasks:
            raise TrunklineError(f"--dev {name}", expected="a task of the bundle: " + (", ".join(tasks) or "(none)"))
        found[name] = load_examples(place, tasks[name].family, **columns)[1]
    return found


def _said(record: dict[str, Any], out: Path) -> str:
    lines = [f"{file}: {size} bytes" for file, size in record["files"].items()]
    for graph, found in record.get("parity", {}).items():
        parts = {
            "features differ by": found["largest_feature_difference"],
            "probabilities by": found["largest_probability_difference"],
            "least cosine of features": found["least_cosine"],
        }
        said = ", ".join(f"{name} {value:.3g}" for name, value in parts.items() if value is not None)
        lines.append(f"{graph} beside torch, {found['runs']} runs with {', '.join(found['adapters'])}: {said}")
    for name, row in ((record.get("gate") or {}).get("tasks", {})).items():
        before, after = 100 * row["float32"], 100 * row["rounded"]
        lines.append(f"{name}: {row['metric']} {before:.2f} -> {after:.2f} on {row['examples']} examples")
    return "\n".join([*lines, f"{record['bytes'] / 1e6:.2f} MB in {out}"])
