"""Nearness: bytes of packs as local mapped memory, checked before anyone sees them."""
