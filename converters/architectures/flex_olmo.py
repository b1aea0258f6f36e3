"""FlexOlmo (FlexOlmo-7x7B)."""

from converters.architectures import _common as c
from converters.spec import Architecture, GroupedQueryAttention, Key, SoftmaxTopK

ARCHITECTURE = Architecture(
    model_type="flex_olmo",
    source="transformers 5.23 models/flex_olmo; arXiv:2507.07024",
    keys=c.keys(
        Key("num_experts", 7, aliases=("num_local_experts",)),
        Key("num_experts_per_tok", 5),
        Key("intermediate_size", 11008),
        Key("norm_topk_prob", False, kinds=(bool,)),
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        vocab_size=100352,
        max_position_embeddings=4096,
        rope_theta=500000.0,
    ),
    dims=c.DIMS | {"E": "num_experts", "F": "intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.POST_NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.qk_norms("H*h", "K*h"),
        *c.routed_experts("mlp"),
        *c.HEAD,
    ),
    router=SoftmaxTopK(normalize="norm_topk_prob"),
    attention=GroupedQueryAttention(qk_norm="all"),
    alternatives=c.FUSED_EXPERTS,
    unused=c.OLD_BUFFERS,
)
