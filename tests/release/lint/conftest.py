"""A model folder without fault, to be spoiled one way at a time."""

import shutil
from pathlib import Path

import pytest

from tests.release.lint.faultless import make


@pytest.fixture(scope="session")
def _clean(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("lint") / "clean")


@pytest.fixture
def clean(_clean, tmp_path) -> Path:
    """A copy of the folder without fault."""
    return Path(shutil.copytree(_clean, tmp_path / "clean"))
