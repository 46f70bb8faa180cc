"""What a person watches while a run goes on. Without it every measurement is the same."""
