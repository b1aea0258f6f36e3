"""The report as one HTML file: no script, no network, light and dark, readable when printed.

Charts are inline SVG whose colors are CSS variables, so that they follow the reader's scheme; every
figure of a chart stands in a table as well.
"""

import csv
import io
import math
from datetime import timedelta
from html import escape

from support.durations import spoken
from support.report import COUNTS, PERCENTILES, Group, Report
from support.trace import utc_text

LABELS = {
    "met": "met",
    "breached": "breached",
    "at_risk": "at risk",
    "on_track": "on track",
    "waiting": "waiting",
}
SHOWN_BROKEN = 50
WIDTH = 860  # of the line by month, in its own units
GAP = 0.15  # between two outcomes, in percent of a bar
STYLE = """
:root{color-scheme:light dark;--bg:#fcfcfb;--fg:#1d1f21;--dim:#5f6368;--line:#d9dcdf;--card:#fff;
--met:#1b7f5c;--breached:#b3261e;--at_risk:#b26a00;--on_track:#3a6ea5;--waiting:#8a8f94}
@media(prefers-color-scheme:dark){:root{--bg:#16181a;--fg:#e6e7e8;--dim:#a3a8ad;--line:#34383c;
--card:#1d2023;--met:#4fbf94;--breached:#f2766b;--at_risk:#e0a243;--on_track:#78aee6;
--waiting:#868c92}}
body{margin:0 auto;max-width:70rem;padding:2rem 1.2rem;background:var(--bg);color:var(--fg);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .6rem}p{margin:.3rem 0}
.dim{color:var(--dim)}.warn{color:var(--breached)}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.7rem 1rem;
min-width:7rem}.tile b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.wrap{white-space:normal}
.scroll svg{display:block;width:100%;min-width:42rem;height:auto;margin-top:.6rem}
svg text{fill:var(--fg);font:12px system-ui,sans-serif}
svg .dim{fill:var(--dim)}.key{margin-right:1rem;white-space:nowrap}
.row{display:grid;grid-template-columns:minmax(0,14rem) 1fr 6.5rem;gap:.2rem .6rem;
align-items:center;margin:.5rem 0;overflow-wrap:anywhere}.row span+span{order:3;text-align:right}
.row svg{order:2;width:100%;height:1.2rem}
@media(max-width:40rem){.row{grid-template-columns:1fr auto}.row span+span{order:2}
.row svg{order:3;grid-column:1/3}}
.key i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}
"""


def html_page(made: Report) -> str:
    """The whole page."""
    title = f"Support report: {made.vendor}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="dim">{made.tickets:,} tickets, as of {utc_text(made.at)}. Times are open time: '
        "the hours of each target, less waiting for the customer.</p>",
        *([f'<p class="warn"><strong>{escape(made.doubt)}.</strong></p>'] if made.doubt else []),
        _tiles(made),
        "<h2>Outcome by plan, severity and target</h2>",
        _legend(),
        _outcomes(made.sorted_groups()),
        "<h2>Met in time, by month of opening</h2>",
        _months(made),
        "<h2>Figures</h2>",
        _figures(made),
        *_optional(made),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def csv_text(made: Report) -> str:
    """One line per plan, severity and target; lengths in seconds of open time."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f"p{p}_seconds" for p in PERCENTILES]
    writer.writerow(
        ["plan", "severity", "target", "within", "hours", *COUNTS, "met_percent", *names]
    )
    for group in made.sorted_groups():
        found = group.percentiles() or {}
        share = "" if group.met_percent is None else f"{group.met_percent:.4f}"
        writer.writerow(
            [group.plan, group.severity, group.kind, group.target.within, group.target.hours]
            + [group.counts[name] for name in COUNTS]
            + [share, *(found.get(f"p{p}", "") for p in PERCENTILES)]
        )
    return out.getvalue()


def report_rows(made: Report) -> list[list[str]]:
    """The table of the command line and of the page."""
    rows = []
    for group in made.sorted_groups():
        found = group.percentiles() or {}
        share = "-" if group.met_percent is None else f"{rounded_down(group.met_percent)} %"
        times = [length_text(found[f"p{p}"]) if found else "-" for p in PERCENTILES]
        counts = [f"{group.counts[name]:,}" for name in COUNTS]
        kind = group.kind.replace("_", " ")
        rows.append([group.plan, group.severity, kind, *counts, share, *times])
    return rows


def rounded_down(percent: float) -> str:
    """One decimal; 99.96 is 99.9, because 100.0 would say that nothing was missed."""
    return f"{math.floor(percent * 10 + 1e-9) / 10:.1f}"


def length_text(seconds: int) -> str:
    """To the minute, where that says enough: ``3h 20m``."""
    whole = seconds if seconds < 60 else seconds // 60 * 60
    return spoken(timedelta(seconds=whole))


def _tiles(made: Report) -> str:
    sums = {name: sum(group.counts[name] for group in made.groups.values()) for name in COUNTS}
    decided = sums["met"] + sums["breached"]
    share = f"{rounded_down(100 * sums['met'] / decided)} %" if decided else "-"
    tiles = [("targets met", share)]
    tiles += [(LABELS[name], f"{sums[name]:,}") for name in ("breached", "at_risk", "waiting")]
    tiles.append(("lines not counted", f"{made.broken_lines:,}"))
    cells = "".join(f'<div class="tile"><b>{value}</b>{label}</div>' for label, value in tiles)
    return f'<div class="tiles">{cells}</div>'


def _legend() -> str:
    keys = "".join(
        f'<span class="key"><i style="background:var(--{name})"></i>{label}</span>'
        for name, label in LABELS.items()
    )
    return f"<p>{keys}</p>"


def _outcomes(groups: list[Group]) -> str:
    """A bar per group, as shares of its tickets; always whole, however narrow the page is."""
    return "\n".join(map(_outcome, groups))


def _outcome(group: Group) -> str:
    total, x, parts = sum(group.counts.values()), 0.0, []
    for state in COUNTS:
        width = 100 * group.counts[state] / max(total, 1)
        if width:
            said = f"{LABELS[state]}: {group.counts[state]:,} of {total:,}"
            parts.append(
                f'<rect x="{x:.2f}" width="{max(width - GAP, GAP):.2f}" height="1" '
                f'style="fill:var(--{state})"><title>{said}</title></rect>'
            )
        x += width
    name = f"{group.plan} {group.severity} {group.kind.replace('_', ' ')}"
    share = "-" if group.met_percent is None else f"{rounded_down(group.met_percent)} % met"
    label = escape(f"{name}: {share}")
    return (
        f'<div class="row"><span>{escape(name)}</span><span>{share}</span>'
        f'<svg viewBox="0 0 100 1" preserveAspectRatio="none" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg></div>"
    )


def _months(made: Report) -> str:
    """A line: the share of decided targets that were met, by month."""
    sums: dict[str, list[int]] = {}
    for group in made.groups.values():
        for name, (met, late) in group.months.items():
            both = sums.setdefault(name, [0, 0])
            both[0] += met
            both[1] += late
    if not sums:
        return '<p class="dim">No target is decided yet.</p>'
    height, left, names, axis = 190, 50, sorted(sums), _every_month(min(sums), max(sums))
    shares = [100 * sums[name][0] / sum(sums[name]) for name in names]
    low = min(90.0, min(shares) // 10 * 10)
    gap = (WIDTH - left - 20) / max(len(axis) - 1, 1)
    place = {name: left + at * gap for at, name in enumerate(axis)}
    points = [
        (place[name], 10 + (height - 50) * (100 - share) / (100 - low))
        for name, share in zip(names, shares, strict=True)
    ]
    parts = []
    for mark in (low, (low + 100) / 2, 100.0):
        y = 10 + (height - 50) * (100 - mark) / (100 - low)
        parts.append(f'<path d="M{left} {y:.1f}H{WIDTH}" style="stroke:var(--line)"/>')
        parts.append(f'<text class="dim" x="0" y="{y + 4:.1f}">{mark:g} %</text>')
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    parts.append(f'<path d="M{line}" style="fill:none;stroke:var(--met);stroke-width:2"/>')
    for at, (x, y) in enumerate(points):
        met, late = sums[names[at]]
        said = f"{names[at]}: {rounded_down(shares[at])} %, {met:,} met, {late:,} breached"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill:var(--met)">'
            f"<title>{said}</title></circle>"
        )
    for name in axis[:: len(axis) // 12 + 1]:
        anchor = "end" if place[name] > WIDTH - 40 else "middle"
        parts.append(
            f'<text class="dim" x="{place[name]:.1f}" y="{height - 12}" text-anchor="{anchor}">'
            f"{name}</text>"
        )
    return _svg(height, parts, "Share of targets met, by month")


def _every_month(first: str, last: str) -> list[str]:
    """The months from one to another (2026-04), those without tickets too."""
    begin, end = (int(name[:4]) * 12 + int(name[5:]) - 1 for name in (first, last))
    return [f"{at // 12:04d}-{at % 12 + 1:02d}" for at in range(begin, end + 1)]


def _svg(height: int, parts: list[str], title: str) -> str:
    return (
        f'<div class="scroll"><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">' + "".join(parts) + "</svg></div>"
    )


def _figures(made: Report) -> str:
    columns = ["Plan", "Severity", "Target", *LABELS.values(), "Met %"]
    columns += [f"p{p}" for p in PERCENTILES]
    return _table(columns, report_rows(made), numbers_from=3)


def _optional(made: Report) -> list[str]:
    parts = []
    if made.urgent:
        rows = [
            [
                *(one.ticket, one.plan, one.severity, one.kind.replace("_", " ")),
                *(utc_text(one.due), one.state),
            ]
            for one in made.urgent
        ]
        parts.append("<h2>Open, and late or nearly so</h2>")
        parts.append(_table(["Ticket", "Plan", "Severity", "Target", "Due", "State"], rows))
    if made.credits:
        rows = [
            [
                *(one.plan, one.target.replace("_", " "), one.period),
                f"{rounded_down(one.met_percent)} %",
                *(f"{one.met_below:g} %", f"{one.percent:g} %"),
            ]
            for one in made.credits
        ]
        parts.append("<h2>Service credits that are due</h2>")
        columns = ["Plan", "Target", "Period", "Met", "Promised", "Credit"]
        parts.append(_table(columns, rows, numbers_from=3))
    if made.broken:
        rows = [
            [str(row.line or "events"), row.ticket, row.why] for row in made.broken[:SHOWN_BROKEN]
        ]
        more = len(made.broken) - len(rows)
        parts.append("<h2>Lines that are not counted</h2>")
        parts.append(_table(["Line", "Ticket", "Why"], rows))
        if more:
            parts.append(f'<p class="dim">and {more:,} more; the JSON report names them all.</p>')
    return parts


def _table(columns: list[str], rows: list[list[str]], numbers_from: int = 99) -> str:
    def cell(tag: str, at: int, text: str) -> str:
        kind = ' class="n"' if at >= numbers_from else ' class="wrap"' if len(text) > 60 else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    head = "".join(cell("th", at, text) for at, text in enumerate(columns))
    body = "".join(
        "<tr>" + "".join(cell("td", at, text) for at, text in enumerate(row)) + "</tr>\n"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>\n{body}</table></div>'
