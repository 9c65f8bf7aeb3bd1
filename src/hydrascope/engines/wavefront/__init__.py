"""The wavefront engine: all ablated runs of many prompts as one pass over the layers."""

from hydrascope.engines.wavefront.engine import activations_before_override, final_streams, measure
from hydrascope.engines.wavefront.row_weights import attention_weights
from hydrascope.engines.wavefront.stream_visits import visit_streams

__all__ = ["activations_before_override", "attention_weights", "final_streams", "measure", "visit_streams"]
