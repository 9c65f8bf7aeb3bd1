"""The reference engine: every run is a plain forward pass of the whole prompt, with hooks."""

from hydrascope.engines.reference.engine import measure, would_be

__all__ = ["measure", "would_be"]
