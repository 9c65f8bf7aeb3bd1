"""Studies that a reader can rerun, each by one command: `make study NAME=replication`."""
