"""Rows of biases outside of attention: of gated MLPs, of LayerNorms, of the head."""

from dataclasses import replace

from converters.architectures import _common as c
from converters.spec import Alternative, Condition, Config, Tensor

NORM_BIASES = (
    c.in_layer("attention_norm_bias", "input_layernorm.bias", "D"),
    c.in_layer("mlp_norm_bias", "post_attention_layernorm.bias", "D"),
)
FINAL_NORM_BIAS = Tensor("final_norm_bias", "model.norm.bias", "D")


def head_bias(key: str) -> Tensor:
    """The bias on the logits, where the config's ``key`` says so."""
    return Tensor("lm_head_bias", "lm_head.bias", "V", lambda config, layer: config[key])


def mlp_biases(prefix: str, width: str, when: Condition, role: str = "mlp") -> tuple[Tensor, ...]:
    """Biases of a gated MLP, beside the rows of ``dense_mlp``."""
    return (
        c.in_layer(f"{role}_gate_bias", f"{prefix}.gate_proj.bias", width, when),
        c.in_layer(f"{role}_up_bias", f"{prefix}.up_proj.bias", width, when),
        c.in_layer(f"{role}_down_bias", f"{prefix}.down_proj.bias", "D", when),
    )


def projection_biases(when: Condition) -> tuple[Tensor, ...]:
    """Biases on queries, keys, values and the output, where ``when`` says so."""
    return tuple(replace(tensor, when=when) for tensor in c.PROJECTION_BIASES)


def of_mlps(config: Config, layer: int) -> bool:
    """Gated MLPs have biases."""
    return bool(config["mlp_bias"])


def renamed_shared(prefix: str, width: str) -> tuple[Alternative, ...]:
    """The shared MLP and its biases under another prefix."""
    rows = (
        *c.dense_mlp(prefix, width, c.everywhere, role="shared"),
        *mlp_biases(prefix, width, c.everywhere, role="shared"),
    )
    return tuple(Alternative(row.name, (row.role,), row.shape) for row in rows)
