"""Replicate the findings of McGrath et al. 2023 on two small language models."""
