"""Small helpers that know nothing of models: errors, text, progress, files, shipped assets."""
