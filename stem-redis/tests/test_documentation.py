"""What the README and the example show works as shown."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent
README = (PACKAGE / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


async def run(url: str, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *command,
        env={**os.environ, "STEM_BROKER_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.parametrize("block", BLOCKS)
async def test_code_in_the_readme_runs(redis_url: str, block: str) -> None:
    await run(redis_url, "-c", block)


async def test_the_quickstart_runs(redis_url: str) -> None:
    output = await run(redis_url, str(PACKAGE.parent / "examples" / "redis_quickstart.py"))
    assert "result: monthly-2026-05: 12 pages" in output
    assert "status: succeeded" in output
    assert "'requested_by': 'finance'" in output


async def test_the_readme_states_the_capabilities_there_are() -> None:
    from stem_redis.plugin import REDIS_BROKER

    capabilities = REDIS_BROKER.capabilities
    assert f"| {capabilities.priority_levels}, strict" in README
    assert f"{round(capabilities.resolution * 1000)} ms late" in README
    assert capabilities.max_size == 32 * 1024 * 1024
    assert "| largest message | 32 MiB |" in README
    undeclared = capabilities.withdraw, capabilities.transactional_publish, capabilities.routing
    assert not any(undeclared)
