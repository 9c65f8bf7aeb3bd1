"""A language model with its components found, and what is computed from its weights."""
