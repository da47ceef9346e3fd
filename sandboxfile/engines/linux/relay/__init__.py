"""The relay: TCP and DNS of one sandbox, passed on by a process of the helper, where pasta cannot be used."""
