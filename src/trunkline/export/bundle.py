"""A deployed bundle out of a training bundle: graphs, adapters, tasks and a manifest, compared with torch."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trunkline import __version__
from trunkline.atomic import write_atomic
from trunkline.bundle.edit import sign_bundle
from trunkline.bundle.files import Deployed, open_bundle
from trunkline.bundle.lora import Feeds, complete
from trunkline.bundle.manifest import (
    MANIFEST,
    TOKENIZER,
    EncoderFacts,
    FileEntry,
    Manifest,
    TaskEntry,
    is_deployed,
    parse_manifest,
)
from trunkline.engine.session import open_session
from trunkline.errors import TrunklineError
from trunkline.export.adapter_bytes import as_deployed, primary_bytes, task_bytes
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.layers import Form
from trunkline.export.licences import licences_of
from trunkline.export.options import QUANTISED_TOLERANCE, ExportOptions, ExportReport
from trunkline.export.parity import Adapter, Outputs, ParityReport, Rows, Run, banked, check_parity
from trunkline.export.settle import Settled, settle
from trunkline.export.source import Prepared, prepare, with_attention

COMPARED_TEXTS = 12
COMPARED_TASKS = 16
"""Tasks that are compared with torch; what all have in common, files and heads as inputs, shows in these."""

_FORMS: dict[str, Form] = {"branch": "optional", "branch-required": "required", "branch-bank": "bank"}


def export_bundle(
    source: str,
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    key: str | bytes | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> ExportReport:
    """Writes a deployed bundle.

    It is written beside `out`, opened as the runtime opens it, compared with torch, and then renamed; so `out` holds a
    whole bundle, or what it held before.

    Args:
        source: A training bundle's folder, or an encoder by folder or name.
        out: The bundle's folder; a deployed bundle there is replaced.
        options: What is asked for.
        key: An Ed25519 private key that signs it.
        say: Receives lines of progress.

    Raises:
        TrunklineError: `out` holds something else, the graphs differ from torch, or as for `prepare` and `settle`.
    """
    options, out = options or ExportOptions(), Path(out).expanduser()
    check_target(out)
    prepared = prepare(source, options)
    settled = settle(prepared, options, say)
    graphs = _graphs(prepared, options, settled)
    with replacing(out) as folder:
        manifest = _write(folder, prepared, graphs, _named(options.name, source), (settled.facts(), Path(source)))
        if key is not None:
            sign_bundle(folder, key)
        parity = compare(folder, prepared, options)
    sizes = {name: entry.bytes for name, entry in manifest.files.items()} | {MANIFEST: len(manifest.to_json())}
    sizes = dict(sorted(sizes.items()))
    return ExportReport(out, sizes, parity, settled.tokens, manifest, settled.gate, prepared.longer)


def compare(folder: Path, prepared: Prepared, options: ExportOptions) -> dict[str, ParityReport]:
    """Compares a written bundle, opened as the runtime does, with torch; errors as for `check_parity`."""
    deployed = open_bundle(folder)
    adapters, feeds = _adapters(deployed, prepared)
    tolerance = options.tolerance or QUANTISED_TOLERANCE[options.weights]
    trunk = open_session(deployed.graphs["trunk"])
    reports = {}
    for name, path in deployed.graphs.items():
        if name == "trunk":
            continue
        branch = open_session(path)
        bank = name == "branch-bank"
        shapes = deployed.manifest.shapes
        required = name == "branch-required"
        if bank:
            chosen = {key: Adapter(adapter.lora) for key, adapter in adapters.items() if key not in prepared.tasks}
            run = banked(trunk, branch, chosen, shapes)
        else:
            hidden = deployed.manifest.encoder.hidden_size
            given = {key: complete(feed, shapes, hidden) for key, feed in feeds.items()} if required else feeds
            chosen, run = adapters, _forked(trunk, branch, given)
        # Variants have the same layers; what is theirs, their inputs, shows in fewer texts.
        texts = spread(prepared.texts, COMPARED_TEXTS if name == "branch" else 1)
        reports[name] = check_parity(
            prepared.encoder, prepared.loaded.tokenizer, run, texts, chosen, mixed=bank, tolerance=tolerance
        )
    return reports


def spread(texts: Sequence[str], count: int) -> list[str]:
    """At most so many texts, evenly out of all."""
    return [texts[place * len(texts) // count] for place in range(count)] if len(texts) > count else list(texts)


def check_target(out: Path) -> None:
    """Raises TrunklineError if writing a bundle to a folder would destroy something else."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise TrunklineError(f"{out} is no folder", expected="a new folder, or a deployed bundle that is replaced")
    if out.is_dir() and any(out.iterdir()) and not is_deployed(out):
        raise TrunklineError(
            f"{out} holds something that is no deployed bundle",
            expected="a new folder, or a deployed bundle that is replaced",
            todo="Choose another folder with --out",
        )


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A new folder that takes the place of `out` if all goes well, and vanishes if not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        folder = work / "new"
        folder.mkdir()
        yield folder
        if out.exists():
            out.replace(work / "old")
        try:
            folder.replace(out)
        except OSError:
            if (work / "old").exists():
                (work / "old").replace(out)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _graphs(prepared: Prepared, options: ExportOptions, settled: Settled) -> dict[str, bytes]:
    weights, kernels = settled.kernels(prepared.weights)
    kernels = with_attention(kernels, options.attention)
    graphs = {"trunk": trunk_graph(weights, kernels)}
    for name in ("branch", *sorted(f"branch-{variant}" for variant in set(options.variants))):
        if name not in _FORMS:
            raise TrunklineError(f"variant {name.removeprefix('branch-')!r}", expected="required or bank")
        own = with_attention(kernels, "portable") if name == "branch-required" else kernels
        graphs[name] = branch_graph(weights, _FORMS[name], prepared.slots, own)
    return graphs


def _write(
    folder: Path,
    prepared: Prepared,
    graphs: Mapping[str, bytes],
    name: str,
    about: tuple[Mapping[str, Any], Path],
) -> Manifest:
    facts, source = about
    files: dict[str, FileEntry] = {}

    def put(file: str, content: bytes) -> str:
        write_atomic(folder / file, content)
        files[file] = FileEntry(hashlib.sha256(content).hexdigest(), len(content))
        return file

    tokenizer = prepared.loaded.tokenizer
    put(TOKENIZER, tokenizer.tokenizer.to_str(pretty=False).encode("utf-8"))
    named = {key: put(f"{key}.onnx", content) for key, content in graphs.items()}
    adapters, primary = {}, {}
    for family, adapter in sorted(prepared.primaries.items()):
        adapters[family] = put(f"adapters/{family}.safetensors", primary_bytes(adapter))
        primary[family] = f"{family}@{files[adapters[family]].sha256}"
    tasks = {
        key: TaskEntry(task.family, put(f"tasks/{key}.safetensors", task_bytes(task, primary.get(task.family, ""))))
        for key, task in sorted(prepared.tasks.items())
    }
    manifest = Manifest(
        name=name,
        trunkline=__version__,
        encoder=_facts(prepared),
        backbone=prepared.weights.hash,
        weights=facts,
        slots=prepared.slots,
        graphs=named,
        adapters=adapters,
        tasks=tasks,
        files=files,
        licences=licences_of(prepared.loaded, source),
    )
    content = manifest.to_json()
    parse_manifest(content, folder / MANIFEST)
    write_atomic(folder / MANIFEST, content)
    return manifest


def _facts(prepared: Prepared) -> EncoderFacts:
    config, tokenizer = prepared.encoder.config, prepared.loaded.tokenizer
    return EncoderFacts(
        model_type=config.model_type,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        fork=prepared.encoder.fork,
        max_length=tokenizer.max_length,
        overlap=tokenizer.overlap,
        pad_id=config.pad_id,
        activation=config.activation,
        vocabulary_size=config.vocab_size,
    )


def _named(name: str, source: str) -> str:
    """The bundle's name; by default that of the source's folder, or of the run that a folder `bundle` lies in."""
    path = Path(source)
    chosen = name or (path.resolve().parent.name if path.name == "bundle" else path.name)
    return name or re.sub(r"[^A-Za-z0-9._-]+", "-", chosen).strip("-._")[:100] or "bundle"


def _adapters(deployed: Deployed, prepared: Prepared) -> tuple[dict[str, Adapter], dict[str, Feeds]]:
    """What is put on the backbone in the comparison: for torch, and as the files give it to the graphs."""
    adapters, feeds = {"(none)": Adapter()}, {"(none)": Feeds()}
    for family, adapter in prepared.primaries.items():
        adapters[f"{family} adapter"] = as_deployed(adapter.lora)
        feeds[f"{family} adapter"] = deployed.primaries[family]
    for name in spread(sorted(prepared.tasks), COMPARED_TASKS):
        task = prepared.tasks[name]
        adapters[name] = as_deployed(prepared.lora(task), task.head)
        feeds[name] = deployed.feeds(name)
    return adapters, feeds


def _forked(trunk: Any, branch: Any, feeds: Mapping[str, Feeds]) -> Run:
    """Sessions that are fed with what a bundle's files hold; the trunk runs once for neighbouring equal rows."""
    last: list[Any] = [None, None]

    def run(rows: Rows, names: Sequence[str]) -> Outputs:
        key = rows.ids.shape, rows.ids.tobytes(), rows.mask.tobytes()
        if last[0] != key:
            last[:] = key, trunk.run(["hidden"], {"ids": rows.ids, "mask": rows.mask})[0]
        given = {"hidden": last[1], "mask": rows.mask, "pool": rows.pool, **feeds[names[0]]}
        return dict(zip(("features", "logits"), branch.run(["features", "logits"], given), strict=True))

    return run
