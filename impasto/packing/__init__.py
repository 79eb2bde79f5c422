"""Packs a training for a machine without network: `python -m impasto.packing`."""
