"""What a validation did not look at, in words, said beside its verdict."""

from converters.validation.report import HIDDEN, Subject

_CPU = "CPUExecutionProvider"
_NARROW = ("float16", "bfloat16")


def of_golden(subject: Subject, longest: int, walked: bool) -> tuple[str, ...]:
    """``walked``: the file holds answers token by token, not to whole prompts alone."""
    said = (
        "the reference did not run: the figures are the publisher's",
        "tokenizer, chat template, generation_config and special tokens",
        "NaN, dead and duplicate experts among the weights, and whether every byte of them is "
        "whole (SHA256SUMS says)",
        "perplexity",
    )
    steps = () if walked else ("cached decode against the reference",)
    return (*said, *steps, *_everywhere(subject, longest))


def of_layers(subject: Subject, tokens: int, given: int) -> tuple[str, ...]:
    """``tokens`` of the ``given`` ones were walked, all of one sequence."""
    said = (
        "greedy tokens, and a second sequence",
        "cache and padding through all layers together: only within each layer",
    )
    cut = (f"the prompts past their first {tokens} tokens, of {given}",) if given > tokens else ()
    return (*said, *cut, *_everywhere(subject, tokens))


def of_whole(subject: Subject, longest: int) -> tuple[str, ...]:
    """Of ``validate``: what no run of it looks at."""
    return _everywhere(subject, longest)


def _everywhere(subject: Subject, longest: int) -> tuple[str, ...]:
    said = [f"prompts of more than {longest} tokens"]
    if subject.provider == _CPU:
        said.append("a GPU, and runs of other graphs than this one")
    else:
        said.append("other providers and graphs than these")
    if subject.compute_dtype in _NARROW:
        said.append(HIDDEN)
    return tuple(said)
