#!/usr/bin/env bash
# spaCy 3.8.18: Doc.to_json and Doc.from_json turn tokens without an entity annotation into tokens that are no entity,
# and drop an entity's knowledge-base id and span id. DocBin and to_bytes keep all of it.
# A partly annotated document so becomes, after a trip through JSON, training data that says "no entity" for the rest.
# Seen: ent_iob [3, 0, 0] becomes [3, 2, 2]; ids ('Q1', 'e1') become ('', '').
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet spacy==3.8.18 click==8.5.1
"$folder/venv/bin/python" - "$folder" <<'PY'
import spacy
from spacy.tokens import Doc, DocBin, Span

nlp = spacy.blank("en")
doc = nlp("Ann met Bob")
doc.set_ents([Span(doc, 0, 1, "PER", kb_id="Q1", span_id="e1")], default="missing")


def seen(found):
    return [token.ent_iob for token in found], [(span.kb_id_, span.id_) for span in found.ents]


binary = next(iter(DocBin().from_bytes(DocBin(docs=[doc]).to_bytes()).get_docs(nlp.vocab)))
copies = {
    "before": doc,
    "json": Doc(nlp.vocab).from_json(doc.to_json()),
    "DocBin": binary,
    "bytes": Doc(nlp.vocab).from_bytes(doc.to_bytes()),
}
found = {name: seen(copy) for name, copy in copies.items()}
print(f"spaCy {spacy.__version__}: {found}")
for name in ("before", "DocBin", "bytes"):
    assert found[name] == ([3, 0, 0], [("Q1", "e1")]), name
assert found["json"] == ([3, 2, 2], [("", "")]), found["json"]
PY
