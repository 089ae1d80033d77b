"""What a worker hears from outside and says of itself: commands, pauses, revocations, heartbeats.

Pauses and revocations are in the state; a broadcast makes the worker look at once, and without one it looks every
few seconds. Commands are obeyed once each, within their lifetime, and only when they are signed as they must be.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from stem_core.errors import DecodeError, SignatureInvalid, StemError
from stem_core.shared import commands, revocation
from stem_core.shared.commands import CHANNEL, LIFETIME, Command, Reply, reply_channel
from stem_core.shared.heartbeats import TTL, Heartbeat, Heartbeats
from stem_core.shared.pauses import Pauses
from stem_core.wiring import Wiring
from stem_core.worker.settings import WorkerSettings

__all__ = ["Remote", "Revoked"]

_log = logging.getLogger("stem.worker")

#: Seconds between looks at the state: where a broadcast says that it changed, and where none can.
LOOK_ANYWAY: Final = 60.0
LOOK_EVERY: Final = 3.0
#: Commands remembered so that one heard again is not obeyed again.
REMEMBERED: Final = 1000


class Obeys(Protocol):
    """What commands can do to a worker."""

    def running(self) -> list[dict[str, Any]]: ...
    def counts(self) -> dict[str, Any]: ...
    def set_paused(self, queues: frozenset[str]) -> None: ...
    def cut_revoked(self, revoked: Mapping[str, bool]) -> frozenset[str]: ...
    def shut_down(self, mode: str) -> None: ...


class Revoked:
    """The revocations known here: id -> whether a run is to be stopped too."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    async def among(self, ids: Sequence[str]) -> Mapping[str, str]:
        """Those of ``ids`` that must not run, with the reason."""
        if not self._known:
            return {}
        return {id: revocation.REVOKED for id in ids if id in self._known}

    def replace(self, known: Mapping[str, bool]) -> None:
        self._known = dict(known)

    def __contains__(self, id: str) -> bool:
        return id in self._known


class Remote:
    """Runs beside the consumer, for as long as it does. Its failures are logged and cost no task."""

    def __init__(self, wiring: Wiring, settings: WorkerSettings, worker: str, obeys: Obeys) -> None:
        self._wiring = wiring
        self._settings = settings
        self._worker = worker
        self._obeys = obeys
        self._started_at = datetime.now(UTC)
        self._look_now = asyncio.Event()
        self._answers: dict[str, Reply] = {}
        self._acted_on: list[str] = []
        self._held: frozenset[str] = frozenset()
        """What was revoked and held here at the last look."""
        self._hears = False
        self._heartbeats: Heartbeats | None = None
        self.revoked = Revoked()
        self._actions: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
            "ping": self._ping,
            "inspect": self._inspect,
            "stats": self._stats,
            "pause": self._look_again,
            "resume": self._look_again,
            "revoke": self._look_again,
            "shutdown": self._shut_down,
        }

    @property
    def _has_state(self) -> bool:
        return self._wiring.backend is not None and self._wiring.backend.capabilities.state

    async def begin(self) -> None:
        """Look at the state before the first claim. Where it cannot be read, claims will hardly succeed either."""
        if not self._has_state:
            return
        try:
            await self._look()
            await self._beat()
        except (StemError, OSError) as error:
            _log.warning("Pauses and revocations are not known yet: %s", error)

    async def run(self) -> None:
        """Listen, look and beat until cancelled; then be forgotten."""
        work = []
        if self._has_state:
            work += [self._keep_looking(), self._keep_beating()]
        if self._wiring.broker.capabilities.broadcast:
            work.append(self._keep_listening())
        try:
            await asyncio.gather(*work)
            await asyncio.Event().wait()  # nothing to hear and nowhere to look: be there all the same
        finally:
            if self._wiring.backend is not None and self._has_state:
                with contextlib.suppress(StemError, OSError):
                    await asyncio.shield(Heartbeats(self._wiring.backend).forget(self._worker))

    def acted_on(self, id: str) -> None:
        """The task's cancellation is recorded: the revocation has done its work."""
        self._acted_on.append(id)

    async def _keep_looking(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_ANYWAY if self._hears else LOOK_EVERY):
                    await self._look_now.wait()
            except TimeoutError:
                pass
            self._look_now.clear()
            try:
                await self._look()
            except (StemError, OSError) as error:
                _log.warning("Pauses and revocations could not be read: %s", error)

    async def _look(self) -> None:
        backend = self._wiring.backend
        if backend is None:
            return
        while self._acted_on:
            await revocation.forget(backend, self._acted_on[0])
            del self._acted_on[0]
        paused = await Pauses(backend).paused()
        self._obeys.set_paused(frozenset(paused))
        known = await revocation.known(backend)
        # Those first seen now may have come too late, and those that were held here may have ended since.
        doubtful = {
            id: each.version for id, each in known.items() if id in self._held or id not in self.revoked
        }
        revoked = {id: each.terminate for id, each in known.items()}
        self.revoked.replace(revoked)
        self._held = self._obeys.cut_revoked(revoked)
        await revocation.forget_ended(backend, doubtful)

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(TTL / 3 * random.uniform(0.9, 1.1))
            try:
                await self._beat()
            except (StemError, OSError) as error:
                _log.warning("The heartbeat could not be written: %s", error)

    async def _beat(self) -> None:
        if self._wiring.backend is None:
            return
        counts = self._obeys.counts()
        beat = Heartbeat(
            id=self._worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=self._settings.queues,
            concurrency=self._settings.concurrency,
            started_at=self._started_at,
            in_flight=int(counts.get("running", 0)),
            stats=counts,
        )
        if self._heartbeats is None:
            self._heartbeats = Heartbeats(self._wiring.backend)
        await self._heartbeats.beat(beat)

    async def _keep_listening(self) -> None:
        pause = 0.1
        while True:
            try:
                stream = self._wiring.broker.subscribe([CHANNEL])
                async with contextlib.aclosing(stream):  # type: ignore[type-var]
                    self._hears = True
                    self._look_now.set()  # for what was said while nobody listened
                    async for _, data in stream:
                        pause = 0.1
                        await self._hear(data)
            except (StemError, OSError) as error:
                _log.warning("Commands cannot be heard (%s); again in %.1f s", error, pause)
            self._hears = False
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause)
            pause = min(pause * 2, 10.0)

    async def _hear(self, data: bytes) -> None:
        wiring = self._wiring
        try:
            command = commands.open_command(data, namespace=wiring.namespace, signer=wiring.signer)
        except (SignatureInvalid, DecodeError) as error:
            _log.warning("A command was refused: %s", error)
            return
        if not command.is_for(self._worker):
            return
        age = time.time() - command.sent_at
        if abs(age) > LIFETIME:
            _log.warning(
                "Command %r is not obeyed: it was sent %.0f s %s, by its sender's clock; run NTP on both",
                command.kind,
                abs(age),
                "ago" if age > 0 else "from now",
            )
            return
        reply = self._answers.get(command.id)
        if reply is None:
            reply = self._obey(command)
            self._answers[command.id] = reply
            if len(self._answers) > REMEMBERED:
                del self._answers[next(iter(self._answers))]
        answer = commands.seal(reply, namespace=wiring.namespace, signer=None)
        await wiring.broker.broadcast(reply_channel(command.id), answer)

    def _obey(self, command: Command) -> Reply:
        action = self._actions.get(command.kind)
        if action is None:
            return Reply(command=command.id, worker=self._worker, error=f"unknown command {command.kind!r}")
        try:
            return Reply(command=command.id, worker=self._worker, answer=action(command.arguments))
        except (KeyError, TypeError, ValueError) as error:
            return Reply(command=command.id, worker=self._worker, error=f"bad arguments: {error!r}")

    def _inspect(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"queues": list(self._settings.queues), "running": self._obeys.running()}

    def _shut_down(self, arguments: Mapping[str, Any]) -> str:
        mode = str(arguments["mode"])
        _log.info("Asked to shut down (%s)", mode)
        # After the reply is on its way.
        asyncio.get_running_loop().call_later(0.05, self._obeys.shut_down, mode)
        return mode

    def _look_again(self, _: Mapping[str, Any]) -> str:
        self._look_now.set()
        return "ok"

    def _stats(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return self._obeys.counts()

    def _ping(self, _: Mapping[str, Any]) -> str:
        return "pong"
