"""Prompts, sets of prompts, and what a tokenizer makes of them."""
