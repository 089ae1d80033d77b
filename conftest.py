"""What every test of every package shares: hypothesis profiles, and real servers for the asking."""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import SharedServers

SERVERS = "STEM_TEST_SERVERS"

# A slow machine is no finding, so neither deadlines nor slow-generation checks.
for profile, examples, steps in (("quick", 25, 20), ("long", 2000, 100)):
    settings.register_profile(
        profile,
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("STEM_TEST_PROFILE", "quick"))


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the main process; xdist's workers inherit its environment
        os.environ[SERVERS] = tempfile.mkdtemp(prefix="stem-servers-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        SharedServers(Path(os.environ.pop(SERVERS))).close()


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A Valkey server shared with other tests: keep to keys under ``unique_name``."""
    return os.environ.get("STEM_TEST_REDIS_URL") or SharedServers(Path(os.environ[SERVERS])).url("redis")


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """A PostgreSQL server shared with other tests: keep to a schema called ``unique_name``."""
    return os.environ.get("STEM_TEST_POSTGRES_URL") or SharedServers(Path(os.environ[SERVERS])).url(
        "postgres"
    )


@pytest.fixture
def unique_name() -> str:
    """A name no other test uses: lower case, a letter first, good for a namespace, schema or queue."""
    return f"t{uuid.uuid4().hex[:12]}"
