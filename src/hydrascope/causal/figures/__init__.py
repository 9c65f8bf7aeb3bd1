"""Figures of causal graphs and motifs."""
