"""Proofs that an export, an engine or a precision draws what it should."""
