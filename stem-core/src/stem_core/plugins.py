"""Find plugins, survive the broken ones, and remember why they broke.

:func:`discover` returns a value; nothing is kept in the module and nothing happens at import. What finds and
registers plugins is imported when somebody asks: it is half of what importing Stem would cost.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from stem_core.errors import ConfigurationError, PluginError
from stem_core.ports.outbox import OutboxSpec
from stem_core.ports.specs import BackendSpec, BrokerSpec, EncoderSpec, SignerSpec
from stem_core.url import scheme_of

__all__ = ["Broken", "Catalogue", "Plugin", "discover"]

ALLOW_ENV: Final = "STEM_PLUGINS"
DISABLE_ENV: Final = "STEM_DISABLE_PLUGINS"

#: Which distribution to suggest for a scheme or id that nothing installed provides.
_KNOWN: Final[Mapping[str, str]] = {
    "redis": "stem-redis",
    "rediss": "stem-redis",
    "unix": "stem-redis",
    "postgres": "stem-postgres",
    "postgresql": "stem-postgres",
    "hmac-sha256": "stem-signing",
    "ed25519": "stem-signing[ed25519]",
    "cbor": "stem-codecs",
    "msgpack": "stem-codecs",
    "gzip": "stem-codecs",
    "zstd": "stem-codecs[zstd]",
    "lz4": "stem-codecs[lz4]",
    "aes-gcm": "stem-codecs[aes-gcm]",
}


class EntryPoint(Protocol):
    """The part of ``importlib_metadata.EntryPoint`` that discovery needs."""

    name: str

    @property
    def dist(self) -> Any: ...
    def load(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin in use: its entry point's name, its distribution and version, and what it provides."""

    name: str
    distribution: str
    version: str
    provides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Broken:
    """A plugin that was found but cannot be used, and why."""

    name: str
    distribution: str
    version: str
    cause: str


Spec = TypeVar("Spec", BrokerSpec, BackendSpec, OutboxSpec, EncoderSpec, SignerSpec)
_KINDS: Final = ("broker", "backend", "outbox", "encoder", "signer")


@dataclass(slots=True)
class Catalogue:
    """What is installed. Built by :func:`discover`, then passed around and only read.

    ``hooks`` maps each event hook to its implementations, in the order of their plugins' names.
    """

    plugins: list[Plugin] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)
    brokers: dict[str, BrokerSpec] = field(default_factory=dict)
    backends: dict[str, BackendSpec] = field(default_factory=dict)
    outboxes: dict[str, OutboxSpec] = field(default_factory=dict)
    encoders: dict[str, EncoderSpec] = field(default_factory=dict)
    signers: dict[str, SignerSpec] = field(default_factory=dict)
    hooks: dict[str, tuple[Callable[..., Any], ...]] = field(default_factory=dict)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)

    def broker(self, url: str) -> BrokerSpec:
        """The broker for ``url``'s scheme.

        :raises ConfigurationError: with what is installed, what is broken, and what to install.
        """
        return self._by_scheme(self.brokers, url, "broker")

    def backend(self, url: str) -> BackendSpec:
        """The backend for ``url``'s scheme.

        :raises ConfigurationError: as :meth:`broker`.
        """
        return self._by_scheme(self.backends, url, "backend")

    def outbox(self, url: str) -> OutboxSpec:
        """The outbox for ``url``'s scheme.

        :raises ConfigurationError: as :meth:`broker`.
        """
        return self._by_scheme(self.outboxes, url, "outbox")

    def encoder(self, id: str) -> EncoderSpec:
        """The encoder called ``id``.

        :raises ConfigurationError: unknown, or an extra it needs is not installed.
        """
        return self._by_id(self.encoders, id, "encoder")

    def signer(self, id: str) -> SignerSpec:
        """The signer called ``id``.

        :raises ConfigurationError: as :meth:`encoder`.
        """
        return self._by_id(self.signers, id, "signer")

    def _by_scheme(self, specs: dict[str, Spec], url: str, kind: str) -> Spec:
        scheme = scheme_of(url)
        if scheme in specs:
            return specs[scheme]
        raise ConfigurationError(self._missing(specs, kind, f"{scheme}://", scheme))

    def _by_id(self, specs: dict[str, Spec], id: str, kind: str) -> Spec:
        spec = specs.get(id)
        if spec is None:
            raise ConfigurationError(self._missing(specs, kind, id, id))
        missing = getattr(spec, "unavailable", None)
        if missing:
            raise ConfigurationError(f"The {kind} {id!r} is not usable here: {missing}")
        return spec

    def _missing(self, specs: Mapping[str, Any], kind: str, asked: str, key: str) -> str:
        words = [f"No {kind} for {asked!r}.", f"Installed: {', '.join(sorted(specs)) or 'none'}."]
        if key not in _KNOWN:
            from difflib import get_close_matches  # of errors alone

            for meant in get_close_matches(key, {*specs, *_KNOWN}, n=1, cutoff=0.75):
                words.append(f"Did you mean {asked.replace(key, meant)!r}?")
                key = meant
        distribution = _KNOWN.get(key)
        installed = {each.distribution for each in self.plugins}
        if distribution and distribution.partition("[")[0] not in installed:
            words.append(f"Try: pip install {distribution}")
        causes = [
            f"Broken: {each.name} ({each.distribution} {each.version}): {each.cause}" for each in self.broken
        ]
        if self.disabled:
            causes.append(f"Disabled by {ALLOW_ENV} or {DISABLE_ENV}: {', '.join(self.disabled)}.")
        return "\n  ".join([" ".join(words), *causes])


def discover(
    entry_points: Iterable[EntryPoint] | None = None,
    environment: Mapping[str, str] | None = None,
    extra: Sequence[object] = (),
) -> Catalogue:
    """Load every installed plugin, one at a time. An installed one's fault never raises: it is recorded.

    :param entry_points: what to load; the installed ones of group ``stem`` when None.
    :param extra: plugin objects given by the application, named by their class or module.
    :raises PluginError: one of ``extra`` cannot be used.
    """
    environment = os.environ if environment is None else environment
    allowed, disabled = _names(environment, ALLOW_ENV), _names(environment, DISABLE_ENV)
    if entry_points is None:
        import importlib_metadata

        from stem_core.hookspecs import ENTRY_POINT_GROUP

        entry_points = importlib_metadata.entry_points(group=ENTRY_POINT_GROUP)
    catalogue = Catalogue()
    hooks: dict[str, list[Callable[..., Any]]] = {}
    for point in sorted(entry_points, key=lambda each: each.name):
        distribution, version = _origin(point)
        if point.name in disabled or (allowed and point.name not in allowed):
            catalogue.disabled.append(point.name)
            continue
        try:
            _add(catalogue, hooks, point.load(), point.name, distribution, version)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a broken plugin stops nothing but itself)
            cause = f"{type(error).__name__}: {error}"
            catalogue.broken.append(Broken(point.name, distribution, version, cause))
    for plugin in extra:
        name = getattr(plugin, "__name__", type(plugin).__name__)
        _add(catalogue, hooks, plugin, name, "given to Stem(plugins=...)", "")
        if not catalogue.plugins[-1].provides:  # an application's own, so it was meant to do something
            raise PluginError(f"{plugin!r} has no hook: mark its functions with stem_core.hookimpl")
    catalogue.hooks = {name: tuple(functions) for name, functions in hooks.items()}
    return catalogue


def _add(
    catalogue: Catalogue,
    hooks: dict[str, list[Callable[..., Any]]],
    plugin: object,
    name: str,
    distribution: str,
    version: str,
) -> None:
    """Check the whole plugin first, then add all of it or nothing."""
    found = dict(_implementations(plugin, name))
    events = {hook: function for hook, function in found.items() if hook not in _PROVIDERS}
    entries: list[tuple[str, str, Any]] = []
    for hook, kind in _PROVIDERS.items():
        if hook in found:
            for spec in _several(hook, found[hook]()):
                entries += [(kind, key, spec) for key in _keys(spec, kind)]
    taken = dict(catalogue.owners)
    for kind, key, spec in entries:
        _check_contract(spec, kind, key)
        if (kind, key) in taken:
            other = taken[kind, key]
            raise PluginError(
                f"the {kind} {key!r} of {distribution} is already provided by {other}; uninstall one, or name one "
                f"of their plugins in {DISABLE_ENV}"
            )
        taken[kind, key] = distribution
    stores: dict[str, dict[str, Any]] = {
        "broker": catalogue.brokers,
        "backend": catalogue.backends,
        "outbox": catalogue.outboxes,
        "encoder": catalogue.encoders,
        "signer": catalogue.signers,
    }
    for kind, key, spec in entries:
        stores[kind][key] = spec
    catalogue.owners = taken
    for hook, function in events.items():
        hooks.setdefault(hook, []).append(function)
    provides = [f"{kind} {key}" for kind, key, _ in entries] + [f"hook {hook}" for hook in sorted(events)]
    catalogue.plugins.append(Plugin(name, distribution, version, tuple(provides)))


_PROVIDERS: Final = {
    "stem_brokers": "broker",
    "stem_backends": "backend",
    "stem_outboxes": "outbox",
    "stem_encoders": "encoder",
    "stem_signers": "signer",
}


def _implementations(plugin: object, name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    import pluggy

    from stem_core import hookspecs

    manager = pluggy.PluginManager("stem")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=name)
    manager.check_pending()  # a misspelt hook is an error, not silence
    for hook in manager.get_hookcallers(plugin) or ():
        for implementation in hook.get_hookimpls():
            if inspect.iscoroutinefunction(implementation.function):
                raise PluginError(
                    f"{hook.name} is a coroutine function; hooks are plain functions (async def is never awaited)"
                )
            yield hook.name, _by_name(implementation.function, implementation.argnames)


def _by_name(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """A hook called with every argument of its spec, passing on those the implementation takes."""
    if not names:
        return lambda **_: function()
    return lambda **given: function(**{name: given[name] for name in names})


def _keys(spec: Any, kind: str) -> tuple[str, ...]:
    expected: dict[str, type] = {
        "broker": BrokerSpec,
        "backend": BackendSpec,
        "outbox": OutboxSpec,
        "encoder": EncoderSpec,
        "signer": SignerSpec,
    }
    if not issubclass(type(spec), expected[kind]):
        hook = next(name for name, provided in _PROVIDERS.items() if provided == kind)
        raise PluginError(f"{hook} must return {expected[kind].__name__} values, not {spec!r}")
    if not isinstance(spec, BrokerSpec | BackendSpec | OutboxSpec):
        return (spec.id,)
    given: Any = spec.schemes  # "shelf" would be five schemes of one letter
    if (
        isinstance(given, str)
        or not given
        or not all(isinstance(each, str) and each == each.lower() for each in given)
    ):
        raise PluginError(
            f"schemes={given!r} of the {kind} must be lower-case names in a tuple: write ('shelf',)"
        )
    return spec.schemes


def _several(hook: str, given: Any) -> Iterable[Any]:
    if not isinstance(given, Iterable):
        raise PluginError(f"{hook} must return its specs in a tuple, not {given!r}: write return (MY_SPEC,)")
    return given


def _check_contract(spec: Any, kind: str, key: str) -> None:
    from stem_core.hookspecs import CONTRACT_VERSION

    if spec.contract != CONTRACT_VERSION:
        raise PluginError(
            f"the {kind} {key!r} speaks contract {spec.contract}; this Stem speaks "
            f"{CONTRACT_VERSION}: upgrade the older of the two"
        )


def _names(environment: Mapping[str, str], variable: str) -> frozenset[str]:
    return frozenset(each.strip() for each in environment.get(variable, "").split(",") if each.strip())


def _origin(point: EntryPoint) -> tuple[str, str]:
    distribution = point.dist
    if distribution is None:
        return "unknown", ""
    return str(distribution.name), str(distribution.version)
