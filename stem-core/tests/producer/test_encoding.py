"""Encoder chains: composition, context, overrides, unknown ids, and each encoder run exactly once each way."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from stem_core import (
    ConfigurationError,
    ContextPayloadEncoder,
    DecodeError,
    EncodeContext,
    EncodeError,
    Stem,
    TaskDefinition,
    TaskEnqueueOptions,
    TaskMetadata,
    TaskPayloadEncoder,
    TaskPayloadEncoderRegistry,
    TaskState,
)
from stem_core.plugins import discover
from stem_core.status import StatusUpdate

CONTEXT = EncodeContext(purpose="args", namespace="n", id="i", chain="c", name="a", queue="q")


class Counting(TaskPayloadEncoder):
    """A value encoder that counts."""

    id = "counting"

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def encode(self, value: Any) -> bytes:
        self.calls["encode"] += 1
        return repr(value).encode()

    def decode(self, data: bytes) -> object:
        self.calls["decode"] += 1
        return eval(data)  # its own bytes, in a test


class Reversing(TaskPayloadEncoder):
    id = "reversed"
    kind = "bytes"

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def encode(self, value: Any) -> bytes:
        self.calls["encode"] += 1
        return bytes(reversed(value))

    def decode(self, data: bytes) -> object:
        self.calls["decode"] += 1
        return bytes(reversed(data))


class Bound(ContextPayloadEncoder):
    """Puts what the bytes belong to in front of them."""

    id = "bound"

    def encode(self, value: Any, context: EncodeContext) -> bytes:
        return f"{context.id}|{context.queue}|".encode() + value

    def decode(self, data: bytes, context: EncodeContext) -> object:
        head = f"{context.id}|{context.queue}|".encode()
        if not data.startswith(head):
            raise DecodeError("made for something else")
        return data[len(head) :]


def registry(**arguments: Any) -> TaskPayloadEncoderRegistry:
    return TaskPayloadEncoderRegistry(**arguments).completed(discover())


async def every_path(stem: Stem, take: Any) -> int:
    """Enqueue by every path; how many messages that made."""

    @stem.task(name="t")
    async def t(x: int) -> int:
        return x

    @stem.task(name="u", unique=True)
    async def u(x: int) -> int:
        return x

    definition = TaskDefinition("d", int, int)
    await t.enqueue(1)
    await t.with_options(retry=True, task_id="same").enqueue(2)
    await t.builder(3).header("a", "b").enqueue()
    await u.enqueue(4)
    await stem.enqueue("t", args=[5])
    await stem.enqueue_many([t.call(6), u.call(7), t.s(8)])
    await definition.enqueue(stem, 9)
    messages = await take(stem)
    assert len(messages) == 9
    for _, envelope in messages:
        context = EncodeContext(
            purpose="args",
            namespace="stem",
            id=envelope.id,
            name=envelope.name,
            queue=envelope.queue,
            chain="x",
        )
        stem.encoders.decode(envelope.encoder, envelope.args, context)
    return len(messages)


async def test_exactly_once_each_way_on_every_path(store_url: str, take: Any) -> None:
    value, data = Counting(), Reversing()
    encoders = TaskPayloadEncoderRegistry("counting+reversed", "json", [value, data])
    async with Stem(store_url, encoders=encoders) as stem:
        count = await every_path(stem, take)
    assert value.calls == data.calls == {"encode": count, "decode": count}


async def test_links_are_encoded_once_by_their_own_encoder() -> None:
    value = Counting()
    async with Stem("memory://", encoders=[value]) as stem:

        @stem.task(args_encoder="counting")
        async def after(got: int, x: int) -> int:
            return x

        await stem.enqueue("a", enqueue_options=TaskEnqueueOptions(link=[after.s(1), after.s(2)]))
    assert value.calls == {"encode": 2}


async def test_a_duplicate_is_encoded_once_too() -> None:
    value, data = Counting(), Reversing()
    encoders = TaskPayloadEncoderRegistry("counting+reversed", "json", [value, data])
    async with Stem("memory://", encoders=encoders) as stem:

        @stem.task(unique=True)
        async def u(x: int) -> int:
            return x

        await u.enqueue(1)
        assert (await u.enqueue(1)).deduplicated
    assert value.calls == {"encode": 2}


def test_a_chain_runs_in_order_and_back() -> None:
    found = registry(additional_encoders=[Reversing(), Bound()])
    data = found.encode("json+reversed+bound", {"a": 1}, CONTEXT)
    assert data == b'i|q|}1:"a"{'
    assert found.decode("json+reversed+bound", data, CONTEXT) == {"a": 1}
    with pytest.raises(DecodeError, match="something else"):
        found.decode("json+reversed+bound", b"j|q|x", CONTEXT)


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("reversed", "put a value encoder first: 'json\\+reversed'"),
        ("json+json", "only one is possible"),
        ("json+nothing", "No encoder for 'nothing'"),
        ("", "No encoder for ''"),
        ("+".join(["json"] + ["reversed"] * 8), "chain of 9"),
    ],
)
def test_chains_that_make_no_sense(chain: str, words: str) -> None:
    found = registry(additional_encoders=[Reversing()])
    with pytest.raises(ConfigurationError, match=words):
        found.encode(chain, 1, CONTEXT)
    with pytest.raises(DecodeError, match=words):
        found.decode(chain, b"1", CONTEXT)


def test_a_default_that_cannot_be_resolved_is_an_error_at_once() -> None:
    with pytest.raises(ConfigurationError, match="No encoder for 'yaml'"):
        Stem("memory://", args_encoder="yaml")


@pytest.mark.parametrize("thing", [object(), 3, Counting])
def test_what_is_no_encoder(thing: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not an encoder"):
        Stem("memory://", result_encoder=thing)


def test_two_encoders_of_one_id() -> None:
    with pytest.raises(ConfigurationError, match="Two encoders have the id 'counting'"):
        TaskPayloadEncoderRegistry(Counting(), Counting())
    one = Counting()
    assert TaskPayloadEncoderRegistry(one, one).default_args == "counting"


def test_a_registry_has_its_own_defaults() -> None:
    with pytest.raises(ConfigurationError, match="give them there"):
        Stem("memory://", encoders=TaskPayloadEncoderRegistry(), args_encoder="cbor")


def test_an_encoder_that_fails_says_which() -> None:
    class Broken(TaskPayloadEncoder):
        id = "broken"

        def encode(self, value: Any) -> bytes:
            if value == "text":
                return "text"  # type: ignore[return-value]
            raise KeyError("no")

        def decode(self, data: bytes) -> object:
            raise KeyError("no")

    found = registry(additional_encoders=[Broken()])
    with pytest.raises(EncodeError, match="Encoder 'broken' failed: KeyError"):
        found.encode("broken", 1, CONTEXT)
    with pytest.raises(EncodeError, match="made str where bytes are needed"):
        found.encode("broken", "text", CONTEXT)
    with pytest.raises(DecodeError, match="Encoder 'broken' failed: KeyError"):
        found.decode("broken", b"", CONTEXT)


@pytest.mark.parametrize(
    ("chain", "serializer", "compression", "bare", "expected"),
    [
        ("json", "cbor", None, False, "cbor"),
        ("json", None, "gzip", False, "json+gzip"),
        ("cbor+gzip", None, "reversed", False, "cbor+reversed"),
        ("cbor+gzip", "json", None, False, "json+gzip"),
        ("cbor+gzip", None, None, True, "cbor"),
        ("json+gzip+bound", "cbor", "reversed", False, "cbor+reversed+bound"),
        ("json+bound", "cbor+bound", None, False, "cbor+bound"),
        ("json+bound", "cbor+gzip", None, False, "cbor+gzip+bound"),
    ],
)
def test_one_publish_may_vary_its_chain_but_not_lose_encryption(
    chain: str, serializer: str | None, compression: str | None, bare: bool, expected: str
) -> None:
    found = registry(additional_encoders=[Reversing(), Bound()])
    assert found.varied(chain, serializer=serializer, compression=compression, bare=bare) == expected


async def test_a_task_overrides_the_default_for_itself_alone(store_url: str, take: Any) -> None:
    async with Stem(store_url, args_encoder="cbor", result_encoder="cbor") as stem:

        @stem.task(name="own", args_encoder="msgpack+gzip", result_encoder="json")
        async def own(x: int) -> int:
            return x

        @stem.task(name="other", metadata=TaskMetadata(args_encoder=None))
        async def other(x: int) -> int:
            return x

        await own.enqueue(1)
        await other.enqueue(1)
        (_, first), (_, second) = await take(stem)
    assert (first.encoder, first.result_encoder) == ("msgpack+gzip", "json")
    assert (second.encoder, second.result_encoder) == ("cbor", None)


async def test_a_result_is_decoded_by_its_stamp(stem: Stem) -> None:
    handle: Any = stem.handle("x", result=tuple[int, ...])
    payload = stem.encoders.encode(
        "cbor", [1, 2], EncodeContext(purpose="result", namespace="stem", id="x", chain="cbor")
    )
    update = StatusUpdate(
        id="x", state=TaskState.SUCCEEDED, payload=payload, meta={"__stemResultEncoder": "cbor"}
    )
    assert stem.backend is not None
    await stem.backend.record([update])
    assert await handle.result(timeout=1) == (1, 2)


async def test_a_result_whose_encoder_is_missing_says_which_and_stays(stem: Stem) -> None:
    update = StatusUpdate(id="x", state=TaskState.SUCCEEDED, payload=b"?", encoder="rot")
    assert stem.backend is not None
    await stem.backend.record([update])
    for _ in range(2):
        with pytest.raises(DecodeError, match="needs encoder 'rot'"):
            await stem.handle("x").result(timeout=1)


async def test_unique_calls_share_a_lock_whatever_encrypts_them(take: Any) -> None:
    async with Stem("memory://", encoders=[Bound()], args_encoder="json+bound") as stem:

        @stem.task(unique=True)
        async def u(x: int) -> int:
            return x

        first, second = await u.enqueue(1), await u.enqueue(1)
        assert second.deduplicated
        assert first.id == second.id
