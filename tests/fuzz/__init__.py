"""Measure random small models of every architecture and compare them with plain passes."""
