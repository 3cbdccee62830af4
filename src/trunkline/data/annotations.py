"""Examples of the records of JSON, annotation tools and the hub: which keys hold what is found by content."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from trunkline.data import values
from trunkline.data.load import choose_text, find_label, find_name, join_texts, read_labels
from trunkline.data.records import parse_cells
from trunkline.data.spans import Row, Sentence, build_example, check_borders, decode_sentences, parse_entities
from trunkline.data.values import Loaded, Record, Records, data_error, get_key, require_text, shorten
from trunkline.text.examples import QaExample, join_tokens

_ENTITY_NAMES = ("entities", "spans", "label", "labels", "annotations")
_REJECTED = "rejected by the annotator"
_STUDIO = {"annotation_id", "annotator", "created_at", "updated_at", "lead_time"}
"""What Label Studio adds to each record of its short form and of its tables."""

_MORE = "other annotations of Label Studio"


def read_records(
    records: Sequence[tuple[int, Record]], path: str | Path, family: str | None, *columns: str | None
) -> Loaded:
    """Records as examples of a family; of the one that the keys say where it is None. Columns as for `read_labels`.

    Raises:
        DataError: Records that fit no family or two, a second text, several labels, or values that are no text.
    """
    text, label, separator = (*columns, None)[:3]
    flat = [(line, *_flatten(record, path, line)) for line, record in parse_cells(records)]
    rows = [(line, record) for line, _, record in flat if not isinstance(record, str)]
    reasons = Counter(reason for _, _, reason in flat if isinstance(reason, str))
    left_out = [f"{count} {reason}" for reason, count in reasons.items()]
    if not rows:
        reason = f" ({'; '.join(left_out)})" if left_out else ""
        raise data_error(path, None, f"there is no example{reason}", "some examples")
    for name in (_MORE, "relations"):
        found = [record.pop(name) for _, record in rows if isinstance(record.get(name), list)]
        left_out += [f"{count} {name}"] if (count := sum(map(len, found))) else []
    if any(tool == "Label Studio" for _, tool, _ in flat):  # one choice of several that are possible is no list there
        lists = [(key, own) for _, one in rows for key, own in one.items() if own and isinstance(own, list)]
        chosen = {key for key, own in lists if all(isinstance(one, str) for one in own)}
        for _, one in rows:
            one |= {key: [one[key]] for key in chosen if isinstance(one.get(key), str)}
    what, key = find_family(rows, path, family, label)
    if what == "questions":
        loaded = Loaded("qa", list(read_questions(rows, path)), "questions about contexts")
    elif what == "tokens":
        loaded = read_tokens(rows, key, path)
    elif what == "entities":
        loaded = _entities(rows, key, text, path)
    elif family is None and any(isinstance(own := record.get(key), list) and len(own) > 1 for _, record in rows):
        loaded = read_labels(rows, path, "multilabel", text, key, separator)
    elif separator or family == "multilabel" or ("+" in key and key not in rows[0][1]):
        loaded = read_labels(rows, path, family, text, key, separator)
    else:
        loaded = _labels(rows, key, text, path)
    tools = " and ".join(dict.fromkeys(tool for _, tool, _ in flat if tool))
    notes = [*loaded.notes, *(f"left out: {what}" for what in left_out)]
    return replace(loaded, kind=f"{loaded.kind} of {tools}" if tools else loaded.kind, notes=notes)


def find_family(
    records: Sequence[tuple[int, Record]], path: str | Path, family: str | None, label_column: str | None
) -> tuple[str, str]:
    """What records have, `questions`, `tokens`, `entities` or `labels`, and the key of the last three."""
    line, first = records[0]
    names = list(dict.fromkeys(name for _, record in records for name in record))
    entities = "" if label_column else _entity_name([record for _, record in records])
    some = any(record.get(entities) for _, record in records)
    tags = next((name for name in ("tags", "ner_tags", "labels") if isinstance(first.get(name), list)), "")
    if family in (None, "qa") and ("paragraphs" in first or {"question", "context", "answers"} <= first.keys()):
        return "questions", ""
    if family in (None, "ner") and tags and isinstance(first.get("tokens"), list) and not label_column:
        return "tokens", tags
    label = find_name([name for name in names if name != entities], values.LABEL_NAMES)
    if family is None and entities and label and some:
        given = f"the records have entities ({entities!r}) and labels ({label!r})"
        raise data_error(path, line, given, "one of both", "Choose with --family ner or --family classification")
    if entities and (family == "ner" or (family is None and (some or not label))):
        return "entities", entities
    return "labels", find_label(names, family, label_column, path, line, entities)


def _entity_name(records: Sequence[Record]) -> str:
    """The key under which records have entities; empty if under none."""
    for name in _ENTITY_NAMES:
        lists = [record[name] for record in records if isinstance(record.get(name), list)]
        if any(isinstance(item, dict | list) for values in lists for item in values):
            return name
    return next((name for name in ("entities", "spans") if any(isinstance(r.get(name), list) for r in records)), "")


def read_tokens(records: Sequence[tuple[int, Record]], key: str, path: str | Path) -> Loaded:
    """Records with `tokens` and, under a key, as many tags."""
    sentences = []
    for line, record in records:
        tokens, tags = (get_key(record, name, path, line) for name in ("tokens", key))
        if not isinstance(tokens, list) or not isinstance(tags, list) or len(tokens) != len(tags) or not tokens:
            raise data_error(path, line, "tokens and tags are not two lists of one length", "a tag a token")
        words = tuple(require_text(token, "token", path, line) for token in tokens)
        sentences.append(Sentence(words, tuple(require_text(tag, "tag", path, line) for tag in tags), (line,)))
    examples, scheme = decode_sentences(sentences, path)
    return Loaded("ner", list(examples), f"tokens and {scheme}")


def entity_row(line: int, record: Record, columns: Sequence[str], key: str, path: str | Path) -> Row:
    """The text of a record with the entities under a key."""
    found = record.get(key) or []
    if not isinstance(found, list):
        raise data_error(path, line, f"{key} is {shorten(found)}", "a list of entities")
    return Row(line, join_texts(record, columns, path, line), parse_entities(found, path, line))


def _entities(records: Sequence[tuple[int, Record]], key: str, asked: str | None, path: str | Path) -> Loaded:
    columns = choose_text(records, key, asked, path)
    if len(columns) > 1:
        raise data_error(path, None, "several columns of texts", "one, because offsets count in it")
    rows = [entity_row(line, record, columns, key, path) for line, record in records]
    notes = list(filter(None, [check_borders(rows, path)]))
    if without := sum(key not in record for _, record in records):
        notes.append(f"{without} records without the key {key!r} were taken to have no entity")
    return Loaded("ner", [build_example(row, path) for row in rows], "texts with entities", notes)


def _labels(records: Sequence[tuple[int, Record]], key: str, asked: str | None, path: str | Path) -> Loaded:
    """Texts with labels; where Prodigy asked about one label alone, what was rejected has the label `not` that one."""
    rows: list[tuple[int, Record]] = []
    for line, record in records:
        value = get_key(record, key, path, line)
        if isinstance(value, list) and len(value) != 1:
            given = f"the text has {f'{len(value)} labels, {shorten(value)}' if value else 'no label'}"
            todo = "Say --family multilabel where a text may have any number of labels"
            raise data_error(path, line, given, "one label a text", todo)
        rows.append((line, {**record, key: value[0] if isinstance(value, list) else value}))
    notes = []
    rejected = [record for _, record in rows if record.get("answer") == "reject"]
    label = str(rows[0][1][key])
    if rejected and all(str(record[key]) == label for _, record in rows):
        notes.append(f"{len(rejected)} texts for which {label!r} was rejected have the label 'not {label}'")
        for record in rejected:
            record[key] = f"not {label}"
    elif rejected:
        notes.append(f"left out: {len(rejected)} {_REJECTED}")
        rows = [row for row in rows if row[1].get("answer") != "reject"]
    return replace(read_labels(rows, path, None, asked, key), notes=notes)


def _flatten(record: Record, path: str | Path, line: int) -> tuple[str, Record | str]:
    """The tool that a record was taken for (empty for none), and the record in a flat form.

    It has `text` and `entities` or `label`, as the tool has them (`answer` of Prodigy is kept), or is the reason why it
    has no annotation to learn from. A record with the keys of a tool and not its form raises a DataError.
    """
    for tool, needed, convert in _TOOLS:
        if needed <= record.keys():
            try:
                return tool, convert(record)
            except (TypeError, KeyError, IndexError, AttributeError, ValueError):
                raise data_error(path, line, f"the record is {shorten(record)}", f"the form of {tool}") from None
    return "", record


def _gliner(record: Record) -> Record:
    text, words = join_tokens(record["tokenized_text"])
    spans = [[words[first][0], words[last][1], label] for first, last, label in record["ner"]]
    return {"text": text, "entities": spans}


def _label_studio(record: Record) -> Record | str:
    done = [one["result"] for one in record["annotations"] if not one.get("was_cancelled")]
    if not done:
        return "without annotation"
    strings = {key: value for key, value in record["data"].items() if isinstance(value, str)}
    marks = [item["value"] for item in done[0]]
    choices = [choice for value in marks for choice in value.get("choices", ())]
    found: Record = {"label": choices} if choices else {"entities": [value for value in marks if "labels" in value]}
    texts = {"text": next(iter(strings.values()))} if len(strings) == 1 else strings
    return {**texts, **found, _MORE: done[1:]}


def _label_studio_min(record: Record) -> Record:
    kept = {key: value for key, value in record.items() if key not in _STUDIO}
    found = {
        key: value["choices"] for key, value in kept.items() if isinstance(value, dict) and [*value] == ["choices"]
    }
    return kept | found


def _prodigy(record: Record) -> Record | str:
    answer = record["answer"]
    if answer == "ignore" or (answer == "reject" and not isinstance(record.get("label"), str)):
        return _REJECTED if answer == "reject" else "ignored by the annotator"
    kept: Record = {key: record[key] for key in ("text", "label", "spans", "answer") if key in record}
    return {**kept, "label": record.get("accept", [])} if "options" in record else kept


def _cats(record: Record) -> Record:
    cats, entities = record["cats"], record.get("entities")
    label = [name for name, value in cats.items() if float(value) >= 0.5] if isinstance(cats, dict) else list(cats)
    return {"text": record["text"], "label": label, **({"entities": entities} if entities else {})}


def _snips(record: Record) -> Record:
    text, entities = "", []
    for part in record["data"]:
        label = part.get("slot_name") or part.get("entity")
        entities += [[len(text), len(text) + len(part["text"]), label]] if label else []
        text += part["text"]
    return {"text": text, "intent": record["intent"], "entities": entities}


_TOOLS: tuple[tuple[str, set[str], Callable[[Record], Record | str]], ...] = (
    ("GLiNER", {"tokenized_text", "ner"}, _gliner),
    ("Label Studio", {"data", "annotations"}, _label_studio),
    ("Label Studio", _STUDIO, _label_studio_min),
    ("Prodigy", {"text", "answer"}, _prodigy),
    ("spaCy or doccano", {"text", "cats"}, _cats),
    ("Snips", {"data", "intent"}, _snips),
)
"""The tool, the keys of its records, and how they become flat."""


def unfold(record: Record) -> Record:
    """A record of which the text is to be read alone, with what is in `data` beside its other keys."""
    if "data" not in record or "text" in record or not isinstance(data := record["data"], dict | list):
        return record
    other = {key: value for key, value in record.items() if key != "data"}
    return {**_snips({"intent": None, **record}), **other} if isinstance(data, list) else {**other, **data}


def read_questions(records: Records, path: str | Path) -> Iterator[QaExample]:
    """The questions of records, in their order, lazily; `plausible_answers` of unanswerable ones are not read.

    `answers` are objects with `text` and `answer_start`, or two lists under these keys, none where there is no answer.
    One that does not stand where it should raises a DataError with the line and the question's id.
    """
    return (_question(item, path, line) for line, record in records for item in flat_questions(record, path, line))


def flat_questions(record: Record, path: str | Path, line: int) -> list[Record]:
    """The questions of a record, each with its `context`: itself, or those of its `paragraphs`, as SQuAD has them."""
    if "paragraphs" not in record:
        return [record]
    kept = {key: value for key, value in record.items() if key != "paragraphs"}
    try:
        return [{**kept, **item, "context": part["context"]} for part in record["paragraphs"] for item in part["qas"]]
    except (KeyError, TypeError):
        given = f"the paragraphs are {shorten(record['paragraphs'])}"
        raise data_error(path, line, given, "a list of objects with context and qas, as in SQuAD") from None


def _question(item: Record, path: str | Path, line: int) -> QaExample:
    where, spans = f"question {shorten(item['id'])}: " if item.get("id") is not None else "", []
    question, context, answers = item.get("question"), item.get("context", ""), get_key(item, "answers", path, line)
    for what, text in (("context", context), ("question", question)):
        if not isinstance(text, str) or not text.strip():
            raise data_error(path, line, f"{where}the {what} is {shorten(text)}", f"a {what} as a string")
    try:
        if isinstance(answers, dict):
            answers = [dict(zip(answers, pair, strict=True)) for pair in zip(*answers.values(), strict=True)]
        pairs = [(str(one["text"]), operator.index(one["answer_start"])) for one in answers]
    except (KeyError, TypeError, ValueError):
        expected = "a list of objects with text and answer_start, or an object of two lists"
        raise data_error(path, line, f"{where}the answers are {shorten(answers)}", expected) from None
    for text, start in pairs:
        if not text.strip() or start < 0 or context[start : start + len(text)] != text:
            given = f"{where}the answer {shorten(text)} does not stand at {start} of the context"
            todo = "Check that it does not count bytes or UTF-16 units"
            raise data_error(path, line, given, "answer_start as an offset in characters, from 0", todo)
        spans.append((start + len(text) - len(text.lstrip()), start + len(text.rstrip())))
    return QaExample(" ".join(str(question).split()), context, tuple(dict.fromkeys(spans)))
