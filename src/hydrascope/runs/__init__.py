"""Runs: plan, cost, measurement, and how far the numbers can be trusted."""
