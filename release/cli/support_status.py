"""Whether the release a tiers file lies in is still supported, for ``moeship license explain``.

The packages license_tiers and support know nothing of one another; the command line knows both.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from release import checks, records


def support_status(tiers: Path, at: int) -> dict[str, Any] | None:
    """What ``moeship/support.json`` beside the tiers says of ``moeship/release.json`` at a time.

    None where the tiers are not those of a release, or the release promises no support. Raises
    ReleaseError or SupportError for files that cannot be read.
    """
    folder = tiers.resolve().parent.parent
    if tiers.resolve() != folder / records.TIERS or not (folder / records.SUPPORT).is_file():
        return None
    said, warn = checks.lifecycle(folder, datetime.fromtimestamp(at, UTC))
    return {"version": checks.read_release(folder).model.version, "said": said, "warns": warn}
