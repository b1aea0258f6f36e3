"""Mixtral (Mixtral-8x7B, Mixtral-8x22B)."""

from converters.architectures import _common as c
from converters.spec import Alternative, Architecture, GroupedQueryAttention, Key, TopKSoftmax

ARCHITECTURE = Architecture(
    model_type="mixtral",
    source="transformers 5.23 models/mixtral; arXiv:2401.04088",
    keys=c.keys(
        Key("num_local_experts", 8, aliases=("num_experts",)),
        Key("num_experts_per_tok", 2),
        Key("intermediate_size", 14336),
        Key("sliding_window", None),
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=32000,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_theta=1000000.0,
    ),
    dims=c.DIMS | {"E": "num_local_experts", "F": "intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.routed_experts("block_sparse_moe", names=("w1", "w3", "w2")),
        *c.HEAD,
    ),
    router=TopKSoftmax(),
    attention=GroupedQueryAttention(window=lambda config, layer: config["sliding_window"]),
    alternatives=(
        *c.FUSED_EXPERTS,
        Alternative("model.layers.{layer}.mlp.gate.weight", ("router",), "E D"),
    ),
    unused=c.OLD_BUFFERS,
)
