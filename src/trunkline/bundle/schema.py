"""The JSON schema of a bundle's manifest, version 2, and a checker for the part of JSON Schema that it uses.

The schema is what validation runs on and what `docs/bundle.schema.json` shows, so that the two cannot differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

FORMAT = "trunkline-bundle"
VERSION = 2

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
FILE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}(/[A-Za-z0-9][A-Za-z0-9._-]{0,119}){0,1}$"
SHA256 = r"^[0-9a-f]{64}$"
MOST = 10_000
"""Tasks, adapters or files of a bundle."""

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_SAID = {"object": "an object", "array": "a list", "string": "text", "integer": "a whole number", "number": "a number"}


def _whole(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


def _table(values: dict[str, Any], names: str = NAME) -> dict[str, Any]:
    return {
        "type": "object",
        "propertyNames": {"pattern": names},
        "additionalProperties": values,
        "maxProperties": MOST,
    }


def _record(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": required | (optional or {}),
        "additionalProperties": False,
    }


_FILE = {"type": "string", "pattern": FILE}
_TEXT = {"type": "string", "maxLength": 1000}
_SIZE = _whole(1, 2**20)

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "The manifest of a bundle of trunkline, version 2",
    **_record(
        {
            "format": {"const": FORMAT},
            "version": {"const": VERSION},
            "trunkline": _TEXT,
            "name": {"type": "string", "pattern": NAME},
            "encoder": _record(
                {
                    "model_type": _TEXT,
                    "hidden_size": _SIZE,
                    "intermediate_size": _SIZE,
                    "n_layers": _whole(1, 1000),
                    "n_heads": _SIZE,
                    "fork": _whole(0, 1000),
                    "max_length": _whole(3, 2**20),
                    "overlap": _whole(0, 2**20),
                    "pad_id": _whole(0, 2**31),
                    "activation": _TEXT,
                    "vocabulary_size": _whole(1, 2**31),
                }
            ),
            "backbone": {"type": "string", "pattern": SHA256},
            "weights": {
                "type": "object",
                "required": ["kind"],
                "properties": {"kind": {"enum": ["float32", "int8", "int4"]}},
                "additionalProperties": True,
            },
            "lora_targets": {"type": "array", "items": {"enum": ["qkv", "out", "up", "down"]}, "uniqueItems": True},
            "graphs": _record({}, {"trunk": _FILE, "branch": _FILE, "branch-required": _FILE, "branch-bank": _FILE}),
            "checkpoint": _record({}, {"config": _FILE, "weights": _FILE}),
            "adapters": _table(_FILE),
            "tasks": _table(_record({"family": {"type": "string", "pattern": NAME}, "file": _FILE})),
            "files": _table(
                _record({"sha256": {"type": "string", "pattern": SHA256}, "bytes": _whole(1, 2**31)}), FILE
            ),
            "licences": {
                "type": "array",
                "maxItems": MOST,
                "items": _record({"part": _TEXT, "licence": _TEXT}),
            },
            "info": {"type": "object"},
        }
    ),
}

ADAPTER_SCHEMA = _record(
    {
        "format": {"const": VERSION},
        "kind": {"const": "adapter"},
        "family": {"type": "string", "pattern": NAME},
        "backbone": {"type": "string", "pattern": SHA256},
        "fork": _whole(0, 1000),
        "alpha": {"type": "number", "minimum": 0, "maximum": 1e6},
    }
)
"""What a primary adapter's file says of itself; `alpha` over the rank is the factor that its tensors hold already."""

TASK_SCHEMA = _record(
    {
        "format": {"const": VERSION},
        "kind": {"const": "task"},
        "family": {"type": "string", "pattern": NAME},
        "backbone": {"type": "string", "pattern": SHA256},
        "fork": _whole(0, 1000),
        "labels": {"type": "array", "maxItems": MOST, "items": _TEXT},
        "primary": {"type": "string", "pattern": r"^([A-Za-z0-9][A-Za-z0-9._-]{0,99}@[0-9a-f]{64}){0,1}$"},
        "alpha": {"type": "number", "minimum": 0, "maximum": 1e6},
        "units": {"enum": ["words", "pieces", "text", "question"]},
        "info": {"type": "object"},
    }
)
"""What a task's file says of itself; `primary` is FAMILY@SHA256 of the adapter's file that it sits on, or empty."""


def problems_of(given: object, schema: dict[str, Any], where: str = "") -> Iterator[str]:
    """Every way in which JSON differs from a schema, each with its place; supports what `SCHEMA` uses."""
    label = where or "the manifest"
    value: Any = given
    if "const" in schema:
        if value != schema["const"] or type(value) is not type(schema["const"]):
            yield f"{label} is {_short(value)}, expected {schema['const']!r}"
        return
    if "enum" in schema:
        if not isinstance(value, str) or value not in schema["enum"]:
            yield f"{label} is {_short(value)}, expected one of {', '.join(schema['enum'])}"
        return
    kind = schema["type"]
    # A bool is an int to Python, but not to JSON.
    if type(given) not in _TYPES[kind]:
        yield f"{label} is {_short(value)}, expected {_SAID.get(kind, kind)}"
    elif kind == "object":
        yield from _object(value, schema, where)
    elif kind == "array":
        yield from _array(value, schema, where)
    elif kind == "string":
        if "pattern" in schema and not re.search(schema["pattern"].replace("$", r"\Z"), value):
            yield f"{label} is {_short(value)}, expected the form {schema['pattern']}"
        if len(value) > schema.get("maxLength", len(value)):
            yield f"{label} has {len(value)} characters, expected at most {schema['maxLength']}"
    else:
        least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        if not least <= value <= most:
            yield f"{label} is {_short(value)}, expected {least} to {most}"


def _object(value: dict[str, Any], schema: dict[str, Any], where: str) -> Iterator[str]:
    if len(value) > schema.get("maxProperties", len(value)):
        yield f"{where or 'the manifest'} has {len(value)} entries, expected at most {schema['maxProperties']}"
        return
    yield from (f"{_join(where, key)} is missing" for key in schema.get("required", ()) if key not in value)
    known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, item in value.items():
        if "propertyNames" in schema:
            yield from problems_of(key, {"type": "string", **schema["propertyNames"]}, f"a name in {where}")
        if key in known:
            yield from problems_of(item, known[key], _join(where, key))
        elif other is False:
            yield f"{_join(where, key)} is an unknown key, expected {', '.join(known)}"
        elif isinstance(other, dict):
            yield from problems_of(item, other, _join(where, key))


def _array(value: list[Any], schema: dict[str, Any], where: str) -> Iterator[str]:
    if len(value) > schema.get("maxItems", len(value)):
        yield f"{where} has {len(value)} entries, expected at most {schema['maxItems']}"
        return
    for number, item in enumerate(value):
        yield from problems_of(item, schema["items"], f"{where}[{number}]")
    if schema.get("uniqueItems") and len({repr(item) for item in value}) < len(value):
        yield f"{where} names something twice"


def _join(where: str, key: str) -> str:
    shown = key if len(key) <= 60 else key[:57] + "..."
    return f"{where}.{shown}" if where else shown


def _short(value: object) -> str:
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)} entries"
    text = repr(value) if not isinstance(value, int) or abs(value) < 2**63 else "a huge number"
    return text if len(text) <= 60 else text[:57] + "..."
