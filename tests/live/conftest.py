"""What many tests of this folder begin with: a scripted broker, and an engine's surroundings on it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.live.alpaca_peer import Peer
from tests.live.engine_on_peer import Stage


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A broker that answers as it is told."""
    async with Peer() as peer:
        yield peer


@pytest.fixture
async def stage(ledger: str, peer: Peer, tmp_path: Path) -> Stage:
    """What an engine needs, with that broker's usual answers."""
    stage = Stage(peer, tmp_path)
    stage.script()
    return stage
