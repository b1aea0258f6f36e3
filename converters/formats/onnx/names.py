"""Names of values in a graph that others ask for."""


def router_value(layer: int) -> str:
    """A layer's router logits [N, E], N = B * S; where it has two, by ``Model.router_number``."""
    return f"layers.{layer}.router_logits"


def choice_value(layer: int) -> str:
    """The values [N, E] whose k largest are chosen, where those are not the router's logits."""
    return f"layers.{layer}.router_choice"


def hidden_value(layer: int) -> str:
    """The hidden states [B, S, D] that a layer gives; -1: those that the first layer is given."""
    return "embedding.hidden" if layer < 0 else f"layers.{layer}.hidden"
