"""The wavefront engine: all ablated runs of many prompts as one pass over the layers."""

from hydrascope.engines.wavefront.engine import measure, activations_before_override

__all__ = ["measure", "activations_before_override"]
