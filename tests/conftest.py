"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from c2s_rl.leaving import skip_destructors

# Time limits per example fail on a busy machine; pytest's own limit guards against hanging.
settings.register_profile("c2s-rl", deadline=None)
settings.load_profile("c2s-rl")

PROJECT = Path(__file__).resolve().parent.parent

# A package of its own: tests/rewards/test_plugin_package.py installs it and runs its test.
collect_ignore = ["plugin_template"]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Tests start Ray in this process, whose status must be theirs."""
    skip_destructors(lambda: int(session.exitstatus))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real public data sets; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("C2S_RL_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set C2S_RL_DATA")
    return folder
