"""GLM-4.7-Flash."""

from converters.architectures import _common as c
from converters.architectures import _latent
from converters.spec import Architecture, Key, LatentAttention

ARCHITECTURE = Architecture(
    model_type="glm4_moe_lite",
    source="transformers 5.23 models/glm4_moe_lite",
    keys=c.keys(
        *_latent.keys(kv_lora_rank=512, q_lora_rank=768, qk_nope_head_dim=192, v_head_dim=256),
        *_latent.EXPERT_KEYS,
        Key("mlp_layer_types", None, kinds=(list,)),
        partial_rotary_factor=1.0,
        hidden_size=2048,
        num_hidden_layers=47,
        num_attention_heads=20,
        num_key_value_heads=20,
        vocab_size=154880,
        max_position_embeddings=202752,
        rms_norm_eps=1e-5,
        n_routed_experts=64,
        num_experts_per_tok=4,
        n_shared_experts=1,
        moe_intermediate_size=1536,
        intermediate_size=10240,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=1.8,
    ),
    dims=c.LATENT_DIMS,
    tensors=_latent.tensors(sparse=_latent.is_listed_sparse, dense=_latent.is_listed_dense),
    router=_latent.GROUPED_SIGMOID,
    attention=LatentAttention(interleaved=lambda config: config["rope_interleave"]),
    alternatives=c.FUSED_EXPERTS,
    unused=c.OLD_BUFFERS,
    fp32=c.FP32_BIAS,
    carried=c.PREDICTION_LAYERS,
)
