"""DeepSeek-V4: compressed attention, hyper-connections, in some layers experts by a table."""

from collections.abc import Callable

from converters.architectures import _common as c
from converters.architectures import _hybrid as y
from converters.errors import ConfigError
from converters.spec import Architecture, Config, Key, NoGraph, ScoredTopK, Tensor

SLIDING, LIGHT, HEAVY = (
    "sliding_attention",
    "compressed_sparse_attention",
    "heavily_compressed_attention",
)
RATIOS = {0: SLIDING, 4: LIGHT, 128: HEAVY}


def by_ratio(config: Config, layer: int) -> str:
    """An older key lists how much each layer compresses; else heavy, heavy, light, heavy, ..."""
    ratios = config["compress_ratios"]
    if ratios is None:
        return LIGHT if layer > 1 and layer % 2 else HEAVY
    ratio = ratios[layer] if layer < len(ratios) else None
    return RATIOS.get(ratio, "") if type(ratio) is int else ""


def rate(word: str, key: str) -> Callable[[Config], int]:
    """Tokens in one compressed entry of layers of this kind."""

    def value(config: Config) -> int:
        rates = config["compress_rates"] or {LIGHT: 4, HEAVY: 128}
        found = rates.get(word) if config[key] is None else config[key]
        if type(found) is not int or not 0 < found < 1 << 31:
            raise ConfigError(f"config.json: compress_rates: {word} is {found!r}", "An integer.")
        return found

    return value


attention = y.listed("layer_types", (SLIDING, LIGHT, HEAVY), by_ratio)
light, heavy = y.where(attention, LIGHT), y.where(attention, HEAVY)
mlp = y.listed(
    "mlp_layer_types",
    ("hash_moe", "moe"),
    lambda config, layer: "hash_moe" if layer < int(config["num_hash_layers"]) else "moe",
)
hashed, scored = y.where(mlp, "hash_moe"), y.where(mlp, "moe")


def compressor(prefix: str, role: str, rate: str, width: str, size: str) -> tuple[Tensor, ...]:
    """What makes one entry of ``rate`` tokens."""
    return y.rows(
        prefix,
        (f"{role}_position", "ape", f"{rate} {width}"),
        (f"{role}_norm", "norm.weight", size),
        (f"{role}_gate", "wgate.weight", f"{width} D"),
        (f"{role}_kv", "wkv.weight", f"{width} D"),
    )


def hyper(prefix: str) -> tuple[Tensor, ...]:
    """A hyper-connection (arXiv:2409.19606): n streams in, n out, and their mixture."""
    return tuple(
        c.in_layer(f"hyper_{prefix}_{name}", f"hc_{prefix}_{name}", shape)
        for name, shape in (("base", "2*n+n*n"), ("fn", "2*n+n*n n*D"), ("scale", "3"))
    )


IN_MEMORY = (
    (r"\.attn\.indexer\.compressor\.", ".self_attn.compressor.indexer."),
    (r"\.attn\.indexer\.weights_proj\.", ".self_attn.compressor.indexer.scorer.weights_proj."),
    (r"\.attn\.indexer\.wq_b\.", ".self_attn.compressor.indexer.q_b_proj."),
    (r"\.attn\.", ".self_attn."),
    (r"\.ffn\.", ".mlp."),
    (r"^head\.", "lm_head."),
    (r"\.attn_norm\.", ".input_layernorm."),
    (r"\.ffn_norm\.", ".post_attention_layernorm."),
    (r"\.hc_(attn|ffn)_(fn|base|scale)$", r".\1_hc.\2"),
    (r"\.attn_sink$", ".sinks"),
    (r"(\.self_attn\..*)(?<!q_)norm\.", r"\1kv_norm."),
    (r"\.q_norm\.", ".q_a_norm."),
    (r"\.ape$", ".position_bias"),
    (r"\.w(q_a|q_b|kv|o_a|o_b)\.", r".\1_proj."),
    (r"\.wgate\.", ".gate_proj."),
    (r"\.gate\.bias$", ".gate.e_score_correction_bias"),
    (r"\.shared_experts\.w1\.", ".shared_experts.gate_proj."),
    (r"\.shared_experts\.w2\.", ".shared_experts.down_proj."),
    (r"\.shared_experts\.w3\.", ".shared_experts.up_proj."),
)
AS_RELEASED = (
    (r"^model\.embed_tokens\.", "embed."),
    (r"^model\.hc_head\.hc_", "hc_head_"),
    (r"^model\.", ""),
)

ARCHITECTURE = Architecture(
    model_type="deepseek_v4",
    source="transformers 5.23 models/deepseek_v4",
    keys=c.keys(
        Key("n_routed_experts", 256, aliases=("num_local_experts",)),
        Key("num_experts_per_tok", 6),
        Key("n_shared_experts", 1),
        Key("moe_intermediate_size", 2048, aliases=("intermediate_size",)),
        y.flag("norm_topk_prob", True),
        Key("routed_scaling_factor", 1.5, kinds=(float, int)),
        Key("scoring_func", "sqrtsoftplus", kinds=(str,)),
        Key("q_lora_rank", 1024),
        Key("layer_types", None, kinds=(list,)),
        Key("compress_ratios", None, kinds=(list,)),
        Key("compress_rates", None, kinds=(dict,)),
        Key("compress_rate_csa", None),
        Key("compress_rate_hca", None),
        y.computed("light_rate", rate(LIGHT, "compress_rate_csa")),
        y.computed("heavy_rate", rate(HEAVY, "compress_rate_hca")),
        Key("mlp_layer_types", None, kinds=(list,)),
        Key("num_hash_layers", 3, least=0),
        Key("sliding_window", 128),
        Key("o_groups", 8),
        Key("o_lora_rank", 1024),
        Key("index_n_heads", 64),
        Key("index_head_dim", 128),
        Key("index_topk", 512),
        Key("hc_mult", 4),
        y.computed(
            "group_size",
            lambda config: config["num_attention_heads"] * config["head_dim"] // config["o_groups"],
        ),
        hidden_size=4096,
        num_hidden_layers=43,
        num_attention_heads=64,
        num_key_value_heads=1,
        head_dim=512,
        vocab_size=129280,
        max_position_embeddings=1048576,
        partial_rotary_factor=64 / 512,
    ),
    dims=c.DIMS
    | {
        "E": "n_routed_experts",
        "F": "moe_intermediate_size",
        "Q": "q_lora_rank",
        "Rl": "light_rate",
        "Rh": "heavy_rate",
        "G": "o_groups",
        "O": "o_lora_rank",
        "Hg": "group_size",
        "Hi": "index_n_heads",
        "hi": "index_head_dim",
        "n": "hc_mult",
    },
    tensors=(
        c.EMBEDDING,
        c.in_layer("attention_norm", "attn_norm.weight", "D"),
        c.in_layer("mlp_norm", "ffn_norm.weight", "D"),
        *y.rows(
            "attn",
            ("sinks", "attn_sink", "H"),
            ("kv_norm", "norm.weight", "h"),
            ("q_a_norm", "q_norm.weight", "Q"),
            ("kv", "wkv.weight", "h D"),
            ("q_a", "wq_a.weight", "Q D"),
            ("q_b", "wq_b.weight", "H*h Q"),
            ("o_a", "wo_a.weight", "G*O Hg"),
            ("o_b", "wo_b.weight", "D G*O"),
        ),
        *y.only(heavy, *compressor("attn.compressor", "heavy", "Rh", "h", "h")),
        *y.only(
            light,
            *compressor("attn.compressor", "light", "Rl", "2*h", "h"),
            *compressor("attn.indexer.compressor", "index", "Rl", "2*hi", "hi"),
            *y.rows(
                "attn.indexer",
                ("index_weights", "weights_proj.weight", "Hi D"),
                ("index_q", "wq_b.weight", "Hi*hi Q"),
            ),
        ),
        *hyper("attn"),
        *hyper("ffn"),
        *c.routed_experts("ffn", ("w1", "w3", "w2")),
        c.in_layer("router_bias", "ffn.gate.bias", "E", scored),
        Tensor("hash", "model.layers.{layer}.ffn.gate.tid2eid", "V k", hashed, integer=True),
        c.in_layer("shared_gate", "ffn.shared_experts.w1.weight", "F D"),
        c.in_layer("shared_up", "ffn.shared_experts.w3.weight", "F D"),
        c.in_layer("shared_down", "ffn.shared_experts.w2.weight", "D F"),
        Tensor("hyper_head_base", "model.hc_head.hc_base", "n"),
        Tensor("hyper_head_fn", "model.hc_head.hc_fn", "n n*D"),
        Tensor("hyper_head_scale", "model.hc_head.hc_scale", "1"),
        c.HEAD[0],
        Tensor("lm_head", "head.weight", "V D", c.untied),
    ),
    router=ScoredTopK("sqrtsoftplus", normalize="norm_topk_prob", scale="routed_scaling_factor"),
    attention=NoGraph(
        "compressed sparse attention with hyper-connections",
        "its window, compressed entries, indexer and choice of experts by token are each a part "
        "that moeship's graphs do not have; ONNX Runtime 1.31.1 has an indexer for it "
        "(com.microsoft SparseAttentionIndexer, csa) on CUDA alone",
        lambda config, layer: 0,
    ),
    alternatives=c.FUSED_EXPERTS,
    spellings=(IN_MEMORY, AS_RELEASED),
    # Also its router's, under another name, norms, sinks, positions and hyper-connections.
    fp32=(*c.FP32_BIAS, r".*(\.gate\.bias|norm\.weight|\.attn_sink|\.ape|\.hc_\w+)"),
    beside_fp16=(r".*\.attn\.((indexer\.)?compressor\.w(kv|gate)|indexer\.weights_proj)\.weight",),
    carried={
        r"(model\.)?mtp\..*": "it predicts tokens after the next (MTP), beside the decoder",
    },
)
