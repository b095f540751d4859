"""What a test does where a runtime that no wheel brings is not installed."""

import os

import pytest

EVERY_RUNTIME = "FASTLSTM_EVERY_RUNTIME"


def need(missing: str) -> None:
    """Skip and name what is missing, or fail where FASTLSTM_EVERY_RUNTIME is set."""
    if not missing:
        return
    if os.environ.get(EVERY_RUNTIME):
        pytest.fail(f"{EVERY_RUNTIME} is set, and {missing}")
    pytest.skip(missing)
