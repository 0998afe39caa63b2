"""The verbs: what happens, in which order, by which policy."""
