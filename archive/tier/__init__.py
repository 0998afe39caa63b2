"""Where packs rest: one protocol, one contract suite, several implementations."""
