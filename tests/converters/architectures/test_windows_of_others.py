"""Windows in config.json of families that have none: transformers' cache would keep to them, and
its masks would not, so that cached steps answer otherwise than a prompt read at once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters.architectures import find
from converters.errors import UnsupportedError

KEYS = ("sliding_window", "attention_chunk_size")


def _caches(folder: Path, config: dict[str, Any]) -> list[Any]:
    """The kinds of cache that transformers makes for each layer, and their sizes."""
    from transformers import AutoConfig
    from transformers.cache_utils import get_layer_types_and_kwargs

    (folder / "config.json").write_text(json.dumps(config))
    made = AutoConfig.from_pretrained(folder)
    return [str(one) for one in get_layer_types_and_kwargs(made.get_text_config(decoder=True))]


@pytest.mark.parametrize("key", KEYS)
def test_a_window_that_reaches_the_cache_alone_is_refused(
    tiny_model: Callable[[str], Path], described_name: str, key: str, tmp_path: Path
) -> None:
    config = json.loads((tiny_model(described_name) / "config.json").read_text())
    architecture = find(config["model_type"])
    architecture.config({**config, key: None} if key not in architecture.keys else config)
    if key in architecture.keys or architecture.no_graph() is not None:
        return
    try:
        architecture.config({**config, key: 5})
    except UnsupportedError as error:
        assert f"with {key} '5' is not modelled" in str(error)
    else:
        assert _caches(tmp_path, config) == _caches(tmp_path, {**config, key: 5})


def test_layer_types_of_a_family_without_them() -> None:
    architecture = find("olmoe")
    architecture.config({"layer_types": ["full_attention"] * 2})
    for value in (["full_attention", "sliding_attention"], "full_attention", [None]):
        with pytest.raises(UnsupportedError, match="with layer_types"):
            architecture.config({"layer_types": value})
