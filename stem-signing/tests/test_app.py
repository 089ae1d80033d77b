"""Signing where applications meet it: from the environment, and never silently off."""

from __future__ import annotations

from pathlib import Path

import pytest

from stem_core import Stem, Worker
from stem_core.errors import ConfigurationError
from stem_core.sealing import unpack
from stem_signing import keys


@pytest.fixture(params=["hmac-sha256", "ed25519"])
def algorithm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in keys.generate(request.param, "k1").items():
        monkeypatch.setenv(name, value)
    return str(request.param)


async def signed_and_run(stem: Stem, algorithm: str) -> None:
    @stem.task(name="tasks.email")
    async def email(to: str) -> str:
        return f"sent to {to}"

    async with stem:
        handle = await stem.enqueue("tasks.email", args={"to": "ops@example.com"})
        [delivery] = await stem.broker.receive(["default"], limit=1, lease=0.05, wait=0)
        [block] = unpack(delivery.message.sealed).signatures
        assert (block.algorithm, block.key_id) == (algorithm, "k1")
        async with Worker(stem, wait=0.02):
            assert await handle.result(timeout=10) == "sent to ops@example.com"


async def test_a_signed_producer_from_the_environment(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEM_BROKER_URL", "memory://")
    await signed_and_run(Stem.from_env(), algorithm)


async def test_a_signed_producer_by_name(algorithm: str) -> None:
    await signed_and_run(Stem("memory://", signer=algorithm), algorithm)


async def test_keys_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    path.write_text(keys.generate("hmac-sha256", "k1")["STEM_SIGNING_KEYS"])
    path.chmod(0o600)
    monkeypatch.setenv("STEM_SIGNING_KEYS_FILE", str(path))
    monkeypatch.setenv("STEM_BROKER_URL", "memory://")
    await signed_and_run(Stem.from_env(), "hmac-sha256")


def test_keys_that_are_set_and_not_used_are_an_error(algorithm: str) -> None:
    assert algorithm
    with pytest.raises(ConfigurationError, match="signer=False"):
        Stem("memory://")
    Stem("memory://", signer=False)


def test_a_signer_without_keys_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"^STEM_SIGNING_KEYS: It is not set"):
        Stem("memory://", signer="hmac-sha256")
    with pytest.raises(ConfigurationError, match=r"^STEM_SIGNING_PUBLIC_KEYS: It is not set"):
        Stem("memory://", signer="ed25519")


def test_an_unknown_signer_says_what_is_installed() -> None:
    with pytest.raises(ConfigurationError, match=r"'rsa'.*ed25519, hmac-sha256"):
        Stem("memory://", signer="rsa")
