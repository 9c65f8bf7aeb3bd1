"""A fuzzer of models: random small configurations of every architecture, measured and compared with plain passes."""
