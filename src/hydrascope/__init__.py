"""hydrascope: the instrument that shows how a language model repairs itself."""

__version__ = "0.1.0"
