"""What `mine-pairs` is asked for: every problem at once, and no option that would be passed over."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.config import parse_recipe
from trunkline.errors import RecipeError
from trunkline.label.mining.options import MinePairsConfig


@pytest.mark.parametrize(
    "values",
    [
        {"method": "columns", "left_column": "title", "right_column": "body", "group_column": "topic"},
        {"method": "adjacent", "passages": "lines", "max_pairs": 5, "group_documents": True},
        {"method": "adjacent", "conversation_column": "thread", "text_column": "said"},
        {"method": "question_answer", "question_marks": ("F", "Frage"), "answer_marks": ("A", "Antwort")},
        {"method": "duplicates", "group_column": "ticket", "per_row": 3},
        {"method": "title-body"},
    ],
)
def test_valid(values: dict[str, Any]) -> None:
    config = parse_recipe(values, MinePairsConfig, "options")
    assert config.method == values["method"].replace("_", "-")
    assert config.text == values.get("text_column", "text")


def test_every_problem_at_once() -> None:
    values = {"method": "columns", "left_colum": "a", "min_words": 0, "max_pairs": 3, "passages": "lines"}
    with pytest.raises(RecipeError) as caught:
        parse_recipe(values, MinePairsConfig, "options")
    text = str(caught.value)
    for part in (
        "did you mean 'left_column'",
        "min_words",
        "method columns needs left_column",
        "method columns needs right_column",
        "does not use max_pairs",
        "does not use passages",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "duplicate"}, "Input should be"),
        ({"method": 3}, "method"),
        ({"method": "duplicates"}, "needs group_column"),
        ({"method": "title-body", "conversation_column": "c"}, "does not use conversation_column, only adjacent do"),
        ({"method": "title-body", "min_words": 9, "max_words": 8}, "min_words 9 is more than max_words 8"),
        ({"method": "columns", "left_column": "a", "right_column": "a"}, "are both 'a'"),
        ({"method": "title-body", "top_k": 0}, "top_k"),
    ],
)
def test_problems(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(values, MinePairsConfig, "options")
