"""Arguments and results of a run, encoded and decoded. Pure; shared with the child processes."""

from __future__ import annotations

from typing import Any

from stem_core.encoding import TaskPayloadEncoderRegistry
from stem_core.envelope import Envelope
from stem_core.errors import ConfigurationError, DecodeError, EncodeError, PayloadTooLarge
from stem_core.plain import in_result
from stem_core.ports.encoder import EncodeContext

__all__ = ["decode_arguments", "encode_result", "keeps_result"]


def decode_arguments(
    encoders: TaskPayloadEncoderRegistry, envelope: Envelope, namespace: str
) -> tuple[list[Any], dict[str, Any]]:
    """The positional list and keyword map of ``envelope``.

    :raises DecodeError: its bytes are something else, or their encoder is not installed here.
    """
    try:
        chain = encoders.chain(envelope.encoder)
    except ConfigurationError as error:
        raise DecodeError(f"The arguments need encoder {envelope.encoder!r}: {error}") from error
    context = None
    if chain.wants_context:
        context = EncodeContext(
            purpose="args",
            namespace=namespace,
            id=envelope.id,
            chain=envelope.encoder,
            name=envelope.name,
            queue=envelope.queue,
        )
    value = chain.decode(envelope.args, context)
    if type(value) is list and len(value) == 2 and type(value[0]) is list and type(value[1]) is dict:
        return value[0], value[1]
    raise DecodeError("The arguments are not a list of a positional list and a keyword map.")


def encode_result(
    encoders: TaskPayloadEncoderRegistry,
    envelope: Envelope,
    chain_id: str,
    value: Any,
    namespace: str,
    limit: int,
) -> bytes:
    """The bytes of a result.

    :raises EncodeError: it cannot be carried.
    :raises PayloadTooLarge: more than ``limit`` bytes.
    """
    chain = encoders.chain(chain_id)
    context = None
    if chain.wants_context:
        context = EncodeContext(purpose="result", namespace=namespace, id=envelope.id, chain=chain_id)
    try:
        payload = chain.encode(value, context)
    except EncodeError as error:
        raise in_result(error, envelope.name) from None
    if len(payload) > limit:
        raise PayloadTooLarge(
            f"The result of {envelope.name!r} is {len(payload)} bytes; the limit is {limit}. Return a reference to the "
            "data, compress it (result_encoder='json+gzip'), or raise Stem(max_payload=...)."
        )
    return payload


def keeps_result(envelope: Envelope) -> bool:
    """Whether the result is stored: asked for, or needed as an input."""
    return bool(
        not envelope.ignore_result or envelope.on_success or envelope.on_end or envelope.group is not None
    )
