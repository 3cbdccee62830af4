"""Commands that make pre-finetuning data out of one's own text: weak-label and mine-pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from trunkline.cli.base import JsonFlag, app

_NOT_OF_MINING = ("sources", "out", "encoder", "as_json")


def _opt(text: str, *names: str, **rules: Any) -> Any:
    """A typer option; commands with this many need their declarations short."""
    return typer.Option(*names, help=text, **rules)


@app.command("weak-label")
def weak_label(
    source: Annotated[str, typer.Argument(help="Text: .txt, .md, a folder, .jsonl with text, or card:NAME@SPLIT.")],
    method: Annotated[str, _opt("gazetteer, links, chat or teacher.")],
    out: Annotated[Path, _opt("The .jsonl file to write; its card goes beside it.")],
    name: Annotated[str | None, _opt("The card's name.")] = None,
    licence: Annotated[str | None, _opt("What the card says of the text.")] = None,
    limit: Annotated[int | None, _opt("Label only the first so many sentences.")] = None,
    max_words: Annotated[int | None, _opt("Cut longer sentences.")] = None,
    drop: Annotated[list[str] | None, _opt("Leave this concept out; repeatable.")] = None,
    keep_unlabelled: Annotated[bool | None, _opt("Write sentences without labels, too.")] = None,
    gazetteer: Annotated[Path | None, _opt("Table of surfaces and concepts.")] = None,
    columns: Annotated[str | None, _opt("Its columns: surface, concept, count, target, -.")] = None,
    headers: Annotated[bool | None, _opt("Concepts are table headers; filter their noise.")] = None,
    malformed: Annotated[str | None, _opt("Bad rows: error or skip.")] = None,
    min_length: Annotated[int | None, _opt("Letters that a surface must have.")] = None,
    min_count: Annotated[int | None, _opt("How often a concept was seen with a surface.")] = None,
    min_share: Annotated[float | None, _opt("Share of a surface's counts that a concept must have.")] = None,
    min_surfaces: Annotated[int | None, _opt("Surfaces that a concept must have.")] = None,
    max_concepts: Annotated[int | None, _opt("Most concepts of a surface.")] = None,
    whole_names: Annotated[bool | None, _opt("Leave out what may be the part of a longer name.")] = None,
    base_url: Annotated[str | None, _opt("The chat endpoint, such as http://localhost:8000/v1.")] = None,
    model: Annotated[str | None, _opt("The model's name there.")] = None,
    key_variable: Annotated[str | None, _opt("Environment variable that holds the key.")] = None,
    sentences: Annotated[int | None, _opt("Sentences of one request.")] = None,
    max_tokens: Annotated[int | None, _opt("Most tokens of one answer.")] = None,
    reasoning: Annotated[bool | None, _opt("The model thinks first and takes no temperature.")] = None,
    concurrency: Annotated[int | None, _opt("Requests at a time.")] = None,
    per_minute: Annotated[float | None, _opt("Most requests a minute.")] = None,
    timeout: Annotated[float | None, _opt("Seconds to wait for an answer.")] = None,
    retries: Annotated[int | None, _opt("How often a failed request is sent again.")] = None,
    max_wait: Annotated[float | None, _opt("Seconds that a server may ask us to wait.")] = None,
    price_in: Annotated[float | None, _opt("Price of a million prompt tokens.")] = None,
    price_out: Annotated[float | None, _opt("Price of a million tokens of answers.")] = None,
    yes: Annotated[bool, _opt("Send requests without asking.", "--yes", "-y")] = False,
    teacher: Annotated[str | None, _opt("Token classifier or GLiNER model: a folder or hub id.")] = None,
    revision: Annotated[str | None, _opt("Its revision on the hub.")] = None,
    label: Annotated[list[str] | None, _opt("What GLiNER looks for; repeatable.")] = None,
    rename: Annotated[list[str] | None, _opt("LABEL=concept of a token classifier; repeatable.")] = None,
    threshold: Annotated[float | None, _opt("Lowest probability of an entity.")] = None,
    batch: Annotated[int | None, _opt("Sentences at a time.")] = None,
    device: Annotated[str | None, _opt("cpu, cuda or auto.")] = None,
    cache: Annotated[Path | None, _opt("File of the answers.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Label text with concepts, so that pre-finetuning can learn from it.

    Example: trunkline weak-label notes/ --method gazetteer --gazetteer names.tsv --out notes.jsonl
    """
    _weak_label(source, out, {**locals()}, yes=yes, as_json=as_json)


@app.command("mine-pairs")
def mine_pairs(
    sources: Annotated[list[Path], typer.Argument(help="Files and folders: .txt, .md, .csv, .tsv, .jsonl.")],
    method: Annotated[str, _opt("columns, adjacent, question-answer, duplicates or title-body.")],
    out: Annotated[Path, _opt("The .jsonl file to write; its card goes beside it.")],
    left_column: Annotated[str | None, _opt("Of columns, such as the title.")] = None,
    right_column: Annotated[str | None, _opt("Of columns, such as the body.")] = None,
    text_column: Annotated[str | None, _opt("The texts of a table.")] = None,
    conversation_column: Annotated[str | None, _opt("Rows with the same value are turns of one conversation.")] = None,
    group_column: Annotated[str | None, _opt("The value that duplicates share.")] = None,
    passages: Annotated[str | None, _opt("Passages end at blank lines, at lines, or auto.")] = None,
    question_marks: Annotated[list[str] | None, _opt("Word that marks a question; repeatable.")] = None,
    answer_marks: Annotated[list[str] | None, _opt("Word that marks an answer; repeatable.")] = None,
    min_words: Annotated[int | None, _opt("The shortest side.")] = None,
    max_words: Annotated[int | None, _opt("The longest side.")] = None,
    max_pairs: Annotated[int | None, _opt("The most pairs of a document, conversation or group.")] = None,
    group_documents: Annotated[bool | None, _opt("Pairs of one document are no negatives of each other.")] = None,
    per_row: Annotated[int | None, _opt("Earlier rows of its group that a row is paired with.")] = None,
    encoding: Annotated[str | None, _opt("Of the files.")] = None,
    encoder: Annotated[
        str | None, _opt("Keep pairs that this encoder finds again (a bundle, a folder, default).")
    ] = None,
    top_k: Annotated[int | None, _opt("The lowest rank that is kept, with --encoder.")] = None,
    pool: Annotated[int | None, _opt("Texts that a partner competes with.")] = None,
    seed: Annotated[int | None, _opt("Draws what is drawn.")] = None,
    licence: Annotated[str | None, _opt("What the card says of the text.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Mine text pairs, so that pre-finetuning can learn from them.

    Example: trunkline mine-pairs faq/ --method question-answer --encoder default --out faq.jsonl
    """
    given = {key: value for key, value in locals().items() if key not in _NOT_OF_MINING and value not in (None, [])}
    from trunkline.config import parse_recipe
    from trunkline.label.mining.command import mine_pairs as run
    from trunkline.label.mining.options import MinePairsConfig
    from trunkline.ui import say
    from trunkline.ui.label import print_mined

    config = parse_recipe(given, MinePairsConfig, "options")
    embed = None
    if encoder is not None:
        from trunkline.encoder.embed import embedder

        embed = embedder(encoder)
    report = run(config, sources, out, embed=embed, say=say)
    typer.echo(json.dumps(report, indent=2)) if as_json else print_mined(report)


def _renaming(item: str) -> tuple[str, str]:
    label, found, concept = item.partition("=")
    if not found or not label:
        raise typer.BadParameter(f"{item!r} is not LABEL=concept", param_hint="--rename")
    return label, concept


def _weak_label(source: str, out: Path, options: dict[str, Any], *, yes: bool, as_json: bool) -> None:
    from trunkline.data.checks.report import whole_text
    from trunkline.data.load import stream_examples
    from trunkline.label.weak.command import weak_label as run
    from trunkline.label.weak.config import parse_weak_label
    from trunkline.ui import say
    from trunkline.ui.label import print_labelled

    given = {key: value for key, value in options.items() if key not in ("source", "out", "yes", "as_json")}
    given["labels"], names = given.pop("label") or None, given.pop("rename")
    given["names"] = dict(_renaming(item) for item in names) if names else None
    given["drop"] = given["drop"] or None
    if given["method"] == "links":
        given["paragraphs"] = source
    config = parse_weak_label(given)
    texts = [] if config.method == "links" else map(whole_text, stream_examples(source, "plain"))
    report = run(config, texts, out, say=say, confirm=lambda question: yes or typer.confirm(question, err=True))
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False)) if as_json else print_labelled(report)
