"""Shared by all tests; its being here puts this folder, with `synthetic` and `tiny`, on the import path."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
