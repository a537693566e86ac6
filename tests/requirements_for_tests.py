"""What some tests need and a machine may lack: such a test is skipped with its reason, or fails where all must run."""

import os

import pytest


def require(condition: object, reason: str) -> None:
    """Goes on if `condition` holds; else skips the test, or fails it when ALGO_TEST_REQUIRE_ALL is 1."""
    if not condition:
        if os.environ.get("ALGO_TEST_REQUIRE_ALL") == "1":
            pytest.fail(f"needed here: {reason}")
        pytest.skip(reason)
