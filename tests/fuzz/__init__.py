"""Readers of foreign bytes, and the search for bytes that break them."""
