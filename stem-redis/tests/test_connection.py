"""URLs, logins, TLS, sockets, and what a user is told when it does not work."""

from __future__ import annotations

import asyncio
import ipaddress
import pickle
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stem_core.envelope import Message
from stem_core.errors import AdapterError, ConfigurationError
from stem_core.plugins import discover
from stem_core.ports.specs import AdapterOptions
from stem_redis.broker import RedisBroker
from stem_redis.keys import Keys
from stem_redis.plugin import REDIS_BACKEND, REDIS_BROKER
from tests.servers import ValkeyServer

from .proxy import Proxy

MESSAGE = Message(id="m", queue="q", sealed=b"\xff")


async def round_trip(broker: RedisBroker) -> None:
    assert await broker.publish([MESSAGE]) == [True]
    (delivery,) = await broker.receive(["q"], limit=1, lease=5, wait=0)
    assert delivery.message == MESSAGE


def test_it_is_found_by_its_entry_point() -> None:
    catalogue = discover()
    assert not catalogue.broken
    for scheme in ("redis", "rediss", "unix"):
        assert catalogue.broker(f"{scheme}://x").name == "redis"
        assert catalogue.backend(f"{scheme}://x").name == "redis"


async def test_it_says_what_server_it_is_on(adapters) -> None:
    broker, backend = await adapters.broker(), await adapters.backend()
    facts = await broker.server.command("INFO", "server")
    name, _, version = (broker.server_version or "").partition(" ")
    assert f"{name}_version:{version}\r\n".encode() in facts
    assert backend.server_version == broker.server_version


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://localhost/0?socket_timeuot=3", "unknown option 'socket_timeuot'"),
        ("redis://localhost/0?timeout=soon", "timeout|could not convert"),
        ("redis://localhost/0?timeout=0", "more than 0"),
        ("redis://localhost/0?max_connections=0", "more than 0"),
        ("unix://", "names no socket"),
        ("redis://localhost:port/0", "not a Redis URL"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_io(url: str, told: str) -> None:
    for spec in (REDIS_BROKER, REDIS_BACKEND):
        with pytest.raises(ConfigurationError, match=told):
            spec.open(url, AdapterOptions())


@pytest.mark.parametrize("password", ["s3/cret", "s3?cret", "s3#cret", "s3@x:y/cret"])
def test_a_password_that_is_not_escaped_is_not_shown(password: str) -> None:
    for spec in (REDIS_BROKER, REDIS_BACKEND):
        with pytest.raises(ConfigurationError, match="percent-encode") as caught:
            spec.open(f"redis://:{password}@host/0", AdapterOptions())
        assert "s3" not in str(caught.value)
        assert "cret" not in str(caught.value)
        assert "@host/0" in str(caught.value)


async def test_a_wrong_password_is_named_and_masked(adapters) -> None:
    url = adapters.url.replace("redis://", "redis://nobody:s3cret@")
    with pytest.raises(AdapterError) as caught:
        await adapters.broker(url)
    assert "nobody:***@" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


async def test_nobody_listening_is_an_error_at_once(adapters) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"redis://:s3cret@127.0.0.1:{free.getsockname()[1]}/0"
        with pytest.raises(AdapterError, match=r"cannot connect to redis://:\*\*\*@127"):
            await adapters.backend(url, connect_timeout=5)


async def test_a_host_that_swallows_everything_is_an_error_in_time(adapters) -> None:
    async with Proxy(adapters.url) as proxy:
        proxy.swallow = True
        start = time.monotonic()
        with pytest.raises(AdapterError, match=r"did not answer within 0\.3 s"):
            await adapters.broker(proxy.url, connect_timeout=0.3)
        assert time.monotonic() - start < 10


async def test_an_acl_user_with_the_documented_rights(adapters, broker: RedisBroker) -> None:
    name = adapters.namespace
    rules = [
        f"~stem:{name}:*",
        f"~stem:{{{name}:*",
        f"&stem:{name}:*",
        "+@all",
        "-@admin",
        "-@dangerous",
        "+info",
    ]
    await broker.server.command("ACL", "SETUSER", name, "on", ">s3cret", *rules)
    try:
        url = adapters.url.replace("redis://", f"redis://{name}:s3cret@")
        limited, backend = await adapters.broker(url), await adapters.backend(url)
        await round_trip(limited)
        assert limited.join(backend) is not None
        assert broker.join(backend) is None  # another user may have other rights
        foreign = await adapters.broker(url, namespace="elsewhere")
        with pytest.raises(AdapterError, match=r"(?i)no permissions"):
            await foreign.receive(["q"], limit=1, lease=1, wait=0)
    finally:
        await broker.server.command("ACL", "DELUSER", name)


async def test_a_unix_socket(adapters) -> None:
    with ValkeyServer(unixsocket="../valkey.sock", unixsocketperm="700") as server:
        url = f"unix://{server.directory / 'valkey.sock'}?db=3"
        broker, backend = await adapters.broker(url), await adapters.backend(url)
        await round_trip(broker)
        assert broker.join(backend) is not None
        over_tcp = await adapters.backend(server.url.replace("/0", "/3"))
        assert broker.join(over_tcp) is not None


async def test_tls_is_verified(adapters, tmp_path: Path) -> None:
    certificate, key = certificate_for_loopback(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with Proxy(adapters.url, context) as proxy:
        await round_trip(await adapters.broker(f"{proxy.url}?ssl_ca_certs={certificate}"))
        with pytest.raises(AdapterError, match="certificate verify failed"):
            await adapters.broker(proxy.url)
        await adapters.broker(f"{proxy.url}?ssl_cert_reqs=none&ssl_check_hostname=false")


async def test_no_more_connections_than_said(adapters) -> None:
    broker = await adapters.broker(f"{adapters.url}?max_connections=2")
    await asyncio.gather(*(broker.stats("q") for _ in range(50)))
    assert len(broker.server._idle) <= 2


async def test_a_database_of_its_own(adapters) -> None:
    other = await adapters.broker(adapters.url.rpartition("/")[0] + "/5")
    await other.publish([MESSAGE])
    assert (await (await adapters.broker()).stats("q")).ready == 0
    assert (await other.stats("q")).ready == 1
    await other.purge("q")


def test_names_cannot_reach_into_each_others_keys() -> None:
    roots = {
        Keys(namespace).root(queue)
        for namespace, queue in [
            ("a", "b:c"),
            ("a:b", "c"),
            ("a", "{b}"),
            ("a", "%7Bb%7D"),
            ("a", "b"),
            ("a}", "b"),
        ]
    }
    assert len(roots) == 6
    for root in roots:  # one hash tag, never empty
        assert root.index("{") < root.index("}") == len(root) - 1
    with pytest.raises(ValueError, match="queue"):
        Keys("a").root("x" * 129)
    with pytest.raises(ValueError, match="namespace"):
        Keys("a\n")


def certificate_for_loopback(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
