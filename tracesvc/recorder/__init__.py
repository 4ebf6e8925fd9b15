"""Inside the traced program: what runs per event."""
