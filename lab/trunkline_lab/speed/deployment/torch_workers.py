"""Cases in PyTorch and PEFT, in float32 on one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trunkline_lab.speed.deployment.cases import EIGHT, Options, read_rows
from trunkline_lab.speed.side_by_side import imported

Call = Callable[[], Any]


def torch_plain(options: Options) -> Call:
    """The encoder of transformers as it is."""
    model, rows = _model(options), _rows(options)
    return _without_gradients(lambda: model(**rows))


def torch_peft(options: Options, *, folder: str = "peft", count: int = 0) -> Call:
    """With one adapter; or `count` times a switch and a pass."""
    model, names = _peft(options, folder)
    rows = _rows(options)
    if not count:
        return _without_gradients(lambda: model(**rows))

    def call() -> None:
        for name in names[:count]:
            model.set_adapter(name)
            model(**rows)

    return _without_gradients(call)


def torch_switch(options: Options) -> Call:
    """`set_adapter` alone."""
    from itertools import cycle

    model, names = _peft(options, "peft")
    turn = cycle(names)
    return lambda: model.set_adapter(next(turn))


def torch_rows(options: Options, *, adapters: int) -> Call:
    """Eight rows with one adapter, or each with its own."""
    model, names = _peft(options, "peft")
    rows = _rows(options, EIGHT)
    more: dict[str, Any] = {"adapter_names": names[:EIGHT]} if adapters > 1 else {}
    return _without_gradients(lambda: model(**rows, **more))


def _model(options: Options) -> Any:
    with imported("transformers"):
        import torch
        from transformers import AutoModel
    torch.set_num_threads(1)
    return AutoModel.from_pretrained(options.place("base") / "encoder", dtype=torch.float32).eval()


def _peft(options: Options, folder: str) -> tuple[Any, list[str]]:
    base = _model(options)
    with imported("peft"):
        from peft import PeftModel
    places = sorted(options.place(folder).iterdir())
    model = PeftModel.from_pretrained(base, places[0], adapter_name=places[0].name)
    for place in places[1:]:
        model.load_adapter(str(place), adapter_name=place.name)
    model.set_adapter(places[0].name)
    return model.eval(), [place.name for place in places]


def _rows(options: Options, count: int = 1) -> dict[str, Any]:
    import torch

    ids = torch.from_numpy(read_rows(options, count)[0])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _without_gradients(call: Call) -> Call:
    import torch

    def run() -> Any:
        with torch.inference_mode():
            return call()

    return run
