"""The reference engine: plain forward passes of whole prompts, with hooks."""

from hydrascope.engines.reference.engine import (
    activations_before_override,
    attention_weights,
    final_streams,
    measure,
    visit_streams,
)

__all__ = ["activations_before_override", "attention_weights", "final_streams", "measure", "visit_streams"]
