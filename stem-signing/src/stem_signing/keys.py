"""Making, listing and rotating keys: what ``stem keys`` prints. Plain functions of an environment."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from stem_core.errors import ConfigurationError
from stem_core.keylist import check_key_id, key_entry, read_keys
from stem_signing.environment import (
    ACTIVE_KEY,
    ALGORITHM,
    KEY_SCOPES,
    KEYS,
    PRIVATE_KEYS,
    PUBLIC_KEYS,
    Scope,
    algorithm_of,
    derive_public,
    read_keyring,
    read_scopes,
)
from stem_signing.keyring import ALGORITHMS, ED25519, HMAC_SHA256, Algorithm

__all__ = ["KeyInfo", "Stage", "generate", "list_keys", "rotate"]


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key as it may be shown: everything but its bytes. ``use`` is ``sign`` or ``verify``."""

    id: str
    algorithm: Algorithm
    use: str
    active: bool
    queues: tuple[str, ...] | None
    tasks: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a rotation: what to set on every process, and what to wait for before the next."""

    title: str
    then: str
    variables: Mapping[str, str] = field(repr=False)


def generate(algorithm: str, id: str) -> dict[str, str]:
    """The variables of one new random key, secrets included: print them once, keep them in a secret store.

    :raises ConfigurationError: the algorithm is not known, its extra is not installed, or ``id`` cannot name a key.
    """
    check_key_id(id)
    if algorithm == HMAC_SHA256:
        return {
            ALGORITHM: HMAC_SHA256,
            KEYS: key_entry(id, secrets.token_bytes(32)),
            ACTIVE_KEY: id,
        }
    if algorithm != ED25519:
        raise ConfigurationError(f"{algorithm!r} is not an algorithm; use {' or '.join(ALGORITHMS)}.")
    private = secrets.token_bytes(32)  # RFC 8032, 5.1.5: any 32 random bytes are a private key
    public = derive_public(private)
    return {
        ALGORITHM: ED25519,
        PUBLIC_KEYS: key_entry(id, public),
        PRIVATE_KEYS: key_entry(id, private),
        ACTIVE_KEY: id,
    }


def list_keys(environment: Mapping[str, str]) -> list[KeyInfo]:
    """The keys of ``environment``, without their bytes.

    :raises ConfigurationError: they are missing or malformed.
    """
    algorithm = algorithm_of(environment)
    ring = read_keyring(environment, algorithm)
    private = (
        set(ring.verifying)
        if algorithm == HMAC_SHA256
        else set(read_keys(environment, PRIVATE_KEYS, secret=True))
    )
    active = ring.signing[0].id if ring.signing else None
    return [
        KeyInfo(
            key.id,
            key.algorithm,
            "sign" if key.id in private else "verify",
            key.id == active,
            None if key.queues is None else tuple(sorted(key.queues)),
            None if key.tasks is None else tuple(sorted(key.tasks)),
        )
        for key in ring.verifying.values()
    ]


def rotate(environment: Mapping[str, str], new_id: str) -> list[Stage]:
    """The stages that replace the active key with a new one called ``new_id``, no message being refused.

    :raises ConfigurationError: the environment has no signing key, or already a key of that id.
    """
    algorithm = algorithm_of(environment)
    ring = read_keyring(environment, algorithm)
    if not ring.signing:
        raise ConfigurationError(f"{PRIVATE_KEYS}: It is not set; rotate where messages are signed.")
    if new_id in ring.verifying:
        raise ConfigurationError(f"{new_id!r} is already the id of a key; choose another.")
    old = ring.signing[0]
    made = generate(algorithm, new_id)
    scopes = read_scopes(environment)
    if old.id in scopes:
        scopes[new_id] = scopes[old.id]

    def variables(*, with_old: bool, active: str) -> dict[str, str]:
        result = {ALGORITHM: algorithm, ACTIVE_KEY: active}
        for name in (KEYS,) if algorithm == HMAC_SHA256 else (PUBLIC_KEYS, PRIVATE_KEYS):
            present = read_keys(environment, name, secret=name != PUBLIC_KEYS)
            if name == PUBLIC_KEYS:
                present = {key.id: key.material for key in ring.verifying.values()}
            entries = [key_entry(id, data) for id, data in present.items() if with_old or id != old.id]
            result[name] = ",".join([*entries, made[name]])
        kept = {id: scope for id, scope in scopes.items() if with_old or id != old.id}
        if kept:
            result[KEY_SCOPES] = _scopes_text(kept)
        return result

    return [
        Stage(
            f"Add {new_id!r}: every process verifies both, {old.id!r} still signs",
            "Restart workers first, then producers, schedulers and tools. Go on when all run with both.",
            variables(with_old=True, active=old.id),
        ),
        Stage(
            f"Switch: {new_id!r} signs",
            f"Restart whatever produces. Go on when nothing signed by {old.id!r} is left: the longest delay, expiry and "
            "retry is over, and dead letters are replayed or purged.",
            variables(with_old=True, active=new_id),
        ),
        Stage(
            f"Remove {old.id!r}",
            f"Restart every process. What {old.id!r} signed is refused from now on.",
            variables(with_old=False, active=new_id),
        ),
    ]


def _scopes_text(scopes: Mapping[str, Scope]) -> str:
    entries = []
    for id, scope in scopes.items():
        limits = [f"queue:{each}" for each in sorted(scope.queues or ())]
        limits += [f"task:{each}" for each in sorted(scope.tasks or ())]
        entries.append(f"{id}={'|'.join(limits)}")
    return ",".join(entries)
