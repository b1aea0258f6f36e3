"""Rows of sparse-index attention: latent attention over the tokens that an indexer chooses.

Sources: transformers 5.23 ``models/{deepseek_v32,glm_moe_dsa}``; DeepSeek-V3.2-Exp's report.
"""

from converters.architectures import _common as c
from converters.architectures import _hybrid as y
from converters.spec import Condition, Config, Key, NoGraph, Tensor

KEYS = (
    Key("n_routed_experts", 256, aliases=("num_local_experts", "num_experts")),
    Key("first_k_dense_replace", 3, least=0),
    Key("mlp_layer_types", None, kinds=(list,)),
    Key("index_topk", 2048),
    Key("index_head_dim", 128),
)
DIMS = c.LATENT_DIMS | {"hi": "index_head_dim", "Hi": "index_n_heads"}
_mlp = y.listed(
    "mlp_layer_types",
    ("dense", "sparse"),
    lambda config, layer: "sparse" if c.is_sparse_rest(config, layer) else "dense",
)
sparse, dense = y.where(_mlp, "sparse"), y.where(_mlp, "dense")

# transformers keeps the weights of the indexer's heads in fp32 beside fp16.
WEIGHTS = (r".*\.indexer\.weights_proj\.weight",)


def indexer(runs: Condition) -> tuple[Tensor, ...]:
    """Hi heads of hi numbers that score every earlier token, in layers where they run."""
    return y.only(
        runs,
        *y.rows(
            "self_attn.indexer",
            ("index_q", "wq_b.weight", "Hi*hi Q"),
            ("index_k", "wk.weight", "hi D"),
            ("index_k_norm", "k_norm.weight", "hi"),
            ("index_k_norm_bias", "k_norm.bias", "hi"),
            ("index_weights", "weights_proj.weight", "Hi D"),
        ),
    )


WHY = (
    "moeship's graphs have no third cache for the indexer's keys, and dense attention is another "
    "model as soon as a prompt is longer than index_topk; ONNX Runtime 1.31.1 has no operator for "
    "this indexer (its SparseAttentionIndexer has two other policies, and no CPU kernel)"
)


def attention(runs: Condition) -> NoGraph:
    """Latent attention with an indexer that ``runs`` in these layers."""

    def cached(config: Config, layer: int) -> int:
        index = int(config["index_head_dim"]) if runs(config, layer) else 0
        return y.latent_cache(c.everywhere)(config, layer) + index

    return NoGraph("sparse-index latent attention", WHY, cached)
