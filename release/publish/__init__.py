"""Publish a built release folder to the Hugging Face Hub, in one visible step.

`publish` stages the release on a pull request, compares what the Hub then holds with SHA256SUMS,
and merges. Readers of ``main`` see the old release or the whole new one, never a part.
"""

from release.publish.options import Publication, PublishOptions
from release.publish.run import publish

__all__ = ["Publication", "PublishOptions", "publish"]
