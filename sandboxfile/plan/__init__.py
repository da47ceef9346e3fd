"""From a Sandboxfile and its lock to a plan, and from a plan to what has to be done. Pure."""
