"""What the doctor finds, and what it warns of."""

from __future__ import annotations

from stem_core.envelope import Message
from stem_core.ports.specs import AdapterOptions
from stem_core.status import StatusUpdate, TaskState
from stem_redis import keys
from stem_redis.doctor import report
from stem_redis.keys import KINDS
from tests.servers import ValkeyServer


def table(findings) -> dict[tuple[str, str], tuple[str, str | None]]:
    return {(each.section, each.key): (each.value, each.warning) for each in findings}


async def test_a_server_set_up_well_gets_no_warning_but_of_its_memory(adapters) -> None:
    with ValkeyServer() as server:
        broker, backend = await adapters.broker(server.url), await adapters.backend(server.url)
        await broker.publish([Message(id=f"{n}", queue="q{}", sealed=b"", once=n > 1) for n in range(4)])
        await broker.publish([Message(id="late", queue="q{}", sealed=b"", delay=60)])
        await backend.record([StatusUpdate(id="t", state=TaskState.QUEUED, ttl=60)])
        found = table(await report(server.url, AdapterOptions(namespace=adapters.namespace)))
    assert found["server", "version"][0].startswith("Valkey 9")
    assert found["persistence", "append-only file"] == ("on", None)
    assert found["keys", "R:once"][0].startswith("2 ")
    assert found["keys", "N:t"][0].startswith("1 ")
    assert {key for section, key in found if section == "keys"} - {"R", "N"} == {
        "R:s0..9", "R:levels", "R:d", "R:bell", "R:once", "R:counts", "N:t", "N:i",
    }  # fmt: skip
    assert {key for section, key in found if section == "keys"} - {"R", "N"} <= KINDS.keys()
    warned = {key for key, (_, warning) in found.items() if warning}
    assert warned == {("memory", "maxmemory")}


async def test_a_server_that_may_lose_or_evict_is_warned_of(adapters) -> None:
    settings = {"appendonly": "no", "maxmemory": "50mb", "maxmemory_policy": "allkeys-lru"}
    with ValkeyServer(**settings) as server:
        found = table(await report(server.url, AdapterOptions()))
        assert "appendonly yes" in (found["persistence", "append-only file"][1] or "")
        assert "noeviction" in (found["memory", "policy"][1] or "")
        assert found["memory", "maxmemory"][1] is None
        broker = await adapters.broker(server.url)
        await broker.server.command("REPLICAOF", "127.0.0.1", "1")
        found = table(await report(server.url, AdapterOptions()))
        assert "replica" in (found["server", "role"][1] or "")


async def test_a_user_without_config_still_gets_a_report(adapters) -> None:
    with ValkeyServer(appendfsync="no") as server:
        assert "power cut" in (
            table(await report(server.url, AdapterOptions()))["persistence", "appendfsync"][1] or ""
        )
        admin = await adapters.broker(server.url)
        rules = ["on", ">pw", "~*", "&*", "+@all", "-@admin", "-@dangerous", "+info"]
        await admin.server.command("ACL", "SETUSER", "limited", *rules)
        url = server.url.replace("redis://", "redis://limited:pw@")
        found = table(await report(url, AdapterOptions()))
    assert "CONFIG" in found["persistence", "settings"][0]
    assert "pw" not in found["server", "url"][0]


def test_the_documented_keys_are_the_known_ones() -> None:
    assert keys.__doc__
    for kind in KINDS:
        assert f"``{kind}" in keys.__doc__, kind
