"""One measurement put together, for every command that measures."""
