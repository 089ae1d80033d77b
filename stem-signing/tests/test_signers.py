"""Both signers: laws 50 to 52, scopes, co-signing, and what they say when they refuse."""

from __future__ import annotations

import hmac
import pickle
from collections.abc import Mapping
from typing import Any

import pytest

from stem_core.errors import ConfigurationError, SignatureInvalid
from stem_core.ports.signer import PayloadSigner, SignatureBlock, pre_authentication_encoding
from stem_signing import keys
from stem_signing.plugin import ED25519, HMAC_SHA256, stem_signers

PURPOSE, NAMESPACE, PAYLOAD = "stem-envelope-v1", "stem", b"the payload"
ALGORITHMS = ("hmac-sha256", "ed25519")


def opened(environment: Mapping[str, str]) -> PayloadSigner:
    specs = {each.id: each for each in stem_signers()}
    return specs[environment["STEM_SIGNING_ALGORITHM"]].open(environment)


def sign(signer: PayloadSigner, **given: Any) -> list[SignatureBlock]:
    return list(signer.sign(PURPOSE, NAMESPACE, PAYLOAD, queue="q", task="t", **given))


@pytest.fixture(params=ALGORITHMS)
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    return keys.generate(request.param, "a")


def test_a_signature_verifies(environment: dict[str, str]) -> None:
    signer = opened(environment)
    scope = signer.verify(PURPOSE, NAMESPACE, PAYLOAD, sign(signer))
    assert scope.key_id == "a"
    assert scope.allows("any queue", "any task")


def test_law_50_nothing_else_verifies(environment: dict[str, str]) -> None:
    signer = opened(environment)
    [block] = sign(signer)
    for purpose, namespace, payload, other in [
        ("stem-control-v1", NAMESPACE, PAYLOAD, block),
        (PURPOSE, "stem2", PAYLOAD, block),
        (PURPOSE, NAMESPACE, PAYLOAD + b"\0", block),
        (PURPOSE, NAMESPACE, b"", block),
        (PURPOSE, NAMESPACE, PAYLOAD, SignatureBlock(block.algorithm, "b", block.signature)),
        (PURPOSE, NAMESPACE, PAYLOAD, SignatureBlock("none", "a", block.signature)),
        (PURPOSE, NAMESPACE, PAYLOAD, SignatureBlock(block.algorithm, "a", b"")),
        (PURPOSE, NAMESPACE, PAYLOAD, SignatureBlock(block.algorithm, "a", block.signature[:-1])),
        (PURPOSE, NAMESPACE, PAYLOAD, SignatureBlock(block.algorithm, "a", block.signature + b"\0")),
    ]:
        with pytest.raises(SignatureInvalid):
            signer.verify(purpose, namespace, payload, [other])
    with pytest.raises(SignatureInvalid):
        signer.verify(PURPOSE, NAMESPACE, PAYLOAD, [])


def test_law_50_every_bit_of_the_signature_counts(environment: dict[str, str]) -> None:
    signer = opened(environment)
    [block] = sign(signer)
    for bit in range(8 * len(block.signature)):
        changed = bytearray(block.signature)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureInvalid):
            signer.verify(PURPOSE, NAMESPACE, PAYLOAD, [SignatureBlock(block.algorithm, "a", bytes(changed))])


def test_law_51_each_stage_of_a_rotation_verifies_what_the_one_before_signed(
    environment: dict[str, str],
) -> None:
    add, switch, remove = keys.rotate(environment, "b")
    before, both, after = opened(environment), opened(add.variables), opened(remove.variables)
    switched = opened(switch.variables)
    assert [each.key_id for each in sign(both)] == ["a"]
    assert [each.key_id for each in sign(switched)] == ["b"]
    for signer in (both, switched):
        signer.verify(PURPOSE, NAMESPACE, PAYLOAD, sign(before))
    for signer in (both, switched, after):
        signer.verify(PURPOSE, NAMESPACE, PAYLOAD, sign(switched))
    with pytest.raises(SignatureInvalid, match="'a' is not known"):
        after.verify(PURPOSE, NAMESPACE, PAYLOAD, sign(before))


def test_two_signatures_serve_workers_that_know_either_key(environment: dict[str, str]) -> None:
    add, _, remove = keys.rotate(environment, "b")
    signer = opened({**add.variables, "STEM_SIGNING_COSIGN_KEY": "b"})
    blocks = sign(signer)
    assert [each.key_id for each in blocks] == ["a", "b"]
    for worker in (environment, add.variables, remove.variables):
        opened(worker).verify(PURPOSE, NAMESPACE, PAYLOAD, blocks)


def test_law_52_a_key_of_one_algorithm_is_never_used_by_the_other() -> None:
    pair = keys.generate("ed25519", "a")
    public = pair["STEM_SIGNING_PUBLIC_KEYS"]
    material = __import__("base64").b64decode(public.partition(":")[2])
    covered = pre_authentication_encoding(PURPOSE, "hmac-sha256", "a", NAMESPACE, PAYLOAD)
    forged = SignatureBlock("hmac-sha256", "a", hmac.digest(material, covered, "sha256"))
    with pytest.raises(SignatureInvalid, match="is for ed25519"):
        opened(pair).verify(PURPOSE, NAMESPACE, PAYLOAD, [forged])
    with pytest.raises(ConfigurationError, match="what is public is no HMAC secret"):
        HMAC_SHA256.open({"STEM_SIGNING_KEYS": public, "STEM_SIGNING_PUBLIC_KEYS": public})


def test_public_keys_alone_verify_and_do_not_sign() -> None:
    pair = keys.generate("ed25519", "a")
    worker = ED25519.open(
        {"STEM_SIGNING_PUBLIC_KEYS": pair["STEM_SIGNING_PUBLIC_KEYS"], "STEM_SIGNING_ACTIVE_KEY": "a"}
    )
    worker.verify(PURPOSE, NAMESPACE, PAYLOAD, sign(opened(pair)))
    with pytest.raises(ConfigurationError, match="STEM_SIGNING_PRIVATE_KEYS"):
        sign(worker)


def test_a_scope_limits_what_a_key_may_speak_for(environment: dict[str, str]) -> None:
    signer = opened({**environment, "STEM_SIGNING_KEY_SCOPES": "a=queue:invoices|queue:mail*|task:mail.*"})
    for queue, task, allowed in [
        ("invoices", "mail.send", True),
        ("mail-eu", "mail.send", True),
        ("invoices", "mail", False),
        ("invoices", "billing.charge", False),
        ("default", "mail.send", False),
    ]:
        if allowed:
            made = signer.sign(PURPOSE, NAMESPACE, PAYLOAD, queue=queue, task=task)
            assert signer.verify(PURPOSE, NAMESPACE, PAYLOAD, made).allows(queue, task)
        else:
            with pytest.raises(ConfigurationError, match="STEM_SIGNING_KEY_SCOPES"):
                signer.sign(PURPOSE, NAMESPACE, PAYLOAD, queue=queue, task=task)
    blocks = signer.sign(PURPOSE, NAMESPACE, PAYLOAD, queue="invoices", task="mail.send")
    scope = signer.verify(PURPOSE, NAMESPACE, PAYLOAD, blocks)
    assert not scope.allows("default", "mail.send")


def test_signers_show_ids_and_no_keys(environment: dict[str, str]) -> None:
    signer = opened(environment)
    text = repr(signer) + repr(vars(signer)["_ring"]) + repr(vars(signer)["_ring"].signing)
    assert "'a'" in text
    for name in ("STEM_SIGNING_KEYS", "STEM_SIGNING_PRIVATE_KEYS"):
        if name in environment:
            encoded = environment[name].partition(":")[2]
            assert encoded not in text
            assert repr(__import__("base64").b64decode(encoded))[2:-1] not in text


def test_refusals_pickle(environment: dict[str, str]) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        opened(environment).verify(PURPOSE, NAMESPACE, PAYLOAD, [SignatureBlock("x", "y", b"")])
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
