"""Who may do what: signed licences verified offline, tiers, and gates that fail closed.

A leaf package: it knows no model, no network and no command line. Names are imported when they are
first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from license_tiers.binding import any_machine as any_machine
    from license_tiers.binding import machine_fingerprint as machine_fingerprint
    from license_tiers.binding import this_machine as this_machine
    from license_tiers.catalog import Catalog as Catalog
    from license_tiers.catalog import json_schema as json_schema
    from license_tiers.claims import UNLIMITED as UNLIMITED
    from license_tiers.claims import Claims as Claims
    from license_tiers.claims import Edges as Edges
    from license_tiers.claims import Phases as Phases
    from license_tiers.decision import Allowance as Allowance
    from license_tiers.decision import Decision as Decision
    from license_tiers.errors import FeatureDenied as FeatureDenied
    from license_tiers.errors import LicenseError as LicenseError
    from license_tiers.errors import LimitExceeded as LimitExceeded
    from license_tiers.errors import TokenError as TokenError
    from license_tiers.findings import Finding as Finding
    from license_tiers.findings import check as check
    from license_tiers.floor import Floor as Floor
    from license_tiers.gate import Gate as Gate
    from license_tiers.guards import Guards as Guards
    from license_tiers.installed import explain as explain
    from license_tiers.installed import install as install
    from license_tiers.installed import licensed as licensed
    from license_tiers.installed import require as require
    from license_tiers.installed import using as using
    from license_tiers.keys import KeyScope as KeyScope
    from license_tiers.keys import SigningKey as SigningKey
    from license_tiers.order import Order as Order
    from license_tiers.order import claims_for as claims_for
    from license_tiers.revocation import RevocationList as RevocationList
    from license_tiers.revocation import issue_list as issue_list
    from license_tiers.revocation import verify_list as verify_list
    from license_tiers.state import State as State
    from license_tiers.token import License as License
    from license_tiers.token import issue as issue
    from license_tiers.token import verify as verify
    from license_tiers.trust import TrustStore as TrustStore

_HOMES = {
    "binding": ("any_machine", "machine_fingerprint", "this_machine"),
    "catalog": ("Catalog", "json_schema"),
    "claims": ("UNLIMITED", "Claims", "Edges", "Phases"),
    "decision": ("Allowance", "Decision"),
    "errors": ("FeatureDenied", "LicenseError", "LimitExceeded", "TokenError"),
    "findings": ("Finding", "check"),
    "floor": ("Floor",),
    "gate": ("Gate",),
    "guards": ("Guards",),
    "installed": ("explain", "install", "licensed", "require", "using"),
    "keys": ("KeyScope", "SigningKey"),
    "order": ("Order", "claims_for"),
    "revocation": ("RevocationList", "issue_list", "verify_list"),
    "state": ("State",),
    "token": ("License", "issue", "verify"),
    "trust": ("TrustStore",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name from its module (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
