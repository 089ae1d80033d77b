"""``stem dlq show ID``."""

from __future__ import annotations

import argparse
from typing import Any

from stem_core.cli.apps import add_app_option, chosen, with_stem
from stem_core.cli.dlq import summary
from stem_core.cli.output import add_json_option, print_json, print_pairs, print_text, say
from stem_core.envelope import DeadMessage, Envelope
from stem_core.errors import StemError
from stem_core.ports.encoder import EncodeContext
from stem_core.producer import Stem
from stem_core.wiring import Wiring

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Which one."""
    parser.add_argument("id")
    parser.add_argument("--queue", default="default", help="its queue (default: 'default')")
    add_app_option(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a dead letter; 1 when there is none."""
    stem = chosen(arguments.app)

    async def work(stem: Stem) -> tuple[DeadMessage, Envelope | None] | None:
        return await stem.dead_letters.show(arguments.queue, arguments.id)

    found = with_stem(stem, work)
    if found is None:
        say(f"stem: queue {arguments.queue!r} has no dead letter {arguments.id}")
        return 1
    dead, envelope = found
    fields = summary(dead) | ({"bytes": len(dead.message.sealed)} | _sealed(stem.wiring, envelope))
    if arguments.json:
        print_json(fields)
        return 0
    detail = fields.pop("detail")
    print_pairs(fields)
    if detail:
        print_text(f"\n{detail.rstrip()}")
    return 0


def _sealed(wiring: Wiring, envelope: Envelope | None) -> dict[str, Any]:
    if envelope is None:
        return {"sealed": "its bytes do not open here: unreadable, or not signed by a trusted key"}
    context = EncodeContext(
        purpose="args",
        namespace=wiring.namespace,
        id=envelope.id,
        name=envelope.name,
        queue=envelope.queue,
        chain=envelope.encoder,
    )
    fields: dict[str, Any] = {
        "task": envelope.name,
        "encoder": envelope.encoder,
        "enqueued_at": envelope.enqueued_at,
        "expires": envelope.expires,
        "headers": dict(envelope.headers) or None,
        "meta": dict(envelope.meta) or None,
        "group": envelope.group,
    }
    try:
        decoded: Any = wiring.encoders.decode(envelope.encoder, envelope.args, context)
        fields["args"], fields["kwargs"] = decoded
    except (StemError, TypeError, ValueError) as error:
        fields["args_error"] = f"{len(envelope.args)} bytes that cannot be decoded here: {error}"
    return {name: value for name, value in fields.items() if value is not None}
