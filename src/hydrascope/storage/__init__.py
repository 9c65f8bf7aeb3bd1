"""Results on disk: schema, reading, writing, checksums, and several writing processes."""
