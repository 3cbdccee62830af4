"""CoNLL files: columns, comments and schemes found by content."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagged import encode_bio
from trunkline.data.spans import Sentence, decode_sentences, find_scheme, read_conll
from trunkline.errors import DataError
from trunkline.text.examples import SCHEMES, Scheme

SPANS = [[(0, 1, "a"), (1, 3, "a"), (4, 5, "b")], [(0, 2, "b")], [], [(0, 1, "b"), (1, 2, "b"), (3, 5, "a")]]


def encode_tags(count: int, spans: list[tuple[int, int, str]], scheme: Scheme) -> list[str]:
    tags = encode_bio(count, spans)
    begun = "I" if scheme in ("IO", "IOB1") else "B"
    ends = {"BIOES": ("E", "S"), "BILOU": ("L", "U")}.get(scheme)
    for number, (first, last, label) in enumerate(spans):
        touches = number > 0 and spans[number - 1][1:] == (first, label)
        tags[first] = f"{'B' if scheme == 'IOB1' and touches else begun}-{label}"
        if ends:
            tags[last - 1] = f"{ends[1] if last - first == 1 else ends[0]}-{label}"
    return tags


def sentence(tags: list[str]) -> Sentence:
    return Sentence(tuple(f"w{number}" for number in range(len(tags))), tuple(tags), tuple(range(1, len(tags) + 1)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_are_found(scheme: Scheme) -> None:
    sentences = [sentence(encode_tags(5, spans, scheme)) for spans in SPANS]
    found = find_scheme(one.tags for one in sentences)
    examples, kind = decode_sentences(sentences, "a.conll")
    if scheme == "IO":  # neighbours of one label cannot be told apart, in IO as in IOB1
        assert found in ("IO", "IOB1")
        assert [len(example.spans) for example in examples] == [2, 1, 0, 2]
        return
    assert found == scheme
    assert kind == f"tags in {scheme}"
    for example, spans in zip(examples, SPANS, strict=True):
        assert [(example.text[s.start : s.end], s.label) for s in example.spans] == [
            (" ".join(f"w{number}" for number in range(first, last)), label) for first, last, label in spans
        ]


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    data=st.data(),
    scheme=st.sampled_from(["BIO", "BIOES", "BILOU"]),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], data: st.DataObject, scheme: Scheme
) -> None:
    sentences = []
    for count in counts:
        cuts = sorted(data.draw(st.sets(st.integers(0, count), max_size=4)))
        spans = [(a, b, data.draw(st.sampled_from("xy"))) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
        sentences.append((count, spans))
    sentences.append((3, [(0, 1, "x"), (1, 3, "y")]))  # shows the scheme
    path = tmp_path_factory.mktemp("conll") / "a.conll"
    blocks = []
    for count, spans in sentences:
        tags = encode_tags(count, spans, scheme)
        blocks.append("".join(f"w{number}\tX\t{tag}\n" for number, tag in enumerate(tags)))
    path.write_text("-DOCSTART-\tX\tO\n\n" + "\n".join(blocks))
    examples, _ = decode_sentences(list(read_conll(path)), path)
    assert len(examples) == len(sentences)
    for example, (count, spans) in zip(examples, sentences, strict=True):
        assert example.text == " ".join(f"w{number}" for number in range(count))
        assert [(s.label, example.text[s.start : s.end]) for s in example.spans] == [
            (label, " ".join(f"w{number}" for number in range(first, last))) for first, last, label in spans
        ]


@pytest.mark.parametrize(
    ("content", "token", "tags"),
    [
        ("a B-x\nb O\n", "a", ("B-x", "O")),
        ("a\tB-x\n#\tO\n", "a", ("B-x", "O")),  # a token that looks like a comment
        ("# id = 1\na NN B-x\nb NN O\n", "a", ("B-x", "O")),
        ("-DOCSTART- -X- -X- O\n\na NN I-NP B-x\nb NN O O\n", "a", ("B-x", "O")),
        ("a B-x _\nb O _\n", "a", ("B-x", "O")),  # tags are not in the last column
        ("1\ta\tB-x\t_\n2\tb\tO\t_\n", "a", ("B-x", "O")),
        ("a\tx\nb\tO\n", "a", ("x", "O")),
        ("a new token\tB-x\nb\tO\n", "a new token", ("B-x", "O")),
    ],
)
def test_columns(tmp_path: Path, content: str, token: str, tags: tuple[str, ...]) -> None:
    path = tmp_path / "a.conll"
    path.write_text(content)
    [found] = read_conll(path)
    assert (found.tokens[0], found.tags) == (token, tags)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a B-x\nb\n", r"a\.conll:2: 1 column in the row 'b'"),
        ("a B-x\nb NN O\n", r"a\.conll:2: 3 columns"),
        ("a\nb\n", r"a\.conll:1: 1 column"),
        ("a x\nb y\n", r"a\.conll:1: no column has tags; the last one has x, y"),
        ("a B-x\nb Q-x\nc O\n", r"a\.conll:1: the tag 'B-x' is not one of IO"),
    ],
)
def test_refusals(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.conll"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        decode_sentences(list(read_conll(path)), path)


def test_repairs_are_counted() -> None:
    broken = [sentence(["O", "I-a", "O"]), sentence(["B-a", "I-a", "O"])]
    examples, kind = decode_sentences(broken, "a.conll")
    assert [len(example.spans) for example in examples] == [1, 1]
    assert kind == "tags in BIO, of which 1 broke its rules and were repaired"
