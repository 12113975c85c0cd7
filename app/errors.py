"""Errors that carry a sentence a person can act on, and the status each means.

Every cause has its class. HTTP status, command line exit code and a job's failure are read from
it in one place each: ``app.main`` (status), ``app.cli`` (exit code), ``workers.child`` (failure).
"""

from __future__ import annotations


class CalibrantError(Exception):
    """A failure with one clear sentence: what was wrong, where, and what would be right."""

    status = 500
    exit_code = 1

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class Refused(CalibrantError):
    """Input that cannot be used as it is."""

    status = 422
    exit_code = 2


class NotFound(Refused):
    """A name or id that nothing answers to."""

    status = 404


class Conflict(Refused):
    """A request that the present state does not allow."""

    status = 409


class ModelRefused(Refused):
    """A model directory that cannot be read or quantized."""


class RecipeRefused(Refused):
    """A recipe that does not fit the model."""


class CompositionRefused(Refused):
    """A composition that cannot be built from the sources."""


class CheckpointRefused(Refused):
    """A checkpoint that cannot be read, or that does not belong to its source."""


class OutOfMemory(CalibrantError):
    """The accelerator's memory is too small for the work, however it is cut."""

    exit_code = 2


class NotFinite(Refused):
    """A model that gives NaN or infinity where numbers are needed."""


class ResumeRefused(Refused):
    """Finished layers that were made of something else, or are damaged."""


class PortInUse(Refused):
    """The address to listen on is taken."""


class InsecureBinding(Refused):
    """A public address without a token."""


class BrokerGone(CalibrantError):
    """The broker does not answer; the job row is kept and can be sent again."""

    status = 503
    exit_code = 2


class DatabaseAway(CalibrantError):
    """The database does not answer, or another process holds it; nothing was changed."""

    status = 503


class NotRemoved(CalibrantError):
    """Files of something that was deleted stay on the disk."""


class FileUnusable(Refused):
    """A file or directory that cannot be read or written."""


class DiskFull(CalibrantError):
    """No room left where an artifact should go."""

    status = 507
    exit_code = 2
