"""Faster kernels for the same functions, and the hardware that they run on."""
