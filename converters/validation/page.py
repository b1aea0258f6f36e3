"""The report as one HTML file that needs no network: verdict first, then what it rests on.

Made from the same document as the JSON (``Validation.to_dict``), which may be another machine's:
every text in it is escaped.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from converters.validation.page_charts import bars, heat_map, histogram
from converters.validation.page_style import STYLE

Document = Mapping[str, Any]

# 1.00e-04 would be broken after its hyphen.
_NUMBER = re.compile(r"\d\.\d+e[-+]\d+")
_UNBROKEN = r'<span class="number">\g<0></span>'
SHOWN = 6  # failures that are seen without opening the rest


def html_page(document: Document, title: str) -> str:
    """The whole page; ``title`` is what was validated, as the reader calls it."""
    parts = [
        _verdict(document, title),
        _facts(document),
        _layers(document),
        *(_comparison(item) for item in document["comparisons"]),
        _load(document["expert_load"]),
        _slowest(document["slowest"]),
        _structure(document),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(_word(document))}: {escape(title)}</title>\n<style>{STYLE}</style>\n"
        f"</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _word(document: Document) -> str:
    return "Passed" if document["passed"] else "Failed"


def _verdict(document: Document, title: str) -> str:
    kind = "passed" if document["passed"] else "failed"
    first, more = document["failures"][:SHOWN], document["failures"][SHOWN:]
    failures = _list(first, "failures")
    if more:
        failures += _details(f"{len(more)} more", _list(more, "failures"))
    where = [item["located"] for item in document["comparisons"] if item["located"]]
    located = "".join(f'<p class="where">Where: {escape(text)}.</p>' for text in where)
    return (
        f'<header class="{kind}"><p class="mark">{_word(document)}</p>\n'
        f"<h1>{escape(title)}</h1>\n<p>{escape(_sentence(document))}</p>\n"
        f"{located}{failures}{_unchecked(document)}</header>"
    )


def _sentence(document: Document) -> str:
    where = f"{document['graph']} in {document['compute_dtype']} on {document['provider']}"
    against = [item["against"] for item in document["comparisons"]] or ["the reference's layers"]
    if document["passed"]:
        return f"{where} agrees with {' and '.join(against)} within the stated tolerance."
    return f"{where} does not agree with {' and '.join(against)}."


def _unchecked(document: Document) -> str:
    """Beside the verdict, not under the notes: a green page must not claim more than was done."""
    said = document.get("not_checked", [])  # reports of before have none
    if not said:
        return ""
    return f'<p class="unchecked"><b>Not checked:</b> {escape("; ".join(said))}.</p>\n'


def _list(items: Sequence[str], kind: str) -> str:
    if not items:
        return ""
    rows = "".join(f"<li>{_NUMBER.sub(_UNBROKEN, escape(item))}</li>" for item in items)
    return f'<ul class="{kind}">{rows}</ul>\n'


def _section(title: str, body: str, note: str = "") -> str:
    said = f'<p class="note">{escape(note)}</p>\n' if note else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{said}{body}\n</section>" if body else ""


def _facts(document: Document) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    prompts = "; ".join(f"{item['what']} ({item['tokens']} tokens)" for item in document["prompts"])
    rows = {
        "Model": document["model_type"],
        "Ran on": f"{document['provider']}, {document['device']}",
        "Versions": versions,
        "Prompts": prompts or "none",
    }
    cells = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows.items())
    return f"<dl>{cells}</dl>\n{_list(document['notes'], 'notes')}"


def _layers(document: Document) -> str:
    layers = document["layers"]
    rows = [(f"layer {item['layer']}", item["difference"], item["allowed"]) for item in layers]
    columns = ["layer", "at once", "over a cache", "padded", "allowed", "carried so far", "seconds"]
    names = ("difference", "cached", "padded", "allowed", "carried")
    cells = [
        [item["layer"], *(_figure(item[name]) for name in names), f"{item['seconds'] or 0:.1f}"]
        for item in layers
    ]
    return _section(
        "Error of each layer",
        bars(rows) + _details("The figures", table(columns, cells)) if layers else "",
        "Each layer of the graph and of the reference on the same hidden states: largest "
        "difference of what the layer adds, relative to it. The line is what is allowed.",
    )


def _comparison(item: Document) -> str:
    allowed = item["tolerance"]
    body = _runs(item) + _perplexity(item) + _greedy(item)
    spread = "".join(
        f"<figure><figcaption>{escape(kind)}</figcaption>"
        f"{histogram(run['histogram'], allowed['relative'])}</figure>"
        for kind, run in item["runs"].items()
    )
    body += "<h3>How logits differ</h3>\n<p class='note'>Share of all logits by difference, "
    body += "relative to the largest logit. The line is what the largest may be.</p>"
    body += f"<div class='grid'>{spread}</div>"
    return _section(
        f"Against {item['against']}",
        body + _routers(item),
        f"Allowed: {allowed['relative']:.1e} of the largest logit, mean KL {allowed['kl']:.1e} "
        f"nats. {allowed['reason']}.",
    )


def _runs(item: Document) -> str:
    columns = ["run", "largest", "tokens", "excused", "mean", "mean KL", "top-1", "top-5", "itself"]
    rows = [
        [
            kind,
            _figure(run["largest_relative"]),
            run["tokens"],
            run["excused"],
            _figure(run["mean_relative"]),
            _figure(run["mean_kl"]),
            f"{run['top1']:.1%}",
            f"{run['top5']:.1%}",
            _figure(item["itself"][kind]) if kind in item["itself"] else "",
        ]
        for kind, run in item["runs"].items()
    ]
    if not item["itself"]:  # layer by layer: one run alone
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return table(columns, rows)


def _perplexity(item: Document) -> str:
    both = item["perplexity"]
    if both is None:
        return ""
    return (
        f"<p>Perplexity of the prompts over {both['tokens']} next tokens: "
        f"<b>{both['reference']:.6g}</b> in the reference, <b>{both['ours']:.6g}</b> in the "
        "graph. It says what the model makes of these prompts, not whether the graph is right: "
        "large where it was trained on other text, or little.</p>"
    )


def _greedy(item: Document) -> str:
    greedy = item["greedy"]
    if greedy is None:
        return ""
    ties = f", {greedy['near_ties']} part at a near tie" if greedy["near_ties"] else ""
    return (
        f"<p>Greedy decoding: {greedy['equal']} of {greedy['prompts']} prompts give the same "
        f"tokens ({greedy['tokens']} new tokens){ties}.</p>"
    )


def _routers(item: Document) -> str:
    if not item["experts"]:
        return ""
    limit = item["tolerance"]["relative"]
    rows = [(f"layer {e['layer']}", e["difference"], limit) for e in item["experts"]]
    columns = ["layer", "tokens", "same experts", "near ties", "router difference"]
    cells = [
        [
            e["layer"],
            e["tokens"],
            f"{e['agreement']:.2%}",
            e["near_ties"] + e["followed"],
            _figure(e["difference"]),
        ]
        for e in item["experts"]
    ]
    return (
        "<h3>Error at each layer's router</h3>\n<p class='note'>Largest difference of router "
        "logits in all runs, relative to the layer's largest. What comes before a layer shows "
        f"here.</p>{bars(rows)}{_details('Chosen experts', table(columns, cells))}"
    )


def _load(load: Sequence[Document]) -> str:
    rows = [(f"layer {item['layer']}", item["chosen"], item["tokens"]) for item in load]
    return _section(
        "Expert load",
        heat_map(rows) if load else "",
        "How often each expert was chosen for the prompts' tokens, relative to an even share. "
        "Crossed out: never, so nothing was seen of it.",
    )


def _slowest(slowest: Sequence[Document]) -> str:
    rows = [
        [s["operator"], s["where"], s["nodes"], f"{s['milliseconds']:.2f}", f"{s['share']:.1%}"]
        for s in slowest
    ]
    columns = ["operator", "part", "nodes", "ms", "share"]
    return _section(
        "Slowest parts",
        table(columns, rows, words=2) if rows else "",
        "Of the graph, in ONNX Runtime's profile of the longest prompt and eight cached tokens.",
    )


def _structure(document: Document) -> str:
    found = document["structure"]
    if found is None:
        return ""
    kinds = ("not_finite", "zero_experts", "equal_experts")
    bad = [
        f"{kind.replace('_', ' ')}: {', '.join(found[kind][:4])}" for kind in kinds if found[kind]
    ]
    sound = f"no NaN, no Inf; {found['experts']:,} experts, none with a matrix of zeros, no copies."
    said = (
        f"{found['tensors']:,} tensors, {found['bytes']:,} bytes, {', '.join(found['dtypes'])}: "
        + ("; ".join(bad) if bad else sound)
    )
    return _section("Bytes", f"<p>{escape(said)}</p>")


def _figure(value: float | None) -> str:
    """A JSON report says null for what is not finite."""
    return "not finite" if value is None else f"{value:.1e}" if value else "0"


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], words: int = 1) -> str:
    """An HTML table that scrolls by itself where the page is narrow; its first column stays.

    ``words``: so many columns, from the left, are words and not figures.
    """

    def cells(tag: str, row: Sequence[Any]) -> str:
        kinds = [' class="word"' if at < words else "" for at in range(len(row))]
        pairs = zip(kinds, row, strict=True)
        return "".join(f"<{tag}{kind}>{escape(str(cell))}</{tag}>" for kind, cell in pairs)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{cells("th", columns)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
