"""Source cards: what is written comes back, and every problem is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.config import load_recipe
from trunkline.data.source_card import SourceCard, label_words, write_source_card
from trunkline.errors import RecipeError


def test_a_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    card = SourceCard(
        name="tickets",
        title="Tickets of 2024, with names: ÄÖ漢",
        family="ner",
        licence="CC0-1.0",
        concepts={"per_son": "a person", "x": "ex: yes"},
        quirks=("labelled by rules",),
        counts={"train": 3},
    )
    write_source_card(card, tmp_path / "tickets.yaml")
    assert load_recipe(tmp_path / "tickets.yaml", SourceCard) == card
    closed = card.model_copy(update={"coverage": "closed"})
    write_source_card(closed, tmp_path / "tickets.yaml")
    assert load_recipe(tmp_path / "tickets.yaml", SourceCard) == closed


def test_a_small_card_has_defaults_and_is_written_small(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: s\nfamily: text\n", encoding="utf-8")
    card = load_recipe(path, SourceCard)
    assert (card.licence, card.coverage, card.home, card.counts) == ("unknown", "open", "", {})
    write_source_card(card, path)
    assert path.read_text(encoding="utf-8") == "name: s\nfamily: text\n"


def test_concepts_are_the_cards_words_or_the_label_as_words() -> None:
    card = SourceCard(name="s", family="ner", concepts={"ORG": "company"})
    assert (card.concept("ORG"), card.concept("First_Name")) == ("company", "first name")
    assert label_words("time-of_Day") == "time of day"


def test_problems_are_listed_all_at_once_with_the_nearest_key(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: ''\nfamily: pairs\nlicense: mit\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"s\.yaml: 3 problems") as caught:
        load_recipe(path, SourceCard)
    assert "license: unknown key; did you mean 'licence'?" in str(caught.value)


@pytest.mark.parametrize("content", ["- a\n", "name: [", "", None])
def test_what_is_no_card_is_refused_and_named(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"s\.yaml"):
        load_recipe(path, SourceCard)
