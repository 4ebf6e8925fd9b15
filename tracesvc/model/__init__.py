"""A trace as a model: read, replayed, verified."""
