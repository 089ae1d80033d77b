"""What an adapter implements: four small ports, and the capabilities it declares."""

from stem_core.ports.backend import (
    Backend,
    Callback,
    GroupAnswer,
    GroupOutcome,
    GroupRecord,
    LimitAnswer,
    Outcome,
    StateEntry,
    StateRead,
)
from stem_core.ports.broker import Broker, QueueStats
from stem_core.ports.capabilities import BackendCapabilities, BrokerCapabilities
from stem_core.ports.committer import Committer, Ended, Starter, Step
from stem_core.ports.encoder import (
    ContextPayloadEncoder,
    EncodeContext,
    PayloadEncoder,
    TaskPayloadEncoder,
)
from stem_core.ports.outbox import Outbox, OutboxSpec
from stem_core.ports.signer import KeyScope, PayloadSigner, SignatureBlock, pre_authentication_encoding
from stem_core.ports.specs import AdapterOptions, BackendSpec, BrokerSpec, EncoderSpec, SignerSpec

__all__ = [
    "AdapterOptions",
    "Backend",
    "BackendCapabilities",
    "BackendSpec",
    "Broker",
    "BrokerCapabilities",
    "BrokerSpec",
    "Callback",
    "Committer",
    "ContextPayloadEncoder",
    "EncodeContext",
    "EncoderSpec",
    "Ended",
    "GroupAnswer",
    "GroupOutcome",
    "GroupRecord",
    "KeyScope",
    "LimitAnswer",
    "Outbox",
    "OutboxSpec",
    "Outcome",
    "PayloadEncoder",
    "PayloadSigner",
    "QueueStats",
    "SignatureBlock",
    "SignerSpec",
    "Starter",
    "StateEntry",
    "StateRead",
    "Step",
    "TaskPayloadEncoder",
    "pre_authentication_encoding",
]
