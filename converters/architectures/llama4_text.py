"""Llama 4, the language model (Scout 17B-16E, Maverick 17B-128E)."""

from converters.architectures import _common as c
from converters.architectures import _hybrid as y
from converters.errors import ConfigError
from converters.spec import (
    Architecture,
    Config,
    GatedExperts,
    GroupedQueryAttention,
    Key,
    SigmoidOnInput,
)


def rotates(config: Config, layer: int) -> bool:
    """Layers with a 1 in ``no_rope_layers`` rotate; by default all but every fourth."""
    listed = config["no_rope_layers"]
    if not listed:
        return (layer + 1) % int(config["no_rope_layer_interval"]) != 0
    if len(listed) < config["num_hidden_layers"]:
        raise ConfigError(
            f"config.json: {len(listed)} no_rope_layers for {config['num_hidden_layers']} layers",
            "List 1 (rotates) or 0 for each layer.",
        )
    return bool(listed[layer])


CHUNKED = "chunked_attention"
kind = y.listed(
    "layer_types",
    (CHUNKED, y.ATTENTION),
    lambda config, layer: CHUNKED if rotates(config, layer) else y.ATTENTION,
)


def chunk(config: Config, layer: int) -> int | None:
    """Layers that rotate attend within chunks, unless ``layer_types`` says otherwise."""
    return int(config["attention_chunk_size"]) if kind(config, layer) == CHUNKED else None


def sparse(config: Config, layer: int) -> bool:
    """Layers with experts: those listed, or every ``interleave_moe_layer_step``-th."""
    listed = config["moe_layers"]
    if listed is not None:
        return layer in listed
    return (layer + 1) % int(config["interleave_moe_layer_step"]) == 0


def temperature(config: Config, layer: int) -> tuple[float, float] | None:
    """Layers without rotation sharpen their scores as the text grows."""
    if not config["attn_temperature_tuning"] or rotates(config, layer):
        return None
    return float(config["floor_scale"]), float(config["attn_scale"])


ARCHITECTURE = Architecture(
    model_type="llama4_text",
    source="transformers 5.23 models/llama4",
    keys=c.keys(
        Key("num_local_experts", 16),
        Key("num_experts_per_tok", 1),
        Key("intermediate_size", 8192),
        Key("intermediate_size_mlp", 16384),
        Key("moe_layers", None, kinds=(list,)),
        Key("interleave_moe_layer_step", 1),
        Key("use_qk_norm", True, kinds=(bool,)),
        Key("no_rope_layers", None, kinds=(list,)),
        Key("no_rope_layer_interval", 4),
        Key("layer_types", None, kinds=(list,)),
        Key("attention_chunk_size", 8192),
        Key("attn_temperature_tuning", True, kinds=(bool,)),
        Key("floor_scale", 8192),
        Key("attn_scale", 0.1, kinds=(float, int)),
        hidden_size=5120,
        num_hidden_layers=48,
        num_attention_heads=40,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=202048,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
    ),
    dims=c.DIMS
    | {"E": "num_local_experts", "F": "intermediate_size", "I": "intermediate_size_mlp"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.dense_mlp("feed_forward", "I", lambda config, layer: not sparse(config, layer)),
        c.in_layer("router", "feed_forward.router.weight", "E D", sparse),
        c.in_layer("experts_gate_up", "feed_forward.experts.gate_up_proj", "E D 2*F", sparse),
        c.in_layer("experts_down", "feed_forward.experts.down_proj", "E F D", sparse),
        *c.dense_mlp("feed_forward.shared_expert", "F", sparse, role="shared"),
        *c.HEAD,
    ),
    router=SigmoidOnInput(),
    attention=GroupedQueryAttention(
        rope=lambda config, layer: "" if rotates(config, layer) else None,
        interleaved=True,
        unit_norm=lambda config, layer: config["use_qk_norm"] and rotates(config, layer),
        chunk=chunk,
        temperature=temperature,
    ),
    experts=GatedExperts(transposed=True),
    unused=c.OLD_BUFFERS,
)
