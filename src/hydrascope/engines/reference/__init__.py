"""The reference engine: every run is a plain forward pass of the whole prompt, with hooks."""

from hydrascope.engines.reference.engine import activations_before_override, measure

__all__ = ["activations_before_override", "measure"]
