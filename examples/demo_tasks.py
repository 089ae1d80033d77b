"""The demo's application: real work over source files. Workers import it as ``demo_tasks:stem``."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import io
import os
import tokenize
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from stem_core import Stem, TaskContext, TaskRetryPolicy

stem = Stem(os.environ.get("STEM_DEMO_URL", "sqlite:///demo.db"))


@dataclass
class Summary:
    path: str
    lines: int
    functions: int
    classes: int
    first_line: str


@stem.task
def digest(path: str) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@stem.task
async def count_tokens(path: str) -> dict[str, int]:
    """How often each kind of token occurs."""
    source = io.BytesIO(await asyncio.to_thread(Path(path).read_bytes))
    return dict(Counter(tokenize.tok_name[token.type] for token in tokenize.tokenize(source.readline)))


@stem.task
async def summarise(path: str) -> Summary:
    """What a Python file holds. On the loop: Python 3.11's parser fails now and then when threads share it."""
    text = await asyncio.to_thread(Path(path).read_text, encoding="utf-8")
    tree = ast.parse(text)
    nodes = [type(node) for node in ast.walk(tree)]
    doc = ast.get_docstring(tree) or ""
    return Summary(
        path=path,
        lines=text.count("\n"),
        functions=nodes.count(ast.FunctionDef) + nodes.count(ast.AsyncFunctionDef),
        classes=nodes.count(ast.ClassDef),
        first_line=doc.partition("\n")[0],
    )


@stem.task
def render_report(summaries: list[Summary], target: str) -> int:
    """Write a Markdown table of all summaries; answers its number of lines."""
    rows = [f"| {each.path} | {each.lines} | {each.functions} | {each.classes} |" for each in summaries]
    lines = ["| file | lines | functions | classes |", "| --- | ---: | ---: | ---: |", *rows]
    Path(target).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


@stem.task(max_retries=5, retry_policy=TaskRetryPolicy(default_delay=0.2, jitter=False))
def flaky(ctx: TaskContext) -> str:
    """Fails on its first two attempts, as networks do."""
    if ctx.attempt < 2:
        raise ConnectionError(f"attempt {ctx.attempt} failed")
    return f"succeeded on attempt {ctx.attempt}"


@stem.task
def reminder() -> str:
    """Enqueued with a countdown."""
    return "this ran later, as asked"


@stem.task
def needs_configuration(path: str) -> str:
    """Fails for good until somebody writes the file it needs."""
    return Path(path).read_text(encoding="utf-8")
