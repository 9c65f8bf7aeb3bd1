"""The wavefront engine: all ablated runs of many prompts as one pass over the layers."""

from hydrascope.engines.wavefront.engine import measure, would_be

__all__ = ["measure", "would_be"]
