"""The manifest: its schema, all problems at once, and what versions mean."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from trunkline.bundle.manifest import (
    FORM,
    MOST,
    TEXT,
    VERSION,
    EncoderFacts,
    FileEntry,
    Licence,
    Manifest,
    Optional,
    TaskEntry,
    check_name,
    parse_manifest,
)
from trunkline.errors import DataError, MismatchError, TrunklineError

ROOT = Path(__file__).resolve().parents[2]


def schema_of(form: Any) -> dict[str, Any]:
    """The JSON schema of a form."""
    if isinstance(form, tuple):
        return {"const": form[0]} if len(form) == 1 else {"enum": list(form)}
    if isinstance(form, re.Pattern):
        kind = {"maxLength": 1000} if form is TEXT else {"pattern": f"^{form.pattern}$"}
        return {"type": "string", **kind}
    if isinstance(form, range):
        return {"type": "integer", "minimum": form.start, "maximum": form.stop - 1}
    if isinstance(form, list):
        once = {"uniqueItems": True} if isinstance(form[0], tuple) else {"maxItems": MOST}
        return {"type": "array", "items": schema_of(form[0]), **once}
    known = {key: schema_of(part) for key, part in form.items() if isinstance(key, str)}
    record = {"properties": known, "required": [] if isinstance(form, Optional) else [*known]}
    for names, part in form.items():
        if isinstance(names, re.Pattern) and part is None:
            return {"type": "object", **(record if known else {}), **({"additionalProperties": True} if known else {})}
        if isinstance(names, re.Pattern):
            one, limits = schema_of(part), {"pattern": f"^{names.pattern}$"}
            return {"type": "object", "propertyNames": limits, "additionalProperties": one, "maxProperties": MOST}
    return {"type": "object", **record, "additionalProperties": False}


SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": f"The manifest of a bundle of trunkline, version {VERSION}",
    **schema_of(FORM),
}


def made(**changes: Any) -> Manifest:
    files = ("tokenizer.json", "trunk.onnx", "branch.onnx", "adapters/ner.safetensors", "tasks/people.safetensors")
    facts: dict[str, Any] = {
        "name": "tiny",
        "trunkline": "0.1.0",
        "encoder": EncoderFacts("bert", 32, 48, 4, 4, 2, 64, 31, 0, "gelu", 100),
        "backbone": "a" * 64,
        "weights": {"kind": "float32"},
        "lora_targets": ("qkv",),
        "graphs": {"trunk": "trunk.onnx", "branch": "branch.onnx"},
        "adapters": {"ner": "adapters/ner.safetensors"},
        "tasks": {"people": TaskEntry("ner", "tasks/people.safetensors")},
        "files": {file: FileEntry("b" * 64, 10) for file in files},
        "licences": (Licence("bert", "Apache-2.0"),),
    }
    return Manifest(**(facts | changes))


@pytest.fixture
def raw() -> Any:
    return json.loads(made().to_json())


def parsed(raw: Any) -> Manifest:
    return parse_manifest(json.dumps(raw).encode())


def test_written_and_read_it_is_the_same(raw: Any) -> None:
    assert parse_manifest(made().to_json()) == made()
    assert made().to_json() == parsed(raw).to_json()
    assert made().shapes == {"2.qkv": (32, 96), "3.qkv": (32, 96)}


def test_the_documented_schema_is_the_one_that_is_checked() -> None:
    assert json.loads((ROOT / "docs" / "bundle.schema.json").read_text(encoding="utf-8")) == SCHEMA


def test_all_problems_are_reported_at_once(raw: Any) -> None:
    raw["encoder"]["hidden_size"] = "32"
    raw["backbone"] = "xyz"
    raw["extra"] = 1
    del raw["lora_targets"]
    raw["tasks"]["../up"] = {"family": "ner", "file": "/etc/passwd"}
    with pytest.raises(DataError) as caught:
        parsed(raw)
    for said in (
        "encoder.hidden_size",
        "backbone",
        "extra is an unknown key",
        "lora_targets is missing",
        "../up",
        "passwd",
    ):
        assert said in str(caught.value)
    assert "has 6 problems" in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("encoder", "n_layers"), True, "expected a whole number"),
        (("encoder", "fork"), 5, "at most encoder.n_layers"),
        (("encoder", "fork"), -1, "expected a whole number from 0 to 1000"),
        (("encoder", "hidden_size"), 10**400, "a huge number"),
        (("encoder", "n_heads"), 5, "no multiple"),
        (("encoder", "overlap"), 32, "half"),
        (("encoder", "pad_id"), 100, "vocabulary_size"),
        (("weights",), {"kind": "int2"}, "float32, int8, int4"),
        (("weights",), {}, "weights.kind is missing"),
        (("lora_targets",), ["qkv", "qkv"], "twice"),
        (("lora_targets",), ["out", "qkv"], "the order"),
        (("graphs", "trunk"), "other.onnx", "not among files"),
        (("graphs", "trunk"), "branch.onnx", "stands for 2 parts"),
        (("graphs", "branch-other"), "x.onnx", "unknown key"),
        (("files", "README.md"), {"sha256": "a" * 64, "bytes": 1}, "belongs to no part"),
        (("files", "trunk.onnx"), {"sha256": "A" * 64, "bytes": 1}, "the form"),
        (("files", "trunk.onnx"), {"sha256": "a" * 64, "bytes": 0}, "expected a whole number from 1 to"),
        (("files", "a/../b"), {"sha256": "a" * 64, "bytes": 1}, "the form"),
        (("files", "a\\b"), {"sha256": "a" * 64, "bytes": 1}, "the form"),
        (("files", ".hidden"), {"sha256": "a" * 64, "bytes": 1}, "the form"),
        (("files", "tasks/x\n"), {"sha256": "a" * 64, "bytes": 1}, "the form"),
        (("adapters", "classification"), "manifest.json", "not among files"),
        (("licences",), [{"part": "x"}], "licence is missing"),
        (("version",), 0, "expected 2"),
        (("version",), True, "expected 2"),
        (("checkpoint",), {"config": "tokenizer.json"}, "checkpoint has config, expected config and weights"),
        (("graphs",), {}, "neither graphs nor a checkpoint"),
    ],
)
def test_what_is_wrong_is_refused(raw: Any, place: tuple[str, ...], value: Any, said: str) -> None:
    target = raw
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    with pytest.raises(DataError, match=said):
        parsed(raw)


def test_spellings_that_some_file_systems_take_for_one_are_refused(raw: Any) -> None:
    raw["files"]["Branch.onnx"] = raw["files"]["branch.onnx"]
    raw["graphs"]["branch-bank"] = "Branch.onnx"
    with pytest.raises(DataError, match="several spellings"):
        parsed(raw)


def test_later_versions_are_refused_with_what_to_do(raw: Any) -> None:
    with pytest.raises(MismatchError, match=r"version 3.*Update trunkline"):
        parsed(raw | {"version": 3, "new": "key"})


def test_earlier_versions_are_refused_with_what_to_do(raw: Any) -> None:
    with pytest.raises(MismatchError, match=r"version 1.*Make the bundle again with this version"):
        parsed(raw | {"version": 1})
    with pytest.raises(DataError, match=r"not the manifest of a bundle.*Make the bundle with this version"):
        parse_manifest(json.dumps({"format": 1, "backbone": "a", "fork": 2}).encode())


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"format": "trunkline-bundle", "format": 1}', b'{"a": NaN}', b"1"],
)
def test_no_manifest_is_a_message(content: bytes) -> None:
    with pytest.raises(DataError, match=r"manifest\.json"):
        parse_manifest(content)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".a", "a b", "é", "a\n", "x" * 101, None, 3])
def test_names_that_lead_elsewhere_are_none(name: Any) -> None:
    with pytest.raises(TrunklineError, match="the name"):
        check_name(name)


def test_a_schema_validator_agrees(raw: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the package jsonschema is not installed")
    jsonschema.validate(raw, SCHEMA)
    wrong = copy.deepcopy(raw)
    wrong["encoder"]["hidden_size"] = 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)
