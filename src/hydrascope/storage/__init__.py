"""Results on disk: schema, reading, writing, checksums, and processes that share one result."""
