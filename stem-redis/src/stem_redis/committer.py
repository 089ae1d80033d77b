"""Broker and backend on one server: a batch of steps in one script call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stem_core.ports.capabilities import BrokerCapabilities
from stem_core.ports.committer import Step
from stem_redis.batches import MOST_STEPS, check_message, commit_calls
from stem_redis.connection import Server
from stem_redis.enqueues import are_new_work, enqueue_calls
from stem_redis.errors import Refused, as_publish_error
from stem_redis.keys import Keys
from stem_redis.scripts import SCRIPTS
from stem_redis.wire import receipt_parts

__all__ = ["RedisCommitter"]

#: Steps sent before the answers to them are read.
_MOST_STEPS: Final = 5000


class RedisCommitter:
    """Implements ``stem_core.ports.Committer``."""

    def __init__(self, server: Server, keys: Keys, once_ttl: int, capabilities: BrokerCapabilities) -> None:
        self._server = server
        self._keys = keys
        self._once_ttl = once_ttl
        self._capabilities = capabilities

    async def commit(self, steps: Sequence[Step]) -> Sequence[bool]:
        self._server.check_open()
        for step in steps:
            for message in step.publishes:
                check_message(message, self._capabilities)
        good = [
            step
            for step in steps
            if step.settlement is None or receipt_parts(step.settlement.receipt) is not None
        ]
        if not good:
            return [False] * len(steps)
        answers = await self._commit(good)
        if len(good) == len(steps):
            return answers
        answer = iter(answers)
        kept = set(map(id, good))
        return [id(step) in kept and next(answer) for step in steps]

    async def _commit(self, steps: Sequence[Step]) -> list[bool]:
        if are_new_work(steps):
            return await self._enqueue(steps)
        return await self._commit_any(steps, some_done=False)

    async def _enqueue(self, steps: Sequence[Step]) -> list[bool]:
        """New work, the cheaper way; a call with a known id does nothing then, and is done as any other."""
        if len(steps) > MOST_STEPS and any(step.publishes[0].once for step in steps):
            return await self._commit_any(steps, some_done=False)  # a call done later would lose its turn
        done: list[bool] = []
        for first in range(0, len(steps), _MOST_STEPS):
            calls = enqueue_calls(self._keys, steps[first : first + _MOST_STEPS])
            try:
                answers = await self._server.run_all(SCRIPTS["enqueue"], calls)
            except Refused as error:
                raise as_publish_error(error, some_done=bool(done)) from error
            for count in answers:
                done += [count > 0] * abs(count)
        known = [n for n, new in enumerate(done) if not new]
        if known:
            again = await self._commit_any([steps[n] for n in known], some_done=len(known) < len(steps))
            for n, answer in zip(known, again, strict=True):
                done[n] = answer
        return done

    async def _commit_any(self, steps: Sequence[Step], *, some_done: bool) -> list[bool]:
        done: list[bool] = []
        for first in range(0, len(steps), _MOST_STEPS):
            calls = commit_calls(self._keys, self._once_ttl, steps[first : first + _MOST_STEPS])
            try:
                answers = await self._server.run_all(SCRIPTS["commit"], calls)
            except Refused as error:
                if all(map(_is_enqueue, steps)):  # as a broker says it
                    raise as_publish_error(error, some_done=some_done or bool(done)) from error
                raise
            for answer in answers:
                done += [flag == 49 for flag in answer]  # ord("1")
        return done


def _is_enqueue(step: Step) -> bool:
    return bool(step.publishes) and step.settlement is None and not step.outcomes
