"""The cells of a grid next to each other: which is surely the best, and what each trades for what."""
