"""Signatures, tags and secrets are compared by ``hmac.compare_digest`` or their library, never by ``==``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
#: A name with one of these words holds something whose comparison must take constant time.
SECRET_WORDS = ("signature", "digest", "mac", "secret", "material", "tag_bytes")
FILES = sorted(
    path
    for folder in ("stem-signing/src", "stem-codecs/src", "stem-core/src")
    for path in (ROOT / folder).rglob("*.py")
    if "contracts" not in path.parts
)


def names_in(node: ast.AST) -> set[str]:
    return {
        each.attr if isinstance(each, ast.Attribute) else each.id
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute | ast.Name)
    }


def is_secret(node: ast.expr) -> bool:
    """Whether the compared value itself is one: a name, an attribute, or what a function of that name returns."""
    if isinstance(node, ast.Call):
        node = node.func
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return any(name == word or name.endswith(f"_{word}") for word in SECRET_WORDS)


def comparisons(source: str) -> list[int]:
    """Lines that compare something secret by ``==`` or ``!=``."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        and any(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops)
        and any(is_secret(each) for each in (node.left, *node.comparators))
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_secret_is_compared_by_equality(path: Path) -> None:
    assert comparisons(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "block.signature == expected",
        "expected != signature",
        "self._digest(key) == given",
        "a.secret == b",
        "x == hmac_digest",
    ],
)
def test_the_check_finds_what_it_looks_for(source: str) -> None:
    assert comparisons(source) == [1]


def test_the_hmac_signer_compares_with_compare_digest() -> None:
    tree = ast.parse((ROOT / "stem-signing/src/stem_signing/hmac_sha256.py").read_text(encoding="utf-8"))
    [verify] = [
        each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) and each.name == "verify"
    ]
    assert "compare_digest" in names_in(verify)
