"""A.X-K1."""

from converters.architectures import _common as c
from converters.architectures import _latent
from converters.spec import Alternative, Architecture, Config, Key, LatentAttention

NORM = "post_mlp_layernorm.weight"


def is_sparse(config: Config, layer: int) -> bool:
    """As ``mlp_layer_types`` says, else by the two older keys."""
    if config["mlp_layer_types"] is not None:
        return _latent.is_listed_sparse(config, layer)
    return c.is_sparse_rest(config, layer) and layer % int(config["moe_layer_freq"]) == 0


def is_dense(config: Config, layer: int) -> bool:
    """A layer with one MLP."""
    return not is_sparse(config, layer)


ARCHITECTURE = Architecture(
    model_type="axk1",
    source="transformers 5.23 models/axk1",
    keys=c.keys(
        *_latent.keys(kv_lora_rank=512, q_lora_rank=1536),
        *_latent.EXPERT_KEYS,
        Key("mlp_layer_types", None, kinds=(list,)),
        Key("first_k_dense_replace", 1, least=0),
        Key("moe_layer_freq", 1),
        hidden_size=7168,
        num_hidden_layers=61,
        num_attention_heads=64,
        num_key_value_heads=64,
        vocab_size=163840,
        max_position_embeddings=32768,
        n_routed_experts=192,
        num_experts_per_tok=8,
        n_shared_experts=1,
        moe_intermediate_size=2048,
        intermediate_size=18432,
        n_group=8,
        topk_group=4,
        routed_scaling_factor=2.5,
    ),
    dims=c.LATENT_DIMS,
    tensors=(
        *_latent.tensors(sparse=is_sparse, dense=is_dense),
        c.in_layer("after_mlp_norm", NORM, "D", is_sparse),
    ),
    router=_latent.GROUPED_SIGMOID,
    attention=LatentAttention(interleaved=lambda config: config["rope_interleave"]),
    alternatives=(
        *c.FUSED_EXPERTS,
        Alternative(f"model.layers.{{layer}}.mlp.{NORM}", ("after_mlp_norm",), "D"),
    ),
    fp32=c.FP32_BIAS,
    unused=c.OLD_BUFFERS
    | {f"model.layers.{{layer}}.{NORM}": "layers with one MLP do not use this norm"},
    optional={"router_bias": "experts are chosen by their scores alone"},
)
