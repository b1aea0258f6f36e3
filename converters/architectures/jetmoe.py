"""JetMoe (JetMoe-8B)."""

from converters.architectures import _common as c
from converters.spec import (
    Architecture,
    Config,
    GatedExperts,
    Key,
    MixtureOfHeads,
    Norm,
    TopKSoftmax,
)


def heads(config: Config) -> int:
    """H: each chosen expert has a head for every key-value head."""
    return int(config["num_key_value_heads"] * config["num_experts_per_tok"])


def norm(config: Config, layer: int) -> Norm:
    """transformers passes the config's epsilon to the last norm only."""
    return Norm(1e-6 if layer >= 0 else float(config["rms_norm_eps"]))


ARCHITECTURE = Architecture(
    model_type="jetmoe",
    source="transformers 5.23 models/jetmoe; arXiv:2404.07413",
    keys=c.keys(
        Key("num_local_experts", 8),
        Key("num_experts_per_tok", 2),
        Key("intermediate_size", 5632),
        Key("kv_channels", 128, aliases=("head_dim",)),
        Key("activation_function", "silu", kinds=(str,)),
        Key("num_attention_heads", heads, read=False),
        Key("head_dim", lambda config: config["kv_channels"], read=False),
        hidden_act=None,
        hidden_size=2048,
        num_hidden_layers=12,
        num_key_value_heads=16,
        vocab_size=32000,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    ),
    dims=c.DIMS | {"E": "num_local_experts", "F": "intermediate_size", "h": "kv_channels"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        c.in_layer("attention_router", "self_attention.experts.router.layer.weight", "E D"),
        c.in_layer("experts_q", "self_attention.experts.input_linear.weight", "E K*h D"),
        c.in_layer("kv", "self_attention.kv_proj.weight", "2*K*h D"),
        c.in_layer("experts_o", "self_attention.experts.output_linear.weight", "E D K*h"),
        c.in_layer("o_bias", "self_attention.experts.bias", "D"),
        c.in_layer("router", "mlp.router.layer.weight", "E D"),
        c.in_layer("experts_gate_up", "mlp.input_linear.weight", "E 2*F D"),
        c.in_layer("experts_down", "mlp.output_linear.weight", "E D F"),
        c.in_layer("routed_bias", "mlp.bias", "D"),
        *c.HEAD,
    ),
    router=TopKSoftmax(),
    attention=MixtureOfHeads(),
    experts=GatedExperts(activation="activation_function"),
    norm=norm,
    unused=c.OLD_BUFFERS,
)
