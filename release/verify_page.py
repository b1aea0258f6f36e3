"""The page of ``release verify`` as one HTML file that needs no network and runs no script.

Almost all text on it comes from the release, which may be an enemy's: every piece is escaped, and
characters that a browser does not show, or that turn the text around, are written as codes.
"""

from html import escape

from release.verify import Check, Report

ORDER = ("fails", "warns", "not checked", "holds", "absent")
"""What somebody has to act on comes first."""

# Colors of text and of its tint have a contrast of at least 4.5 to 1, light and dark.
STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b606a; --paper: #fcfcfd;
  --card: #fff; --line: #d9dce1; --holds: #14663f; --holds-tint: #e6f6ec; --fails: #b42318;
  --fails-tint: #fdeceb; --warns: #8a4b00; --warns-tint: #fdf3dc; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #a6abb5;
  --paper: #111316; --card: #191b1f; --line: #363a41; --holds: #5bd69a; --holds-tint: #12291e;
  --fails: #ff9285; --fails-tint: #33181a; --warns: #f5b95c; --warns-tint: #302310; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere; }
header { border: 1px solid var(--line); border-left: .5rem solid var(--edge);
  border-radius: .5rem; padding: 1.1rem 1.4rem; background: var(--tint); }
header .mark { margin: 0; font-size: 1.8rem; font-weight: 700; line-height: 1.15;
  color: var(--edge); }
header p { margin: .3rem 0 0; }
h1 { margin: .35rem 0 0; font-size: 1.1rem; font-weight: 600; }
h2 { margin: 2rem 0 .5rem; font-size: 1.2rem; }
.holds { --edge: var(--holds); --tint: var(--holds-tint); }
.fails { --edge: var(--fails); --tint: var(--fails-tint); }
.warns, .unproved { --edge: var(--warns); --tint: var(--warns-tint); }
.quiet { --edge: var(--soft); --tint: transparent; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .35rem 1.25rem;
  margin: 0; }
dt { color: var(--soft); } dd { margin: 0; }
.note { color: var(--soft); margin: 0 0 .6rem; }
.rows { border: 1px solid var(--line); border-radius: .5rem; background: var(--card);
  margin: 0; padding: 0; list-style: none; }
.rows li { display: grid; grid-template-columns: 13.5rem 6rem minmax(0, 1fr); gap: .1rem .75rem;
  padding: .5rem .9rem; }
.rows li + li { border-top: 1px solid var(--line); }
.name { font-weight: 600; }
.state { color: var(--edge); background: var(--tint); border-radius: .3rem; padding: 0 .5rem;
  justify-self: start; align-self: start; white-space: nowrap; }
.hint { grid-column: 3; color: var(--soft); margin: 0; }
@media (max-width: 44rem) { dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: .55rem; } header { padding: .9rem 1rem; }
  .rows li { grid-template-columns: minmax(0, 1fr) auto; }
  .said, .hint { grid-column: 1 / -1; } }
@media print { body { background: none; } .rows li { break-inside: avoid; } }
"""

_CLASSES = {"holds": "holds", "fails": "fails", "warns": "warns"}


def html_page(report: Report, title: str) -> str:
    """The whole page; ``title`` is what was checked, as the reader calls it."""
    word, kind = _word(report)
    parts = [
        f'<header class="{kind}"><p class="mark">{word}</p>\n<h1>{_text(title)}</h1>\n'
        f"<p>{_text(_sentence(report))}</p></header>",
        _about(report),
        _checks(report),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{word}: {_text(title)}</title>\n<style>{STYLE}</style>\n"
        f"</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _word(report: Report) -> tuple[str, str]:
    """Never green unless a key that the reader gave signed it."""
    if any(check.status == "fails" for check in report.checks):
        return "Does not hold", "fails"
    if report.signer is None:
        return "Origin not proved", "unproved"
    return "Holds", "holds"


def _sentence(report: Report) -> str:
    """The verdict without the words in capitals that it begins with."""
    said = report.verdict.partition(": ")[2]
    return said[:1].upper() + said[1:]


def _about(report: Report) -> str:
    signed = f"sha256:{report.signer}" if report.signer else "not proved"
    rows = [("Signed by", signed), *report.about]
    if report.download:
        rows.append(("From", report.download))
    said = "".join(f"<dt>{_text(label)}</dt><dd>{_text(text)}</dd>\n" for label, text in rows)
    claimed = report.signer is None or not report.passed
    note = '<p class="note">What the release says of itself, unproved.</p>' if claimed else ""
    return f"<section><h2>The release</h2>\n{note}<dl>\n{said}</dl></section>"


def _checks(report: Report) -> str:
    ordered = sorted(report.checks, key=lambda check: ORDER.index(check.status))
    counts = {status: sum(c.status == status for c in ordered) for status in ORDER}
    said = ", ".join(f"{status}: {count}" for status, count in counts.items() if count)
    rows = "\n".join(map(_row, ordered))
    return (
        f'<section><h2>What was checked</h2>\n<p class="note">{said}</p>\n'
        f'<ul class="rows">\n{rows}\n</ul></section>'
    )


def _row(check: Check) -> str:
    kind = _CLASSES.get(check.status, "quiet")
    hint = f'<p class="hint">{_text(check.hint)}</p>' if check.hint else ""
    return (
        f'<li class="{kind}"><span class="name">{_text(check.name)}</span> '
        f'<span class="state">{check.status}</span> '
        f'<span class="said">{_text(check.detail)}</span>{hint}</li>'
    )


def _text(text: str) -> str:
    """Escaped, with every character visible; a line break is a space."""
    shown = (c if c.isprintable() else " " if c == "\n" else ascii(c)[1:-1] for c in text)
    return escape("".join(shown))
