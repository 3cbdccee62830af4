"""The command of deployment: a bundle with weights for torch becomes one with graphs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from trunkline.cli.tasks import Delimiter, JsonFlag, LabelColumn, SetOption, TextColumn, app, print_json, settings_of
from trunkline.errors import TrunklineError, needs

_gate, _graphs = (partial(Option, rich_help_panel=panel) for panel in ("Gate", "Graphs"))
Dev = Annotated[
    list[str] | None, _gate(metavar="NAME=FILE", help="Examples that a task was not fitted on; repeatable.")
]
Gate = Annotated[bool, _gate("--gate/--no-gate", help="Refuse weights that cost a task too much.")]
Drop = Annotated[float, _gate(min=0, help="Points of a hundred that a task's score may drop.")]
Variants = Annotated[list[str] | None, _graphs("--variant", help="required: for browsers; bank: for mixed batches.")]
Pieces = Annotated[int | None, _graphs(min=1, help="Keep this many pieces of the vocabulary, by --texts.")]


@app.command()
def export(
    source: Annotated[str, Argument(help="The folder of a bundle with weights for torch, or an encoder.")],
    out: Annotated[Path, Option(help="A new or empty folder.")],
    weights: Annotated[Literal["float32", "int8", "int4"], Option(help="How weights are stored.")] = "float32",
    task: Annotated[list[str] | None, Option(help="Only this task; repeatable.")] = None,
    name: Annotated[str, Option(help="The bundle's name; that of the source's folder else.")] = "",
    texts: Annotated[Path | None, Option(help="Texts as `predict` reads them; the samples' else.")] = None,
    sign: Annotated[Path | None, Option(help="File with an Ed25519 private key; signs the bundle.")] = None,
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
    from trunkline.ui import say

    with needs("train", "export"):
        from trunkline.export.bundle import ExportOptions, export_bundle
    more = {name: str(value) for name, value in settings_of(settings, ("attention", "lora_targets")).items()}
    columns = {"text_column": text_column, "label_column": label_column, "delimiter": delimiter}
    read = load_texts(texts, text_column=text_column, delimiter=delimiter) if texts is not None else ()
    options = ExportOptions(
        name=name,
        weights=weights,
        variants=tuple(variant or ()),  # type: ignore[arg-type]  # checked by the options
        lora_targets=tuple(filter(None, more.pop("lora_targets", "").split(","))),
        tasks=tuple(task) if task else None,
        texts=tuple(text for text, _ in read),
        vocabulary=vocabulary,
        examples=_examples(source, dev or (), columns),
        gate=gate,
        max_drop=max_drop,
        **more,  # type: ignore[arg-type]  # checked by the options
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
        said = ", ".join(
            f"{key.replace('_', ' ')} {value:.3g}" for key, value in found.items() if isinstance(value, float)
        )
        lines.append(f"{graph} beside torch, {found['runs']} runs with {', '.join(found['adapters'])}: {said}")
    for name, row in ((record.get("gate") or {}).get("tasks", {})).items():
        before, after = 100 * row["float32"], 100 * row["rounded"]
        lines.append(f"{name}: {row['metric']} {before:.2f} -> {after:.2f} on {row['examples']} examples")
    return "\n".join([*lines, f"{record['bytes'] / 1e6:.2f} MB in {out}"])
