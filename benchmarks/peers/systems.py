"""Who takes part: what is installed for each, how its worker is started, and how many tasks a drain gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["SYSTEMS", "System"]


@dataclass(frozen=True)
class System:
    """One contender. ``worker`` and ``setup`` are commands of its environment's ``bin``, without their folder.

    ``drain``, ``singles``: how many tasks a drain and a loop of single enqueues get, chosen so that none takes long.
    """

    name: str
    server: Literal["redis", "postgres"]
    worker: tuple[str, ...]
    requires: tuple[str, ...] = ()
    drain: int = 10_000
    singles: int = 2_000
    setup: tuple[str, ...] = ()
    note: str = ""

    @property
    def app(self) -> str:
        return f"benchmarks.peers.apps.{self.name.partition('-')[0]}_app"

    @property
    def ours(self) -> bool:
        return self.name.startswith("stem")


_APPS: Final = "benchmarks.peers.apps"
_STEM: Final = ("stem", "worker", f"{_APPS}.stem_app:stem")

SYSTEMS: Final = (
    System(
        "stem-redis", "redis", _STEM, drain=20_000, note="results kept a day, leases, status at each step"
    ),
    System(
        "celery",
        "redis",
        ("celery", "-A", f"{_APPS}.celery_app", "worker", "-c", "2"),
        ("celery[redis]==5.7.0",),
        drain=3_000,
        note="prefork of 2, results kept a day, task_acks_late",
    ),
    System(
        "dramatiq",
        "redis",
        ("dramatiq", f"{_APPS}.dramatiq_app", "--processes", "1", "--threads", "8"),
        ("dramatiq[redis]==2.2.1",),
        drain=5_000,
        note="8 threads, no results (as shipped)",
    ),
    System(
        "taskiq",
        "redis",
        ("taskiq", "worker", f"{_APPS}.taskiq_app:broker", "--workers", "1"),
        ("taskiq==0.13.0", "taskiq-redis==1.2.4", "uvloop"),
        drain=5_000,
        note="RedisStreamBroker, 100 at once, results kept an hour, uvloop",
    ),
    System(
        "arq",
        "redis",
        ("arq", f"{_APPS}.arq_app.WorkerSettings"),
        ("arq==0.28.0",),
        drain=2_000,
        note="100 at once, polls every 0.5 s, results kept an hour",
    ),
    System(
        "rq",
        "redis",
        ("rq", "worker", "--url", "{url}"),
        ("rq==3.0.0",),
        drain=200,
        singles=1_000,
        note="a fork for each job (as shipped), results kept 500 s",
    ),
    System(
        "stem-postgres",
        "postgres",
        _STEM,
        drain=10_000,
        note="results kept a day, leases, status at each step",
    ),
    System(
        "procrastinate",
        "postgres",
        ("procrastinate", "--app", f"{_APPS}.procrastinate_app.app", "worker", "--concurrency", "10"),
        ("procrastinate==3.10.0", "psycopg[binary,pool]"),
        drain=2_000,
        setup=("procrastinate", "--app", f"{_APPS}.procrastinate_app.app", "schema", "--apply"),
        note="10 at once, finished jobs kept, no return values",
    ),
)
