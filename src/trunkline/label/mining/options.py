"""What `mine-pairs` is asked for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from trunkline.config import PositiveInt, Section

Method = Literal["columns", "adjacent", "question-answer", "duplicates", "title-body"]
Passages = Literal["auto", "paragraphs", "lines"]
Name = Annotated[str, Field(min_length=1)]

_USED_BY: dict[str, tuple[Method, ...]] = {
    "left_column": ("columns",),
    "right_column": ("columns",),
    "group_column": ("columns", "duplicates"),
    "conversation_column": ("adjacent",),
    "text_column": ("adjacent", "question-answer", "duplicates", "title-body"),
    "passages": ("adjacent", "question-answer", "title-body"),
    "max_pairs": ("adjacent", "question-answer", "duplicates", "title-body"),
    "group_documents": ("adjacent", "question-answer", "title-body"),
    "per_row": ("duplicates",),
    "question_marks": ("question-answer",),
    "answer_marks": ("question-answer",),
}
_NEEDED: dict[str, tuple[str, ...]] = {"columns": ("left_column", "right_column"), "duplicates": ("group_column",)}


class MinePairsConfig(Section):
    """How pairs are mined, and which are kept.

    Attributes:
        method: `columns`: two columns of a table. `adjacent`: neighbouring passages of a document, or neighbouring
            turns where there is a conversation column. `question-answer`: a question in a text and the passage after
            it. `duplicates`: rows that share a value. `title-body`: a text's first line, or a Markdown heading, and
            the passage after it.
        left_column: Of `columns`, such as the title or the question.
        right_column: Of `columns`, such as the body or the answer.
        text_column: The texts of a table; `text` by default. In the methods over documents each row is a document.
        conversation_column: Rows next to each other with the same value here are turns of one conversation.
        group_column: The value that `duplicates` share; for `columns` it only marks pairs that are no negatives of
            each other.
        passages: Whether a blank line or a line end separates passages; `auto` is blank lines where there are any.
        question_marks: Words that mark a question at the start of a line, as in `Q: ...`.
        answer_marks: Words that mark an answer.
        min_words: The shortest side. A character of a script without blanks counts as a word.
        max_words: The longest side.
        max_pairs: The most pairs of one document, conversation or group, drawn by the seed.
        group_documents: Whether the pairs of one document are no negatives of each other.
        per_row: How many earlier rows of its group a row is paired with.
        encoding: Of the files that are read.
        top_k: The consistency filter keeps a pair whose partner ranks this high.
        pool: Texts that a partner competes with; the more, the stricter.
        seed: Draws what is drawn.
        licence: For the card.
    """

    method: Method
    left_column: Name | None = None
    right_column: Name | None = None
    text_column: Name | None = None
    conversation_column: Name | None = None
    group_column: Name | None = None
    passages: Passages = "auto"
    question_marks: tuple[Name, ...] = ("Q", "Question")
    answer_marks: tuple[Name, ...] = ("A", "Answer")
    min_words: PositiveInt = 3
    max_words: PositiveInt = 400
    max_pairs: PositiveInt | None = None
    group_documents: bool = False
    per_row: PositiveInt = 1
    encoding: Name = "utf-8"
    top_k: PositiveInt = 2
    pool: PositiveInt = 100_000
    seed: Annotated[int, Field(ge=0)] = 0
    licence: Name = "the user's own"

    @field_validator("method", mode="before")
    @classmethod
    def _hyphens(cls, value: Any) -> Any:
        return value.replace("_", "-") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> MinePairsConfig:
        problems = [
            f"method {self.method} needs {name}" for name in _NEEDED.get(self.method, ()) if getattr(self, name) is None
        ]
        fields = type(self).model_fields
        problems += [
            f"method {self.method} does not use {name}, only {' and '.join(methods)} do"
            for name, methods in _USED_BY.items()
            if self.method not in methods and getattr(self, name) != fields[name].default
        ]
        if self.min_words > self.max_words:
            problems.append(f"min_words {self.min_words} is more than max_words {self.max_words}")
        if self.left_column is not None and self.left_column == self.right_column:
            problems.append(f"left_column and right_column are both {self.left_column!r}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def text(self) -> str:
        """The column of the texts."""
        return self.text_column or "text"
