"""Plots as SVG without a library: colours come from the page's style, so that they fit light and dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from trunkline.results.show import visible

WIDTH, HEIGHT, LEFT, BOTTOM = 340, 250, 44, 38
"""Of a plot, in pixels of a narrow phone; the margins of its axes."""

MOST_LABELS, CELL = 20, 26
"""Labels of a confusion matrix, those that are confused most, and pixels of a cell."""

Scale = Callable[[float], float]


class Svg(str):
    """Markup of a plot, which is not escaped again."""

    __slots__ = ()


def bar(share: float) -> Svg:
    """A bar in a cell of a table, which has the number beside it."""
    rects = f'<rect class="track" width="100" height="8"/><rect class="good" width="{100 * share:.1f}" height="8"/>'
    return Svg(f'<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">{rects}</svg>')


def reliability(bins: Sequence[Mapping[str, float]]) -> Svg:
    """The share of right answers over their scores; on the dashed line scores are what they say."""
    across, up = _across(0, 1), _up(0, 1)
    points = [
        (across(b["score"]), up(b["right"]), f"{b['count']} answers of score {b['score']:.2f}: {b['right']:.0%} right")
        for b in bins
    ]
    ideal = f'<path class="ideal" d="M{across(0)} {up(0)} L{across(1)} {up(1)}"/>'
    title = f"Share of right answers by mean score: {', '.join(text for *_, text in points)}"
    axes = _axes([(n / 4, f"{n / 4:g}") for n in range(5)], [(n / 4, f"{25 * n} %") for n in range(5)], across, up)
    return _svg(title, [axes, _names("score", "right"), ideal, _line(points)])


def histogram(counts: Mapping[str, Sequence[int]]) -> Svg:
    """Right and wrong answers by their score, stacked."""
    pairs = list(zip(counts["right"], counts["wrong"], strict=True))
    most = max(1, *(sum(pair) for pair in pairs))
    across, up = _across(0, len(pairs)), _up(0, most)
    bars = []
    for n, (right, wrong) in enumerate(pairs):
        title = f"<title>{n / len(pairs):.2f} to {(n + 1) / len(pairs):.2f}: {right} right, {wrong} wrong</title>"
        for kind, low, high in (("good", 0, right), ("bad", right, right + wrong)):
            place = f'x="{across(n) + 1:.1f}" y="{up(high):.1f}" width="{across(1) - across(0) - 2:.1f}"'
            bars.append(f'<rect class="{kind}" {place} height="{up(low) - up(high):.1f}">{title}</rect>')
    axes = _axes([(len(pairs) * n / 4, f"{n / 4:g}") for n in range(5)], [(0, "0"), (most, f"{most:,}")], across, up)
    keys = "".join(
        f'<rect class="{kind}" x="{LEFT + 10 + 60 * n}" y="6" width="10" height="10"/>'
        f'<text class="key" x="{LEFT + 24 + 60 * n}" y="15">{name}</text>'
        for n, (kind, name) in enumerate((("good", "right"), ("bad", "wrong")))
    )
    title = f"Number of answers by score: {sum(counts['right'])} right, {sum(counts['wrong'])} wrong"
    return _svg(title, [axes, _names("score", "answers"), *bars, keys])


def curve(points: Sequence[Mapping[str, float]], measure: str) -> Svg:
    """A score over the number of examples that it was learnt from, with the spread over folds."""
    low = min(0.9, *(p["score"] - p["spread"] for p in points)) // 0.1 / 10
    most = max(p["examples"] for p in points)
    across, up = _across(0, most), _up(max(0.0, low), 1)
    spread = [
        f'<path class="line" d="M{across(p["examples"]):.1f} {up(min(1, p["score"] + p["spread"])):.1f} '
        f'V{up(max(0, p["score"] - p["spread"])):.1f}"/>'
        for p in points
    ]
    shown = [f"{p['examples']:.0f} examples: {p['score']:.1%}" for p in points]
    line = _line([(across(p["examples"]), up(p["score"]), text) for p, text in zip(points, shown, strict=True)])
    rows = [(tick / 10, f"{10 * tick} %") for tick in range(round(10 * max(0.0, low)), 11)]
    axes = _axes([(p["examples"], f"{p['examples']:.0f}") for p in points[::-2]], rows, across, up)
    title = f"{measure} by number of examples: {', '.join(shown)}"
    return _svg(title, [axes, _names("labelled examples", measure), *spread, line])


def heat_map(confusion: Mapping[str, Mapping[str, int]]) -> Svg:
    """Gold labels down, predicted ones across; the darker, the larger the share of the gold label."""
    mixed: dict[str, int] = {}
    for gold, row in confusion.items():
        for guess, count in row.items():
            for label in (gold, guess):
                mixed[label] = mixed.get(label, 0) + count * (gold != guess)
    chosen = sorted(sorted(mixed, key=lambda one: (-mixed[one], one))[:MOST_LABELS], key=lambda one: (one == "", one))
    names = [_label(name or "none", 16) for name in chosen]
    margin, parts = 16 + 7 * max(map(len, names)), list[str]()
    for down, gold in enumerate(chosen):
        y, total = margin + CELL * down, max(1, sum(confusion.get(gold, {}).values()))
        parts.append(f'<text class="key" x="{margin - 8}" y="{y + 17}" text-anchor="end">{names[down]}</text>')
        turned = f"translate({y + 17} {margin - 8}) rotate(-90)"
        parts.append(f'<text class="key" transform="{turned}">{names[down]}</text>')
        for across, guess in enumerate(chosen):
            count, x = confusion.get(gold, {}).get(guess, 0), margin + CELL * across
            kind, share = ("good" if gold == guess else "bad") if count else "grid", count / total
            place = f'x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill-opacity="{0.15 + 0.85 * share:.2f}"'
            title = f"<title>{names[down]}, predicted {names[across]}: {count} ({share:.0%})</title>"
            parts.append(f'<rect class="{kind}" {place}>{title}</rect>')
            if count:
                shade, number = "full" if share > 0.5 else "count", f"{count}" if count < 1000 else f"{count // 1000}k"
                parts.append(_tick(x + CELL / 2, y + 17, number).replace("<text", f'<text class="{shade}"'))
    size = margin + CELL * len(chosen) + 2
    return _svg("Confusion matrix, gold labels down, predicted labels across", parts, size, size, fixed=True)


def _line(points: Sequence[tuple[float, float, str]]) -> str:
    """Points, each with what it says, and the line through them."""
    dot = '<circle class="good" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>'
    dots = [dot.format(*point) for point in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    return f'<polyline class="line" points="{path}"/>{"".join(dots)}'


def _label(text: object, most: int = 60) -> str:
    shown = visible(text).replace("\n", " ")
    return escape(shown if len(shown) <= most else f"{shown[: most - 1]}…")


def _across(low: float, high: float) -> Scale:
    return lambda value: LEFT + (WIDTH - LEFT - 14) * (value - low) / (high - low)


def _up(low: float, high: float) -> Scale:
    return lambda value: HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 26) * (value - low) / (high - low)


def _tick(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _axes(xs: Sequence[tuple[float, str]], ys: Sequence[tuple[float, str]], across: Scale, up: Scale) -> str:
    rows = "".join(
        f'<path class="grid" d="M{LEFT} {up(y):.1f} H{WIDTH - 14}"/>{_tick(LEFT - 6, up(y) + 4, text, "end")}'
        for y, text in ys
    )
    return rows + "".join(_tick(across(x), HEIGHT - BOTTOM + 16, text) for x, text in xs)


def _names(across: str, up: str) -> str:
    """The names of the axes; that of the upright one stands above it."""
    return _tick((LEFT + WIDTH) / 2, HEIGHT - 6, escape(across)) + _tick(WIDTH - 14, 15, escape(up), "end")


def _svg(title: str, parts: Sequence[str], width: float = WIDTH, height: float = HEIGHT, *, fixed: bool = False) -> Svg:
    size = f' style="width:{width:.0f}px"' if fixed else ""
    start = f'<svg viewBox="0 0 {width:.0f} {height:.0f}"{size} role="img" aria-label="{escape(title)}">'
    return Svg(f"{start}{''.join(parts)}</svg>")
