"""The cache of answers: what is there stays there, also when runs share it or are killed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from trunkline.errors import DataError
from trunkline.label.output import AnswerCache


def test_answers_come_back(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "c.sqlite"
    with closing(AnswerCache(path)) as cache:
        cache.add([(("a", "b"), [1, "é"]), (("c",), [])])
        cache.add([])
        assert cache.get("a") is None
        assert (cache.get("a", "b"), cache.get("c")) == ([1, "é"], [])
    with closing(AnswerCache(path)) as cache:
        cache.add([(("d",), {"x": None})])
        assert (cache.get("a", "b"), cache.get("d")) == ([1, "é"], {"x": None})


def test_an_answer_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    with closing(AnswerCache(tmp_path / "c.sqlite")) as cache:
        cache.add([(("a",), [1])])
        with pytest.raises(TypeError):
            cache.add([(("b",), [2]), (("c",), object())])
        assert (cache.get("a"), cache.get("b")) == ([1], None)


def test_two_runs_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with closing(AnswerCache(path)) as one, closing(AnswerCache(path)) as two:
        one.add([(("a",), [1])])
        two.add([(("b",), [2]), (("a",), [3])])
        one.add([(("c",), [4])])
        assert [one.get(key) for key in "abc"] == [two.get(key) for key in "abc"] == [[3], [2], [4]]


@pytest.mark.parametrize("content", [None, b"{}\n" * 300])
def test_a_cache_that_cannot_be_opened(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "c"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match="the cache cannot be opened"):
        AnswerCache(path)


def test_keys_tell_parts_apart(tmp_path: Path) -> None:
    keys = [("ab", "c"), ("a", "bc"), ("abc",), ("ab", "c", "")]
    with closing(AnswerCache(tmp_path / "c.sqlite")) as cache:
        cache.add((key, number) for number, key in enumerate(keys))
        assert [cache.get(*key) for key in keys] == [0, 1, 2, 3]
