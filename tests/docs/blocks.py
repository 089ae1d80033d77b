"""The python blocks of our documentation, and how to run them.

Every fence that says ``python`` is run, in a fresh namespace and an empty directory. A comment before it says
otherwise:

    <!-- docs: group=shop -->            shares a namespace with the group's other blocks of this file, run in order
    <!-- docs: needs=redis,signing -->   real servers, or keys in the environment; see NEEDS
    <!-- docs: shown="why" -->           only parsed; the reason is required
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).parent.parent.parent
#: What a block may need, and the address it writes for it: replaced by the test server's.
NEEDS = {
    "redis": "redis://localhost:6379/0",
    "postgres": "postgresql://localhost/app",
    "signing": "",
}
_FENCE = re.compile(
    r"^(?:<!-- docs:(?P<tags>[^\n]*?)-->\s*\n)?(?P<indent>[ \t]*)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_TAG = re.compile(r'(\w+)=(?:"([^"]*)"|(\S+))')


@dataclass(frozen=True)
class Block:
    """One fence: its place, its code and its tags."""

    path: Path
    line: int
    code: str
    group: str | None = None
    needs: tuple[str, ...] = ()
    shown: str | None = None

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Script:
    """Blocks that run together, in order."""

    blocks: tuple[Block, ...]

    def __str__(self) -> str:
        return self.blocks[0].place

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(need for block in self.blocks for need in block.needs)


def pages() -> list[Path]:
    """README.md, docs/*.md, and the README of each package."""
    return sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("stem-*/README.md")])


def blocks(path: Path, text: str | None = None) -> list[Block]:
    """Every python block of a page.

    :raises ValueError: a tag is not known, or a block is only shown without a reason.
    """
    text = path.read_text(encoding="utf-8") if text is None else text
    return [_block(path, text, found) for found in _FENCE.finditer(text)]


def _block(path: Path, text: str, found: re.Match[str]) -> Block:
    line = text.count("\n", 0, found.start("code")) + 1
    place = f"{path.name}:{line}"
    tags = {name: quoted or bare for name, quoted, bare in _TAG.findall(found["tags"] or "")}
    unknown = set(tags) - {"group", "needs", "shown"}
    if unknown or (found["tags"] and not tags):
        raise ValueError(f"{place}: tags {found['tags']!r} are not understood")
    if "shown" in tags and len(tags["shown"]) < 10:
        raise ValueError(f"{place}: say why this block is not run")
    needs = tuple(each for each in tags.get("needs", "").split(",") if each)
    if set(needs) - set(NEEDS):
        raise ValueError(f"{place}: needs {needs}; known are {', '.join(NEEDS)}")
    code = "".join(each.removeprefix(found["indent"]) for each in found["code"].splitlines(keepends=True))
    return Block(path, line, code, tags.get("group"), needs, tags.get("shown"))


def scripts(found: list[Block]) -> Iterator[Script]:
    """The blocks of one page as they run: each alone, groups together."""
    groups: dict[str, list[Block]] = {}
    for block in found:
        if block.shown is not None:
            continue
        if block.group is None:
            yield Script((block,))
        else:
            groups.setdefault(block.group, []).append(block)
    for together in groups.values():
        yield Script(tuple(together))


def run(script: Script, addresses: dict[str, str]) -> None:
    """Run a script; ``await`` may stand at its top level. Its namespace is a module while it runs."""
    module = types.ModuleType("documented")
    sys.modules[module.__name__] = module
    try:
        with asyncio.Runner() as runner:
            for block in script.blocks:
                code = compiled(block, addresses)
                if code.co_flags & inspect.CO_COROUTINE:
                    runner.run(_awaited(code, module))
                else:
                    exec(code, module.__dict__)
    finally:
        del sys.modules[module.__name__]


async def _awaited(code: CodeType, module: types.ModuleType) -> None:
    await eval(code, module.__dict__)


def compiled(block: Block, addresses: dict[str, str]) -> CodeType:
    """The block's code, with the place in its file as its own in tracebacks."""
    source = block.code.replace(
        'if __name__ == "__main__":', "if True:"
    )  # run as a script, imported as a module
    for written, real in addresses.items():
        source = source.replace(written, real)
    code: CodeType = compile(
        "\n" * (block.line - 1) + source,
        str(block.path),
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    return code
