"""perdure: continuous data protection. Replicas, express fulls, shipped logs, any point in time."""

__version__ = "0.1.0"

__all__ = ["__version__"]
