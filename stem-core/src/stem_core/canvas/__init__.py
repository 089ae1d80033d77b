"""Canvas: tasks composed into chains, groups and chords that workers drive."""

from stem_core.canvas.canvas import Canvas
from stem_core.canvas.dispatch import BatchStatus, GraphHandle, GroupHandle
from stem_core.canvas.graph import Chain, Chord, Group, chain, chord, group

__all__ = [
    "BatchStatus",
    "Canvas",
    "Chain",
    "Chord",
    "GraphHandle",
    "Group",
    "GroupHandle",
    "chain",
    "chord",
    "group",
]
