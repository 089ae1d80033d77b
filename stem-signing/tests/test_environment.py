"""The STEM_SIGNING_* variables: every mistake is an error that starts with the variable's name and shows no key."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

import pytest

from stem_core.errors import ConfigurationError
from stem_signing import keys
from stem_signing.plugin import ED25519, HMAC_SHA256

SECRET = base64.b64encode(b"S" * 32).decode()
SHORT = base64.b64encode(b"S" * 31).decode()
PEM = base64.b64encode(b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA").decode()
SSH = base64.b64encode(b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI someone@host").decode()
DER = base64.b64encode(bytes.fromhex("302a300506032b6570032100") + b"p" * 32).decode()
RSA = base64.b64encode(bytes.fromhex("30820122300d06092a864886f70d01010105000382010f00") + b"p" * 32).decode()
PAIR = keys.generate("ed25519", "a")
OTHER = keys.generate("ed25519", "a")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, r"^STEM_SIGNING_KEYS: It is not set"),
        ({"STEM_SIGNING_KEYS": " , "}, r"^STEM_SIGNING_KEYS: It is not set"),
        (
            {"STEM_SIGNING_ALGORITHM": "ed25519", "STEM_SIGNING_KEYS": f"a:{SECRET}"},
            r"^STEM_SIGNING_ALGORITHM: 'ed25519'",
        ),
        (
            {"STEM_SIGNING_ALGORITHM": "hs256", "STEM_SIGNING_KEYS": f"a:{SECRET}"},
            r"^STEM_SIGNING_ALGORITHM: 'hs256'",
        ),
        ({"STEM_SIGNING_KEYS": SECRET}, r"^STEM_SIGNING_KEYS: entry 1 is not of the form id:base64"),
        (
            {"STEM_SIGNING_KEYS": f"a:{SECRET},b:%%%"},
            r"^STEM_SIGNING_KEYS: what follows the id in entry 2 is not base64",
        ),
        (
            {"STEM_SIGNING_KEYS": f"a:{SECRET[:-1]}"},
            r"^STEM_SIGNING_KEYS: what follows the id in entry 1 is not base64",
        ),
        ({"STEM_SIGNING_KEYS": f"a b:{SECRET}"}, r"^STEM_SIGNING_KEYS: what precedes the colon in entry 1"),
        ({"STEM_SIGNING_KEYS": f":{SECRET}"}, r"^STEM_SIGNING_KEYS: what precedes the colon in entry 1"),
        (
            {"STEM_SIGNING_KEYS": f"{'x' * 65}:{SECRET}"},
            r"^STEM_SIGNING_KEYS: what precedes the colon in entry 1",
        ),
        ({"STEM_SIGNING_KEYS": f"a:{SECRET},a:{SECRET}"}, r"^STEM_SIGNING_KEYS: key 'a' is given twice"),
        ({"STEM_SIGNING_KEYS": f"a:{SHORT}"}, r"^STEM_SIGNING_KEYS: HMAC key 'a' has 31 bytes"),
        ({"STEM_SIGNING_KEYS": "a:"}, r"^STEM_SIGNING_KEYS: HMAC key 'a' has 0 bytes"),
        ({"STEM_SIGNING_KEYS": f"a:{PEM}"}, r"^STEM_SIGNING_KEYS: HMAC key 'a' is an asymmetric key"),
        ({"STEM_SIGNING_KEYS": f"a:{SSH}"}, r"^STEM_SIGNING_KEYS: HMAC key 'a' is an asymmetric key"),
        ({"STEM_SIGNING_KEYS": f"a:{DER}"}, r"^STEM_SIGNING_KEYS: HMAC key 'a' is an asymmetric key"),
        ({"STEM_SIGNING_KEYS": f"a:{RSA}"}, r"^STEM_SIGNING_KEYS: HMAC key 'a' is an asymmetric key"),
        ({"STEM_SIGNING_KEYS": f"a:{SECRET},b:{SECRET}"}, r"^STEM_SIGNING_ACTIVE_KEY: It is not set"),
        (
            {"STEM_SIGNING_KEYS": f"a:{SECRET}", "STEM_SIGNING_ACTIVE_KEY": "b"},
            r"^STEM_SIGNING_ACTIVE_KEY: no .* 'b'",
        ),
        (
            {"STEM_SIGNING_KEYS": f"a:{SECRET}", "STEM_SIGNING_COSIGN_KEY": "b"},
            r"^STEM_SIGNING_COSIGN_KEY: no .* 'b'",
        ),
        (
            {"STEM_SIGNING_KEYS": f"a:{SECRET}", "STEM_SIGNING_KEY_SCOPES": "a"},
            r"^STEM_SIGNING_KEY_SCOPES: 'a' is not",
        ),
        (
            {"STEM_SIGNING_KEYS": f"a:{SECRET}", "STEM_SIGNING_KEY_SCOPES": "a=q:x"},
            r"^STEM_SIGNING_KEY_SCOPES: 'a=q:x'",
        ),
        (
            {"STEM_SIGNING_KEYS": f"a:{SECRET}", "STEM_SIGNING_KEY_SCOPES": "a=task:x*y"},
            r"^STEM_SIGNING_KEY_SCOPES",
        ),
        (
            {"STEM_SIGNING_KEYS": f"a:{SECRET}", "STEM_SIGNING_KEY_SCOPES": "b=task:x"},
            r"^STEM_SIGNING_KEY_SCOPES: no key",
        ),
        (
            {"STEM_SIGNING_KEYS": f"a:{SECRET}", "STEM_SIGNING_KEY_SCOPES": "a=task:x,a=task:y"},
            r"^STEM_SIGNING_KEY_SCOPES: key 'a' is given twice",
        ),
        ({"STEM_SIGNING_KEYS_FILE": "no-such-file"}, r"^STEM_SIGNING_KEYS_FILE: cannot read no-such-file"),
        (
            {"STEM_SIGNING_KEYS": f"a:{SECRET}", "STEM_SIGNING_KEYS_FILE": "x"},
            r"^STEM_SIGNING_KEYS_FILE: STEM_SIGNING_KEYS is set as well",
        ),
    ],
)
def test_hmac_mistakes(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        HMAC_SHA256.open(environment)
    assert SECRET[:-1] not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, r"^STEM_SIGNING_PUBLIC_KEYS: It is not set, and neither is STEM_SIGNING_PRIVATE_KEYS"),
        (
            {"STEM_SIGNING_PRIVATE_KEYS": f"a:{SHORT}"},
            r"^STEM_SIGNING_PRIVATE_KEYS: Ed25519 key 'a' has 31 bytes",
        ),
        (
            {"STEM_SIGNING_PUBLIC_KEYS": f"a:{DER}"},
            r"^STEM_SIGNING_PUBLIC_KEYS: Ed25519 key 'a' has 44 bytes",
        ),
        (
            {
                "STEM_SIGNING_PRIVATE_KEYS": PAIR["STEM_SIGNING_PRIVATE_KEYS"],
                "STEM_SIGNING_PUBLIC_KEYS": OTHER["STEM_SIGNING_PUBLIC_KEYS"],
            },
            r"^STEM_SIGNING_PUBLIC_KEYS: key 'a' does not belong",
        ),
        (
            {"STEM_SIGNING_PRIVATE_KEYS": PAIR["STEM_SIGNING_PRIVATE_KEYS"], "STEM_SIGNING_ACTIVE_KEY": "b"},
            r"^STEM_SIGNING_ACTIVE_KEY: no signing key is called 'b'",
        ),
    ],
)
def test_ed25519_mistakes(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ED25519.open(environment)


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_file_of_secrets_must_be_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"a:{SECRET}\n\nb:{base64.b64encode(b'T' * 40).decode()}\n")
    environment = {"STEM_SIGNING_KEYS_FILE": str(path), "STEM_SIGNING_ACTIVE_KEY": "b"}
    for mode in (0o640, 0o604, 0o660, 0o610):
        path.chmod(mode)
        with pytest.raises(
            ConfigurationError, match=rf"^STEM_SIGNING_KEYS_FILE: .* mode 0{mode:o}.*chmod 600"
        ):
            HMAC_SHA256.open(environment)
    path.chmod(0o600)
    assert "signing=b verifying=a, b" in repr(HMAC_SHA256.open(environment))


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_file_of_public_keys_may_be_read_by_all(tmp_path: Path) -> None:
    path = tmp_path / "public"
    path.write_text(PAIR["STEM_SIGNING_PUBLIC_KEYS"])
    path.chmod(0o644)
    assert "signing=none verifying=a" in repr(ED25519.open({"STEM_SIGNING_PUBLIC_KEYS_FILE": str(path)}))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 70_000, b"no colon here"])
def test_a_file_that_is_no_list_of_keys(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"^STEM_SIGNING_KEYS_FILE"):
        HMAC_SHA256.open({"STEM_SIGNING_KEYS_FILE": str(path)})


def test_without_cryptography_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules, "stem_signing.ed25519", None
    )  # importing it fails, as without its library
    monkeypatch.delitem(sys.modules, "stem_signing.plugin", raising=False)
    from importlib import import_module

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    plugin = import_module("stem_signing.plugin")
    assert plugin.ED25519.unavailable == "pip install 'stem-signing[ed25519]'"
    with pytest.raises(ConfigurationError, match=r"stem-signing\[ed25519\]"):
        keys.generate("ed25519", "a")


def test_list_keys_tells_everything_but_the_bytes() -> None:
    environment = {**keys.generate("hmac-sha256", "a"), "STEM_SIGNING_KEY_SCOPES": "a=queue:mail|task:mail.*"}
    [info] = keys.list_keys(environment)
    assert info == keys.KeyInfo("a", "hmac-sha256", "sign", True, ("mail",), ("mail.*",))
    public = {
        "STEM_SIGNING_ALGORITHM": "ed25519",
        "STEM_SIGNING_PUBLIC_KEYS": PAIR["STEM_SIGNING_PUBLIC_KEYS"],
    }
    assert keys.list_keys(public) == [keys.KeyInfo("a", "ed25519", "verify", False, None, None)]


def test_a_rotation_keeps_the_scope_and_says_what_to_wait_for() -> None:
    environment = {**keys.generate("hmac-sha256", "a"), "STEM_SIGNING_KEY_SCOPES": "a=queue:mail"}
    stages = keys.rotate(environment, "b")
    assert [each.variables["STEM_SIGNING_KEY_SCOPES"] for each in stages] == [
        "a=queue:mail,b=queue:mail",
        "a=queue:mail,b=queue:mail",
        "b=queue:mail",
    ]
    assert all(each.title and each.then for each in stages)
    assert stages[0].variables["STEM_SIGNING_KEYS"] not in repr(stages)
    with pytest.raises(ConfigurationError, match="already the id"):
        keys.rotate(environment, "a")


def test_generate_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ConfigurationError, match="'rsa' is not an algorithm"):
        keys.generate("rsa", "a")
    with pytest.raises(ConfigurationError, match="cannot be the id of a key"):
        keys.generate("hmac-sha256", "a,b")
    assert keys.generate("hmac-sha256", "a") != keys.generate("hmac-sha256", "a")


@pytest.mark.parametrize("algorithm", ["hmac-sha256", "ed25519"])
def test_without_its_name_the_keys_tell_the_algorithm(algorithm: str) -> None:
    environment = keys.generate(algorithm, "a")
    named = keys.list_keys(environment)
    del environment["STEM_SIGNING_ALGORITHM"]
    assert keys.list_keys(environment) == named
    assert keys.rotate(environment, "b")[0].variables["STEM_SIGNING_ALGORITHM"] == algorithm
    with pytest.raises(ConfigurationError, match=r"^STEM_SIGNING_ALGORITHM: It is not set"):
        keys.list_keys({})
