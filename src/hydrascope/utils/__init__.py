"""Small helpers without models: errors, text, progress, files, shipped assets."""
