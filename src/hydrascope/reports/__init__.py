"""What a reader sees of results: summaries, figures, pages."""
