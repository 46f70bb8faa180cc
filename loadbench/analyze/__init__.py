"""The reading arm: from recordings to figures, intervals, verdicts and answers. Pure; no I/O, no clock."""
