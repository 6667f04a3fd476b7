"""What can go wrong in the generator, each with a message that a user can act on.

Every error raised on purpose in `generator` is a `GeneratorError`; anything else is a bug.
"""

from __future__ import annotations


class GeneratorError(Exception):
    """Base of every error that the generator raises on purpose; `str(error)` may be shown to a user."""


class CheckpointError(GeneratorError):
    """A model folder is missing, incomplete, damaged or of another kind."""


class RequestError(GeneratorError):
    """A drawing request that cannot be drawn as it stands; raised before any work is done."""


class QueueFull(GeneratorError):
    """One user has too many drawings waiting."""


class DrawingFailed(GeneratorError):
    """The drawing broke off: the model's numbers overflowed, or the device gave up."""


class DrawingCancelled(GeneratorError):
    """Somebody stopped the drawing; nothing is wrong."""


class EngineClosed(GeneratorError):
    """The engine was shut down before or while the request was drawn."""
