"""What is promised under faults (docs/reliability.md), tried; the long form: `cd tests; python -m faults --help`."""
