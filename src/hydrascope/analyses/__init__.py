"""Analyses that combine several runs, and estimates held against them."""
