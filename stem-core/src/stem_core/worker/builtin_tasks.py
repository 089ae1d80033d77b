"""The tasks every worker runs besides the application's.

``stem.collect``     the results of a group in a member's place, as one result
``stem.deadline``    ``(group id, ...)``: closes each of these groups that is open, with the reason ``deadline``
"""

from __future__ import annotations

from typing import Any

from stem_core.names import COLLECT_TASK, DEADLINE_TASK
from stem_core.options import TaskMetadata, TaskOptions
from stem_core.tasks import Task
from stem_core.worker.finishing import publish_callback

__all__ = ["DEADLINE_REASON", "built_in_tasks"]

DEADLINE_REASON = "deadline"


def built_in_tasks(stem: Any, wiring: Any) -> list[Task[..., Any]]:
    """The built-in tasks of a worker on ``wiring``."""

    async def collect(results: list[Any]) -> list[Any]:
        return results

    async def deadline(*groups: str) -> None:
        # Again after a crash it answers the same, and publishing the callback again adds nothing.
        for group in groups:
            answer = await wiring.backend.group_close(group, DEADLINE_REASON)
            if answer.complete:
                await publish_callback(group, wiring.broker, wiring.backend)

    def task(name: str, function: Any, options: TaskOptions) -> Task[..., Any]:
        return Task(stem, function, name=name, options=options, metadata=TaskMetadata())

    return [
        task(COLLECT_TASK, collect, TaskOptions()),
        task(DEADLINE_TASK, deadline, TaskOptions(ignore_result=True)),
    ]
