"""``--fix``: only what cannot change what the model means, and nothing in a release that is summed.

An index's total_size, an index made anew from the shards' headers, and files that operating systems
and interpreters leave behind.
"""

import json
import re
import stat
from pathlib import Path
from typing import Any

from converters.staging import write_file
from release.errors import VerifyError
from release.lint import weights
from release.lint.finding import Finding
from release.lint.folder import Folder
from release.lint.run import Report
from release.manifest import SIGNATURE, SUMS


def fix(report: Report) -> list[str]:
    """Mend what can be mended; returns what was done, a line each.

    Raises VerifyError for a folder that is summed or signed: the sums would no longer hold.
    """
    folder = Folder(report.folder)
    summed = [name for name in (SIGNATURE, SUMS) if name in folder.files]
    if summed:
        raise VerifyError(
            f"{report.folder} has {' and '.join(summed)}, which would no longer hold",
            "Mend the source and build the release again: sums and signature must be made anew.",
        )
    done = []
    for finding in report.findings:
        mend = MENDS.get(finding.code)
        if mend is not None and (said := mend(folder, finding)):
            done.append(said)
    return done


def _total_size(folder: Folder, _: Finding) -> str:
    index = folder.document(weights.INDEX) or {}
    places = weights.places_of(index)
    total = None if places is None else weights.total_size(folder, sorted(set(places.values())))
    if total is None:
        return ""
    metadata = index.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    _write(folder, {**index, "metadata": {**known, "total_size": total}})
    return f"{weights.INDEX}: total_size is {total} now"


def _index(folder: Folder, _: Finding) -> str:
    """Only of a whole series: an index over what is left of one would hide what is missing."""
    names = weights.shards(folder)
    numbers = [weights.NUMBERED.match(name) for name in names]
    total = weights.total_size(folder, names)
    series = {(m["stem"], int(m["count"])) for m in numbers if m}
    given = sorted(int(m["number"]) for m in numbers if m)
    whole = all(numbers) and given == list(range(1, len(names) + 1))
    whole = whole and len(series) == 1 and next(iter(series))[1] == len(names)
    places: dict[str, str] = {}
    for name in names:
        header = folder.header(name)
        if isinstance(header, str) or set(header[0]) & set(places):
            return ""
        places |= dict.fromkeys(header[0], name)
    if not whole or total is None:
        return ""
    _write(folder, {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))})
    return f"{weights.INDEX}: made from the headers of {len(names)} shards"


def _write(folder: Folder, index: dict[str, Any]) -> None:
    text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    write_file(folder.root / weights.INDEX, text.encode("utf-8"))


def _litter(folder: Folder, finding: Finding) -> str:
    path = folder.root / finding.place.file
    if not stat.S_ISREG(path.lstat().st_mode):  # a link is somebody's decision
        return ""
    path.unlink()
    parent = path.parent
    if re.fullmatch(r"__pycache__|__MACOSX|\.ipynb_checkpoints", parent.name) and _empty(parent):
        parent.rmdir()
    return f"{finding.place.file}: removed"


def _empty(folder: Path) -> bool:
    return not any(folder.iterdir())


MENDS = {"W05": _total_size, "W06": _index, "S02": _litter}
