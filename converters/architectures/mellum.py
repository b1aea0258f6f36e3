"""Mellum 2 (Mellum2-12B-A2.5B)."""

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.spec import Architecture, GroupedQueryAttention, Key, SoftmaxTopK

attention = w.attention(lambda config, layer: False)
sparse, dense = w.mlp(c.everywhere)

ARCHITECTURE = Architecture(
    model_type="mellum",
    source="transformers 5.23 models/mellum",
    keys=c.keys(
        *w.KEYS,
        Key("num_experts", 64, aliases=("num_local_experts",)),
        Key("num_experts_per_tok", 8),
        Key("moe_intermediate_size", 896),
        Key("intermediate_size", 7168),
        Key("norm_topk_prob", True, kinds=(bool,)),
        Key("sliding_window", 1024, none=True),
        partial_rotary_factor=1.0,
        hidden_size=2304,
        num_hidden_layers=28,
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        vocab_size=98304,
        max_position_embeddings=131072,
        rope_parameters=w.rotary_sets(
            full_attention=(500000.0, 1.0), sliding_attention=(10000.0, 1.0)
        ),
    ),
    dims=c.DIMS | {"E": "num_experts", "F": "moe_intermediate_size", "I": "intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.qk_norms("h", "h"),
        *c.dense_mlp("mlp", "I", dense),
        *c.routed_experts("mlp", when=sparse),
        *c.HEAD,
    ),
    router=SoftmaxTopK(normalize="norm_topk_prob"),
    attention=GroupedQueryAttention(qk_norm="head", window=w.window(attention), rope=attention),
    alternatives=c.FUSED_EXPERTS,
    assumed=w.THETAS | w.part(1.0),
    unused=c.OLD_BUFFERS,
    carried={r"mtp\..*": "it predicts tokens after the next (MTP), beside the decoder"},
)
