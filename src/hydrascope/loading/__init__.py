"""Load language models and prove that their anatomy is right."""
