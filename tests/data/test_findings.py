"""Each finding on made-up data: that it is made where it should be, with its numbers, and not elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import pytest

from trunkline.data.checks import Finding, check_splits
from trunkline.data.overlap import show_text
from trunkline.text.examples import Example, NerExample, PairExample, Span, TextExample
from trunkline.text.words import split_words

LONG = "please book the small green boat at the northern harbour for my two sisters on the first sunday of may"
MEALS = ("tea", "rice", "soup", "salad", "bread")


def texts(*lines: str, label: str = "a") -> list[Example]:
    return [TextExample(line, label) for line in lines]


def ner(text: str, *entities: tuple[int, int, str]) -> NerExample:
    return NerExample(text, split_words(text), tuple(Span(*entity) for entity in entities))


def find(report: list[Finding], check: str, split: str | None = None) -> Finding:
    found = [item for item in report if item.check == check and split in (None, item.split)]
    assert len(found) == 1, (check, [item.check for item in report])
    return found[0]


def checks(report: list[Finding]) -> set[str]:
    return {item.check for item in report}


def check(train: Sequence[Example] = (), **more: object) -> list[Finding]:
    return check_splits({"train": train, **more})  # type: ignore[arg-type]


def test_clean_data_has_no_finding_but_the_balance() -> None:
    train = [TextExample(f"{meal} is what I would like to have", "a") for meal in MEALS]
    train += [TextExample(f"where can I buy some {meal}", "b") for meal in MEALS]
    report = check(train, test=texts("how much does it cost to stay here"))
    assert checks(report) == {"label_balance"}
    assert find(report, "label_balance").details["ratio"] == 1


def test_overlap_counts_distinct_texts_by_kind() -> None:
    train = texts(LONG, "Top-up now", "where is my parcel today then", "a text that is nowhere else")
    test = texts(
        LONG, LONG.upper(), LONG.replace("green", "brown"), "topup now", "where is my parcel today then", "new here"
    )
    report = check(train, test=test)
    leak = find(report, "test_in_train")
    assert leak.severity == "leak" and leak.split == "test"
    assert (leak.count, leak.share) == (4, pytest.approx(4 / 5))
    expected = {"exact": 2, "normalised": 1, "near": 1, "same": 3, "distinct": 5, "examples": 5}
    assert {key: leak.details[key] for key in expected} == expected
    assert (leak.details["long_share"], leak.details["long_distinct"]) == (2 / 3, 3)
    assert leak.samples[0] == f"exact: {LONG}"
    assert leak.samples[1] == "normalised: topup now <- Top-up now"


def test_dev_in_train_is_a_leak_and_test_in_dev_a_warning() -> None:
    report = check(texts("one of a kind"), dev=texts("one of a kind"), test=texts("One of a kind!"))
    severities = {item.check: item.severity for item in report if "_in_" in item.check}
    assert severities == {"dev_in_train": "leak", "test_in_train": "leak", "test_in_dev": "warning"}


def test_few_shot_parts_of_train_are_no_held_out_split() -> None:
    report = check(texts("one of a kind"), train_5=texts("one of a kind"))
    assert not any("_in_" in name for name in checks(report))


def test_sources_overlap_without_a_leak_and_pairs_by_both_sides() -> None:
    train = [PairExample("how are you", "very well, thank you"), PairExample("what is it", "a boat")]
    dev = [PairExample("How are you?", "Very well, thank you!"), PairExample("what is it", "a train")]
    report = check_splits({"train": train, "dev": dev}, role="source")
    finding = find(report, "dev_in_train")
    assert (finding.severity, finding.count) == ("warning", 1)


def test_duplicates() -> None:
    report = check(texts("Buy now", "buy now!", "Buy now", "a", "b"))
    finding = find(report, "duplicates")
    assert (finding.count, finding.share, finding.details["exact"]) == (2, 0.4, 1)
    assert finding.severity == "warning" and finding.samples == ("3 times: Buy now",)
    many = [*(f"number {i} of many" for i in range(200)), "number 1 of many"]
    assert find(check(texts(*many)), "duplicates").severity == "info"


def test_empty_texts() -> None:
    report = check(texts("!!", ":)", "words"))
    assert (find(report, "no_words").count, find(report, "no_words").samples) == (2, ("!!", ":)"))
    assert find(check(texts("x"), test=[]), "empty_split").severity == "error"


def test_conflicting_labels() -> None:
    train = [
        TextExample("My card!", "a"),
        TextExample("my card", "b"),
        TextExample("other", "a"),
        TextExample("x", "b"),
    ]
    finding = find(check(train, test=[TextExample("OTHER", "b"), TextExample("x", "b")]), "conflicting_labels")
    assert (finding.count, finding.details["distinct"], finding.details["across_splits"]) == (2, 3, 1)
    assert finding.samples == ("My card! -> a / b", "other -> a / b")


def test_conflicting_entities_do_not_depend_on_punctuation() -> None:
    same = [ner("Ann runs", (0, 3, "per")), ner("Ann runs.", (0, 3, "per"))]
    assert "conflicting_labels" not in checks(check(same))
    finding = find(check([*same, ner("ANN runs")]), "conflicting_labels")
    assert finding.count == 1 and finding.samples == ("Ann runs -> ann=per / no entity",)
    assert "conflicting_labels" not in checks(check([PairExample("a", "b"), PairExample("a", "c")]))


def test_unseen_and_rare_labels_and_imbalance() -> None:
    train = [*texts(*(f"text number {i}" for i in range(200))), TextExample("lonely", "b")]
    report = check(train, test=[TextExample("never seen", "c"), TextExample("seen", "a")])
    assert find(report, "unseen_labels").details == {"labels": ["c"]}
    assert find(report, "unseen_labels").split == "test"
    assert (find(report, "rare_labels").count, find(report, "rare_labels").share) == (1, 0.5)
    balance = find(report, "label_balance")
    assert (balance.severity, balance.details["ratio"], balance.count) == ("warning", 200, 2)
    entities = [ner("Ann and Bo", (0, 3, "per"), (8, 10, "per"))] * 3
    assert "rare_labels" not in checks(check(entities))
    assert find(check(entities), "label_balance").details["counts"] == {"per": 6}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("lost \ufffd here", "replacement_characters"),
        ("the cafÃ© is open", "mojibake"),
        ("donâ€™t go", "mojibake"),
        ("10Â\xa0km", "mojibake"),
        ("happy ðŸ˜€ day", "mojibake"),
        ("that\x92s it", "control_characters"),
        ("bell \x07", "control_characters"),
    ],
)
def test_encoding_damage(text: str, name: str) -> None:
    report = check(texts(text, "a text like any other"))
    found = checks(report) & {"replacement_characters", "mojibake", "control_characters"}
    assert found == {name} and find(report, name).count == 1


@pytest.mark.parametrize(
    "text", ["Ângela e João", "voilà, déjà «vu»", "tab\there", "“quotes” – 5€ • ½", "Spaß”", "👩‍👧"]
)
def test_good_text_is_not_damaged(text: str) -> None:
    assert not checks(check(texts(text))) & {"replacement_characters", "mojibake", "control_characters"}


def test_samples_are_short_and_printable() -> None:
    assert show_text("a\n b\x1b[31m") == "a b\\x1b[31m"
    assert len(show_text("word " * 100)) == 160


def test_the_report_is_plain_data() -> None:
    report = check(texts(LONG, LONG, "!!"), test=texts(LONG))
    assert json.loads(json.dumps([asdict(item) for item in report]))[0]["check"] == "test_in_train"
