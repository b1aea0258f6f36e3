"""DeepSeek-V3.2."""

from converters.architectures import _common as c
from converters.architectures import _indexed, _latent
from converters.spec import Architecture, Key

ARCHITECTURE = Architecture(
    model_type="deepseek_v32",
    source="transformers 5.23 models/deepseek_v32; arXiv:2512.02556",
    keys=c.keys(
        *_latent.keys(kv_lora_rank=512, q_lora_rank=1536),
        *_latent.EXPERT_KEYS[:-1],
        *_indexed.KEYS,
        Key("index_n_heads", 64),
        hidden_size=7168,
        num_hidden_layers=61,
        num_attention_heads=128,
        num_key_value_heads=128,
        vocab_size=129280,
        max_position_embeddings=163840,
        num_experts_per_tok=8,
        n_shared_experts=1,
        moe_intermediate_size=2048,
        intermediate_size=18432,
        n_group=8,
        topk_group=4,
        routed_scaling_factor=2.5,
    ),
    dims=_indexed.DIMS,
    tensors=(
        *_latent.tensors(sparse=_indexed.sparse, dense=_indexed.dense),
        *_indexed.indexer(c.everywhere),
    ),
    router=_latent.GROUPED_SIGMOID,
    attention=_indexed.attention(c.everywhere),
    alternatives=c.FUSED_EXPERTS,
    unused=c.OLD_BUFFERS,
    fp32=c.FP32_BIAS,
    beside_fp16=_indexed.WEIGHTS,
    carried=c.PREDICTION_LAYERS,
)
