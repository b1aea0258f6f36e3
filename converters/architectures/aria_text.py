"""Aria's language model (aria_text)."""

from converters.architectures import _biases
from converters.architectures import _common as c
from converters.spec import Alternative, Architecture, GatedExperts, Key, TopKSoftmax

ARCHITECTURE = Architecture(
    model_type="aria_text",
    source="transformers 5.23 models/aria; arXiv:2410.05993",
    keys=c.keys(
        Key("moe_num_experts", 8),
        Key("moe_topk", 2),
        Key("moe_num_shared_experts", 2),
        Key("intermediate_size", 4096),
        Key("mlp_bias", False, kinds=(bool,)),
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        vocab_size=32000,
        max_position_embeddings=2048,
    ),
    dims=c.DIMS
    | {
        "E": "moe_num_experts",
        "k": "moe_topk",
        "F": "intermediate_size",
        "n_shared": "moe_num_shared_experts",
    },
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        c.in_layer("router", "mlp.router.weight", "E D"),
        c.in_layer("experts_gate_up", "mlp.experts.fc1.weight", "E D 2*F"),
        c.in_layer("experts_down", "mlp.experts.fc2.weight", "E F D"),
        *c.dense_mlp("mlp.shared_experts", "n_shared*F", c.everywhere, role="shared"),
        *_biases.mlp_biases("mlp.shared_experts", "n_shared*F", _biases.of_mlps, role="shared"),
        *c.HEAD,
    ),
    router=TopKSoftmax(),
    experts=GatedExperts(transposed=True),
    alternatives=(
        Alternative(
            "model.layers.{layer}.mlp.experts.gate_up_proj", ("experts_gate_up",), "E D 2*F"
        ),
        Alternative("model.layers.{layer}.mlp.experts.down_proj", ("experts_down",), "E F D"),
    ),
    unused=c.OLD_BUFFERS,
)
