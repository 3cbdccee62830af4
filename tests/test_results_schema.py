"""Results have the forms of docs/results.schema.json, from Python and from the commands alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import trunkline
from trunkline.cli import app
from trunkline.text.examples import QaExample

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[1] / "docs" / "results.schema.json").read_text(encoding="utf-8")
)
TEXTS = ["Where is my parcel?", "It has not come", "Ship it please", "I want my money back", "You charged me", "Pay me"]
LABELS = ["delivery"] * 3 + ["refund"] * 3
NAMED = ["Call Ana on Monday", "Meet Tom on Friday", "Thank you", "Ask Eva on Sunday"]
SPANS = [[(5, 8, "person"), (12, 18, "date")], [(5, 8, "person")], [], [(4, 7, "person"), (11, 17, "date")]]
QUESTIONS = [
    QaExample("Who called?", "Ana called at five.", ((0, 3),)),
    QaExample("When did she call?", "Ana called at five.", ((14, 18),)),
    QaExample("Who paid?", "Tom paid the bill.", ((0, 3),)),
    QaExample("What did Eva buy?", "Nothing is known.", ()),
]

_NOTES = {"$schema", "title", "description", "$defs"}
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "null": (type(None),),
    "integer": (int,), "number": (int, float),
}  # fmt: skip


def problems(value: Any, schema: dict[str, Any], where: str = "$") -> Iterator[str]:
    """How a value differs from a schema; a keyword of JSON Schema that is not known here is an error."""
    for key, given in schema.items():
        if key in _NOTES or key in ("properties", "additionalProperties", "items"):
            continue
        if key == "$ref":
            yield from problems(value, SCHEMA["$defs"][given.removeprefix("#/$defs/")], where)
        elif key == "anyOf":
            if all(list(problems(value, one, where)) for one in given):
                yield f"{where} fits none of {len(given)} forms: {value!r:.200}"
        elif key == "type":
            kinds = [given] if isinstance(given, str) else given
            boolean = isinstance(value, bool) and "boolean" not in kinds
            if boolean or not isinstance(value, tuple(kind for name in kinds for kind in _TYPES[name])):
                yield f"{where} is {value!r:.200}, not {given}"
        elif key == "enum":
            yield from () if value in given else (f"{where} is {value!r}, not one of {given}",)
        elif key == "required":
            lacking = given if not isinstance(value, dict) else [name for name in given if name not in value]
            yield from (f"{where} lacks {name}" for name in lacking)
        elif key in ("minimum", "maximum"):
            if isinstance(value, int | float) and (value < given if key == "minimum" else value > given):
                yield f"{where} is {value!r}, beyond the {key} {given}"
        else:
            raise AssertionError(f"the keyword {key} is not checked")
    yield from _parts(value, schema, where)


def _parts(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            yield from problems(item, schema["items"], f"{where}[{number}]")
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in known or isinstance(other, dict):
                yield from problems(item, known.get(name, other), f"{where}.{name}")
            elif other is False:
                yield f"{where}.{name} is not known"


def check(value: Any, form: str) -> None:
    """Refuses a value that changes on its way through JSON, or has another form than the schema says."""
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert list(problems(value, SCHEMA["$defs"][form])) == []
    if form != "predictions":
        assert list(problems(value, SCHEMA)) == []


@pytest.fixture(scope="module")
def model() -> trunkline.Model:
    return trunkline.load()


@pytest.mark.parametrize(
    ("name", "texts", "labels"),
    [("intent", TEXTS, LABELS), ("names", NAMED, SPANS), ("ask", QUESTIONS, None)],
    ids=["classification", "ner", "qa"],
)
def test_python(model: trunkline.Model, name: str, texts: Any, labels: Any) -> None:
    test = (texts[:2], labels[:2]) if labels else texts[:2]
    for replace in (False, True):
        report = model.fit(name, texts, labels, test=test, replace=replace)
        check(report.to_dict(), "fit")
        assert (report.replaced is not None) == replace
    check(model.evaluate(name, texts, labels).to_dict(), "evaluation")
    asked = ["Who called?\nBob did." if name == "ask" else "Call Bob about the parcel"]
    (found,) = model.predict(asked, [name])
    check(found, "predictions")


def test_commands(tmp_path: Path) -> None:
    train, bundle = tmp_path / "train.jsonl", str(tmp_path / "bot")
    rows = [{"text": text, "label": label, "id": n} for n, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    file = str(train)
    check(_json("fit", "intent", "--train", file, "--test", file, "--out", bundle), "fit")
    check(_json("fit", "intent", "--train", file, "--out", bundle, "--replace"), "fit")
    check(_json("evaluate", bundle, "--task", "intent", "--data", file), "evaluation")
    check(_json("bundle", "show", bundle), "bundle")
    out = tmp_path / "out.jsonl"
    assert CliRunner().invoke(app, ["predict", bundle, "--file", file, "--out", str(out)]).exit_code == 0
    lines = out.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [0, 1, 2, 3, 4, 5]
    said = CliRunner().invoke(app, ["predict", bundle, *TEXTS, "--json"]).stdout.splitlines()
    for line in (*lines, *said):
        check(json.loads(line), "predicted")


def _json(*words: str) -> Any:
    result = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_schema_refuses_other_forms() -> None:
    entity = {"start": 0, "end": 3, "text": "Ana", "label": "person", "score": 0.5}
    check({"names": [entity]}, "predictions")
    for wrong in ({**entity, "score": 1.5}, {**entity, "start": -1}, {**entity, "start": True}, {"start": 0}):
        assert list(problems({"names": [wrong]}, SCHEMA["$defs"]["predictions"]))
    assert list(problems({"text": "a"}, SCHEMA))
