"""A broker that understands the format, against a real worker: nothing it makes up is run or believed.

Each case is what such a broker delivers, and what becomes of it. Whatever that is, the task ``real-1``, its group
and its lock stay as they are.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from stem_codecs.aes_gcm import open_aes_gcm
from stem_core.envelope import Input, Message
from stem_core.options import TaskRetryPolicy
from stem_core.ports.signer import SignatureBlock, pre_authentication_encoding
from stem_core.sealing import ENVELOPE_PURPOSE, pack, seal
from stem_core.status import TaskState
from tests.security import ring
from tests.security.lab import Lab, framed, inner_of, until


class Forged(NamedTuple):
    """What the broker delivers, and as what."""

    sealed: bytes
    id: str = "task-1"
    queue: str = "default"


Case = Callable[[Lab], Forged]
FORGERIES: Final[dict[str, Case]] = {}


def block(lab: Lab, **changes: Any) -> SignatureBlock:
    """The honest signature with fields changed."""
    return msgspec.structs.replace(lab.parts().signatures[0], **changes)


def resigned(lab: Lab, **changes: Any) -> Forged:
    return Forged(framed([block(lab, **changes)], lab.parts().inner))


def by(
    signer: Any, lab: Lab, *, namespace: str = "stem", purpose: str = ENVELOPE_PURPOSE, **fields: Any
) -> Forged:
    """An envelope signed by another signer, namespace or purpose."""
    envelope = lab.envelope(**fields)
    inner = inner_of(envelope)
    blocks = signer.sign(purpose, namespace, inner, queue=envelope.queue, task=envelope.name)
    return Forged(pack(blocks, inner), envelope.id, envelope.queue)


def mac(key: bytes, data: bytes, *, key_id: str = "a", algorithm: str = "hmac-sha256") -> SignatureBlock:
    return SignatureBlock(algorithm, key_id, hmac.digest(key, data, "sha256"))


def stranger(lab: Lab) -> Any:
    """A signer of the same algorithm whose key is also called "a", with the attacker's own bytes."""
    del lab
    from stem_signing.keyring import Key, KeyRing

    key = Key("a", "hmac-sha256", ring.material("attacker"))
    from stem_signing.hmac_sha256 import HmacSha256Signer

    return HmacSha256Signer(KeyRing("hmac-sha256", [key], [key]))


# The signature itself.
FORGERIES["stripped signature"] = lambda lab: Forged(seal(lab.envelope(), namespace="stem"))
FORGERIES["signature of another message"] = lambda lab: Forged(
    pack(lab.parts(lab.envelope(id="task-2")).signatures, lab.parts().inner)
)
FORGERIES["signature of zeroes"] = lambda lab: resigned(lab, signature=bytes(len(block(lab).signature)))
FORGERIES["signature cut by a byte"] = lambda lab: resigned(lab, signature=block(lab).signature[:-1])
FORGERIES["signature longer by a byte"] = lambda lab: resigned(lab, signature=block(lab).signature + b"\0")
FORGERIES["empty signature"] = lambda lab: resigned(lab, signature=b"")
FORGERIES["key id of another trusted key"] = lambda lab: resigned(lab, key_id="b")
FORGERIES["unknown key id"] = lambda lab: resigned(lab, key_id="z")
FORGERIES["empty key id"] = lambda lab: resigned(lab, key_id="")
FORGERIES["key id in capitals"] = lambda lab: resigned(lab, key_id="A")
FORGERIES["key id with a NUL"] = lambda lab: resigned(lab, key_id="a\0")
FORGERIES["algorithm none"] = lambda lab: resigned(lab, algorithm="none", signature=b"")
FORGERIES["empty algorithm"] = lambda lab: resigned(lab, algorithm="")
FORGERIES["algorithm in capitals"] = lambda lab: resigned(lab, algorithm=block(lab).algorithm.upper())
FORGERIES["algorithm of the other kind"] = lambda lab: resigned(
    lab, algorithm="ed25519" if block(lab).algorithm == "hmac-sha256" else "hmac-sha256"
)
FORGERIES["downgrade to hmac-md5 under a trusted id"] = lambda lab: Forged(
    framed([SignatureBlock("hmac-md5", "a", bytes(16))], lab.parts().inner)
)
FORGERIES["the same block twice"] = lambda lab: Forged(framed([block(lab), block(lab)], lab.parts().inner))
FORGERIES["a wrong and a right block by one key"] = lambda lab: Forged(
    framed([block(lab, signature=bytes(32)), block(lab)], lab.parts().inner)
)
FORGERIES["two wrong blocks"] = lambda lab: Forged(
    framed([block(lab, signature=b"1" * 32), block(lab, key_id="b", signature=b"2" * 32)], lab.parts().inner)
)
FORGERIES["three blocks, one of them right"] = lambda lab: Forged(
    framed([block(lab), block(lab, key_id="y"), block(lab, key_id="z")], lab.parts().inner)
)
FORGERIES["two blocks announced, one there"] = lambda lab: Forged(
    lab.sealed()[:4] + b"\x02" + lab.sealed()[5:]
)
FORGERIES["no block announced, one there"] = lambda lab: Forged(lab.sealed()[:4] + b"\x00" + lab.sealed()[5:])
FORGERIES["public key as HMAC secret"] = lambda lab: Forged(
    pack(
        [
            mac(
                ring.public("a"),
                pre_authentication_encoding(ENVELOPE_PURPOSE, "hmac-sha256", "a", "stem", lab.parts().inner),
            )
        ],
        lab.parts().inner,
    )
)
FORGERIES["signed by a stranger's key of the same id"] = lambda lab: by(stranger(lab), lab)
FORGERIES["signed by an unknown key"] = lambda lab: by(ring.signer("hmac-sha256", "unknown"), lab)
FORGERIES["HMAC over the content alone"] = lambda lab: Forged(
    pack([mac(ring.material("hmac-sha256a"), lab.parts().inner)], lab.parts().inner)
)
FORGERIES["from another namespace"] = lambda lab: by(lab.signer, lab, namespace="staging")
FORGERIES["from an empty namespace"] = lambda lab: by(lab.signer, lab, namespace="")
FORGERIES["signed for another purpose"] = lambda lab: by(lab.signer, lab, purpose="stem-control-v1")

# The frame.
FORGERIES["version 2"] = lambda lab: Forged(b"STM\x02" + lab.sealed()[4:])
FORGERIES["version 0"] = lambda lab: Forged(b"STM\x00" + lab.sealed()[4:])
FORGERIES["another first byte"] = lambda lab: Forged(b"s" + lab.sealed()[1:])
FORGERIES["a byte after the end"] = lambda lab: Forged(lab.sealed() + b"\0")
FORGERIES["a byte less"] = lambda lab: Forged(lab.sealed()[:-1])
FORGERIES["content moved into the signature"] = lambda lab: resigned(
    lab, signature=block(lab).signature + lab.parts().inner[:1]
)
FORGERIES["no bytes"] = lambda _: Forged(b"")
FORGERIES["no bytes, under a real id"] = lambda _: Forged(b"", "real-1")
FORGERIES["pickled bytes, under a real id"] = lambda _: Forged(
    b"\x80\x04cos\nsystem\n(S'true'\ntR.", "real-1"
)
FORGERIES["a message in a message"] = lambda lab: Forged(framed([block(lab)], lab.sealed()))

# Fields changed under the old signature.
EDITS: Final[dict[str, dict[str, Any]]] = {
    "another task": {"name": "refund"},
    "other arguments": {"args": b"[[1000000],{}]"},
    "another encoder": {"encoder": "msgpack"},
    "a higher priority": {"priority": 9},
    "more retries": {"max_retries": 1000},
    "another retry policy": {"retry_policy": TaskRetryPolicy(max_retries=1000)},
    "a later expiry": {"expires": Lab.at(86_400)},
    "not before tomorrow": {"not_before": Lab.at(86_400)},
    "another tenant": {"headers": {"tenant": "victim"}},
    "other meta": {"meta": {"approved": True}},
    "no time limit": {"time_limit": 86_400.0},
    "another result encoder": {"result_encoder": "msgpack"},
    "into another task's group": {"group": "group-1"},
    "with another task's lock": {"unique": "lock-1"},
    "with another task's result as input": {"input": Input(kind="one", task="real-1")},
    "with a message to publish": {"on_success": (b"anything",)},
    "as another task's child": {"parent": "real-1", "root": "real-1"},
    "acked before it runs": {"acks_late": False},
}
for name, changes in EDITS.items():
    FORGERIES[f"edited: {name}"] = lambda lab, changes=changes: Forged(lab.edited(**changes))  # type: ignore[misc]
FORGERIES["edited: another task's id, under that id"] = lambda lab: Forged(lab.edited(id="real-1"), "real-1")
FORGERIES["edited: another queue, on that queue"] = lambda lab: Forged(
    lab.edited(queue="other"), queue="other"
)
FORGERIES["edited: a field twice"] = lambda lab: Forged(
    pack(
        lab.parts().signatures,
        bytes([lab.parts().inner[0] + 1]) + lab.parts().inner[1:] + b"\xa4name\xa6refund",
    )
)

# Honest bytes in another place.
FORGERIES["under another id"] = lambda lab: Forged(lab.sealed(), "task-2")
FORGERIES["under a real task's id"] = lambda lab: Forged(lab.sealed(), "real-1")
FORGERIES["on another queue"] = lambda lab: Forged(lab.sealed(), queue="other")
FORGERIES["a real task's bytes under another id"] = lambda lab: Forged(lab.sealed(lab.real), "task-1")
FORGERIES["a real task's bytes on another queue"] = lambda lab: Forged(
    lab.sealed(lab.real), "real-1", "other"
)


@pytest.fixture(params=ring.ALGORITHMS)
def signer(request: pytest.FixtureRequest) -> Any:
    return ring.signer(request.param, "a", "b")


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forgery_is_put_aside_and_touches_nothing(
    name: str, signer: Any, record_property: Callable[[str, object], None]
) -> None:
    async with Lab(signer) as lab:
        before = await lab.untouched()
        forged = FORGERIES[name](lab)
        await lab.deliver(forged.sealed, id=forged.id, queue=forged.queue)
        assert lab.ran == []
        assert await lab.untouched() == before
        assert await lab.backend.fetch(["task-1", "task-2"]) == [None, None]
        [dead] = await lab.dead()
        assert (dead.reason, dead.message.sealed) == ("signature-invalid", forged.sealed)
        record_property("table", "forgeries, delivered to a worker")
        record_property("attack", name)
        record_property("answer", f"{dead.reason}: {dead.detail[:90]}")


SCOPED: Final[dict[str, dict[str, Any]]] = {
    "another queue": {"queue": "other"},
    "another task": {"name": "refund"},
    "both": {"queue": "other", "name": "refund"},
}


@pytest.mark.parametrize("algorithm", ring.ALGORITHMS)
@pytest.mark.parametrize("case", SCOPED)
async def test_a_key_may_speak_for_its_queues_and_tasks_only(case: str, algorithm: str) -> None:
    worker = ring.signer(algorithm, "a", "b", scopes="b=queue:default|task:pay")
    unlimited = ring.signer(algorithm, "b")  # the holder of key b ignores its limits
    async with Lab(worker) as lab:
        before = await lab.untouched()
        forged = by(unlimited, lab, **SCOPED[case])
        await lab.deliver(forged.sealed, id=forged.id, queue=forged.queue)
        assert lab.ran == []
        assert await lab.untouched() == before
        assert [each.reason for each in await lab.dead()] == ["signature-invalid"]
        allowed = by(unlimited, lab, id="task-2")
        await lab.deliver(allowed.sealed, id=allowed.id, queue=allowed.queue)
        assert lab.ran == ["pay 1"]


async def test_a_trusted_signature_over_something_else_than_an_envelope_touches_nothing(signer: Any) -> None:
    async with Lab(signer) as lab:
        before = await lab.untouched()
        inner = b"\x80\x04 anything"
        blocks = signer.sign(ENVELOPE_PURPOSE, "stem", inner, queue="default", task="pay")
        await lab.deliver(pack(blocks, inner), id="real-1")
        assert lab.ran == []
        assert await lab.untouched() == before
        assert [each.reason for each in await lab.dead()] == ["decode-failed"]


async def test_replay_after_expiry_does_not_run(signer: Any) -> None:
    async with Lab(signer) as lab:
        before = await lab.untouched()
        await lab.deliver(lab.sealed(lab.envelope(expires=lab.at(-1))))
        assert lab.ran == []
        assert await lab.untouched() == before


async def test_a_due_time_that_the_broker_forgets_is_kept(signer: Any) -> None:
    async with Lab(signer) as lab:
        sealed = lab.sealed(lab.envelope(not_before=lab.at(3600)))
        await lab.stem.broker.publish([Message(id="task-1", queue="default", sealed=sealed)])
        async with lab.worker():
            await until(lambda: lab.stem.broker.stats("default"), lambda stats: stats.scheduled == 1)
        assert lab.ran == []
        assert await lab.dead() == []


async def test_a_callback_before_its_time_does_not_run(signer: Any) -> None:
    async with Lab(signer) as lab:
        before = await lab.untouched()
        for number, source in enumerate(({"task": "real-1"}, {"group": "group-1"})):
            envelope = lab.envelope(id=f"early-{number}", args=b"[[],{}]", input=Input(kind="one", **source))
            await lab.deliver(lab.sealed(envelope), id=envelope.id)
        assert lab.ran == []
        assert await lab.untouched() == before


async def test_a_second_delivery_of_an_ended_task_does_not_run_it_again(signer: Any) -> None:
    async with Lab(signer) as lab:
        sealed = lab.sealed()
        await lab.deliver(sealed, once=True)
        assert lab.ran == ["pay 1"]
        for _ in range(2):
            await lab.stem.broker.purge("default")
            await lab.deliver(sealed, once=True)
        assert lab.ran == ["pay 1"]


HARMLESS: Final[dict[str, dict[str, Any]]] = {
    "priority": {"priority": 9},
    "due time": {"delay": 0.01},
    "nothing": {},
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_is_the_brokers_to_decide_changes_no_more_than_the_order(name: str, signer: Any) -> None:
    async with Lab(signer) as lab:
        await lab.deliver(lab.sealed(), **HARMLESS[name])
        while (await lab.stem.broker.stats("default")).scheduled:
            await lab.work()
        assert lab.ran == ["pay 1"]
        [status] = await lab.backend.fetch(["task-1"])
        assert status is not None
        assert status.state is TaskState.SUCCEEDED


@pytest.mark.parametrize("chain", ["json+aes-gcm", "cbor+zstd+aes-gcm"])
@pytest.mark.parametrize(
    "stolen_from",
    [{"id": "task-0"}, {"name": "refund"}, {"queue": "other"}, {"namespace": "staging"}],
    ids=repr,
)
async def test_a_ciphertext_of_another_task_is_not_decrypted(chain: str, stolen_from: dict[str, str]) -> None:
    """Without signatures even: what a broker can copy, it cannot move."""
    from stem_core.ports.encoder import EncodeContext

    encoders = ring.registry("a")
    own = open_aes_gcm(ring.encryption("a"))
    async with Lab(ring.signer("hmac-sha256"), encoders=[own], args_encoder=chain) as lab:
        mine = {"purpose": "args", "namespace": "stem", "id": "task-1", "name": "pay", "queue": "default"}
        context = msgspec.convert({**mine, "chain": chain}, EncodeContext)
        theirs = msgspec.convert({**mine, **stolen_from, "chain": chain}, EncodeContext)
        stolen = lab.envelope(args=encoders.encode(chain, [[1000], {}], theirs), encoder=chain)
        await lab.deliver(lab.sealed(stolen))
        assert lab.ran == []
        assert [each.reason for each in await lab.dead()] == ["decode-failed"]
        context = msgspec.structs.replace(context, id="task-2")
        whole = lab.envelope(id="task-2", args=encoders.encode(chain, [[1], {}], context), encoder=chain)
        await lab.deliver(lab.sealed(whole), id="task-2")
        assert lab.ran == ["pay 1"]


def test_there_are_at_least_forty_cases() -> None:
    assert len(FORGERIES) >= 60
