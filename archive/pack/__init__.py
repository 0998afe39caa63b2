"""Bytes at rest: journal records and packs. Format only; when and why anything is written is decided in `flow/`."""
