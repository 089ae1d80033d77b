"""Broker and backend on one server: a batch of steps in one script call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from stem_core.errors import AdapterError
from stem_core.ports.capabilities import BrokerCapabilities
from stem_core.ports.committer import Ended, Step
from stem_redis.batches import MOST_STEPS, check_message, commit_calls
from stem_redis.connection import Server
from stem_redis.enqueues import are_new_work, enqueue_calls, fit_one_call
from stem_redis.errors import Refused, as_publish_error, is_unknown_script, refusal
from stem_redis.keys import Keys
from stem_redis.scripts import SCRIPTS
from stem_redis.wire import receipt_parts

__all__ = ["RedisCommitter"]

#: Steps sent before the answers to them are read.
_MOST_STEPS: Final = 5000


class RedisCommitter:
    """Implements ``stem_core.ports.Starter``."""

    #: Soon full, and large enough that a call's own cost is small.
    enough = 64

    def __init__(self, server: Server, keys: Keys, once_ttl: int, capabilities: BrokerCapabilities) -> None:
        self._server = server
        self._keys = keys
        self._once_ttl = once_ttl
        self._capabilities = capabilities
        self._mending: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def start(self, steps: Sequence[Step], timeout: float, ended: Ended) -> bool:
        """New work that fits one script call. It goes behind what was started before, on one connection."""
        if self._mending or not fit_one_call(steps, self._capabilities):
            return False
        script, ((keys, arguments),) = enqueue_calls(self._keys, steps)
        command = self._server.invocation(script, keys, *arguments)
        return self._server.begin(command, timeout, partial(self._answered, steps, ended))

    def _answered(self, steps: Sequence[Step], ended: Ended, answers: list[Any] | AdapterError) -> None:
        if isinstance(answers, AdapterError):
            ended(answers)
            return
        (answer,) = answers
        if answer == len(steps):
            ended([True] * answer)
        elif isinstance(answer, int) or is_unknown_script(answer):
            task = asyncio.get_running_loop().create_task(self._mend(steps, ended))
            self._mending.add(task)
            task.add_done_callback(self._mending.discard)
        else:
            error = refusal(answer, self._server.masked)
            ended(as_publish_error(error, some_done=False) if isinstance(error, Refused) else error)

    async def _mend(self, steps: Sequence[Step], ended: Ended) -> None:
        """Do what was not done, because it was not usual or the script was not known. Each in its turn."""
        try:
            async with self._turn:
                answers = await self.commit(steps)
        except Exception as error:  # noqa: BLE001 (whoever started it is told)
            ended(error)
        else:
            ended(answers)

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
            script, calls = enqueue_calls(self._keys, steps[first : first + _MOST_STEPS])
            try:
                answers = await self._server.run_all(SCRIPTS[script], calls)
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
