"""Clean passes and what is kept of them."""
