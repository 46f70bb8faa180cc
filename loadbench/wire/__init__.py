"""Bytes in, events out: the formats in which LLM servers stream their responses."""
