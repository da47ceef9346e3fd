"""Unpacking Debian packages as `dpkg --unpack` does, in parallel, where nothing but files is concerned.

docs/dev/apt-layers.md says which packages that are, and why the result is the same.
"""
