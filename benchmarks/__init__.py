"""Hydrascope against the code that people write today, and against the machine: `python -m benchmarks --help`."""
