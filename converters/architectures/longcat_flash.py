"""LongCat-Flash: two attentions and MLPs a layer, experts beside them, some of them identity."""

from converters.architectures import _common as c
from converters.architectures import _latent
from converters.spec import (
    Alternative,
    Architecture,
    Config,
    GatedExperts,
    Key,
    LatentAttention,
    ScoredTopK,
    Tensor,
)

LAYER = "model.layers.{layer}."


def first(config: Config, layer: int) -> bool:
    """The first of a layer's two parts."""
    return layer % 2 == 0


def routes(config: Config) -> int:
    """Rows of the router: experts, and those that give back what they are given."""
    return int(config["n_routed_experts"]) + int(config["zero_expert_num"] or 0)


ARCHITECTURE = Architecture(
    model_type="longcat_flash",
    source="transformers 5.23 models/longcat_flash; arXiv:2509.01322",
    keys=c.keys(
        *_latent.keys(kv_lora_rank=512, q_lora_rank=1536),
        Key("num_layers", 28),
        Key("head_dim", 64),
        Key("n_routed_experts", 512, aliases=("num_local_experts",)),
        Key("zero_expert_num", 256, least=0, none=True),
        Key("router_rows", routes, read=False),
        Key("moe_topk", 12, aliases=("num_experts_per_tok",)),
        Key("expert_ffn_hidden_size", 2048, aliases=("moe_intermediate_size",)),
        Key("ffn_hidden_size", 12288, aliases=("intermediate_size",)),
        Key("routed_scaling_factor", 6.0, kinds=(float, int)),
        Key("router_bias", False, kinds=(bool,)),
        hidden_size=6144,
        num_hidden_layers=lambda config: 2 * config["num_layers"],
        num_attention_heads=64,
        vocab_size=131072,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_theta=1e7,
    ),
    dims=c.LATENT_DIMS
    | {
        "k": "moe_topk",
        "F": "expert_ffn_hidden_size",
        "I": "ffn_hidden_size",
        "X": "router_rows",
    },
    tensors=(
        c.EMBEDDING,
        Tensor("attention_norm", LAYER + "input_layernorm.{part}.weight", "D"),
        Tensor("mlp_norm", LAYER + "post_attention_layernorm.{part}.weight", "D"),
        *_latent.in_parts(c.LATENT_ATTENTION),
        *c.dense_mlp("mlps.{part}", "I", c.everywhere),
        *c.routed_experts("mlp", when=first)[1:],
        c.in_layer("router", "mlp.router.classifier.weight", "X D", first),
        c.in_layer("router_bias", "mlp.router.e_score_correction_bias", "X", first),
        # transformers makes it and adds it to nothing.
        c.in_layer(
            "unread_bias",
            "mlp.router.classifier.bias",
            "X",
            lambda config, layer: first(config, layer) and config["router_bias"],
        ),
        *c.HEAD,
    ),
    router=ScoredTopK(
        "softmax",
        normalize=False,
        scale="routed_scaling_factor",
        identities="zero_expert_num",
        exact=True,
    ),
    attention=LatentAttention(interleaved=lambda config: True, rank_scales=True),
    experts=GatedExperts(shortcut=True),
    alternatives=(
        Alternative(LAYER + "mlp.experts.gate_up_proj", ("expert_gate", "expert_up"), "X 2*F D"),
        c.FUSED_EXPERTS[1],
    ),
    assumed={
        "zero_expert_type": ("identity",),
        "mla_scale_q_lora": (True,),
        "mla_scale_kv_lora": (True,),
    },
    unused=c.OLD_BUFFERS,
    carried={
        r"model\.layers\.\d+\.mlp\.experts\.{expert}\.(gate|up)_proj\.weight": "identities need no "
        "weights, yet transformers 5.23 writes and wants them",
        r"model\.mtp\..*": "it predicts tokens after the next (MTP), beside the decoder",
    },
    parts=2,
    beside_fp16=(r".*\.classifier\.weight",),
)
