"""Errors of building, verifying and publishing a release."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from release.publish.options import Publication


class ReleaseError(Exception):
    """A release could not be built, verified or published.

    ``hint`` says what to do next, in one sentence.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ManifestError(ReleaseError):
    """SHA256SUMS is absent, malformed or cannot be written for this folder."""


class PublishError(ReleaseError):
    """The Hub refused, failed, or holds something else than the release."""


class StaleParentError(PublishError):
    """Someone else changed the repository's main branch while the release was being published."""


class MirrorError(ReleaseError):
    """A copy of the release beside the Hub could not be made, or is not what SHA256SUMS says."""


class UnmirroredError(MirrorError):
    """A mirror failed when the Hub held the release; ``done`` is what was published till then."""

    def __init__(self, message: str, hint: str, done: "Publication") -> None:
        super().__init__(message, hint)
        self.done = done


class AccessError(ReleaseError):
    """A decision on who may download a gated repository could not be read, made or written down."""


class DownloadError(ReleaseError):
    """A release could not be downloaded whole, or what arrived is not what its sums say."""


class YamlError(ReleaseError):
    """The file is not the plain YAML it has to be."""


class SpecError(ReleaseError):
    """release.yaml is not as it has to be; the message names file, line and field."""


class LicenseTextError(ReleaseError):
    """A licence's text is missing, empty or not filled in."""


class SigningError(ReleaseError):
    """A key cannot sign or verify, or a signature does not hold."""


class BuildError(ReleaseError):
    """A release could not be built; nothing that looks finished was left."""


class VerifyError(ReleaseError):
    """A release is not what it says it is."""


class RecordError(ReleaseError):
    """A JSON record of a release is not as it has to be."""
