"""``perdure ese``: files of Exchange's storage engine, read and verified."""
