"""The HTML page of a result: one file that opens from disk and needs no network."""
