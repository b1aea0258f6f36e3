"""The ways a graph is used: at once, through the cache, in two parts, in a padded batch.

The plain graph and the copy of it that gives its routers out go through the same runs, so that
what the copy shows of the experts is said of the run whose logits are judged.

B batch, S new tokens, V vocabulary, E experts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.validation.answers import Answer
from converters.validation.sessions import GraphSession, Step

Floats = NDArray[np.float32]

PADDED_STEPS = 3  # cached steps after the prefill of the padded batch


@dataclass(frozen=True)
class Stretch:
    """What one run gave for tokens ``start`` to ``stop`` of a sequence.

    ``logits`` [stop-start,V] are compared with ``reference`` of the same shape; ``None`` where
    another run judges these tokens. ``extra``: the graph's internal values [stop-start,E] by name.
    """

    what: str
    start: int
    logits: Floats
    reference: Floats | None
    extra: dict[str, Floats]

    @property
    def stop(self) -> int:
        """The first token that is not part of it."""
        return self.start + len(self.logits)


@dataclass(frozen=True)
class Walk:
    """One sequence through the graph in one way, from its first token on without a gap."""

    answer: Answer
    stretches: tuple[Stretch, ...]

    def value(self, name: str) -> Floats:
        """The internal value ``name`` of every token walked through, [N,E]."""
        return np.concatenate([stretch.extra[name] for stretch in self.stretches])


Mode = Callable[[GraphSession, Sequence[Answer]], Iterator[Walk]]


def _row(step: Step, at: int, last: int) -> tuple[Floats, dict[str, Floats]]:
    """The ``last`` tokens of row ``at`` of a batch: their logits and internal values."""
    batch, length = step.logits.shape[:2]
    extra = {
        name: value.reshape(batch, length, -1)[at, length - last :]
        for name, value in step.extra.items()
    }
    return step.logits[at, length - last :], extra


def prefill(session: GraphSession, answers: Sequence[Answer]) -> Iterator[Walk]:
    """Each prompt at once, with an empty cache."""
    for answer in answers:
        logits, extra = _row(session.run(answer.prompt.ids[None]), 0, answer.length)
        reference = answer.logits[: answer.length]
        what = f"prefill of {answer.prompt.what}"
        yield Walk(answer, (Stretch(what, 0, logits, reference, extra),))


def cached(session: GraphSession, answers: Sequence[Answer]) -> Iterator[Walk]:
    """Teacher-forced: the reference's own tokens go in, so that one flip does not hide the rest."""
    for answer in answers:
        step = session.run(answer.prompt.ids[None])
        logits, extra = _row(step, 0, answer.length)
        stretches = [Stretch(answer.prompt.what, 0, logits, None, extra)]
        for number, token in enumerate(answer.tokens[:-1], 1):
            step = session.run(np.array([[token]], np.int64), cache=step.cache)
            logits, extra = _row(step, 0, 1)
            what = f"cached step {number} of {answer.prompt.what}"
            reference = answer.cached[number : number + 1]
            at = answer.length - 1 + number
            stretches.append(Stretch(what, at, logits, reference, extra))
        yield Walk(answer, tuple(stretches))


def two_parts(session: GraphSession, answers: Sequence[Answer]) -> Iterator[Walk]:
    """Each prompt in two runs: the second has several new tokens and a past."""
    for answer in answers:
        prompt, length = answer.prompt, answer.length
        half = length // 2
        if not half:
            continue
        first = session.run(prompt.ids[None, :half])
        second = session.run(prompt.ids[None, half:], cache=first.cache)
        start, end = _row(first, 0, half), _row(second, 0, length - half)
        reference = answer.logits[half:length]
        yield Walk(
            answer,
            (
                Stretch(f"first part of {prompt.what}", 0, start[0], None, start[1]),
                Stretch(f"second part of {prompt.what}", half, end[0], reference, end[1]),
            ),
        )


def padded(session: GraphSession, answers: Sequence[Answer]) -> Iterator[Walk]:
    """The longest and another sequence in one batch, the shorter padded left with id 0.

    Compared with what the reference says to each alone, so a pad that is seen shows. After the
    prefill single tokens go in, or, where the reference's answers to those are not its answers at
    once (``Answer.steady``), the same tokens in one pass; then `padded_decode` tries single ones.
    """
    sizes = [len(answer.sequence) for answer in answers]
    longest = max(range(len(answers)), key=lambda i: sizes[i])
    other = min(range(len(answers)), key=lambda i: (i == longest, sizes[i]))
    wide = sizes[longest] - PADDED_STEPS
    narrow = min(sizes[other] - PADDED_STEPS, wide // 2)
    if narrow > 0:
        yield from _run_padded(session, [answers[longest], answers[other]], [wide, narrow])


def _run_padded(
    session: GraphSession, rows: Sequence[Answer], lengths: Sequence[int]
) -> Iterator[Walk]:
    wide = lengths[0]
    ids, mask = np.zeros((2, wide), np.int64), np.zeros((2, wide), np.int64)
    for at, (answer, length) in enumerate(zip(rows, lengths, strict=True)):
        ids[at, wide - length :] = answer.sequence[:length]
        mask[at, wide - length :] = 1
    steps = [session.run(ids, mask)]
    size = 1 if all(answer.steady for answer in rows) else PADDED_STEPS
    for number in range(0, PADDED_STEPS, size):
        starts = zip(rows, (length + number for length in lengths), strict=True)
        tokens = [answer.sequence[i : i + size] for answer, i in starts]
        mask = np.pad(mask, ((0, 0), (0, size)), constant_values=1)
        steps.append(session.run(np.array(tokens, np.int64), mask, steps[-1].cache))
    for at, (answer, length) in enumerate(zip(rows, lengths, strict=True)):
        yield Walk(answer, tuple(_padded_row(steps, at, answer, length)))


def _padded_row(steps: Sequence[Step], at: int, answer: Answer, length: int) -> Iterator[Stretch]:
    named, size = f"row {at} ({answer.prompt.what})", PADDED_STEPS // (len(steps) - 1)
    for number, step in enumerate(steps):
        start, count = (length + size * (number - 1), size) if number else (0, length)
        what = f"step {number} after padded {named}" if number else f"padded {named}"
        logits, extra = _row(step, at, count)
        yield Stretch(what, start, logits, answer.logits[start : start + count], extra)


def padded_decode(session: GraphSession, answers: Sequence[Answer]) -> Iterator[Walk]:
    """Single tokens after padded prompts, where the padded batch does not try them.

    Of a reference whose answers to single tokens are not its answers at once (``Answer.steady``)
    only those after a whole prompt are known: so the prompts themselves are padded.
    """
    rows = sorted(answers, key=lambda answer: answer.length)
    rows = [rows[0], rows[-1]]
    count = min(PADDED_STEPS, *(len(answer.tokens) - 1 for answer in rows))
    if count < 1 or all(answer.steady for answer in answers):
        return
    # The longer one is padded as well: two prompts may be of one length.
    wide = rows[1].length + PADDED_STEPS
    ids, mask = np.zeros((2, wide), np.int64), np.zeros((2, wide), np.int64)
    for at, answer in enumerate(rows):
        ids[at, wide - answer.length :] = answer.prompt.ids
        mask[at, wide - answer.length :] = 1
    steps = [session.run(ids, mask)]
    for number in range(count):
        mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
        tokens = np.array([[answer.tokens[number]] for answer in rows], np.int64)
        steps.append(session.run(tokens, mask, steps[-1].cache))
    for at, answer in enumerate(rows):
        yield Walk(answer, tuple(_decoded_row(steps, at, answer)))


def _decoded_row(steps: Sequence[Step], at: int, answer: Answer) -> Iterator[Stretch]:
    named = f"padded row {at} ({answer.prompt.what})"
    logits, extra = _row(steps[0], at, answer.length)
    yield Stretch(named, 0, logits, answer.logits[: answer.length], extra)
    for number, step in enumerate(steps[1:], 1):
        logits, extra = _row(step, at, 1)
        reference = answer.cached[number : number + 1]
        what = f"cached step {number} after {named}"
        yield Stretch(what, answer.length - 1 + number, logits, reference, extra)


def many(session: GraphSession, answers: Sequence[Answer]) -> Iterator[Walk]:
    """Every sequence, cut to the shortest, in one batch: nothing is padded."""
    length = min(len(answer.sequence) for answer in answers)
    if len(answers) == 1:
        return
    step = session.run(np.stack([answer.sequence[:length] for answer in answers]))
    for at, answer in enumerate(answers):
        logits, extra = _row(step, at, length)
        what = f"row {at} of {len(answers)} ({answer.prompt.what})"
        yield Walk(answer, (Stretch(what, 0, logits, answer.logits[:length], extra),))


CACHED = "cached decode"
STEPWISE = frozenset({CACHED, "padded decode"})
"""Runs held to the reference's answers token by token."""

MODES: dict[str, Mode] = {
    "prefill": prefill,
    CACHED: cached,
    "two parts": two_parts,
    "padded batch": padded,
    "padded decode": padded_decode,
    "batch of many": many,
}
