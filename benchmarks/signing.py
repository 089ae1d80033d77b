"""What sealing and signing cost, as ratios within one run: python benchmarks/signing.py [--quick] [--json]

1. Sealing + HMAC of a 1 KiB envelope, and opening + verifying it, against ``hmac.digest`` of 1 KiB alone (aim: 0.25).
2. A queue drained by a worker with HMAC against one without (aim: 0.85), and with HMAC and CBOR (aim: 0.80).

All in processor time of this process, and the rounds of the contenders are interleaved, so that other work on the
machine hits all alike; the best round counts.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from stem_codecs.plugin import CBOR, MSGPACK
from stem_core.envelope import Envelope, new_id
from stem_core.producer import Stem
from stem_core.sealing import open_sealed, seal
from stem_core.worker import Worker
from stem_signing import keys
from stem_signing.plugin import ED25519, HMAC_SHA256

AIMS: Final = {
    "seal + hmac-sha256": 0.25,
    "open + hmac-sha256": 0.25,
    "drain, hmac-sha256": 0.85,
    "drain, hmac-sha256 + cbor": 0.80,
}


def per_second(call: Callable[[], object], seconds: float) -> float:
    """How often ``call`` runs in a second, the best of some slices of ``seconds``."""
    best, spent = 0.0, 0.0
    while spent < seconds:
        start = time.process_time()
        for _ in range(500):
            call()
        taken = time.process_time() - start
        best, spent = max(best, 500 / taken), spent + taken
    return best


def interleaved(calls: dict[str, Callable[[], object]], rounds: int, seconds: float) -> dict[str, float]:
    """The best rate of each."""
    best = dict.fromkeys(calls, 0.0)
    for _ in range(rounds):
        for name, call in calls.items():
            best[name] = max(best[name], per_second(call, seconds))
    return best


def envelope_of_1_kib() -> Envelope:
    """An envelope whose inner bytes are 1 KiB."""
    usual = Envelope(
        id=new_id(),
        name="tasks.email",
        queue="mail",
        args=b"",
        encoder="json",
        enqueued_at=datetime.now(UTC),
        headers={"tenant": "acme", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"},
        meta={"requested_by": "finance"},
        priority=5,
        max_retries=3,
    )
    missing = 1024 + 9 - len(seal(usual, namespace="stem"))
    return Envelope(
        **{**{name: getattr(usual, name) for name in usual.__struct_fields__}, "args": os.urandom(missing)}
    )


def sealing(rounds: int, seconds: float) -> dict[str, float]:
    """Rates of sealing and opening."""
    envelope = envelope_of_1_kib()
    message = os.urandom(1024)
    key = os.urandom(32)
    calls: dict[str, Callable[[], object]] = {
        "hmac.digest alone": lambda: hmac.digest(key, message, "sha256")
    }
    for label, signer in (
        ("unsigned", None),
        ("hmac-sha256", HMAC_SHA256.open(keys.generate("hmac-sha256", "a"))),
        ("ed25519", ED25519.open(keys.generate("ed25519", "a"))),
    ):
        sealed = seal(envelope, namespace="stem", signer=signer)
        calls[f"seal + {label}"] = lambda signer=signer: seal(envelope, namespace="stem", signer=signer)  # type: ignore[misc]
        calls[f"open + {label}"] = lambda signer=signer, sealed=sealed: open_sealed(  # type: ignore[misc]
            sealed, namespace="stem", signer=signer
        )
    return interleaved(calls, rounds, seconds)


async def drained(count: int, **arguments: Any) -> float:
    """Tasks a second of processor time of one worker over ``count`` waiting messages."""
    stem = Stem("memory://", **arguments)

    @stem.task(name="add", ignore_result=True)
    async def add(x: int, y: int) -> int:
        return x + y

    async with stem:
        for start in range(0, count, 500):
            await stem.enqueue_many([add.call(index, 2) for index in range(start, min(start + 500, count))])
        worker = Worker(stem, concurrency=200)
        begun = time.process_time()
        await worker.run(until_empty=True)
        taken = time.process_time() - begun
        assert worker.stats.succeeded == count, worker.stats
        return count / taken


def draining(rounds: int, count: int) -> dict[str, float]:
    """The best rate of each kind of queue."""
    signer = HMAC_SHA256.open(keys.generate("hmac-sha256", "a"))
    kinds: dict[str, dict[str, Any]] = {
        "drain, unsigned": {"signer": False},
        "drain, hmac-sha256": {"signer": signer},
        "drain, hmac-sha256 + cbor": {"signer": signer, "args_encoder": CBOR.id, "result_encoder": CBOR.id},
        "drain, hmac-sha256 + msgpack": {
            "signer": signer,
            "args_encoder": MSGPACK.id,
            "result_encoder": MSGPACK.id,
        },
        "drain, ed25519": {"signer": ED25519.open(keys.generate("ed25519", "a"))},
    }
    best = dict.fromkeys(kinds, 0.0)
    for _ in range(rounds):
        for name, arguments in kinds.items():
            best[name] = max(best[name], asyncio.run(drained(count, **arguments)))
    return best


def main() -> int:
    """Print the table; the exit code is 1 when an aim is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a third of the rounds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    rounds = 2 if given.quick else 6
    rates = sealing(rounds, 0.1 if given.quick else 0.3)
    rates |= draining(rounds, 2_000 if given.quick else 5_000)
    bases = {"drain": rates["drain, unsigned"]}
    table = []
    for name, rate in rates.items():
        base = bases.get(name.partition(",")[0], rates["hmac.digest alone"])
        table.append(
            {"what": name, "per_second": round(rate), "ratio": round(rate / base, 3), "aim": AIMS.get(name)}
        )
    if given.json:
        print(json.dumps(table, indent=1))
    else:
        for row in table:
            aim = f"  aim {row['aim']}" if row["aim"] else ""
            print(f"{row['what']:32} {row['per_second']:>10,}/s  ratio {row['ratio']:<6}{aim}")
    return int(any(row["aim"] and row["ratio"] < row["aim"] for row in table))  # type: ignore[operator]


if __name__ == "__main__":
    sys.exit(main())
