"""The wavefront engine: all ablated runs of many prompts as one pass over the layers."""

from hydrascope.engines.wavefront.engine import activations_before_override, final_streams, measure
from hydrascope.engines.wavefront.row_weights import attention_weights

__all__ = ["activations_before_override", "attention_weights", "final_streams", "measure"]
