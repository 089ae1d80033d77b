"""The ``STEM_SIGNING_*`` variables, read into a key ring. Errors name the variable, never a key's bytes.

    STEM_SIGNING_ALGORITHM      hmac-sha256 | ed25519; without it what the keys below are for
    STEM_SIGNING_KEYS           id:base64, ...       HMAC secrets
    STEM_SIGNING_PUBLIC_KEYS    id:base64, ...       Ed25519, raw 32 bytes
    STEM_SIGNING_PRIVATE_KEYS   id:base64, ...       Ed25519, raw 32 bytes; without any: verify only
    STEM_SIGNING_ACTIVE_KEY     id                   the one that signs; may be left out when there is only one
    STEM_SIGNING_COSIGN_KEY     id                   signs beside it, for workers that know only the other one
    STEM_SIGNING_KEY_SCOPES     id=queue:a|queue:b|task:mail.*, ...

Each list of keys may stand in a file instead, one entry a line: ``STEM_SIGNING_KEYS_FILE`` and so on. A file
with secrets must be readable by its owner alone (mode 0600).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from stem_core.errors import ConfigurationError
from stem_core.keylist import read_keys
from stem_signing.keyring import ALGORITHMS, ED25519, HMAC_SHA256, Algorithm, Key, KeyRing

__all__ = [
    "ACTIVE_KEY",
    "ALGORITHM",
    "COSIGN_KEY",
    "KEYS",
    "KEY_SCOPES",
    "PRIVATE_KEYS",
    "PUBLIC_KEYS",
    "algorithm_of",
    "derive_public",
    "read_keyring",
    "read_scopes",
]

ALGORITHM: Final = "STEM_SIGNING_ALGORITHM"
KEYS: Final = "STEM_SIGNING_KEYS"
PUBLIC_KEYS: Final = "STEM_SIGNING_PUBLIC_KEYS"
PRIVATE_KEYS: Final = "STEM_SIGNING_PRIVATE_KEYS"
ACTIVE_KEY: Final = "STEM_SIGNING_ACTIVE_KEY"
COSIGN_KEY: Final = "STEM_SIGNING_COSIGN_KEY"
KEY_SCOPES: Final = "STEM_SIGNING_KEY_SCOPES"
#: Variables that hold keys of an algorithm; HMAC's first, as ``Stem.from_env`` looks.
_KEYS_OF: Final[Mapping[Algorithm, tuple[str, ...]]] = {
    HMAC_SHA256: (KEYS, f"{KEYS}_FILE"),
    ED25519: (PRIVATE_KEYS, f"{PRIVATE_KEYS}_FILE", PUBLIC_KEYS, f"{PUBLIC_KEYS}_FILE"),
}


class Scope(NamedTuple):
    """What one key is limited to; None is no limit."""

    queues: frozenset[str] | None = None
    tasks: frozenset[str] | None = None


def algorithm_of(environment: Mapping[str, str]) -> Algorithm:
    """The algorithm the environment asks for: the one it names, else the one its keys are for.

    :raises ConfigurationError: it names one that is not known, or has neither a name nor keys.
    """
    text = environment.get(ALGORITHM, "").strip()
    for known in ALGORITHMS:
        if text == known:
            return known
    if not text:
        for known, variables in _KEYS_OF.items():
            if any(environment.get(each, "").strip() for each in variables):
                return known
    said = f"{text!r} is not an algorithm" if text else "It is not set"
    raise ConfigurationError(f"{ALGORITHM}: {said}; set it to {' or '.join(ALGORITHMS)}.")


def read_keyring(environment: Mapping[str, str], algorithm: Algorithm) -> KeyRing:
    """The keys of ``algorithm``.

    :raises ConfigurationError: a variable is missing or malformed; the message starts with its name.
    """
    if environment.get(ALGORITHM, "").strip() and algorithm_of(environment) != algorithm:
        raise ConfigurationError(
            f"{ALGORITHM}: {environment[ALGORITHM].strip()!r}, but the signer asked for is {algorithm!r}; make them agree."
        )
    scopes = read_scopes(environment)
    read = _hmac_keys if algorithm == HMAC_SHA256 else _ed25519_keys
    signing, verifying = read(environment, scopes)
    unknown = sorted(scopes.keys() - verifying.keys())
    if unknown:
        raise ConfigurationError(
            f"{KEY_SCOPES}: no key is called {unknown[0]!r}; known: {', '.join(verifying)}."
        )
    return KeyRing(algorithm, verifying.values(), _signers(environment, signing))


def _hmac_keys(
    environment: Mapping[str, str], scopes: Mapping[str, Scope]
) -> tuple[Mapping[str, Key], Mapping[str, Key]]:
    secrets = read_keys(environment, KEYS, secret=True)
    if not secrets:
        raise ConfigurationError(f"{KEYS}: It is not set; give id:base64, as `stem keys generate` prints it.")
    public = set(read_keys(environment, PUBLIC_KEYS, secret=False).values())
    for id, material in secrets.items():
        if material in public:
            raise ConfigurationError(
                f"{KEYS}: key {id!r} is also in {PUBLIC_KEYS}; what is public is no HMAC secret."
            )
    keys = {id: _key(KEYS, id, HMAC_SHA256, material, scopes) for id, material in secrets.items()}
    return keys, keys


def _ed25519_keys(
    environment: Mapping[str, str], scopes: Mapping[str, Scope]
) -> tuple[Mapping[str, Key], Mapping[str, Key]]:
    private = read_keys(environment, PRIVATE_KEYS, secret=True)
    public = read_keys(environment, PUBLIC_KEYS, secret=False)
    if not private and not public:
        raise ConfigurationError(
            f"{PUBLIC_KEYS}: It is not set, and neither is {PRIVATE_KEYS}; give id:base64, as `stem keys generate "
            "--algorithm ed25519` prints it."
        )
    signing = {id: _key(PRIVATE_KEYS, id, ED25519, material, scopes) for id, material in private.items()}
    for id, key in signing.items():
        derived = derive_public(key.material)
        if public.setdefault(id, derived) != derived:
            raise ConfigurationError(
                f"{PUBLIC_KEYS}: key {id!r} does not belong to the private key of that id."
            )
    verifying = {
        id: _key(PUBLIC_KEYS, id, ED25519, material, scopes, "verify") for id, material in public.items()
    }
    return signing, verifying


def _key(
    variable: str,
    id: str,
    algorithm: Algorithm,
    material: bytes,
    scopes: Mapping[str, Scope],
    use: str = "sign",
) -> Key:
    scope = scopes.get(id, Scope())
    try:
        return Key(
            id, algorithm, material, "verify" if use == "verify" else "sign", scope.queues, scope.tasks
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{variable}: {error}") from None


def _signers(environment: Mapping[str, str], keys: Mapping[str, Key]) -> Iterator[Key]:
    """The active key, then the co-signing one. Without private keys there are none, whatever is said to be active."""
    if not keys:
        return
    active = environment.get(ACTIVE_KEY, "").strip()
    if not active and len(keys) > 1:
        raise ConfigurationError(
            f"{ACTIVE_KEY}: It is not set, and there are {len(keys)} keys: {', '.join(keys)}."
        )
    active = active or next(iter(keys))
    if active not in keys:
        raise ConfigurationError(
            f"{ACTIVE_KEY}: no signing key is called {active!r}; known: {', '.join(keys)}."
        )
    yield keys[active]
    second = environment.get(COSIGN_KEY, "").strip()
    if second and second not in keys:
        raise ConfigurationError(
            f"{COSIGN_KEY}: no signing key is called {second!r}; known: {', '.join(keys)}."
        )
    if second and second != active:
        yield keys[second]


def read_scopes(environment: Mapping[str, str]) -> dict[str, Scope]:
    """What each key is limited to, by its id.

    :raises ConfigurationError: :data:`KEY_SCOPES` is malformed.
    """
    scopes: dict[str, Scope] = {}
    for entry in environment.get(KEY_SCOPES, "").split(","):
        if not entry.strip():
            continue
        id, equals, limits = entry.strip().partition("=")
        queues: set[str] = set()
        tasks: set[str] = set()
        for limit in limits.split("|"):
            kind, _, name = limit.strip().partition(":")
            if not equals or kind not in {"queue", "task"} or not name or "*" in name[:-1]:
                raise ConfigurationError(
                    f"{KEY_SCOPES}: {entry.strip()!r} is not of the form id=queue:invoices|task:mail.* (a * only at the end)."
                )
            (queues if kind == "queue" else tasks).add(name)
        if id in scopes:
            raise ConfigurationError(f"{KEY_SCOPES}: key {id!r} is given twice.")
        scopes[id] = Scope(frozenset(queues) or None, frozenset(tasks) or None)
    return scopes


def derive_public(private: bytes) -> bytes:
    """The raw Ed25519 public key of a raw private one.

    :raises ConfigurationError: the extra that computes it is not installed.
    """
    try:
        from stem_signing.ed25519 import public_of
    except ImportError:
        raise ConfigurationError(
            "ed25519 needs the cryptography library: pip install 'stem-signing[ed25519]'"
        ) from None
    return public_of(private)
