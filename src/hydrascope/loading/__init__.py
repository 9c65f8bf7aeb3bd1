"""Loading a model, and proving that its anatomy is right."""
