"""The grammar behind the samples: concept types, sentence shapes and situations for pairs, read from YAML.

A shape is one line of text. `{concept}` is a slot, `{concept:2}` a second slot of the same concept that takes another
value, `{concept/group}` a slot that takes its value from one named group of the concept (such as dates in the past),
and `(a|b|)` is a free choice of words (an empty choice is allowed).
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

SLOT = re.compile(r"\{([^{}:/]+)(?:/([a-z]+))?(?::(\d+))?\}")
CHOICE = re.compile(r"\(([^()|]*(?:\|[^()|]*)+)\)")
PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
RANGE = re.compile(r"^(\d+)-(\d+)$")
BUILT_IN: dict[str, tuple[str, ...]] = {
    "digit": tuple("0123456789"),
    "nonzero": tuple("123456789"),
    # I and O are left out because codes avoid letters that look like digits.
    "upper": tuple("ABCDEFGHJKLMNPQRSTUVWXYZ"),
    "hour24": tuple(f"{hour:02d}" for hour in range(7, 22)),
    "minute": tuple(f"{minute:02d}" for minute in range(60)),
    "quarter": ("00", "15", "30", "45"),
}


@dataclass(frozen=True)
class Concept:
    """A concept type with the words or patterns that name its members."""

    name: str
    description: str
    values: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """One hand-written line with typed slots, the register it is written in and the file it comes from."""

    text: str
    register: str
    file: str

    @property
    def bound(self) -> frozenset[str]:
        """Return the slots as they are written; equal ones take the same value on both sides of a pair."""
        return frozenset(match.group(0) for match in SLOT.finditer(self.text))

    @property
    def slots(self) -> tuple[str, ...]:
        """Return the concept name of every slot, in reading order."""
        return tuple(match.group(1) for match in SLOT.finditer(self.text))


@dataclass(frozen=True)
class Situation:
    """A kind of text pair.

    A left shape goes with every right shape that shares a slot with it, or, if aligned, with the one of the same place.
    """

    name: str
    left: tuple[Shape, ...]
    right: tuple[Shape, ...]
    aligned: bool = False

    @property
    def couples(self) -> tuple[tuple[Shape, Shape], ...]:
        """Return every left shape with every right shape that may go with it."""
        together = zip(self.left, self.right, strict=True) if self.aligned else product(self.left, self.right)
        return tuple((left, right) for left, right in together if left.bound & right.bound)


@dataclass(frozen=True)
class Grammar:
    """All that a generator needs."""

    concepts: dict[str, Concept]
    sentences: tuple[Shape, ...]
    situations: tuple[Situation, ...]


@lru_cache(maxsize=4)
def load_grammar(path: Path | None = None) -> Grammar:
    """Read and check the grammar files of a folder.

    Args:
        path: Folder with `concepts*.yaml`, `sentences*.yaml` and `pairs*.yaml`; the package's own by default.

    Returns:
        The grammar, with concepts, shapes and situations in the order of the files.

    Raises:
        ValueError: If a name is used twice, a list is empty, or a shape or pattern names something unknown.
    """
    base = path or Path(__file__).parent / "grammar"
    concepts = _read_concepts(base)
    sentences: list[Shape] = []
    for file in sorted(base.glob("sentences*.yaml")):
        for register, block in _read(file).items():
            sentences.extend(_shapes(block, register, file.name))
    situations = _read_situations(base)
    everything = [*sentences, *(shape for item in situations for shape in (*item.left, *item.right))]
    for shape in everything:
        _check_shape(shape, concepts)
    return Grammar(concepts, tuple(sentences), tuple(situations))


def _read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _read_concepts(base: Path) -> dict[str, Concept]:
    concepts: dict[str, Concept] = {}
    for file in sorted(base.glob("concepts*.yaml")):
        for item in _read(file):
            concept = Concept(
                name=item["name"],
                description=item["description"],
                values=tuple(item.get("values", ())),
                patterns=tuple(item.get("pattern", ())),
                parts={name: tuple(words) for name, words in item.get("parts", {}).items()},
                groups={name: tuple(words) for name, words in item.get("groups", {}).items()},
            )
            _check_concept(concept, file.name)
            if concept.name in concepts:
                raise ValueError(f"{file.name}: the concept {concept.name!r} is defined twice")
            concepts[concept.name] = concept
    return concepts


def _check_concept(concept: Concept, file: str) -> None:
    if not concept.values and not concept.patterns:
        raise ValueError(f"{file}: the concept {concept.name!r} has neither values nor a pattern")
    named = [*concept.parts.values(), *concept.groups.values()]
    surfaces = [*concept.values, *concept.patterns, *(word for words in named for word in words)]
    for surface in surfaces:
        # YAML reads bare words such as `no` or `1099` as other types, which would break the text silently.
        if not isinstance(surface, str):
            raise ValueError(f"{file}: the concept {concept.name!r} has {surface!r}, which is not text; quote it")
    for pattern in surfaces:
        for name in PLACEHOLDER.findall(pattern):
            if name not in concept.parts and name not in BUILT_IN and not RANGE.match(name):
                raise ValueError(
                    f"{file}: pattern {pattern!r} of {concept.name!r} has the unknown placeholder {name!r}"
                )


def _read_situations(base: Path) -> list[Situation]:
    situations: list[Situation] = []
    names: set[str] = set()
    for file in sorted(base.glob("pairs*.yaml")):
        for item in _read(file):
            name = item["name"]
            if name in names:
                raise ValueError(f"{file.name}: the situation {name!r} is defined twice")
            names.add(name)
            left, right = (_shapes(item[side], f"{name}, {side}", file.name) for side in ("left", "right"))
            if not left or not right:
                raise ValueError(f"{file.name}: the situation {name!r} has a side without shapes")
            aligned = bool(item.get("aligned", False))
            if aligned and len(left) != len(right):
                raise ValueError(f"{file.name}: the situation {name!r} is aligned but has sides of unequal length")
            situation = Situation(name, left, right, aligned)
            lonely = {*left, *right} - {shape for couple in situation.couples for shape in couple}
            if lonely:
                text = min(shape.text for shape in lonely)
                raise ValueError(f"{file.name}: in {name!r} the shape {text!r} shares no slot with the other side")
            situations.append(situation)
    return situations


def _shapes(block: str, register: str, file: str) -> tuple[Shape, ...]:
    return tuple(Shape(line.strip(), register, file) for line in block.splitlines() if line.strip())


def _check_shape(shape: Shape, concepts: dict[str, Concept]) -> None:
    for name, group, _ in SLOT.findall(shape.text):
        if name not in concepts:
            raise ValueError(f"{shape.file}: the shape {shape.text!r} names the unknown concept {name!r}")
        if group and group not in concepts[name].groups:
            raise ValueError(f"{shape.file}: the shape {shape.text!r} names the unknown group {name}/{group}")
    rest = CHOICE.sub("", SLOT.sub("", shape.text))
    if any(sign in rest for sign in "{}|"):
        raise ValueError(f"{shape.file}: the shape {shape.text!r} has a stray brace or bar")
