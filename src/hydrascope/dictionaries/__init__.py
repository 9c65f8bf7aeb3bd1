"""Dictionaries of features: sparse autoencoders and transcoders, from tools and files."""
