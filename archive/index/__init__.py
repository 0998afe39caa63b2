"""What the archive knows: derived from packs and journal, rebuildable, in LMDB."""
