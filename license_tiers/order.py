"""From what was sold to the claims of a licence: the desk's half, checked against the catalog.

The licence carries every feature and limit of its tier by name. A gate grants what is written there
and nothing else, so a feature that a later catalog adds to the tier is not given away to licences
issued before, and a changed catalog upgrades nobody.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from license_tiers.catalog import Catalog, did_you_mean
from license_tiers.claims import AnyLimit, Claims, Grant, Phases
from license_tiers.errors import OrderError
from license_tiers.times import DAY


@dataclass(frozen=True)
class Order:
    """What was bought; ``features`` and ``limits`` add to the tier's or replace them by key."""

    tier: str
    licensee: str
    days: int
    features: Mapping[str, Grant] = field(default_factory=dict)
    limits: Mapping[str, AnyLimit] = field(default_factory=dict)
    product: str | None = None
    binding: Mapping[str, str] | None = None
    customer_key: str | None = None
    """The customer's age recipient, to which the keys of sealed editions are encrypted."""
    seals: Mapping[str, str] | None = None
    """Sealed edition to what opens it for this customer (``desk.with_seals``).

    An edition has the key of a tier or of a feature of the catalog.
    """


def claims_for(order: Order, catalog: Catalog, now: int) -> Claims:
    """The claims of a licence that begins at ``now`` (epoch seconds) and lasts ``order.days``.

    Raises OrderError for a product, feature, limit or sealed edition that the catalog does not have
    (a typing mistake would otherwise be found by the customer), CatalogError for an unknown tier,
    TokenError for values that no licence may carry.
    """
    _refuse_unknown(order, catalog)
    if order.days < 1:
        raise OrderError(f"{order.days} days", "A licence lasts one day or more.")
    end = now + order.days * DAY
    policy = catalog.source.phases
    grace = end + policy.grace_days * DAY
    return Claims(
        iss=catalog.source.issuer,
        sub=order.licensee,
        jti=str(uuid.uuid4()),
        iat=now,
        nbf=now,
        exp=end,
        product=catalog.product,
        tier=order.tier,
        features=dict.fromkeys(sorted(catalog.features_of(order.tier)), True)
        | dict(order.features),
        limits={**catalog.limits_of(order.tier), **order.limits},
        phases=Phases(
            warn_from=max(now, end - policy.warn_days * DAY),
            grace_until=grace,
            read_only_until=grace + policy.read_only_days * DAY,
        ),
        support_plan=catalog.support_plan_of(order.tier),
        binding=order.binding or None,
        seals=order.seals or None,
    )


def _refuse_unknown(order: Order, catalog: Catalog) -> None:
    if order.product not in (None, catalog.product):
        raise OrderError(
            f"these are the tiers of product {catalog.product!r}, not of {order.product!r}",
            "Each product has its own tiers file.",
        )
    for what, keys, known in (
        ("feature", catalog.features_of(order.tier) | set(order.features), catalog.features),
        ("limit", set(catalog.limits_of(order.tier)) | set(order.limits), catalog.limits),
        ("edition", set(order.seals or {}), {**catalog.tiers, **catalog.features}),
    ):
        for key in sorted(keys):
            if key not in known:
                raise OrderError(f"the catalog has no {what} {key!r}", did_you_mean(key, known))
