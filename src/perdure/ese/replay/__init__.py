"""Replay: from an image of a database and its logs to a consistent database at any position, without the engine."""
