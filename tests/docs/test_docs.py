"""What the documentation shows is run."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.docs.blocks import NEEDS, Block, Script, blocks, compiled, pages, run, scripts

PAGES = {path: blocks(path) for path in pages()}
SCRIPTS = [script for found in PAGES.values() for script in scripts(found)]
SHOWN = [block for found in PAGES.values() for block in found if block.shown is not None]


@pytest.fixture
def environment() -> Iterator[None]:
    """Blocks may set variables; whatever they do is undone."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_it_runs(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [
        each for each in os.environ if each.startswith("STEM_") and not each.startswith("STEM_TEST_")
    ]:
        monkeypatch.delenv(name)
    addresses = {}
    for need in script.needs & {"redis", "postgres"}:
        addresses[NEEDS[need]] = request.getfixturevalue(f"{need}_url")
    if "signing" in script.needs:
        monkeypatch.setenv("STEM_SIGNING_KEYS", f"main:{base64.b64encode(os.urandom(32)).decode()}")
        monkeypatch.setenv("STEM_SIGNING_ACTIVE_KEY", "main")
    run(script, addresses)


def test_what_is_only_shown_is_python() -> None:
    for block in SHOWN:
        try:
            compiled(block, {})
        except IndentationError:  # the rest of a class may be shown on its own
            compiled(replace(block, code=f"class Continued:\n{block.code}"), {})


PAGE = Path(__file__)


def test_a_page_is_taken_apart() -> None:
    text = (
        "# Title\n```python\na = 1\n```\n\n<!-- docs: group=g needs=redis,signing -->\n```python title='x'\nb = 1\n```\n"
        "```console\n$ no\n```\n<!-- docs: group=g -->\n```python\nb += 1\n```\n"
        '<!-- docs: shown="needs a rocket" -->\n```python\nfly()\n```\n  ```python\n  c = 1\n  if c:\n      c = 2\n  ```\n'
    )
    found = blocks(PAGE, text)
    assert [(each.line, each.code) for each in found] == [
        (3, "a = 1\n"), (8, "b = 1\n"), (15, "b += 1\n"), (19, "fly()\n"), (22, "c = 1\nif c:\n    c = 2\n"),
    ]  # fmt: skip
    assert [[each.line for each in script.blocks] for script in scripts(found)] == [[3], [22], [8, 15]]
    assert found[1].needs == ("redis", "signing")
    assert found[3].shown == "needs a rocket"


@pytest.mark.parametrize("tags", ["colour=red", "needs=oracle", 'shown="no"', "whatever"])
def test_a_tag_that_is_wrong_is_an_error(tags: str) -> None:
    with pytest.raises(ValueError, match=r"understood|known|why"):
        blocks(PAGE, f"<!-- docs: {tags} -->\n```python\n1\n```\n")


@pytest.mark.parametrize("code", ["1 / 0\n", "import asyncio\nawait asyncio.sleep(0)\nassert False\n"])
def test_a_block_that_fails_fails(code: str) -> None:
    with pytest.raises((ZeroDivisionError, AssertionError)):
        run(Script((Block(PAGE, 3, code),)), {})


def test_blocks_of_a_group_share_their_names_and_loop() -> None:
    first = Block(PAGE, 1, "import asyncio\nloop = asyncio.get_running_loop()\nawait asyncio.sleep(0)\n")
    second = Block(PAGE, 9, "import asyncio\nasync def main(): pass\nasyncio.run(main())\n")
    third = Block(PAGE, 19, "await asyncio.sleep(0)\nassert loop is asyncio.get_running_loop()\n")
    run(Script((first, second, third)), {})


def test_addresses_are_replaced() -> None:
    block = Block(PAGE, 1, "url = 'redis://localhost:6379/0'\nassert url == 'here'\n")
    run(Script((block,)), {NEEDS["redis"]: "here"})
