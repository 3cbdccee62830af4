"""Validation errors as sentences for people, with the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as `; did you mean 'label'?`, or nothing where no known word is near."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def list_problems(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """One sentence for each problem that pydantic found in what a model validated: where, what was given, expected.

    `prefix` goes before each sentence.
    """
    return [prefix + _sentence(item, model) for item in error.errors(include_url=False)]


def _sentence(item: Any, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"] if part != "[key]")
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        known = keys_at(model, item["loc"][:-1])
        hint = nearest(str(item["loc"][-1]), known)
        return f"{where}: unknown key{hint} (known: {', '.join(known)})"
    if item["type"] == "missing":
        return f"{where}: is missing"
    shown = "" if item["type"] == "value_error" else f", given {_short(item['input'])}"
    return f"{where}: {message}{shown}" if where else message + shown


def keys_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The valid keys of the section at a place in a nested model."""
    current: Any = model
    for part in location:
        fields = getattr(current, "model_fields", None)
        if fields is not None:
            current = fields[part].annotation if part in fields else None
        else:
            current = next((arg for arg in getattr(current, "__args__", ()) if hasattr(arg, "model_fields")), current)
    return [field.alias or name for name, field in getattr(current, "model_fields", {}).items()]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
