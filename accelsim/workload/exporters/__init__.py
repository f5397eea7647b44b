"""Traces as files of other tools: one module a format. They give names and texts; the caller writes them."""
