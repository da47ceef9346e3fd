"""Work on layer content, done by a process that sees it with the sandbox's own ids.

These modules run in a forked child of the helper, inside the user namespace of the sandboxes: every import
must have happened before the ids change, and paths are only ever reached through descriptors.
"""
