"""Special tokens: the same ids and texts in every file that names them."""

from collections.abc import Iterator

from converters.validation.companion_check import named_ids
from release.lint import weights
from release.lint.config import CONFIG, GENERATION, TOKENIZER
from release.lint.finding import Finding, Place, few, found
from release.lint.folder import Folder
from release.lint.vocabulary import FILES, KINDS, MAP, Vocabulary, stops, text_of, vocabulary


def check(folder: Folder) -> Iterator[Finding]:
    """All findings on tokenizer and special tokens."""
    known = vocabulary(folder)
    if weights.shards(folder) and not any(name in folder.files for name in FILES):
        yield found("T08", "", "no tokenizer.json, tokenizer.model, vocab.json or vocab.txt")
    yield from _outside(folder, known)
    yield from _texts(folder, known)
    yield from _added(folder, known)
    yield from _ends(folder, known)
    yield from _ids(folder, known)


def _outside(folder: Folder, known: Vocabulary) -> Iterator[Finding]:
    if known.size is None:
        return
    for name in (CONFIG, GENERATION):
        for kind in KINDS:
            # -1 stands for no token in some families' configs.
            said = named_ids(folder.document(name) or {}, kind)
            if beyond := sorted(at for at in said if at >= known.size or at < -1):
                where = Place(name, folder.line_of(name, f"{kind}_token_id"))
                names = few([str(at) for at in beyond])
                yield found("T02", where, f"{kind}_token_id {names}; there are {known.size:,} ids")
    outside = sorted((at, token) for token, at in known.ids.items() if at >= known.size)
    if outside:
        names = few([f"{token!r} ({at})" for at, token in outside])
        yield found("T02", "tokenizer.json", f"beyond the {known.size:,} ids: {names}")


def _texts(folder: Folder, known: Vocabulary) -> Iterator[Finding]:
    config, older = folder.document(TOKENIZER), folder.document(MAP)
    for kind in KINDS:
        for name, document in ((TOKENIZER, config), (MAP, older)):
            text = text_of(document, kind)
            if text is not None and known.ids and text not in known.ids:
                where = Place(name, folder.line_of(name, f"{kind}_token"))
                yield found("T04", where, f"{kind}_token {text!r} is not in tokenizer.json")
        pair = text_of(config, kind), text_of(older, kind)
        if None not in pair and pair[0] != pair[1]:
            where = Place(MAP, folder.line_of(MAP, f"{kind}_token"))
            yield found("T05", where, f"{kind}_token is {pair[1]!r}, {TOKENIZER} says {pair[0]!r}")


def _added(folder: Folder, known: Vocabulary) -> Iterator[Finding]:
    listed = (folder.document(TOKENIZER) or {}).get("added_tokens_decoder")
    wrong = []
    for key, token in (listed if isinstance(listed, dict) else {}).items():
        text = token.get("content") if isinstance(token, dict) else None
        if isinstance(text, str) and known.ids and str(known.ids.get(text)) != key:
            wrong.append(f"{text!r} has id {key}, tokenizer.json says {known.ids.get(text)}")
    if wrong:
        where = Place(TOKENIZER, folder.line_of(TOKENIZER, "added_tokens_decoder"))
        yield found("T06", where, few(wrong))


def _ends(folder: Folder, known: Vocabulary) -> Iterator[Finding]:
    ends = stops(folder)
    if CONFIG not in folder.files:
        return
    if not ends:
        yield found("T07", GENERATION if GENERATION in folder.files else CONFIG, "no eos_token_id")
        return
    text = text_of(folder.document(TOKENIZER), "eos")
    said = known.ids.get(text) if text is not None else None
    if said is not None and said not in ends:
        name = GENERATION if named_ids(folder.document(GENERATION) or {}, "eos") else CONFIG
        yield found(
            "T01",
            Place(name, folder.line_of(name, "eos_token_id")),
            f"the tokenizer ends text with {text!r} ({said}), generation stops at "
            f"{few([str(at) for at in sorted(ends)])}",
        )


def _ids(folder: Folder, known: Vocabulary) -> Iterator[Finding]:
    for kind in KINDS:
        said = {
            name: ids
            for name in (CONFIG, GENERATION)
            if (ids := named_ids(folder.document(name) or {}, kind))
        }
        text = text_of(folder.document(TOKENIZER), kind)
        if kind != "eos" and text is not None and text in known.ids:
            said[TOKENIZER] = {known.ids[text]}
        if len(said) > 1 and not set.intersection(*said.values()):
            last = list(said)[-1]
            listed = ", ".join(f"{name} {sorted(ids)}" for name, ids in said.items())
            key = f"{kind}_token" + ("" if last == TOKENIZER else "_id")
            where = Place(last, folder.line_of(last, key))
            yield found("T03", where, f"{kind} tokens differ: {listed}")
