"""Assemble, verify and publish a release: the only package that knows the other three."""
