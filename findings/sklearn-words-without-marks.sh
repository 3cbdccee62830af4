#!/usr/bin/env bash
# scikit-learn 1.9.1: the default token_pattern of CountVectorizer and TfidfVectorizer cuts words of Hindi and Thai at
# their vowel signs and drops what is left with one letter, because Python's \w has no combining marks.
# The same word with a decomposed accent is another feature than with a composed one.
# Seen: 'नमस्ते दुनिया' gives ['नमस'], its second word nothing; decomposed 'café' gives 'cafe', composed 'café'.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scikit-learn==1.9.1
"$folder/venv/bin/python" - "$folder" <<'PY'
import unicodedata

import sklearn
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer


def words(text, vectorizer):
    return list(vectorizer().fit([text]).get_feature_names_out())


for vectorizer in (CountVectorizer, TfidfVectorizer):
    hindi = words("नमस्ते दुनिया", vectorizer)
    accents = [words(unicodedata.normalize(form, "caf\u00e9"), vectorizer) for form in ("NFC", "NFD")]
    print(f"scikit-learn {sklearn.__version__}, {vectorizer.__name__}: {hindi}, {accents}")
    assert hindi == ["नमस"], hindi
    assert accents == [["caf\u00e9"], ["cafe"]], accents
PY
