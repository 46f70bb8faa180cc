"""Bytes in, events out: the event-stream format and what servers of language models write in it."""
