"""What runs in the converter's environment: `python -m trunkline_lab.litert.worker convert|serve FOLDER`.

`convert` reads arrays.npz and litert.json of the folder and writes the .tflite files beside them. `serve` opens the
files and answers requests, one JSON object a line on standard input, with one line each on standard output; arrays
travel as .npz files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.errors import TrunklineError
from trunkline_lab.litert.layout import read_layout

if TYPE_CHECKING:
    from trunkline_lab.litert.session import LiteRtSession

ARRAYS = "arrays.npz"


def main(arguments: list[str]) -> int:
    """Does what the arguments say; a user error is one line of JSON with the exit code 2."""
    verb, folder = arguments[0], Path(arguments[1])
    try:
        if verb == "convert":
            from trunkline_lab.litert.convert import convert

            convert(_load(folder / ARRAYS), read_layout(folder), folder)
        else:
            _serve(folder, threads=int(arguments[2]))
    except TrunklineError as error:
        _answer({"error": [error.given, error.expected, error.todo]})
        return 2
    return 0


def _serve(folder: Path, threads: int) -> None:
    from trunkline_lab.litert.session import LiteRtSession

    session = LiteRtSession(folder, threads)
    _answer({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        if "length" in request:
            _answer(session.seconds(request["length"], request["repeats"]))
        else:
            outputs: dict[str, Any] = _row(session, _load(Path(request["inputs"])))
            np.savez(Path(request["outputs"]), **outputs)
            _answer({"done": True})


def _row(session: LiteRtSession, given: Mapping[str, Any]) -> dict[str, Any]:
    """Trunk and branch of one row: `ids` [tokens], `pool` [units, tokens], and the adapter's feeds."""
    feeds = {name: value for name, value in given.items() if name.startswith(("lora.", "head."))}
    hidden = session.trunk(given["ids"], int(given["length"]) if "length" in given else None)
    return session.branch(hidden, len(given["ids"]), given["pool"], session.layout.fill(feeds))


def _load(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _answer(content: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
