"""Shared by all tests; its being here puts this folder, with `synthetic` and `tiny`, on the import path."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
# The models are tiny: threads would spend their time waiting for each other. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What is faster is measured, and may be another library in each process: numbers that are compared to the bit need one.
os.environ.setdefault("HYDRASCOPE_KERNELS", "onednn+gelu")
# No test may reach a hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
