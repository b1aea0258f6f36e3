"""gpt-oss (gpt-oss-20b, gpt-oss-120b). Published with experts in MXFP4: dequantize them first."""

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.spec import (
    Architecture,
    GatedExperts,
    GroupedQueryAttention,
    Key,
    TopKSoftmax,
)

attention = w.attention(lambda config, layer: layer % 2 == 0)

YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}

ARCHITECTURE = Architecture(
    model_type="gpt_oss",
    source="transformers 5.23 models/gpt_oss; arXiv:2508.10925",
    keys=c.keys(
        Key("num_local_experts", 128, aliases=("num_experts",)),
        Key("num_experts_per_tok", 4),
        Key("intermediate_size", 2880),
        Key("sliding_window", 128, none=True),
        Key("layer_types", None, kinds=(list,)),
        Key("swiglu_alpha", 1.702, kinds=(float, int)),
        Key("swiglu_limit", 7.0, kinds=(float, int)),
        hidden_size=2880,
        num_hidden_layers=36,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=64,
        vocab_size=201088,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        attention_bias=True,
        rope_theta=150000.0,
        rope_parameters=lambda config: YARN,
    ),
    dims=c.DIMS | {"E": "num_local_experts", "F": "intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        c.in_layer("sinks", "self_attn.sinks", "H"),
        c.in_layer("router", "mlp.router.weight", "E D"),
        c.in_layer("router_logits_bias", "mlp.router.bias", "E"),
        c.in_layer("experts_gate_up", "mlp.experts.gate_up_proj", "E D 2*F"),
        c.in_layer("experts_gate_up_bias", "mlp.experts.gate_up_proj_bias", "E 2*F"),
        c.in_layer("experts_down", "mlp.experts.down_proj", "E F D"),
        c.in_layer("experts_down_bias", "mlp.experts.down_proj_bias", "E D"),
        *c.HEAD,
    ),
    router=TopKSoftmax(),
    attention=GroupedQueryAttention(window=w.window(attention)),
    experts=GatedExperts(
        clamped=("swiglu_alpha", "swiglu_limit"), transposed=True, interleaved=True
    ),
    encoded={
        "model.layers.{layer}.mlp.experts.gate_up_proj_blocks": "MXFP4",
        "model.layers.{layer}.mlp.experts.down_proj_blocks": "MXFP4",
    },
    unused=c.OLD_BUFFERS,
    beside_fp16=(r".*norm\.weight",),
)
