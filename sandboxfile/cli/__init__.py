"""The command line: parses argv, calls `sandboxfile.api`, turns values, events and errors into text."""
