"""One page that shows a result: a file that opens from disk, needs no network, and can be sent to anyone."""
