"""A producer with the signers of stem-signing."""

from __future__ import annotations

import base64
import os

import pytest

from stem_core import SignatureInvalid, Stem

KEYS = f"k1:{base64.b64encode(b'x' * 32).decode()}"
OTHER = f"k1:{base64.b64encode(b'y' * 32).decode()}"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [each for each in os.environ if each.startswith("STEM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STEM_BROKER_URL", "memory://")
    monkeypatch.setenv("STEM_SIGNING_KEYS", KEYS)
    monkeypatch.setenv("STEM_SIGNING_ACTIVE_KEY", "k1")
    return monkeypatch


async def test_from_env_takes_the_signer_from_its_keys(environment: pytest.MonkeyPatch) -> None:
    async with Stem.from_env() as stem:
        handle = await stem.enqueue("a")
        (delivery,) = await stem.broker.receive(["default"], limit=1, lease=1, wait=0)
        assert stem.wiring.unseal(delivery.message.sealed).id == handle.id
        environment.setenv("STEM_SIGNING_KEYS", OTHER)
        with pytest.raises(SignatureInvalid):
            Stem.from_env().wiring.unseal(delivery.message.sealed)
        with pytest.raises(SignatureInvalid, match="not signed"):
            stem.wiring.unseal(
                Stem("memory://", signer=False)
                ._planner.draft(stem._named("a", None, None, None, None, None, None))
                .publish.message.sealed
            )
