"""Ways in which files are damaged, as hypothesis strategies from good content to bad."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

BYTES = (b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\r", b"\n", b"\n\n", b"\t", b'"', b"\\", b"<", b"&", b"\x1c", b" ")

# What may stand where a value stood: wrong types, numbers out of range, deep nesting, damaged text.
VALUES = (
    "null", "true", "[]", "{}", "[[]]", "[{}]", '[""]', '{"a": 1}', '""', '" "', '"x"', "0", "-1", "1.5", "9" * 25,
    "1" * 5000, "1e999", "NaN", "-Infinity", "[" * 500 + "]" * 500, "[" * 100_000, '{"a":' * 300 + "1" + "}" * 300,
    '"\\ud800"', '"\\udc00 x"', '"\\u0000"', '"\\u2028"', '"\\u001c"', '"' + "x" * 5000 + '"', "[0, 1, null]",
    "[" + ", ".join(["7"] * 3000) + "]",
)  # fmt: skip

_MARK = "@here@"


@st.composite
def truncated(draw: st.DrawFn, content: bytes) -> bytes:
    return content[: draw(st.integers(0, max(0, len(content) - 1)))]


@st.composite
def shuffled(draw: st.DrawFn, content: bytes) -> bytes:
    return b"\n".join(draw(st.permutations(content.split(b"\n"))))


@st.composite
def altered(draw: st.DrawFn, content: bytes) -> bytes:
    """Some bytes are replaced, inserted or cut out."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        width = draw(st.integers(0, 4))
        content = (
            content[:place] + draw(st.one_of(st.sampled_from(BYTES), st.binary(max_size=3))) + content[place + width :]
        )
    return content


@st.composite
def repeated(draw: st.DrawFn, content: bytes) -> bytes:
    """A piece stands twice, as after a failed download that was taken up again."""
    begin = draw(st.integers(0, len(content)))
    end = draw(st.integers(begin, len(content)))
    return content[:end] + content[begin:]


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Damage of any kind, up to a file of another kind and an empty one."""
    whole = st.one_of(
        st.binary(max_size=200), st.sampled_from((b"", b"\n", b" \r\n\t\n", b"\xef\xbb\xbf", b"\0" * 600))
    )
    return st.one_of(truncated(content), shuffled(content), altered(content), repeated(content), whole)


def wrong_values(content: bytes, *, whole: bool) -> Iterator[bytes]:
    """A JSON file (`whole`) or one whose first line is JSON, with each value in turn replaced, left out and doubled."""
    first, end, rest = (content, b"", b"") if whole else content.partition(b"\n")
    for place in _places(json.loads(first)):
        marked = json.dumps(_set(json.loads(first), place))
        for value in VALUES:
            yield marked.replace(f'"{_MARK}"', value).encode() + end + rest
        if place and isinstance(place[-1], str):
            key = json.dumps(place[-1])
            yield marked.replace(f'{key}: "{_MARK}"', f'{key}: 1, {key}: "x"').encode() + end + rest
        if place:
            yield json.dumps(_set(json.loads(first), place, remove=True)).encode() + end + rest


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*place, key))


def _set(document: Any, place: tuple[Any, ...], *, remove: bool = False) -> Any:
    if not place:
        return _MARK
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    if remove:
        del parent[place[-1]]
    else:
        parent[place[-1]] = _MARK
    return document
