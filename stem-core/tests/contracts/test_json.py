"""The JSON encoder keeps every law."""

from __future__ import annotations

from stem_core.builtin.plugin import JSON
from stem_core.contracts import EncoderContract


class TestJson(EncoderContract):
    spec = JSON
