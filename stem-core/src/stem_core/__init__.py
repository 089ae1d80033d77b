"""Stem: a task queue built on an adapter standard. The names applications use are all here."""

from typing import TYPE_CHECKING, Any, Final

from stem_core.context import TaskContext, current_task
from stem_core.definition import TaskDefinition
from stem_core.encoding import TaskPayloadEncoderRegistry
from stem_core.envelope import Envelope
from stem_core.errors import (
    AdapterError,
    ConfigurationError,
    DecodeError,
    EncodeError,
    LeaseLost,
    PayloadTooLarge,
    PluginError,
    PublishError,
    SignatureInvalid,
    SoftTimeLimitExceeded,
    StemError,
    TaskFailed,
    TaskRevoked,
    TaskTimeout,
    UnsupportedCapability,
)
from stem_core.handles import TaskHandle
from stem_core.options import (
    UNSET,
    Adjustment,
    TaskEnqueueOptions,
    TaskMetadata,
    TaskOptions,
    TaskRetryPolicy,
)
from stem_core.ports import (
    BackendCapabilities,
    BrokerCapabilities,
    ContextPayloadEncoder,
    EncodeContext,
    PayloadSigner,
    TaskPayloadEncoder,
)
from stem_core.producer import Stem
from stem_core.routing import QueueRule, Route, Routing
from stem_core.signature import Signature, TaskCall
from stem_core.status import TaskResult, TaskState, TaskStatus
from stem_core.tasks import Task, TaskEnqueueBuilder

if TYPE_CHECKING:
    from stem_core.app import StemApp
    from stem_core.canvas import Canvas, chain, chord, group
    from stem_core.hookspecs import hookimpl
    from stem_core.worker import Worker

__all__ = [
    "UNSET",
    "AdapterError",
    "Adjustment",
    "BackendCapabilities",
    "BrokerCapabilities",
    "Canvas",
    "ConfigurationError",
    "ContextPayloadEncoder",
    "DecodeError",
    "EncodeContext",
    "EncodeError",
    "Envelope",
    "LeaseLost",
    "PayloadSigner",
    "PayloadTooLarge",
    "PluginError",
    "PublishError",
    "QueueRule",
    "Route",
    "Routing",
    "Signature",
    "SignatureInvalid",
    "SoftTimeLimitExceeded",
    "Stem",
    "StemApp",
    "StemError",
    "Task",
    "TaskCall",
    "TaskContext",
    "TaskDefinition",
    "TaskEnqueueBuilder",
    "TaskEnqueueOptions",
    "TaskFailed",
    "TaskHandle",
    "TaskMetadata",
    "TaskOptions",
    "TaskPayloadEncoder",
    "TaskPayloadEncoderRegistry",
    "TaskResult",
    "TaskRetryPolicy",
    "TaskRevoked",
    "TaskState",
    "TaskStatus",
    "TaskTimeout",
    "UnsupportedCapability",
    "Worker",
    "chain",
    "chord",
    "current_task",
    "group",
    "hookimpl",
]

#: Loaded when first asked for: a web process that only enqueues never needs them.
_LAZY: Final = {
    "Canvas": "stem_core.canvas",
    "StemApp": "stem_core.app",
    "Worker": "stem_core.worker",
    "chain": "stem_core.canvas",
    "chord": "stem_core.canvas",
    "group": "stem_core.canvas",
    "hookimpl": "stem_core.hookspecs",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
