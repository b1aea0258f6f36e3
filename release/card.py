"""README.md: the model card, written from what the build found, and true for the folder.

Front matter as in https://huggingface.co/docs/hub/model-cards; a dual licence is ``other`` with
``license_name`` and ``license_link`` (https://huggingface.co/docs/hub/repositories-licenses).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from release import lineage, openness, records, snippets, spdx, spec_access
from release.markdown import bytes_text, counted, escape, table
from release.records import ReleaseRecord, ValidationRecord
from release.spec import Card, ReleaseSpec
from release.terms import Terms

if TYPE_CHECKING:
    from license_tiers.catalog import Catalog
    from license_tiers.claims import AnyLimit
    from support.terms import SupportTerms


def render_card(
    spec: ReleaseSpec,
    release: ReleaseRecord,
    validation: ValidationRecord,
    terms: Terms,
    folder: Path,
) -> str:
    """The whole README.md for the tree in ``folder`` (shards, graphs and tokenizer are there)."""
    parts = [
        f"---\n{front_matter(spec, release)}---",
        f"# {spec.title}",
        spec.summary,
        _figures(release),
        *_prose(spec.card),
        snippets.section(spec.name, release, folder),
        validation_section(release, validation),
        _made_from(spec),
        license_section(spec, terms),
        openness.section(release, spec.openness),
    ]
    if terms.support is not None:
        from support import support_markdown

        parts.append(support_markdown(terms.support).strip())
    parts.append(_verify(spec, release))
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(spec: ReleaseSpec, release: ReleaseRecord) -> str:
    """The YAML block at the top, without its ``---`` lines."""
    from huggingface_hub import ModelCardData

    card = spec.card
    tags = ["safetensors", "onnx", "moe", release.figures.family, "moeship", *card.tags]
    more: dict[str, Any] = dict(spdx.hub_license(release.license))
    if card.base_model_relation:
        more["base_model_relation"] = card.base_model_relation
    more |= spec_access.front_matter(spec.access)
    data = ModelCardData(
        language=card.languages or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=list(dict.fromkeys(tags)),
        base_model=card.base_model or None,
        datasets=card.datasets or None,
        **more,
    )
    return data.to_yaml(line_break="\n") + "\n"


def _figures(release: ReleaseRecord) -> str:
    figures = release.figures
    share = figures.parameters_active / figures.parameters_total
    dtypes = ", ".join(f"{name} ({bytes_text(n)})" for name, n in figures.dtypes.items())
    shards = release.weights.files
    rows = [
        ["Version", release.model.version],
        ["Architecture", f"`{figures.family}`"],
        ["Parameters", f"{figures.parameters_total:,}"],
        ["Parameters active per token", f"{figures.parameters_active:,} ({share:.0%})"],
        ["Experts", f"{figures.experts}, of which {figures.experts_per_token} per token"],
        ["Layers", str(figures.layers)],
        ["Stored as", dtypes],
        ["Weights", f"{counted(len(shards), 'safetensors file')}, {bytes_text(figures.bytes)}"],
        ["ONNX graphs", ", ".join(f"`{graph.file}`" for graph in release.graphs)],
        ["License", f"`{release.license}`"],
    ]
    note = "The ONNX graphs hold no weights of their own: they read the safetensors files in place."
    return f"{table(['', ''], rows)}\n\n{note}"


def _prose(card: Card) -> list[str]:
    sections = {
        "Intended use": card.intended_use,
        "Limitations": card.limitations,
        "Training data": card.training_data,
    }
    return [f"## {title}\n\n{text}" for title, text in sections.items() if text]


def validation_section(release: ReleaseRecord, validation: ValidationRecord) -> str:
    """What was compared with what, on which device, how far apart; and what was not."""
    parts = ["## Validation", _where(release)]
    for run in validation.runs:
        if run.report is not None:
            parts.append(_run(run.report))
    parts.append(f"The full report is [`{records.VALIDATION}`]({records.VALIDATION}).")
    return "\n\n".join(parts)


def _where(release: ReleaseRecord) -> str:
    ran = [graph for graph in release.graphs if graph.validated]
    lines = []
    if not any(graph.target == "cuda" for graph in ran):
        lines.append("**This release was validated on CPU only.**")
    for graph in release.graphs:
        if not graph.validated:
            why = escape(graph.why_not or "")
            lines.append(f"`{graph.file}` was not run when this release was built: {why}.")
    return " ".join(lines) or "Every graph of this release was run when it was built."


def _run(report: dict[str, Any]) -> str:
    """One graph's comparisons, from the report as it stands in validation.json."""
    rows = []
    comparisons = report["comparisons"]
    for item in comparisons:
        for kind, run in item["runs"].items():
            rows.append(
                [
                    _against(item),
                    escape(kind),
                    str(run["tokens"]),
                    f"{run['largest_relative']:.1e}",
                    f"{item['tolerance']['relative']:.1e}",
                    f"{run['mean_kl']:.1e}",
                    f"{run['top1']:.2%}",
                ]
            )
    columns = ["Compared with", "Run", "Tokens", "Largest difference*", "Allowed", "Mean KL"]
    return (
        f"`{report['graph']}`, computing in {report['compute_dtype']} on {report['provider']} "
        f"({escape(report['device'])}):\n\n{table([*columns, 'Same top token'], rows)}\n\n"
        "\\* of the largest logit.\n\n" + "\n".join(_agreement(item) for item in comparisons)
    )


def _against(item: dict[str, Any]) -> str:
    """The reference's name; converters call the one on the exported folder just transformers."""
    name = str(item["against"])
    return "transformers on these files" if name == "transformers" else escape(name)


def _agreement(item: dict[str, Any]) -> str:
    greedy, layers = item["greedy"], item["experts"]
    lowest = min((layer["agreement"] for layer in layers), default=1.0)
    chosen = "every token" if lowest == 1 else f"at least {lowest:.2%} of the tokens"
    ties = f", {greedy['near_ties']} part at a near tie" if greedy["near_ties"] else ""
    return (
        f"- {_against(item)}: the same experts are chosen for {chosen} in "
        f"every layer; {greedy['equal']} of {greedy['prompts']} prompts continue "
        f"token for token alike under greedy decoding{ties}."
    )


def _made_from(spec: ReleaseSpec) -> str:
    if spec.lineage is None:
        return ""
    return lineage.card_section(lineage.upstream_of(spec.lineage))


def license_section(spec: ReleaseSpec, terms: Terms) -> str:
    """The licence in a sentence, and the tiers in a table."""
    license_ = spec.license
    parts = ["## License", f"`{terms.expression}`, see [LICENSE](LICENSE)."]
    if license_.commercial is not None:
        parts.append(
            f"Everybody may use this release under {license_.community}. For whom these terms do "
            f"not suit, {escape(license_.commercial.name)} is granted in writing: "
            f"{escape(license_.commercial.contact)}."
        )
    if terms.catalog is not None:
        parts.append(_tiers_table(terms.catalog))
    return "\n\n".join(parts)


def _limit(value: "AnyLimit") -> str:
    from license_tiers.catalog import edges_of

    soft, hard = edges_of(value)
    return str(soft) if soft == hard else f"{soft} (up to {hard})"


def _tiers_table(catalog: "Catalog") -> str:
    rows = []
    for key, tier in catalog.tiers.items():
        features = [escape(catalog.features[f].title) for f in sorted(catalog.features_of(key))]
        limits = [
            f"{escape(catalog.limits[name].title)}: {_limit(value)}"
            for name, value in catalog.limits_of(key).items()
        ]
        rows.append(
            [
                escape(tier.title),
                f"`{tier.license}`",
                "; ".join(features) or "-",
                "; ".join(limits) or "-",
                escape(tier.support_plan or "-"),
            ]
        )
    columns = ["Tier", "License", "Features", "Limits", "Support plan"]
    return table(columns, rows)


def _verify(spec: ReleaseSpec, release: ReleaseRecord) -> str:
    lines = [
        "## Verify this release",
        "Every file is listed with its SHA-256; GNU coreutils check them:",
        "```sh\nsha256sum --check SHA256SUMS\n```",
    ]
    lines += [
        "Its graph on your own hardware against logits that transformers gave when it was built, "
        "with ONNX Runtime alone:",
        "```sh\npip install moeship\nmoeship validate . --golden\n```",
    ]
    if release.signer is None:
        lines.append("This release is not signed.")
        return "\n\n".join(lines)
    return "\n\n".join([*lines, *_signed(spec, release.signer)])


def _signed(spec: ReleaseSpec, signer: records.Signer) -> list[str]:
    """How strangers check the signature: by the key, or by the root of its certificate."""
    known = spec.signing
    certified = known is not None and known.certificate is not None
    url = known.public_key_url if known else None
    where = f"from {url}" if url else "from the publisher, not from this repository"
    lines = ["The files, SHA256SUMS included, are signed with OpenSSF Model Signing"]
    if certified:
        lines[0] += (
            ", with a certificate that lies in model.sig. Get the root certificates that it leads "
            f"to (PEM) {where}; the SHA-256 of the PEM text of the public key that signed is "
            f"`{signer.public_key_sha256}`. Then:"
        )
        how, option = "certificate . --signature model.sig --certificate_chain", "certificate"
    else:
        lines[0] += (
            f". Get the public key {where}; the SHA-256 of its PEM text is "
            f"`{signer.public_key_sha256}`. Then:"
        )
        how, option = "key . --signature model.sig --public_key", "key"
    file = "ROOT.pem" if certified else "KEY.pub"
    return [
        *lines,
        "```sh\npip install model-signing==1.1.1 pyopenssl\n"
        f"model_signing verify {how} {file}\n```",
        "or everything at once, with moeship:",
        f"```sh\nmoeship release verify {spec.name} --{option} {file}\n```",
    ]


def support_page(spec: ReleaseSpec, terms: "SupportTerms") -> str:
    """SUPPORT.md: the terms as tables, and how to ask."""
    from support import support_markdown
    from support.metadata import contacts_markdown

    return (
        f"# Support for {escape(spec.title)}\n\n"
        + support_markdown(terms).replace("## Support\n\n", "", 1)
        + "\n"
        + contacts_markdown(terms)
        + f"\nThe same terms as data: [`{records.SUPPORT}`]({records.SUPPORT}).\n"
    )


def security_policy(spec: ReleaseSpec) -> str:
    """SECURITY.md."""
    return (
        f"# Security\n\nPlease report a security problem of {spec.title} "
        f"(weights, graphs, tokenizer, chat template or these files) to:\n\n{spec.contact}\n\n"
        "Say which version you have (it is in `moeship/release.json`) and how to see the problem.\n"
        "\nThe files of this release hold no code that runs on loading: weights are safetensors,\n"
        "graphs are ONNX with standard and `com.microsoft` operators. `SHA256SUMS` lists every\n"
        "file; README.md says how to check them.\n"
    )
