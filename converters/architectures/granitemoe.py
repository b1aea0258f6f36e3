"""Granite MoE (granite-3.0-1b-a400m, granite-3.0-3b-a800m)."""

from converters.architectures import _common as c
from converters.spec import Architecture, GroupedQueryAttention, Multipliers, TopKSoftmax

ARCHITECTURE = Architecture(
    model_type="granitemoe",
    source="transformers 5.23 models/granitemoe",
    keys=c.keys(*c.GRANITE_KEYS, **c.GRANITE_DEFAULTS),
    dims=c.DIMS | {"E": "num_local_experts", "F": "intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.GRANITE_EXPERTS,
        *c.HEAD,
    ),
    router=TopKSoftmax(),
    attention=GroupedQueryAttention(scale=lambda config: config["attention_multiplier"]),
    multipliers=Multipliers("embedding_multiplier", "residual_multiplier", "logits_scaling"),
    unused=c.OLD_BUFFERS,
    spellings=(c.GRANITE_IN_MEMORY,),
)
