"""The cache of answers: what is there stays there, also when runs share it or are killed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from trunkline.errors import DataError
from trunkline.label.chat import AnswerCache


def test_answers_come_back(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "c.sqlite"
    with closing(AnswerCache(path)) as cache:
        cache.add([("a", [1, "é"]), ("b", [])])
        cache.add([])
        assert [cache.get(question) for question in "abc"] == [[1, "é"], [], None]
    with closing(AnswerCache(path)) as cache:
        cache.add([("c", {"x": None}), ("a", [2])])
        assert [cache.get(question) for question in "abc"] == [[2], [], {"x": None}]


def test_an_answer_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    with closing(AnswerCache(tmp_path / "c.sqlite")) as cache:
        cache.add([("a", [1])])
        with pytest.raises(TypeError):
            cache.add([("b", [2]), ("c", object())])
        assert (cache.get("a"), cache.get("b")) == ([1], None)


def test_two_runs_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with closing(AnswerCache(path)) as one, closing(AnswerCache(path)) as two:
        one.add([("a", [1])])
        two.add([("b", [2]), ("a", [3])])
        one.add([("c", [4])])
        assert [one.get(key) for key in "abc"] == [two.get(key) for key in "abc"] == [[3], [2], [4]]


@pytest.mark.parametrize("content", [None, b"{}\n" * 300])
def test_a_cache_that_cannot_be_opened(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "c"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match="the cache cannot be opened"):
        AnswerCache(path)


def test_kinds_of_answers_are_told_apart(tmp_path: Path) -> None:
    kinds = [("ab", "c"), ("a", "bc"), ("abc",), ("ab", "c", "")]
    caches = [AnswerCache(tmp_path / "c.sqlite", *kind) for kind in kinds]
    for number, cache in enumerate(caches):
        cache.add([("x", number)])
    assert [cache.get("x") for cache in caches] == [0, 1, 2, 3]
    for cache in caches:
        cache.close()
