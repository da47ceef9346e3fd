"""Sandboxes that outlive the client that made them.

Each has a process of its own, its keeper: the client of a helper that outlives ours. It holds what a client
would hold (the engine, the locks, the sandbox) and is asked through a socket in the store that nobody but
the store's user can reach.
"""
