"""The cache of answers: what is there stays there, torn lines do no harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.errors import DataError
from trunkline.label.weak.cache import AnswerCache, key_of


def test_answers_come_back(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "c.jsonl"
    with AnswerCache(path) as cache:
        cache.add([("a", [1, "é"]), ("b", [])])
        cache.add([])
        assert "a" in cache and "c" not in cache
        assert (cache.get("a"), cache.get("b")) == ([1, "é"], [])
    with AnswerCache(path) as cache:
        cache.add([("c", {"x": None})])
        assert [cache.get(key) for key in "abc"] == [[1, "é"], [], {"x": None}]
        assert cache.damaged == 0


@pytest.mark.parametrize("kept", range(1, 40))
def test_a_torn_end_costs_one_answer(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "c.jsonl"
    with AnswerCache(path) as cache:
        cache.add([("a", [1]), ("b", [2])])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: first + kept])
    complete = first + kept >= len(whole)
    with AnswerCache(path) as cache:
        assert cache.get("a") == [1]
        assert ("b" in cache) is complete
        assert cache.damaged == (0 if complete else 1)
        cache.add([("d", [4])])
        assert cache.get("d") == [4]
    with AnswerCache(path) as cache:
        assert cache.get("d") == [4]


@pytest.mark.parametrize("line", [b"[]", b"{}", b"\x00\x00", b"\xff{", b'{"key": 3, "answer": 1}', b"[" * 100_000])
def test_lines_that_are_no_answers_are_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(line + b'\n{"key": "a", "answer": [1]}\n')
    with AnswerCache(path) as cache:
        assert cache.get("a") == [1]
        assert cache.damaged == 1


def test_two_runs_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    with AnswerCache(path) as one, AnswerCache(path) as two:
        one.add([("a", [1])])
        two.add([("b", [2])])
        one.add([("c", [3])])
        assert (one.get("a"), one.get("c"), two.get("b")) == ([1], [3], [2])
    with AnswerCache(path) as cache:
        assert [cache.get(key) for key in "abc"] == [[1], [2], [3]]


def test_a_cache_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the cache cannot be opened"):
        AnswerCache(tmp_path)


def test_keys_tell_parts_apart() -> None:
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of("ab", "c", "")}) == 4
