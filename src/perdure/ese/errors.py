"""Errors of reading ESE files: each names the file and the place in it."""

from __future__ import annotations

from perdure.model.errors import Damaged, NotFound, SourceUnusable

__all__ = ["EseDamaged", "EseUnsupported", "NotAnEseFile", "TableNotFound"]


class EseDamaged(Damaged):
    """Bytes of an ESE file are not what the engine wrote, or contradict each other."""

    default_code = "ese-damaged"


class NotAnEseFile(SourceUnusable):
    """A file that is no ESE database, log, checkpoint or flush map."""

    default_code = "not-an-ese-file"


class EseUnsupported(SourceUnusable):
    """An ESE file, or a part of one, of a format that this library does not read."""

    default_code = "ese-unsupported"


class TableNotFound(NotFound):
    """A table that the catalog of a database does not list."""

    default_code = "table-not-found"
