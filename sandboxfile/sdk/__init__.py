"""Volumes, snapshots and sandboxes, as programs use them."""
