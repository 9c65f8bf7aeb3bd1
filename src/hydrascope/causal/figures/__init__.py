"""Figures of causal graphs and motifs (Fig. 4 to 6 of the paper)."""
