"""Options of labelling and mining: problems are named, and no option is passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import RecipeError, TrunklineError
from trunkline.label.options import PAIR_METHODS, TEXT_METHODS, ChatOptions, check_options

CHAT = {"base_url": "http://localhost:1/v1", "model": "m"}


def pairs(method: str, **given: Any) -> Any:
    return check_options(method, given, PAIR_METHODS)


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("columns", {"left_column": "title", "right_column": "body", "group_column": "topic"}),
        ("adjacent", {"max_pairs": 5, "group_documents": True}),
        ("adjacent", {"conversation_column": "thread", "text_column": "said"}),
        ("question-answer", {"text_column": "said"}),
        ("duplicates", {"group_column": "ticket", "per_row": 3}),
        ("title-body", {"seed": None}),
    ],
)
def test_valid(method: str, given: dict[str, Any]) -> None:
    options = pairs(method, **given)
    assert all(getattr(options, name) == value for name, value in given.items() if value is not None)
    with pytest.raises(ValueError, match="frozen"):
        options.seed = 1


def test_every_problem_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        pairs("columns", left_colum="a", min_words=0, max_pairs=3)
    for part in ("did you mean 'left_column'", "--right-column is missing", "min_words", "max_pairs: unknown key"):
        assert part in str(caught.value)
    assert len(caught.value.problems) == 5
    with pytest.raises(RecipeError) as caught:
        check_options("gazetteer", {"gazetteer": "g", "max_words": 2, "max_word": 1}, TEXT_METHODS)
    assert len(caught.value.problems) == 2
    assert "did you mean 'max_words'" in str(caught.value)
    assert "options of the method gazetteer" in str(caught.value)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("duplicate", {}, "no method 'duplicate'; did you mean 'duplicates'"),
        ("duplicates", {}, "--group-column is missing"),
        ("title-body", {"conversation_column": "c"}, "conversation_column: unknown key"),
        ("title-body", {"min_words": 9, "max_words": 8}, "min_words 9 is more than max_words 8"),
        ("title-body", {"top_k": 0}, "top_k"),
        ("title-body", {"group_documents": "often"}, "group_documents"),
    ],
)
def test_problems(method: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(TrunklineError, match=message):
        pairs(method, **given)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/v1",
        "file:///etc/passwd",
        "x",
        "http://",
        "https://",
        "http://example.org/v1",
        "http://localhost.example.org/v1",
        "http://127.0.0.1.example.org/v1",
        "https://u:p@x/v1",
        "https://x/v1?k=1",
        "https://x/ v1",
        "https://x:port/v1",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(RecipeError, match="base_url: expected https://HOST/v1") as caught:
        check_options("chat", {"base_url": url, "model": "m"}, TEXT_METHODS)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "url", ["https://x/v1", "http://localhost/v1", "http://127.0.0.5:8000/v1", "http://[::1]:8/v1"]
)
def test_urls(url: str) -> None:
    for end in ("", "/", "/chat/completions"):
        assert ChatOptions(base_url=url + end, model="m").base_url == url


def test_values_are_converted() -> None:
    drop: Any = check_options("gazetteer", {"gazetteer": "g.tsv", "drop": ["a", "b"]}, TEXT_METHODS)
    assert drop.drop == ("a", "b")
    chat: Any = check_options("chat", CHAT | {"cache": None, "retries": "3"}, TEXT_METHODS)
    assert (chat.cache, chat.retries) == (None, 3)
    assert isinstance(check_options("gazetteer", {"gazetteer": "g.tsv"}, TEXT_METHODS).gazetteer, Path)
