"""MiniMax-Text-01."""

from collections.abc import Callable
from typing import Any

from converters.architectures import _common as c
from converters.architectures import _hybrid as y
from converters.spec import (
    Architecture,
    ByLayer,
    Config,
    GroupedQueryAttention,
    Key,
    Lightning,
    Multipliers,
    TopKSoftmax,
)

kind = y.listed(
    "layer_types",
    (y.ATTENTION, y.LINEAR),
    lambda config, layer: y.LINEAR if layer % 2 else y.ATTENTION,
)
attends, recurs = y.where(kind, y.ATTENTION), y.where(kind, y.LINEAR)
LIGHTNING = Lightning()
ATTENDED = GroupedQueryAttention(window=lambda config, layer: config["sliding_window"])


def factors(config: Config, layer: int) -> tuple[tuple[str, str], tuple[str, str]]:
    """On the normed input of a block and on what it gives: attention's, then the experts'."""
    mixer = "full_attn" if attends(config, layer) else "linear_attn"
    mixed, routed = ((f"{block}_alpha_factor", f"{block}_beta_factor") for block in (mixer, "mlp"))
    return mixed, routed


FACTORS = ("full_attn", "linear_attn", "mlp")


def same_as(key: str) -> Callable[[Config, Any], bool]:
    """The first release's name of a factor says what the name that is read does."""
    return lambda config, value: bool(value == config[key])


# The first release's keys (model_type minimax_text_01), which transformers 5.23 ignores.
EARLIER = {
    f"layernorm_{block.replace('attn', 'attention')}_{which}": same_as(f"{block}_{which}_factor")
    for block in FACTORS
    for which in ("alpha", "beta")
}

ARCHITECTURE = Architecture(
    model_type="minimax",
    source="transformers 5.23 models/minimax; lightning attention arXiv:2501.08313",
    keys=c.keys(
        Key("num_local_experts", 8, aliases=("num_experts",)),
        Key("num_experts_per_tok", 2),
        Key("intermediate_size", 14336),
        Key("block_size", 256),
        Key("layer_types", None, kinds=(list,)),
        Key("sliding_window", None),
        *(
            Key(f"{block}_{which}_factor", 1, kinds=(float, int))
            for block in FACTORS
            for which in ("alpha", "beta")
        ),
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=32000,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_theta=1e6,
    ),
    dims=c.DIMS | {"E": "num_local_experts", "F": "intermediate_size", "C": "block_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *y.only(attends, *c.PROJECTIONS),
        *y.only(
            recurs,
            *y.rows(
                "self_attn",
                ("linear_qkv", "qkv_proj.weight", "3*H*h D"),
                ("linear_gate", "output_gate.weight", "H*h D"),
                ("linear_norm", "norm.weight", "H*h"),
                ("linear_out", "out_proj.weight", "D H*h"),
                # Buffers, made from the number of heads and layers, which transformers stores.
                ("linear_slope", "slope_rate", "H 1 1"),
                ("linear_query_decay", "query_decay", "H C 1"),
                ("linear_key_decay", "key_decay", "H C 1"),
                ("linear_diagonal", "diagonal_decay", "1 H C C"),
            ),
        ),
        *c.routed_experts("block_sparse_moe", ("w1", "w3", "w2")),
        *c.HEAD,
    ),
    router=TopKSoftmax(),
    attention=ByLayer(
        (LIGHTNING, ATTENDED),
        lambda config, layer: ATTENDED if attends(config, layer) else LIGHTNING,
    ),
    multipliers=Multipliers(mixed=factors),
    alternatives=c.FUSED_EXPERTS,
    assumed=EARLIER | {"postnorm": (True,), "shared_intermediate_size": (0, [0])},
    spellings=(((r"\.block_sparse_moe\.", ".mlp."),),),
)
