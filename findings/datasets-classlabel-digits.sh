#!/usr/bin/env bash
# datasets 5.2.0: ClassLabel takes a string that is no name of a class, but a number, for the number of a class.
# A file whose labels are "1" and "2" is so read as the classes "high" and "5" of a label set that has neither; no error.
# A name wins over a number, so "5" is the class of that name, and "7" is refused. Blanks around a name are ignored.
# Seen: str2int gives '1' -> 1, '2' -> 2, '5' -> 2, ' low' -> 0; '7' raises ValueError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0
"$folder/venv/bin/python" - "$folder" <<'PY'
import datasets
from datasets import ClassLabel, Dataset, Features, Value

label = ClassLabel(names=["low", "high", "5"])
found = {text: label.str2int(text) for text in ("1", "2", "5", " low")}
try:
    label.str2int("7")
except ValueError as error:
    refused = str(error)
else:
    raise SystemExit("'7' is taken")
rows = Dataset.from_dict({"label": ["1", "2"]}, features=Features({"label": Value("string")}))
cast = rows.cast_column("label", label)["label"][:]
print(f"datasets {datasets.__version__}: str2int {found}; '7': {refused}; the column ['1', '2'] becomes {cast}")
assert found == {"1": 1, "2": 2, "5": 2, " low": 0}, found
assert list(cast) == [1, 2], cast
PY
