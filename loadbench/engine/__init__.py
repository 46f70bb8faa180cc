"""The measuring arm: the two loops, one level, the sweep, and the client's own health."""
