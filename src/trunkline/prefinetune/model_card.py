"""The model card of a run, put together from the files of its folder; what no file says, it does not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trunkline.atomic import write_atomic
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.storage import read_json
from trunkline.prefinetune.experiment import FILE
from trunkline.training.log import read_rows, write_errors

NAME = "MODEL_CARD.md"
MOST_SOURCES = 40
_FAMILIES = {
    "ner": "named entity recognition",
    "classification": "text classification",
    "qa": "extractive question answering",
    "text": "masked language modelling",
}
_TEMPLATE = """\
---
{{ card_data }}
---

# {{ recipe.name }}

A small text encoder, pre-finetuned for {{ families | join(" and ") }}, to be adapted to tasks from few labels. By
itself it has no labels and predicts nothing. In the folder that has this bundle as `bundle`:

```
trunkline fit my_task --train train.jsonl --model bundle --out my_bundle
trunkline predict my_bundle "A text."
```

## What it is

- Base encoder: {{ encoder.name }}{{ ", by way of a bundle that was pre-finetuned before" if encoder.bundle }};
  licence: {{ encoder.licence or "not stated in its files" }}.
- Backbone: {{ "{:,}".format(weights) }} weights, SHA-256 {{ backbone[:16] }}, branches from layer {{ fork }} (counted \
from 0), windows of up to {{ recipe.max_length }} tokens.
{%- for family, lora in adapters.items() %}
- Primary adapter for {{ family }}: LoRA of rank {{ lora.rank }} on {{ lora.targets | join(", ") }} of the layers \
{{ lora.layers | join(", ") }}.
{%- endfor %}

## What it was trained on

| family | source | share of draws | examples | held out | licence |
|---|---|---:|---:|---:|---|
{%- for row in data[:most] %}
| {{ row.family }} | {% if row.home %}[{{ row.source }}]({{ row.home }}){% else %}{{ row.source }}{% endif %} \
| {{ "{:.1%}".format(row.share) }} | {{ "{:,}".format(row.examples) }} | {{ "{:,}".format(row.held_out) }} \
| {{ row.licence }} |
{%- endfor %}
{% if data | length > most %}
and {{ data | length - most }} more, see `experiment.json`.
{% endif %}
{% if recipe.decontaminate -%}
Texts that also stand in held-out parts of tasks were taken out before: \
{{ "{:,}".format(data | sum(attribute="removed")) }} examples (similarity from {{ recipe.decontaminate.threshold }} on).
{%- else -%}
The sources were not searched for texts of the tasks' dev and test parts.
{%- endif %}
{%- if unknown %} The licence is not known for {{ unknown | length }} of the sources \
({{ unknown[:8] | join(", ") }}{{ ", ..." if unknown | length > 8 }}): look before you use it.{% endif %} \
What is wrong or one-sided in the sources, the encoder may have learned.

## How it was trained

Strategy {{ recipe.strategy }}, {{ "{:,}".format(steps) }} steps{% if seconds %} over {{ "{:,.0f}".format(tokens) }} \
tokens in {{ seconds }}{% endif %}, precision {{ experiment.precision }}, seed {{ recipe.seed }}\
{% if recipe.optimizer.ema %}, weights averaged with decay {{ recipe.optimizer.ema }}{% endif %}. On \
{{ last.hardware.accelerators | join(", ") or (last.hardware.processor or "an unknown processor") }} with \
{{ last.hardware.cores }} cores, from {{ experiment.starts[0].at }}{% if resumed %}, interrupted and resumed \
{{ resumed }} times{% endif %}, with {% for name, number in last.versions.items() %}{{ name }} {{ number }}\
{{ ", " if not loop.last else "." }}{% endfor %}
{%- if last.git and last.git.commit %} Started in a repository at commit {{ last.git.commit }}\
{{ ", with changes" if last.git.dirty }}.{% endif %}

## What was measured meanwhile

{% if measures -%}
| measure | step {{ "{:,}".format(first_step) }} | step {{ "{:,}".format(last_step) }} |
|---|---:|---:|
{%- for name, before, after in measures %}
| {{ name }} | {{ "{:.3f}".format(before) }} | {{ "{:.3f}".format(after) }} |
{%- endfor %}

`dev` is on held-out examples of the sources, `probe` a linear probe on a task's dev part, on which its penalty was \
chosen, too. They show progress and are no results on tests.
{%- else -%}
Nothing: the monitor was switched off.
{%- endif %}

## Citation

> Zhu, Ozkan, Maracani, Mutlu, Cho, Ozay: Multi-Task Pre-Finetuning of Lightweight Transformer Encoders for Text
> Classification and NER. EMNLP 2025 Industry Track. arXiv 2510.07566.
"""


def write_model_card(folder: Path, bundle: Path, result: Loaded) -> Path:
    """Writes `MODEL_CARD.md` into a run's folder and into the bundle that it made, and returns the former.

    Raises:
        EncoderError: `experiment.json` of the run cannot be read.
    """
    from huggingface_hub import ModelCard, ModelCardData

    experiment, rows = read_json(folder / FILE), read_rows(folder / "metrics.jsonl")
    recipe, data = experiment["recipe"], experiment["data"]
    families = [_FAMILIES[name] for name in recipe["families"]]
    card = ModelCard.from_template(
        ModelCardData(library_name="trunkline", tags=[name.replace(" ", "-") for name in families]),
        template_str=_TEMPLATE,
        recipe=recipe,
        experiment=experiment,
        encoder=experiment["encoder"],
        families=families,
        weights=sum(parameter.numel() for parameter in result.encoder.parameters()),
        backbone=result.backbone,
        fork=result.encoder.fork,
        adapters={_FAMILIES[f]: file.lora.config for f, file in result.primaries.items() if file.lora is not None},
        data=data,
        most=MOST_SOURCES,
        unknown=sorted({row["source"] for row in data if row["licence"] in ("", "unknown", "unverified")}),
        last=experiment["starts"][-1],
        resumed=len(experiment["starts"]) - 1,
        **_training(recipe, rows),
        **_measures(rows),
    )
    for path in (bundle / NAME, folder / NAME):
        with write_errors(path, "the bundle is intact"):
            write_atomic(path, str(card))
    return folder / NAME


def _training(recipe: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Steps, tokens and time; each row of the log has the mean time over the steps since the row before."""
    logged = [row for row in rows if "seconds_per_step" in row]
    if not logged:
        return {"steps": recipe["optimizer"]["steps"]}
    steps = [0, *(row["step"] for row in logged)]
    seconds = sum(row["seconds_per_step"] * (row["step"] - before) for row, before in zip(logged, steps, strict=False))
    shown = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return {"steps": steps[-1], "tokens": logged[-1].get("tokens_seen", 0), "seconds": shown}


def _measures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The first and last values; of the dev measures the means over a family's sources."""
    measured = [row for row in rows if any(name.startswith(("dev/", "probe/")) for name in row)]
    if not measured:
        return {}
    first, last = measured[0], measured[-1]
    names = [n for n in last if n in first and (n.startswith("probe/") or (n.startswith("dev/") and n.count("/") == 2))]
    rows_of = [(name, first[name], last[name]) for name in names]
    return {"measures": rows_of, "first_step": first["step"], "last_step": last["step"]}
