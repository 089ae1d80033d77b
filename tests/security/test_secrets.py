"""No key and no password anywhere: logs, reprs, tracebacks, dead letters, statuses and error texts are searched."""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from stem_core.envelope import Message
from stem_core.errors import ConfigurationError, StemError
from stem_core.plugins import discover
from stem_core.producer import Stem
from stem_core.status import StatusQuery
from stem_core.worker import Worker
from stem_signing import keys
from stem_signing.environment import read_keyring
from stem_signing.keyring import Key
from tests.security import ring

PASSWORD: Final = "correct-horse-battery"
SECRETS: Final = [
    ring.material(name)
    for name in ("hmac-sha256a", "hmac-sha256b", "ed25519a", "ed25519b", "encryptiona", "encryptionb")
]


def forms(secret: bytes) -> Iterator[str]:
    """How bytes can show up in text, whole or in good part."""
    yield secret.hex()[:16]
    yield base64.b64encode(secret).decode()[:12]
    yield base64.urlsafe_b64encode(secret).decode()[:12]
    yield repr(secret)[2:18]
    yield ", ".join(map(str, secret[:6]))


def leaks(text: str) -> list[str]:
    """Which secrets are in ``text``."""
    found = [form for secret in SECRETS for form in forms(secret) if form in text]
    return found + ([PASSWORD] if PASSWORD in text else [])


def told(error: BaseException) -> str:
    """Everything an error may print: text, repr, arguments, traceback with its causes."""
    return "\n".join([str(error), repr(error), repr(error.args), *traceback.format_exception(error)])


def test_the_search_finds_what_it_looks_for() -> None:
    for secret in SECRETS:
        assert leaks(f"key={base64.b64encode(secret).decode()}")
        assert leaks(secret.hex())
        assert leaks(repr({"key": secret}))
    assert leaks(f"redis://user:{PASSWORD}@host")


ENVIRONMENT: Final[Mapping[str, str]] = {
    **ring.environment("hmac-sha256", "a", "b"),
    **ring.encryption("a", "b"),
}


@pytest.mark.parametrize("algorithm", ring.ALGORITHMS)
async def test_a_busy_application_shows_no_key(
    algorithm: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    variables = {**ring.environment(algorithm, "a", "b"), **ring.encryption("a", "b")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stem = Stem("memory://", signer=algorithm, args_encoder="cbor+aes-gcm", result_encoder="json+aes-gcm")
    texts: list[str] = []

    @stem.task(name="good")
    async def good(x: int) -> int:
        return x

    @stem.task(name="bad")
    async def bad(x: int) -> int:
        raise ValueError(f"x is {x}: {stem!r} {stem.wiring!r} {stem.wiring.signer!r}")

    async with stem:
        await stem.enqueue("good", args=[1])
        await stem.enqueue("bad", args=[2])
        for number, sealed in enumerate((b"", b"STM\x01" + bytes(5), b"garbage" * 50)):
            await stem.broker.publish([Message(id=f"forged-{number}", queue="default", sealed=sealed)])
        worker = Worker(stem, wait=0.02, unknown_task_grace=0)
        await worker.run(until_empty=True)
        assert stem.backend is not None
        page = await stem.backend.list(StatusQuery())
        dead = (await stem.broker.dead_list("default")).items
        assert len(page.items) == 2
        assert len(dead) == 4
        texts += [repr(page), repr(dead), *(repr(each.message.sealed) for each in dead)]
        texts += [
            repr(each)
            for each in (stem, stem.wiring, stem.encoders, stem.wiring.signer, worker, worker.settings)
        ]
        texts += [
            repr(stem.wiring.catalogue),
            repr(stem.wiring.catalogue.signers),
            repr(stem.wiring.catalogue.encoders),
        ]
    texts += [record.getMessage() + (record.exc_text or "") for record in caplog.records]
    assert len(caplog.records) > 3
    assert leaks("\n".join(texts)) == []


@pytest.mark.parametrize("algorithm", ring.ALGORITHMS)
def test_keys_and_rings_show_no_key(algorithm: str) -> None:
    variables = ring.environment(algorithm, "a", "b", scopes="a=queue:x")
    found = read_keyring(variables, "hmac-sha256" if algorithm == "hmac-sha256" else "ed25519")
    stages = keys.rotate(variables, "c")
    shown = [found, found.signing, dict(found.verifying), keys.list_keys(variables), stages]
    shown += [ring.signer(algorithm, "a", "b"), ring.registry("a", "b").chain("json+aes-gcm")]
    assert leaks("\n".join(f"{each!r} {each!s}" for each in shown)) == []


def broken(name: str, value: str) -> dict[str, str]:
    return {**ENVIRONMENT, name: value}


GOOD: Final = ring.entries("a", kind="hmac-sha256")
BARE: Final = GOOD.partition(":")[2]
MISTAKES: Final = [
    broken("STEM_SIGNING_KEYS", BARE),
    broken("STEM_SIGNING_KEYS", f"{GOOD},{BARE}"),
    broken("STEM_SIGNING_KEYS", f"{BARE}:a"),
    broken("STEM_SIGNING_KEYS", f"{GOOD},{GOOD}"),
    broken("STEM_SIGNING_KEYS", GOOD[:-4]),
    broken("STEM_SIGNING_KEYS", f"{GOOD}!"),
    broken("STEM_SIGNING_KEYS", f"a:{BARE}:{BARE}"),
    broken("STEM_SIGNING_ACTIVE_KEY", "c"),
    broken("STEM_SIGNING_PUBLIC_KEYS", GOOD),
]


@pytest.mark.parametrize("environment", MISTAKES, ids=lambda each: "")
def test_errors_of_configuration_show_no_key(environment: dict[str, str]) -> None:
    catalogue = discover(environment={})
    with pytest.raises(ConfigurationError) as caught:
        catalogue.signer("hmac-sha256").open(environment)
    assert leaks(told(caught.value)) == []


@pytest.mark.parametrize(
    "value",
    [BARE, GOOD[:-8], f"{BARE}:a", f"{GOOD},{GOOD}", f"{GOOD},{BARE}", "a:" + GOOD],
    ids=lambda each: "",
)
def test_errors_of_encryption_show_no_key(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        discover(environment={}).encoder("aes-gcm").open({"STEM_ENCRYPTION_KEYS": value})
    assert leaks(told(caught.value)) == []


@pytest.mark.parametrize(
    "make", [lambda: Key("a b", "hmac-sha256", SECRETS[0]), lambda: Key("a", "ed25519", SECRETS[2][:31])]
)
def test_errors_of_keys_show_no_key(make: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert leaks(told(caught.value)) == []


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{PASSWORD}@127.0.0.1:1/0",
        f"redis://:{PASSWORD}@127.0.0.1:1/0",
        f"postgresql://user:{PASSWORD}@127.0.0.1:1/db",
        f"postgresql://127.0.0.1:1/db?user=u&password={PASSWORD}",
        f"redis://user:{PASSWORD}@127.0.0.1:1/not-a-number",
        f"nothing://user:{PASSWORD}@host/db",
    ],
    ids=[
        "redis",
        "redis without user",
        "postgresql",
        "postgresql in the query",
        "redis, wrong path",
        "unknown scheme",
    ],
)
async def test_a_store_out_of_reach_shows_no_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    texts = []
    try:
        stem = Stem(url, publish_timeout=2)
        texts.append(repr(stem) + repr(stem.wiring) + repr(stem.broker) + repr(stem.backend))
        async with stem:
            pass
    except StemError as error:
        texts.append(told(error))
    else:
        pytest.fail("the store cannot have been reached")
    texts += [record.getMessage() + (record.exc_text or "") for record in caplog.records]
    assert leaks("\n".join(texts)) == []


COMMANDS: Final = {
    "keys list": 0,
    "keys list --json": 0,
    "plugins": 0,
    "plugins --json": 0,
    "doctor": None,
    "doctor --json": None,
    "queues": None,
    "dlq list": None,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_show_no_key_and_no_password(command: str) -> None:
    variables = {
        **os.environ,
        **ENVIRONMENT,
        "STEM_BROKER_URL": f"redis://user:{PASSWORD}@127.0.0.1:1/0",
        "STEM_BACKEND_URL": f"postgresql://user:{PASSWORD}@127.0.0.1:1/db",
    }
    done = subprocess.run(
        [sys.executable, "-m", "stem_core.cli", *command.split()],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expected = COMMANDS[command]
    assert expected is None or done.returncode == expected, done.stderr
    assert len(done.stdout + done.stderr) > 20
    assert leaks(done.stdout + done.stderr) == []
