"""The engine of this machine: overlayfs layers, user namespaces and an OCI runtime."""
