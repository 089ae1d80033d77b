"""``stem doctor [URL]``: is this installation in order, and do its stores work from here?"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from stem_core.cli.output import add_json_option, print_json
from stem_core.envelope import Ack, Delivery, Message, Release, Settlement, new_id
from stem_core.errors import AdapterError, ConfigurationError, StemError
from stem_core.plugins import Catalogue, discover
from stem_core.ports.backend import Backend
from stem_core.ports.broker import Broker
from stem_core.ports.specs import AdapterOptions, BackendSpec, BrokerSpec
from stem_core.status import StatusUpdate, TaskState
from stem_core.url import mask, scheme_of

__all__ = ["Line", "add", "run"]

#: Where the trial message goes; it is taken back at once.
QUEUE: Final = "stem.doctor"
_PACKAGES: Final = ("stem-core", "stem-redis", "stem-postgres", "stem-signing", "stem-codecs", "uvloop")
_SECRET: Final = ("KEY", "SECRET", "TOKEN", "PASSWORD")
#: Seconds by which the store's clock may differ from ours before that is worth a word.
_SKEW: Final = 2.0
_PATIENCE: Final = 10.0


class Line(NamedTuple):
    """One thing found out. ``warning`` says what is not good, ``failed`` that it does not work at all."""

    section: str
    key: str
    value: str
    warning: str | None = None
    failed: bool = False


def add(parser: argparse.ArgumentParser) -> None:
    """What to connect to."""
    parser.add_argument("url", nargs="?", help="a broker's or backend's URL; default: STEM_BROKER_URL")
    parser.add_argument("--backend", metavar="URL", help="default: STEM_BACKEND_URL, else the broker's URL")
    parser.add_argument("--namespace", default=os.environ.get("STEM_NAMESPACE") or "stem")
    parser.add_argument("--look-only", action="store_true", help="connect, but send no trial message")
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print everything found out; 1 when something does not work."""
    catalogue = discover()
    lines = [*_installation(catalogue), *_environment(os.environ, catalogue)]
    lines += asyncio.run(_stores(arguments, catalogue))
    if arguments.json:
        print_json([each._asdict() for each in lines])
    else:
        _print(lines)
    return 1 if any(each.failed for each in lines) else 0


def _installation(catalogue: Catalogue) -> list[Line]:
    lines = [Line("installation", "python", f"{platform.python_version()} on {platform.system()}")]
    versions = {}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    ours = {version for name, version in versions.items() if name.startswith("stem-")}
    mixed = "these come from different releases; install them together" if len(ours) > 1 else None
    lines += [
        Line("installation", name, version, mixed if name.startswith("stem-") else None)
        for name, version in versions.items()
    ]
    names = ", ".join(each.name for each in catalogue.plugins) or "none"
    lines.append(Line("installation", "plugins", names))
    lines += [
        Line(
            "installation",
            f"plugin {each.name}",
            f"broken, from {each.distribution}",
            each.cause,
            failed=True,
        )
        for each in catalogue.broken
    ]
    if catalogue.disabled:
        lines.append(Line("installation", "disabled plugins", ", ".join(catalogue.disabled)))
    return lines


def _environment(environment: Mapping[str, str], catalogue: Catalogue) -> list[Line]:
    from stem_core.assembly import arguments_from, signing_variables

    lines = [
        Line("environment", name, _shown(name, value))
        for name, value in sorted(environment.items())
        if name.startswith("STEM_")
    ]
    try:
        if environment.get("STEM_BROKER_URL"):
            arguments_from(environment)
        if signing_variables(environment):
            found = arguments_from({"STEM_BROKER_URL": "memory://", **environment})
            signer = catalogue.signer(found["signer"]).open(environment)
            lines.append(
                Line("environment", "signing", f"{found['signer']}: {type(signer).__name__} is ready")
            )
    except ConfigurationError as error:
        lines.append(Line("environment", "settings", "wrong", str(error), failed=True))
    return lines


def _shown(name: str, value: str) -> str:
    if any(word in name for word in _SECRET) and not name.endswith("_ACTIVE_KEY"):
        return "***"
    return mask(value) if "://" in value else value


async def _stores(arguments: argparse.Namespace, catalogue: Catalogue) -> list[Line]:
    broker_url = arguments.url or os.environ.get("STEM_BROKER_URL") or None
    if broker_url is None:
        return [Line("stores", "broker", "none given", "give a URL, or set STEM_BROKER_URL")]
    if "://" not in broker_url and ":" in broker_url:
        why = "this names an application; give the URL of its broker, or set STEM_BROKER_URL"
        return [Line("stores", "url", broker_url, why, failed=True)]
    named = arguments.backend or (None if arguments.url else os.environ.get("STEM_BACKEND_URL")) or None
    options = AdapterOptions(namespace=arguments.namespace)
    try:
        scheme = scheme_of(broker_url)
        is_broker = scheme in catalogue.brokers or scheme not in catalogue.backends
        broker_spec = catalogue.broker(broker_url) if is_broker else None
        backend_url = named or (broker_url if scheme in catalogue.backends else None)
        backend_spec = catalogue.backend(backend_url) if backend_url is not None else None
    except ConfigurationError as error:
        return [Line("stores", "url", mask(broker_url), str(error), failed=True)]
    lines: list[Line] = []
    broker = backend = None
    if broker_spec is not None:
        broker = broker_spec.open(broker_url, options)
        lines += await _connected("broker", broker_url, broker, _try_broker, look_only=arguments.look_only)
    if backend_spec is not None and backend_url is not None:
        backend = backend_spec.open(backend_url, options)
        lines += await _connected(
            "backend", backend_url, backend, _try_backend, look_only=arguments.look_only
        )
    if broker is not None and backend is not None and not any(each.failed for each in lines):
        lines.append(await _joined(broker, backend))
    asked: set[str] = set()
    for spec, url in ((broker_spec, broker_url), (backend_spec, backend_url)):
        if spec is not None and url is not None and url not in asked:
            asked.add(url)
            lines += await _adapter_says(spec, url, options)
    for adapter in (broker, backend):
        if adapter is not None:
            with suppress(StemError, OSError):
                await adapter.close()
    return lines


async def _connected(kind: str, url: str, adapter: Any, attempt: Any, *, look_only: bool) -> list[Line]:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(_PATIENCE):
            await adapter.open()
    except (StemError, OSError, TimeoutError) as error:
        return [Line(kind, "connect", mask(url), _why(error), failed=True)]
    lines = [Line(kind, "connect", f"{mask(url)} in {_ms(started)}")]
    try:
        async with asyncio.timeout(_PATIENCE):
            lines += await attempt(adapter, look_only)
    except (StemError, OSError, TimeoutError) as error:
        lines.append(Line(kind, "trial", "failed", _why(error), failed=True))
    return lines


async def _try_broker(broker: Broker, look_only: bool) -> list[Line]:
    lines = []
    if not broker.capabilities.durable:
        lines.append(Line("broker", "durable", "no", "messages are gone when this store or process ends"))
    started = time.perf_counter()
    await broker.stats(QUEUE)
    lines.append(Line("broker", "round trip", _ms(started)))
    if not look_only:
        started = time.perf_counter()
        id = new_id()
        await broker.publish([Message(id=id, queue=QUEUE, sealed=b"stem doctor")])
        await _take_back(broker, id)
        lines.append(Line("broker", "publish, receive, ack", _ms(started)))
    return lines


async def _take_back(broker: Broker, id: str) -> None:
    """Receive the trial message and ack it; another doctor's is given back."""
    for _ in range(20):
        got: list[Delivery] = [*await broker.receive([QUEUE], limit=1, lease=5.0, wait=1.0)]
        mine = [each for each in got if each.message.id == id]
        actions = [Settlement(each.receipt, Ack() if each in mine else Release(0.1)) for each in got]
        if actions:
            await broker.settle(actions)
        if mine:
            return
    raise AdapterError(f"a message published to queue {QUEUE!r} was not received within 20 s")


async def _try_backend(backend: Backend, look_only: bool) -> list[Line]:
    lines = []
    if not backend.capabilities.durable:
        lines.append(Line("backend", "durable", "no", "results are gone when this store or process ends"))
    started = time.perf_counter()
    id = f"stem-doctor-{new_id()}"
    await backend.fetch([id])
    lines.append(Line("backend", "round trip", _ms(started)))
    if backend.capabilities.state:
        read = await backend.state_read("stem-doctor")
        skew = abs((read.now - datetime.now(UTC)).total_seconds())
        far = "the store's clock and this machine's differ: expiry and delays are off by as much; run NTP on both"
        lines.append(Line("backend", "clock difference", f"{skew:.3f} s", far if skew > _SKEW else None))
    if not look_only:
        started = time.perf_counter()
        await backend.record([StatusUpdate(id=id, state=TaskState.SUCCEEDED, payload=b"1", ttl=60.0)])
        (found,) = await backend.fetch([id])
        if found is None or found.payload != b"1":
            raise AdapterError(f"a status that was recorded was read back as {found!r}")
        lines.append(Line("backend", "record, fetch", _ms(started)))
    return lines


async def _joined(broker: Broker, backend: Backend) -> Line:
    one = broker.join(backend) is not None
    text = "one store: a task ends in one atomic step" if one else "two stores: record, publish, then settle"
    return Line("backend", "with the broker", text)


async def _adapter_says(spec: BrokerSpec | BackendSpec, url: str, options: AdapterOptions) -> list[Line]:
    if spec.doctor is None:
        return []
    try:
        found = await spec.doctor(url, options)
        return [Line(f"{spec.name} {section}", key, value, why) for section, key, value, why in found]
    except (StemError, OSError) as error:
        return [Line(spec.name, "report", "failed", _why(error), failed=True)]


def _why(error: BaseException) -> str:
    return f"no answer within {_PATIENCE:g} s" if isinstance(error, TimeoutError) else str(error)


def _ms(started: float) -> str:
    return f"{(time.perf_counter() - started) * 1000:.1f} ms"


def _print(lines: list[Line]) -> None:
    width = max(len(each.key) for each in lines)
    section = ""
    for each in lines:
        if each.section != section:
            print(f"{'' if not section else chr(10)}{each.section}")
            section = each.section
        sign = "x" if each.failed else "!" if each.warning else " "
        print(f" {sign} {each.key.ljust(width)}  {each.value}")
        if each.warning:
            for text in each.warning.splitlines():
                print(f"   {' ' * width}  {text}")
    failed, warned = (
        sum(each.failed for each in lines),
        sum(bool(each.warning) and not each.failed for each in lines),
    )
    print(f"\n{failed} failed, {warned} warnings")
