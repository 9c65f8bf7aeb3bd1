"""The reference engine: every run is a plain forward pass of the whole prompt, with hooks."""

from hydrascope.engines.reference.engine import measure, activations_before_override

__all__ = ["measure", "activations_before_override"]
