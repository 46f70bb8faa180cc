"""From results to what people and programs read: one format per file."""
