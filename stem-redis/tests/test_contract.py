"""The contract every adapter keeps, on this one."""

from __future__ import annotations

import pytest

from stem_core.contracts import BackendContract, BrokerContract
from stem_redis.plugin import REDIS_BACKEND, REDIS_BROKER


class TestRedisBroker(BrokerContract):
    spec = REDIS_BROKER
    settle = 0.03

    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url


class TestRedisBackend(BackendContract):
    spec = REDIS_BACKEND
    settle = 0.03

    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url
