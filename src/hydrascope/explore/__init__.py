"""A model behind a page: questions about one prompt, answered by the engine, now."""
