"""JSON schemas: of a bundle's manifest, as `docs/bundle.schema.json` shows it, and of its files' descriptions."""

from __future__ import annotations

from typing import Any

from trunkline.bundle.lora import LORA_TARGETS

FORMAT, VERSION = "trunkline-bundle", 2
MOST = 10_000
"""Tasks, adapters or files of a bundle."""


def _whole(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


def _pattern(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


def _table(values: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    names = {"pattern": names["pattern"]}
    return {"type": "object", "propertyNames": names, "additionalProperties": values, "maxProperties": MOST}


def _record(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [*properties], "properties": properties, "additionalProperties": False}


def _optional(**properties: dict[str, Any]) -> dict[str, Any]:
    return {**_record(**properties), "required": []}


NAME = _pattern(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
_FILE = _pattern(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}(/[A-Za-z0-9][A-Za-z0-9._-]{0,119}){0,1}$")
_SHA256 = _pattern(r"^[0-9a-f]{64}$")
_TEXT = {"type": "string", "maxLength": 1000}
_SIZE = _whole(1, 2**20)
_ALPHA = {"type": "number", "minimum": 0, "maximum": 1e6}
_ENCODER = _record(
    model_type=_TEXT,
    hidden_size=_SIZE,
    intermediate_size=_SIZE,
    n_layers=_whole(1, 1000),
    n_heads=_SIZE,
    fork=_whole(0, 1000),
    max_length=_whole(3, 2**20),
    overlap=_whole(0, 2**20),
    pad_id=_whole(0, 2**31),
    activation=_TEXT,
    vocabulary_size=_whole(1, 2**31),
)

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "The manifest of a bundle of trunkline, version 2",
    **_record(
        format={"const": FORMAT},
        version={"const": VERSION},
        trunkline=_TEXT,
        name=NAME,
        encoder=_ENCODER,
        backbone=_SHA256,
        weights={
            "type": "object",
            "required": ["kind"],
            "properties": {"kind": {"enum": ["float32", "int8", "int4"]}},
            "additionalProperties": True,
        },
        lora_targets={"type": "array", "items": {"enum": [*LORA_TARGETS]}, "uniqueItems": True},
        graphs=_optional(**dict.fromkeys(("trunk", "branch", "branch-required", "branch-bank"), _FILE)),
        checkpoint=_optional(config=_FILE, weights=_FILE),
        adapters=_table(_FILE, NAME),
        tasks=_table(_record(family=NAME, file=_FILE), NAME),
        files=_table(_record(sha256=_SHA256, bytes=_whole(1, 2**31)), _FILE),
        licences={"type": "array", "maxItems": MOST, "items": _record(part=_TEXT, licence=_TEXT)},
        info={"type": "object"},
    ),
}
_DESCRIPTION = {"format": {"const": VERSION}, "family": NAME, "backbone": _SHA256, "fork": _whole(0, 1000)}

ADAPTER_SCHEMA = _record(**_DESCRIPTION, kind={"const": "adapter"}, alpha=_ALPHA)
"""What a primary adapter's file says of itself; `alpha` over the rank is the factor that its tensors hold already."""

TASK_SCHEMA = _record(
    **_DESCRIPTION,
    kind={"const": "task"},
    labels={"type": "array", "maxItems": MOST, "items": _TEXT},
    primary=_pattern(r"^([A-Za-z0-9][A-Za-z0-9._-]{0,99}@[0-9a-f]{64}){0,1}$"),
    alpha=_ALPHA,
    units={"enum": ["words", "pieces", "text", "question"]},
    info={"type": "object"},
)
"""What a task's file says of itself; `primary` is FAMILY@SHA256 of the adapter's file that it sits on, or empty."""
