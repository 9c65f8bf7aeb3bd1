"""Ablations: the values that an ablated component writes instead."""
