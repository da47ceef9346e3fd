"""One module for each verb.

Each has `DESCRIPTION` (for its help), `configure(parser)`, which adds the verb's own arguments, and
`execute(invocation) -> int`, which does the work and returns the exit code. A module is imported only when
its verb was chosen, and imports what is expensive inside its functions.
"""
