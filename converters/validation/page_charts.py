"""Charts of the report as SVG and HTML text, in colors that the page's style gives."""

import math
from collections.abc import Sequence
from html import escape

from converters.validation.metrics import BINS

LOWEST, HIGHEST = -9.0, 1.0  # exponents of ten at the two ends of a bar chart


def bars(rows: Sequence[tuple[str, float | None, float]]) -> str:
    """(name, value, limit) as bars on a scale of powers of ten; past its limit in another color.

    A value of ``None`` is not finite: a whole bar.
    """
    ticks = "".join(
        f'<span style="left:{_place(10.0**power):.1f}%">1e{power}</span>'
        for power in range(-8, 1, 2)
    )
    return (
        f'<div class="bars" role="img" aria-label="differences by layer, logarithmic">'
        f"{''.join(_bar(*row) for row in rows)}"
        f'<div class="row axis"><span class="name"></span><div class="track">{ticks}</div>'
        '<span class="value"></span></div></div>'
    )


def _bar(name: str, value: float | None, limit: float) -> str:
    kind = "bad" if value is None or value > limit else "good"
    width = 100.0 if value is None else _place(value)
    said = "not finite" if value is None else f"{value:.1e}" if value else "0"
    return (
        f'<div class="row"><span class="name">{escape(name)}</span><div class="track">'
        f'<i class="{kind}" style="width:{width:.1f}%"></i>'
        f'<b style="left:{_place(limit):.1f}%"></b></div>'
        f'<span class="value">{said}</span></div>'
    )


def _place(value: float) -> float:
    """Percent of the chart's width; at least a sliver, so that a bar of nothing is seen."""
    if value <= 0:
        return 0.5
    share = (math.log10(value) - LOWEST) / (HIGHEST - LOWEST)
    return 100 * min(max(share, 0.005), 1.0)


def histogram(counts: Sequence[int], limit: float) -> str:
    """Counts in each power of ten (``metrics.BINS``) as columns; the y axis is linear.

    A dashed line stands at ``limit``; what lies wholly beyond it has another color.
    """
    total = sum(counts) or 1
    most = max(counts) or 1
    width, height, step = 260, 96, 260 / len(counts)
    columns = "".join(
        f'<rect class="{"bad" if at and BINS[at - 1] >= limit else "good"}" '
        f'x="{at * step + 1:.1f}" '
        f'y="{height - height * count / most:.1f}" width="{step - 2:.1f}" '
        f'height="{height * count / most:.1f}"><title>{_range(at)}: {count / total:.1%}</title>'
        "</rect>"
        for at, count in enumerate(counts)
    )
    labels = "".join(
        f'<text x="{(at + 1) * step:.1f}" y="{height + 16}">1e{round(math.log10(edge))}</text>'
        for at, edge in enumerate(BINS)
        if at % 3 == 1
    )
    line = step * (1 + math.log10(limit / BINS[0]))
    return (
        f'<svg viewBox="0 0 {width} {height + 22}" role="img" '
        f'aria-label="distribution of differences">{columns}'
        f'<line x1="0" x2="{width}" y1="{height}" y2="{height}"/>'
        f'<line class="limit" x1="{line:.1f}" x2="{line:.1f}" y1="0" y2="{height}"/>{labels}</svg>'
    )


def _range(at: int) -> str:
    if at == 0:
        return f"below {BINS[0]:.0e}"
    return (
        f"from {BINS[at - 1]:.0e}" if at == len(BINS) else f"{BINS[at - 1]:.0e} to {BINS[at]:.0e}"
    )


def heat_map(rows: Sequence[tuple[str, Sequence[int], int]]) -> str:
    """(name, times each expert was chosen, tokens) as one line of cells a layer.

    A cell's strength is its expert's share over an even one, on a scale that ends at four times.
    """
    lines = "".join(_line(name, chosen) for name, chosen, _ in rows)
    legend = "".join(
        f'<span><i style="--share:{share / 4:.2f}"></i>{share:g}x</span>'
        for share in (0.25, 0.5, 1, 2, 4)
    )
    return (
        f'<div class="heat">{lines}</div>\n<p class="legend"><span>even share = 1x:</span>{legend}'
        '<span><i class="none"></i>never</span></p>'
    )


def _line(name: str, chosen: Sequence[int]) -> str:
    even = sum(chosen) / len(chosen) or 1.0
    cells = "".join(
        f'<i{_cell(count, even)} title="{escape(name)}, expert {at}: {count} times"></i>'
        for at, count in enumerate(chosen)
    )
    return f'<div class="row"><span class="name">{escape(name)}</span><div>{cells}</div></div>'


def _cell(count: int, even: float) -> str:
    if not count:
        return ' class="none"'
    return f' style="--share:{min(count / even / 4, 1.0):.3f}"'
