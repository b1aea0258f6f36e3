"""Copies of a release beside the Hub: a folder, or a prefix of an S3 bucket.

Every byte of a copy is read back and compared with SHA256SUMS before the copy can be taken for a
release: a folder appears by one rename, a prefix gets its SHA256SUMS last.
"""

from release.mirror.run import Mirror, Mirrored, prepare, prepare_all

__all__ = ["Mirror", "Mirrored", "prepare", "prepare_all"]
