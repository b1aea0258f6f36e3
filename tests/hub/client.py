"""The real client, kept apart from the machine's own settings, caches and logins."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

UNSET = ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET", "HF_HUB_CACHE")

SETTINGS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    # hf_xet's own settings: give up soon, so that "always 500" ends within a test's patience.
    "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "2",
    "HF_XET_CLIENT_RETRY_BASE_DELAY": "50ms",
    "HF_XET_TELEMETRY_ENABLED": "false",
}


@contextmanager
def isolated_client(home: Path) -> Iterator[None]:
    """Point the client at ``home``: by environment (hf_xet, sub-processes) and by its constants.

    The constants are read at import, which may have happened long before.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in UNSET:
            patch.delenv(name, raising=False)
        for name, value in {**SETTINGS, "HF_HOME": str(home)}.items():
            patch.setenv(name, value)
        patch.setenv("HF_XET_CACHE", str(home / "xet"))
        from huggingface_hub import constants
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        patch.setattr(constants, "HF_HOME", str(home))
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        patch.setattr(constants, "HF_XET_CACHE", str(home / "xet"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        patch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        yield


def allow_client_warnings(items: list[pytest.Item]) -> None:
    """Let tests that use ``hub`` pass over a deprecation inside the client's own LFS upload."""
    mark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
    for item in items:
        if "hub" in getattr(item, "fixturenames", ()):
            item.add_marker(mark)


@contextmanager
def transport(name: str) -> Iterator[None]:
    """``xet`` or ``lfs``: two different code paths of the client, chosen at each call."""
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", name == "lfs")
        yield
