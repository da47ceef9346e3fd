"""What sandboxfile keeps on this machine: blobs, layers, an index of them, locks, and their removal."""
