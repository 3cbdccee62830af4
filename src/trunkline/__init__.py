"""trunkline: one small encoder, many language features.

The public names are imported when they are first used, so that `import trunkline` is fast and imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trunkline.encoder.peft_format import export_peft, import_peft
    from trunkline.engine.torch import Bundle, load
    from trunkline.errors import TrunklineError

__version__ = "0.1.0"

_HOMES = {
    "Bundle": "trunkline.engine.torch",
    "TrunklineError": "trunkline.errors",
    "export_peft": "trunkline.encoder.peft_format",
    "import_peft": "trunkline.encoder.peft_format",
    "load": "trunkline.engine.torch",
}

__all__ = [
    "Bundle",
    "TrunklineError",
    "__version__",
    "export_peft",
    "import_peft",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trunkline' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
