"""Prompts: a user's, our own for a tokenizer, and seeded ids without one."""

from pathlib import Path

import numpy as np
import pytest

from converters.errors import ConverterError
from converters.validation.prompts import DEFAULT_TEXTS, Limits, read_prompts


@pytest.fixture(scope="module")
def with_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level BPE tokenizer in the fast form."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<eos>"], show_progress=False
    )
    tokenizer.train_from_iterator(DEFAULT_TEXTS, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)
    return folder


LIMITS = Limits(vocab_size=300, context=256, window=None)


def test_default_texts(with_tokenizer: Path) -> None:
    prompts = read_prompts(with_tokenizer, None, LIMITS)
    assert [prompt.what for prompt in prompts] == ["text 1", "text 2", "text 3", "text 4"]
    assert all(10 < len(prompt.ids) < 256 for prompt in prompts)


def test_lines_of_a_file(with_tokenizer: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "mine.txt").write_text("The ship\n\nleft in 1969.\n", encoding="utf-8")
    prompts = read_prompts(with_tokenizer, tmp_path / "mine.txt", LIMITS)
    assert [prompt.what for prompt in prompts] == ["line 1 of mine.txt", "line 3 of mine.txt"]
    tokenizer = AutoTokenizer.from_pretrained(with_tokenizer)
    assert tokenizer.decode(prompts[1].ids) == "left in 1969."


def test_a_tokenizer_that_makes_nothing_of_our_texts(tmp_path: Path) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "removed")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    with pytest.raises(ConverterError, match="text 1 has no tokens") as caught:
        read_prompts(tmp_path, None, LIMITS)
    assert "tokenizer.json" in caught.value.hint


def test_random_ids_are_the_same_each_time(tmp_path: Path) -> None:
    first, second = (read_prompts(tmp_path, None, LIMITS) for _ in range(2))
    assert len(first) == 3
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
    assert len({len(prompt.ids) for prompt in first}) == 3


def test_a_prompt_reaches_past_the_window(tmp_path: Path) -> None:
    prompts = read_prompts(tmp_path, None, Limits(300, 256, 40))
    assert len(prompts[-1].ids) == 63
    assert "past the window of 40" in prompts[-1].what
    for window, context in ((4096, 8192), (40, 50)):
        assert len(read_prompts(tmp_path, None, Limits(300, context, window))) == 3


def test_our_own_prompts_are_cut_to_a_small_context(tmp_path: Path) -> None:
    prompts = read_prompts(tmp_path, None, Limits(300, 12, None))
    assert [len(prompt.ids) for prompt in prompts] == [6, 9, 6]
    assert "its first 6 tokens" in prompts[0].what


def _refused(folder: Path, text: bytes, limits: Limits, words: str) -> None:
    file = folder / "prompts.txt"
    file.write_bytes(text)
    with pytest.raises(ConverterError, match=words) as caught:
        read_prompts(folder, file, limits)
    assert caught.value.hint


def test_a_prompt_longer_than_the_context(with_tokenizer: Path) -> None:
    _refused(with_tokenizer, b"x" * 3000, LIMITS, r"line 1 .* has 3000 tokens; .* context is 256")


def test_files_without_prompts(with_tokenizer: Path, tmp_path: Path) -> None:
    _refused(with_tokenizer, b"\n  \n", LIMITS, "has no prompts")
    _refused(with_tokenizer, b"\xff\xfe\x00x", LIMITS, "is not UTF-8")
    _refused(tmp_path, b"hello", LIMITS, "has no tokenizer")


def test_a_tokenizer_of_another_model(with_tokenizer: Path) -> None:
    _refused(with_tokenizer, b"The ship left", Limits(40, 256, None), "vocabulary has 40")


def test_a_damaged_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    _refused(tmp_path, b"hello", LIMITS, "cannot load the tokenizer")
