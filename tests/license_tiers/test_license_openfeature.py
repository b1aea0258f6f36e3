"""The OpenFeature provider under the real SDK, which answers failures with the caller's default."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.flag_evaluation import FlagEvaluationOptions, FlagResolutionDetails, Reason
from openfeature.hook import Hook

from license_tiers.catalog import Catalog
from license_tiers.claims import MAX_LIMIT, Claims
from license_tiers.gate import Gate
from license_tiers.openfeature import LicenseProvider
from license_tiers.trust import TrustStore

Connect = Callable[[Any], OpenFeatureClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    def client(provider: Any) -> OpenFeatureClient:
        api.set_provider_and_wait(provider, "acme")
        return api.get_client("acme")

    yield client
    api.shutdown()
    api.clear_providers()


def test_values(gate: Gate, connect: Connect) -> None:
    client = connect(LicenseProvider(gate))
    for default in (True, False):
        assert client.get_boolean_value("rbac", default) is True
        assert client.get_boolean_value("air_gapped", default) is False
        assert client.get_boolean_value("no_such", default) is False
    assert client.get_integer_value("seats", 10**6) == 50
    assert client.get_float_value("seats", 1e6) == 50.0
    assert client.get_integer_value("replicas", 0) == MAX_LIMIT
    assert client.get_integer_value("no_such", 10**6) == 0
    for key, reason, why in (
        ("seats", Reason.TARGETING_MATCH, "the licence (tier 'enterprise')"),
        ("no_such", Reason.DISABLED, "no such limit"),
    ):
        for found in (client.get_integer_details(key, 7), client.get_float_details(key, 7.0)):
            assert found.reason == reason
            assert why in str(found.flag_metadata["why"])
    assert client.get_string_value("rbac", "x") == "valid"
    assert client.get_string_value("air_gapped", "valid") == ""
    members = client.get_object_value("air_gapped", {"allowed": True})
    assert (members["allowed"], members["state"]) == (False, "valid")
    details = client.get_boolean_details("air_gapped", True)
    assert (details.error_code, details.reason) == (None, Reason.DISABLED)
    assert "does not grant it" in str(details.flag_metadata["why"])


def test_asynchronous_values(gate: Gate, connect: Connect) -> None:
    client = connect(LicenseProvider(gate))

    async def ask() -> list[Any]:
        return [
            await client.get_boolean_value_async("rbac", False),
            await client.get_boolean_value_async("no_such", True),
            await client.get_integer_value_async("seats", 10**6),
        ]

    assert asyncio.run(ask()) == [True, False, 50]


def test_it_follows_the_clock(gate: Gate, connect: Connect, now: Any, claims: Claims) -> None:
    client = connect(LicenseProvider(gate))
    assert client.get_boolean_value("rbac", True)
    now.seconds = claims.phases.read_only_until
    assert not client.get_boolean_value("rbac", True)
    now.seconds = float("nan")
    assert not client.get_boolean_value("rbac", True)
    assert client.get_boolean_value("inference", False)


class Broken(Gate):
    """A gate with a fault of its own, which is not supposed to exist."""

    def decide(self, feature: str) -> Any:
        raise RuntimeError("fault")


class BadHook(Hook):
    def before(self, hook_context: Any, hints: Any) -> None:
        raise RuntimeError("hook")


class BadAfterHook(Hook):
    def after(self, hook_context: Any, details: Any, hints: Any) -> None:
        raise RuntimeError("hook")


def ask_all(client: OpenFeatureClient, options: Any = None) -> list[Any]:
    """Every kind of value of a feature that is not granted, with defaults that would grant."""
    found = [
        client.get_boolean_value("air_gapped", True, flag_evaluation_options=options),
        client.get_integer_value("air_gapped", 9, flag_evaluation_options=options),
        client.get_float_value("air_gapped", 9.0, flag_evaluation_options=options),
        client.get_string_value("air_gapped", "valid", flag_evaluation_options=options),
        client.get_object_value("air_gapped", {"allowed": True}, flag_evaluation_options=options),
    ]
    return [value["allowed"] if isinstance(value, dict) else value for value in found]


@pytest.mark.parametrize("hook", [BadHook, BadAfterHook])
def test_a_hook_that_fails(gate: Gate, connect: Connect, hook: type[Hook]) -> None:
    client = connect(LicenseProvider(gate))
    options = FlagEvaluationOptions(hooks=[hook()])
    assert not any(ask_all(client, options))
    assert client.get_boolean_value("rbac", True, flag_evaluation_options=options) is False


def test_a_provider_that_fails(
    connect: Connect, catalog: Catalog, trust: TrustStore, token: str
) -> None:
    client = connect(LicenseProvider(Broken(catalog, trust, token)))
    assert not any(ask_all(client))

    async def ask() -> bool:
        return await client.get_boolean_value_async("rbac", True)

    assert not asyncio.run(ask())


def test_a_provider_that_is_not_ready(gate: Gate, connect: Connect) -> None:
    """Before `initialize` returned, or after it failed for good, the SDK does not even ask."""
    from openfeature.exception import ProviderFatalError

    class Never(LicenseProvider):
        def initialize(self, evaluation_context: Any) -> None:
            raise ProviderFatalError("never")

    with pytest.raises(ProviderFatalError):
        api.set_provider_and_wait(Never(gate), "acme")
    client = api.get_client("acme")
    assert not any(ask_all(client))
    assert client.get_boolean_value("rbac", True) is False


def test_a_naive_provider_fails_open(connect: Connect, gate: Gate) -> None:
    """What the provider above is made against: SDK 0.10.0 overrides a denial by the default."""

    class Naive(LicenseProvider):
        def get_provider_hooks(self) -> list[Hook]:
            return []

        def resolve_boolean_details(
            self, flag_key: str, default_value: bool, evaluation_context: Any = None
        ) -> FlagResolutionDetails[bool]:
            raise RuntimeError("fault")

    assert connect(Naive(gate)).get_boolean_value("air_gapped", True) is True
