"""OLMoE (OLMoE-1B-7B)."""

from converters.architectures import _common as c
from converters.spec import Architecture, GroupedQueryAttention, Key, SoftmaxTopK

ARCHITECTURE = Architecture(
    model_type="olmoe",
    source="transformers 5.23 models/olmoe; arXiv:2409.02060",
    keys=c.keys(
        Key("num_experts", 64, aliases=("num_local_experts",)),
        Key("num_experts_per_tok", 8),
        Key("intermediate_size", 2048),
        Key("norm_topk_prob", False, kinds=(bool,)),
        Key("clip_qkv", None, kinds=(float, int)),
        hidden_size=2048,
        num_hidden_layers=16,
        num_attention_heads=16,
        vocab_size=50304,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
    ),
    dims=c.DIMS | {"E": "num_experts", "F": "intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.qk_norms("H*h", "K*h"),
        *c.routed_experts("mlp"),
        *c.HEAD,
    ),
    router=SoftmaxTopK(normalize="norm_topk_prob"),
    attention=GroupedQueryAttention(qk_norm="all", clip=lambda config: config["clip_qkv"]),
    alternatives=c.FUSED_EXPERTS,
    unused=c.OLD_BUFFERS,
)
