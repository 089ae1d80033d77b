"""From URLs, ids and environment variables to a :class:`Wiring`. No connection is made here.

Environment: ``STEM_BROKER_URL``, ``STEM_BACKEND_URL``, ``STEM_NAMESPACE``, ``STEM_ARGS_ENCODER``,
``STEM_RESULT_ENCODER``, ``STEM_SIGNING_*``, ``STEM_ROUTING_CONFIG``, ``STEM_STRICT``, ``STEM_PUBLISH_TIMEOUT``,
``STEM_MAX_PAYLOAD``; ``STEM_PLUGINS`` and ``STEM_DISABLE_PLUGINS`` are discovery's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from stem_core.checks import Kind, check_kind
from stem_core.encoding import TaskPayloadEncoderRegistry
from stem_core.errors import ConfigurationError
from stem_core.options import check_name
from stem_core.plugins import Catalogue, discover
from stem_core.ports.backend import Backend
from stem_core.ports.broker import Broker
from stem_core.ports.encoder import PayloadEncoder
from stem_core.ports.outbox import Outbox
from stem_core.ports.signer import PayloadSigner
from stem_core.ports.specs import AdapterOptions
from stem_core.routing import Routing, routing_from
from stem_core.url import scheme_of
from stem_core.wiring import Wiring

__all__ = ["Encoders", "RoutingSource", "arguments_from", "assemble", "routing_for"]

Encoders = TaskPayloadEncoderRegistry | Iterable[PayloadEncoder]
RoutingSource = Routing | Mapping[str, Any] | str | Path | None

SIGNING_PREFIX: Final = "STEM_SIGNING_"
ALGORITHM_ENV: Final = "STEM_SIGNING_ALGORITHM"
HMAC_KEYS_ENV: Final = "STEM_SIGNING_KEYS"
ROUTING_ENV: Final = "STEM_ROUTING_CONFIG"


def assemble(
    broker: str | Broker,
    *,
    backend: str | Backend | Literal[False] | None,
    namespace: str,
    args_encoder: str | PayloadEncoder,
    result_encoder: str | PayloadEncoder,
    encoders: Encoders,
    signer: str | PayloadSigner | Literal[False] | None,
    plugins: Catalogue | Sequence[object] | None,
    max_payload: int,
    outbox: str | Outbox | None,
    environment: Mapping[str, str],
) -> Wiring:
    """Resolve everything an application named.

    :raises TypeError: something is of the wrong type.
    :raises ConfigurationError: something is not installed, misspelt, or does not fit.
    """
    check_kind("max_payload", max_payload, Kind((int,), "a whole number of bytes"))
    check_kind(
        "encoders",
        encoders,
        Kind((TaskPayloadEncoderRegistry, Iterable), "a registry, or encoders in a list"),
    )
    if max_payload < 1:
        raise ConfigurationError(f"max_payload={max_payload} must be a positive number of bytes")
    catalogue = plugins if isinstance(plugins, Catalogue) else discover(None, environment, plugins or ())
    options = AdapterOptions(namespace=_namespace(namespace))
    make_broker = _broker_maker(broker, catalogue, options)
    make_backend = _backend_maker(broker, backend, catalogue, options)
    make_outbox = _outbox_maker(outbox, catalogue, options)
    return Wiring(
        broker=make_broker()
        if make_broker
        else _checked(broker, "broker", ("publish", "receive", "settle", "capabilities")),
        backend=make_backend()
        if make_backend
        else _checked(backend, "backend", ("record", "fetch", "wait", "capabilities"))
        if backend
        else None,
        encoders=_registry(args_encoder, result_encoder, encoders).completed(catalogue, environment),
        signer=_signer(signer, catalogue, environment),
        namespace=options.namespace,
        catalogue=catalogue,
        max_payload=max_payload,
        outbox=make_outbox()
        if make_outbox
        else _checked(outbox, "outbox", ("write", "write_sync", "relay"))
        if outbox
        else None,
        clock=options.clock,
        make_broker=make_broker,
        make_backend=make_backend,
        make_outbox=make_outbox,
    )


def routing_for(given: RoutingSource, environment: Mapping[str, str]) -> Routing:
    """The routing given, else the one in the file that ``STEM_ROUTING_CONFIG`` names, else none.

    :raises ConfigurationError: it cannot be read, or is wrong.
    """
    if given is None:
        given = environment.get(ROUTING_ENV) or None
    return Routing() if given is None else routing_from(given)


def arguments_from(environment: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of ``Stem`` that the environment gives.

    :raises ConfigurationError: ``STEM_BROKER_URL`` is missing, or a value is not what it must be.
    """
    broker = environment.get("STEM_BROKER_URL")
    if not broker:
        raise ConfigurationError(
            "STEM_BROKER_URL is not set; set it to the broker's URL, for example sqlite:///stem.db"
        )
    found: dict[str, Any] = {"broker": broker}
    for name, variable in (
        ("backend", "STEM_BACKEND_URL"),
        ("namespace", "STEM_NAMESPACE"),
        ("args_encoder", "STEM_ARGS_ENCODER"),
        ("result_encoder", "STEM_RESULT_ENCODER"),
    ):
        if environment.get(variable):
            found[name] = environment[variable]
    for name, variable, kind in (
        ("strict", "STEM_STRICT", _flag),
        ("publish_timeout", "STEM_PUBLISH_TIMEOUT", float),
        ("max_payload", "STEM_MAX_PAYLOAD", int),
    ):
        text = environment.get(variable)
        if text:
            try:
                found[name] = kind(text)
            except ValueError:
                raise ConfigurationError(f"{variable}={text!r} is not a {_KINDS[name]}") from None
    signing = signing_variables(environment)
    if signing:
        chosen = environment.get(ALGORITHM_ENV)
        by_keys = "hmac-sha256" if {HMAC_KEYS_ENV, f"{HMAC_KEYS_ENV}_FILE"} & set(signing) else "ed25519"
        found["signer"] = chosen or by_keys
    return found


def signing_variables(environment: Mapping[str, str]) -> list[str]:
    """The names of the signing variables that are set."""
    return sorted(name for name, value in environment.items() if name.startswith(SIGNING_PREFIX) and value)


_KINDS: Final = {
    "strict": "flag; write 1 or 0",
    "publish_timeout": "number of seconds",
    "max_payload": "whole number of bytes",
}


def _flag(text: str) -> bool:
    known = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    try:
        return known[text.strip().lower()]
    except KeyError:
        raise ValueError(text) from None


def _namespace(value: str) -> str:
    try:
        return check_name(value, "namespace")
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _broker_maker(
    broker: str | Broker, catalogue: Catalogue, options: AdapterOptions
) -> Callable[[], Broker] | None:
    if not isinstance(broker, str):
        return None
    spec = catalogue.broker(broker)
    return lambda: spec.open(broker, options)


def _backend_maker(
    broker: str | Broker, backend: Any, catalogue: Catalogue, options: AdapterOptions
) -> Callable[[], Backend] | None:
    """What makes the backend: of its own URL, else of the broker's where there is one of that scheme."""
    if isinstance(backend, str):
        url = backend
    elif backend is None and isinstance(broker, str) and scheme_of(broker) in catalogue.backends:
        url = broker
    else:
        return None
    spec = catalogue.backend(url)
    return lambda: spec.open(url, options)


def _outbox_maker(
    outbox: str | Outbox | None, catalogue: Catalogue, options: AdapterOptions
) -> Callable[[], Outbox] | None:
    if not isinstance(outbox, str):
        return None
    spec = catalogue.outbox(outbox)
    return lambda: spec.open(outbox, options)


def _checked(adapter: Any, kind: str, methods: tuple[str, ...]) -> Any:
    missing = [name for name in methods if not hasattr(adapter, name)]
    if missing:
        raise ConfigurationError(
            f"{adapter!r} is not a {kind}: it has no {', '.join(missing)}. Give a URL such as 'sqlite:///stem.db', "
            f"or an object that implements stem_core.ports.{kind.capitalize()}"
        )
    return adapter


def _registry(
    args_encoder: str | PayloadEncoder, result_encoder: str | PayloadEncoder, encoders: Encoders
) -> TaskPayloadEncoderRegistry:
    if not isinstance(encoders, TaskPayloadEncoderRegistry):
        given: tuple[Any, ...] = tuple(encoders)  # "cbor" would be four encoders of one letter
        if any(isinstance(each, str) for each in given):
            raise ConfigurationError(
                f"encoders={encoders!r} takes encoder objects, or a registry; what is installed is known by its id: "
                "args_encoder='cbor', result_encoder='cbor'"
            )
        return TaskPayloadEncoderRegistry(args_encoder, result_encoder, given)
    if (args_encoder, result_encoder) != ("json", "json"):
        raise ConfigurationError(
            "encoders= is a registry, which has its own args_encoder and result_encoder; give them there"
        )
    return encoders


def _signer(
    signer: str | PayloadSigner | Literal[False] | None, catalogue: Catalogue, environment: Mapping[str, str]
) -> PayloadSigner | None:
    if signer is False:
        return None
    if signer is None:
        found = signing_variables(environment)
        if found:
            raise ConfigurationError(
                f"{', '.join(found)} set, and no signer was given: say which (signer='hmac-sha256' or 'ed25519'), or "
                "signer=False to go unsigned on purpose"
            )
        return None
    if isinstance(signer, str):
        return catalogue.signer(signer).open(environment)
    return _checked_signer(signer)


def _checked_signer(signer: Any) -> PayloadSigner:
    if not hasattr(signer, "sign") or not hasattr(signer, "verify"):
        raise ConfigurationError(f"{signer!r} is not a signer: it needs sign and verify; see PayloadSigner")
    found: PayloadSigner = signer
    return found
