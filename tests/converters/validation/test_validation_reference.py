"""The oracle loads everything or nothing, and shows which experts it chose."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.errors import ConverterError
from converters.validation.reference import Reference, _check_largest
from converters.validation.routing import top_k

IDS = np.array([3, 70, 14, 15, 92, 6, 5, 35], np.int64)


def _edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


def test_cached_and_uncached_logits_agree(tiny_model: Callable[[str], Path]) -> None:
    reference = Reference(tiny_model("mixtral_window"))
    decoded = reference.greedy(IDS, 6)
    logits, _ = reference.whole(np.concatenate([IDS, np.array(decoded.tokens[:-1], np.int64)]))
    np.testing.assert_allclose(logits[len(IDS) - 1 :], decoded.logits, atol=1e-4)


def test_stepwise_is_the_whole_by_way_of_the_cache(tiny_model: Callable[[str], Path]) -> None:
    reference = Reference(tiny_model("qwen3_moe_window"))
    ids = np.concatenate([IDS, IDS[::-1]])
    whole, routing = reference.whole(ids)
    steps, other = reference.stepwise(ids, 10)
    np.testing.assert_allclose(steps, whole, atol=1e-4)
    for layer, expected in routing.items():
        np.testing.assert_array_equal(np.sort(other[layer].chosen), np.sort(expected.chosen))


def test_a_state_dict_is_the_same_model(
    tiny_model: Callable[[str], Path], tiny_state_dict: Callable[..., Path]
) -> None:
    for name in ("qwen3_moe", "mixtral_window"):
        folder, source = tiny_model(name), tiny_state_dict(name)
        expected, routing = Reference(folder).whole(IDS)
        for given in (source, source / "model.pt", folder / "model.safetensors"):
            logits, other = Reference(given).whole(IDS)
            np.testing.assert_array_equal(logits, expected)
            assert sorted(other) == sorted(routing)


def test_routing_is_what_the_experts_were_given(tiny_model: Callable[[str], Path]) -> None:
    """The captured choice, against what arrives at the experts themselves."""
    reference = Reference(tiny_model("qwen3_moe"))
    given = {}
    for layer in (1, 2):
        experts = reference.model.model.layers[layer].mlp.experts
        experts.register_forward_pre_hook(
            lambda _module, args, at=layer: given.__setitem__(at, args[1].numpy())
        )
    _, routing = reference.whole(IDS)
    assert sorted(routing) == sorted(given) == [1, 2]
    for layer, chosen in given.items():
        np.testing.assert_array_equal(routing[layer].chosen, chosen)
        np.testing.assert_array_equal(np.sort(top_k(routing[layer].logits, 2)), np.sort(chosen))


def test_a_router_that_chooses_otherwise_than_described_is_refused() -> None:
    logits = np.array([[3.0, 2.0, 1.0]], np.float32)
    _check_largest(4, logits, np.array([[1, 0]]), 2.0**-24)
    with pytest.raises(ConverterError, match="layer 4 of the reference chooses otherwise"):
        _check_largest(4, logits, np.array([[0, 2]]), 2.0**-24)


def test_a_missing_tensor(tiny_copy: Callable[[str], Path]) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tiny_copy("olmoe")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.self_attn.q_norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConverterError, match=r"missing: model\.layers\.1\.self_attn\.q_norm"):
        Reference(folder)


def test_an_unexpected_tensor(tiny_copy: Callable[[str], Path]) -> None:
    folder = tiny_copy("mixtral")
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors") | {"extra.weight": np.ones(2, np.float32)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConverterError, match=r"unexpected: extra\.weight"):
        Reference(folder)


def test_a_config_of_another_size(tiny_copy: Callable[[str], Path]) -> None:
    folder = tiny_copy("mixtral")
    _edit(folder, intermediate_size=28)
    with pytest.raises(ConverterError, match="mixtral"):
        Reference(folder)


def test_unknown_and_remote_model_types(tiny_copy: Callable[[str], Path]) -> None:
    folder = tiny_copy("mixtral")
    _edit(folder, model_type="no_such_moe", auto_map={"AutoConfig": "configuration.Bad"})
    mark = folder / "ran"
    (folder / "configuration.py").write_text(f"open({str(mark)!r}, 'w')", encoding="utf-8")
    with pytest.raises(ConverterError, match="unknown model_type 'no_such_moe'"):
        Reference(folder)
    assert not mark.exists()


def test_a_family_without_routers(tmp_path: Path) -> None:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ConverterError, match="unknown model_type 'llama'"):
        Reference(tmp_path).whole(IDS[:2])


def test_a_config_value_of_another_type(tiny_copy: Callable[[str], Path]) -> None:
    folder = tiny_copy("qwen3_moe")
    _edit(folder, attention_dropout="abc")
    with pytest.raises(ConverterError, match="transformers does not take") as caught:
        Reference(folder)
    assert caught.value.hint


def test_a_config_that_loads_and_does_not_run(tiny_copy: Callable[[str], Path]) -> None:
    folder = tiny_copy("qwen3_moe_window")
    reference = Reference(folder)
    reference.model.config.sliding_window = 0
    with pytest.raises(ConverterError, match="cannot run it") as caught:
        reference.greedy(IDS, 2)
    assert "config.json" in caught.value.hint


def test_a_lone_file_of_another_name(tiny_copy: Callable[[str], Path]) -> None:
    folder = tiny_copy("mixtral")
    expected, _ = Reference(folder).whole(IDS)
    (folder / "model.safetensors").rename(folder / "model-final.safetensors")
    np.testing.assert_array_equal(Reference(folder).whole(IDS)[0], expected)
