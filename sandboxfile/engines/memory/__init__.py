"""The memory engine: a dict for a filesystem, programs that are Python coroutines. For tests."""
