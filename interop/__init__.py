"""Checks with the real packages of other tools, each in an environment of its own: `make interop`."""
