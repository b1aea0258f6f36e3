"""What model.sig says it was made of, read without asking whose it is.

A Sigstore bundle around a DSSE envelope around an in-toto statement, whose predicate
https://model_signing/signature/v1.0 lists files and their SHA-256 (so model_signing 1.1.1).
"""

import base64
import json
from pathlib import Path

from release.errors import VerifyError
from release.manifest import MAX_SUMS_BYTES, SIGNATURE


def signed_files(folder: Path) -> dict[str, str]:
    """Path -> SHA-256 in the statement of ``folder``'s model.sig.

    Raises VerifyError for a file that is no such bundle, or larger than one line a file explains.
    """
    path = folder / SIGNATURE
    again = "Get the release again, from the publisher."
    size = path.stat().st_size
    if size > MAX_SUMS_BYTES:
        raise VerifyError(f"{SIGNATURE} is larger than {MAX_SUMS_BYTES:,} bytes", again)
    try:
        envelope = json.loads(path.read_bytes())["dsseEnvelope"]
        statement = json.loads(base64.b64decode(envelope["payload"], validate=True))
        files = {item["name"]: item["digest"] for item in statement["predicate"]["resources"]}
        if not envelope["signatures"] or not all(isinstance(v, str) for v in files.values()):
            raise ValueError("no signature, or a digest that is no text")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        said = f"{SIGNATURE} is not a signature bundle ({type(error).__name__}: {error})"
        raise VerifyError(said, again) from error
    return files
