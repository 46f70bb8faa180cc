"""What will be done: the scenario, the load of each level, the arrivals, the prompts. Pure: no I/O but reading files."""
