"""The meeting point of the two arms: result types, their schema, and the run folder that they are kept in."""
