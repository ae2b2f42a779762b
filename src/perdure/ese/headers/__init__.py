"""Headers of databases, logs, checkpoints and flush maps."""
