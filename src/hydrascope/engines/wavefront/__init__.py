"""The wavefront engine: all ablated runs of many prompts as one pass over the layers."""

from hydrascope.engines.wavefront.engine import activations_before_override, final_streams, measure

__all__ = ["activations_before_override", "final_streams", "measure"]
