"""What is compared: sections of cases that take turns, and the ratios that are asked of them."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline_lab.speed.side_by_side import Case, Part, Ratio

TRAINER_BATCH = 8
"""Examples of a batch by default, in the trainers of transformers and of sentence-transformers."""


@dataclass(frozen=True)
class Options:
    """What all cases share.

    Attributes:
        encoder: A folder, a hub id or `default`.
        sentences: Card with labelled sentences, for token classification and for joint training.
        pairs: Card with text pairs.
        max_length: Longest text in tokens; longer ones are left out everywhere.
        tokens: Budget of our batches.
        chunk_tokens: Of GradCache.
        dropout: Of all sides but joint training, which has none; the checkpoint's own where it is none.
        steps: Steps of a repeat of the trainers; the others' work is sized by it.
        repeats: How often each case is measured.
        threads: Of torch; its own choice where it is none.
        seed: Order of the texts.
    """

    encoder: str = "default"
    sentences: str = "conll2003"
    pairs: str = "opentriviaqa"
    max_length: int = 128
    tokens: int = 2048
    chunk_tokens: int = 4096
    dropout: float | None = None
    steps: int = 32
    repeats: int = 5
    threads: int | None = None
    seed: int = 0

    @property
    def scale(self) -> float:
        """The size of the work against that of a real run."""
        return min(1.0, self.steps / 32)


def parts(options: Options) -> dict[str, Part]:
    """All sections by their short names."""
    return {
        "tokens": _token_classification(options),
        "pairs": _pairs(options),
        "joint": _joint(options),
        "gradcache": _gradcache(options),
    }


def _token_classification(options: Options) -> Part:
    trainer = "Trainer of transformers, token-classification collator, batches of 8 padded to their longest; "
    ours = "our loop, packed rows, precision and attention auto; "
    full = "trains the whole encoder and a linear head"
    lora = "LoRA of rank 8 on query and value of the branch's layers, and a linear head"
    many = f"batches of about {options.tokens} tokens; "
    rows = (
        ("Trainer fp32", "trainer", trainer + full, {"bf16": False, "lora": False}),
        ("Trainer bf16", "trainer", trainer + "bf16=True; " + full, {"bf16": True, "lora": False}),
        ("Trainer + PEFT fp32", "trainer", f"{trainer}PEFT trains {lora}", {"bf16": False, "lora": True}),
        ("Trainer + PEFT bf16", "trainer", f"{trainer}bf16=True; PEFT trains {lora}", {"bf16": True, "lora": True}),
        ("ours, full", "tagger", ours + many + full, {"lora": False, "batch": None}),
        ("ours, LoRA", "tagger", f"{ours}{many}trains {lora}", {"lora": True, "batch": None}),
        ("ours, full, batch 8", "tagger", f"{ours}batches of 8; {full}", {"lora": False, "batch": TRAINER_BATCH}),
        ("ours, LoRA, batch 8", "tagger", f"{ours}batches of 8; trains {lora}", {"lora": True, "batch": TRAINER_BATCH}),
    )
    cases = tuple(Case(name, kind, says, settings, options.repeats) for name, kind, says, settings in rows)
    wanted = {"Trainer fp32": 6.0, "Trainer bf16": 3.5}
    pairs = [("ours, full", "Trainer fp32"), ("ours, full", "Trainer bf16")]
    pairs += [("ours, LoRA", under) for under in ("Trainer fp32", "Trainer bf16")]
    pairs += [("ours, LoRA", f"Trainer + PEFT {precision}") for precision in ("fp32", "bf16")]
    pairs += [("ours, full, batch 8", f"Trainer {precision}") for precision in ("fp32", "bf16")]
    pairs += [("ours, LoRA, batch 8", f"Trainer + PEFT {precision}") for precision in ("fp32", "bf16")]
    ratios = tuple(
        Ratio(f"{over} / {under}", measure, over, under, None if "batch 8" in over else wanted.get(under))
        for over, under in pairs
        for measure in ("tokens_per_second", "tokens_per_cpu_second")
    )
    return Part("Token classification, real tokens per second", cases, ratios)


def _pairs(options: Options) -> Part:
    cases: list[Case] = []
    ratios: list[Ratio] = []
    for batch in (TRAINER_BATCH, 64):
        size = f"batches of {batch} pairs"
        peer = f"trainer of sentence-transformers, MultipleNegativesRankingLoss, {size}, trains the whole encoder"
        ours = f"our pre-finetuning step of the classification family, {size}, trains encoder and primary adapter"
        names = [f"sentence-transformers {precision}, {batch} pairs" for precision in ("fp32", "bf16")]
        cases += [
            Case(names[0], "sentence_transformers", peer, {"bf16": False, "batch": batch}, options.repeats),
            Case(
                names[1], "sentence_transformers", f"{peer}, bf16=True", {"bf16": True, "batch": batch}, options.repeats
            ),
            Case(f"ours, {batch} pairs", "text_pairs", ours, {"batch": batch}, options.repeats),
        ]
        ratios += [
            Ratio(f"ours / {name}", measure, f"ours, {batch} pairs", name, wanted)
            for name, wanted in zip(names, (3.0, None), strict=True)
            for measure in ("pairs_per_second", "pairs_per_cpu_second")
        ]
    return Part("Text pairs, pairs per second", tuple(cases), tuple(ratios))


def _joint(options: Options) -> Part:
    repeats = max(2, round(24 * options.scale))
    says = f"one joint step, {options.tokens} tokens a family, "
    wide = ["query", "key", "value", "out", "up", "down"]
    cases = [
        Case("naive", "joint", says + "no adapters", {"strategy": "naive"}, repeats),
        Case("task-primary", "joint", says + "rank 16 on query and value", {"strategy": "task-primary"}, repeats),
        Case(
            "task-primary, all linear layers",
            "joint",
            says + "rank 16 on all six linear layers",
            {"strategy": "task-primary", "targets": wide},
            repeats,
        ),
    ]
    sizes = (1024, 2048, 4096)
    cases += [
        Case(f"matrix product {n}", "matmul", f"product of two bf16 matrices {n} x {n}", {"size": n}, repeats)
        for n in sizes
    ]
    ratios = [
        Ratio(f"time a token, {name} / naive", measure, name, "naive", at_most=1.08)
        for name in ("task-primary", "task-primary, all linear layers")
        for measure in ("seconds_per_token", "cpu_seconds_per_token")
    ]
    ratios += [
        Ratio(f"share of the matrix peak at {n}, {name}", "flops_per_second", name, f"matrix product {n}", wanted)
        for n in sizes
        for name, wanted in (("task-primary", 0.35), ("naive", None))
    ]
    return Part("Joint training, and the share of the matrix peak", tuple(cases), tuple(ratios))


def _gradcache(options: Options) -> Part:
    repeats = 2  # each takes long enough to even out what disturbs it
    plain, *cached = (max(8, round(pairs * options.scale)) for pairs in (256, 1024, 4096, 8192))
    says = f"our step with GradCache, chunks of at most {options.chunk_tokens} tokens, batches of {{}} pairs"

    def plan(pairs: int, repeats: int) -> list[int]:
        # Warming up with a batch of GradCache would take as long as measuring it; its chunks are alike in a small one.
        return [plain] + [pairs] * repeats

    settings = {"batch": plain, "plan": plan(cached[1] // plain * plain, repeats)}
    cases = [Case(f"plain, {plain} pairs", "text_pairs", "our step at once", settings, repeats)]
    cases += [
        Case(
            f"GradCache, {batch} pairs",
            "text_pairs",
            says.format(batch),
            {"batch": batch, "plan": plan(batch, times), "chunk_tokens": options.chunk_tokens},
            times,
        )
        for batch, times in zip(cached, (repeats, repeats, 1), strict=True)
    ]
    middle = f"GradCache, {cached[1]} pairs"
    ratios = [
        Ratio(f"time a pair, {middle} / plain", measure, middle, cases[0].name, at_most=1.35)
        for measure in ("seconds_per_pair", "cpu_seconds_per_pair")
    ]
    ratios += [
        Ratio(f"peak memory, {cached[2]} / {batch} pairs", "peak", cases[-1].name, f"GradCache, {batch} pairs")
        for batch in cached[:2]
    ]
    return Part("GradCache", tuple(cases), tuple(ratios))
