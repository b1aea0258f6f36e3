"""Granite MoE with a shared expert (granitemoeshared)."""

from converters.architectures import _common as c
from converters.spec import Architecture, GroupedQueryAttention, Key, Multipliers, TopKSoftmax

ARCHITECTURE = Architecture(
    model_type="granitemoeshared",
    source="transformers 5.23 models/granitemoeshared",
    keys=c.keys(*c.GRANITE_KEYS, Key("shared_intermediate_size", 0, least=0), **c.GRANITE_DEFAULTS),
    dims=c.DIMS
    | {
        "E": "num_local_experts",
        "F": "intermediate_size",
        "I_shared": "shared_intermediate_size",
    },
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.GRANITE_EXPERTS,
        *c.GRANITE_SHARED,
        *c.HEAD,
    ),
    router=TopKSoftmax(),
    attention=GroupedQueryAttention(scale=lambda config: config["attention_multiplier"]),
    multipliers=Multipliers("embedding_multiplier", "residual_multiplier", "logits_scaling"),
    unused=c.OLD_BUFFERS,
    spellings=(c.GRANITE_IN_MEMORY,),
)
