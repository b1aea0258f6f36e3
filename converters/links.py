"""Where the links of a model folder may lead: one rule for readers, releases and the linter."""

from pathlib import Path

SHARED_MARK = ".huggingface-shared-blobs"


def cache_roots(folder: Path) -> tuple[Path, ...]:
    """The folders of blobs of the Hub cache whose snapshot ``folder`` is; none for another folder.

    The cache is ``models--OWNER--NAME/{blobs,refs,snapshots/COMMIT}``, with links from the snapshot
    into ``blobs`` (https://huggingface.co/docs/huggingface_hub/guides/manage-cache). Since 2.4 the
    client keeps Xet files once for all repositories, in ``blobs`` beside the ``models--`` folders,
    and the repository's own blob is a link to them; a mark tells that folder from any other of the
    name (huggingface_hub/utils/_shared_blobs.py).
    """
    real = folder.resolve()
    repository = real.parent.parent
    blobs = repository / "blobs"
    if real.parent.name != "snapshots" or not blobs.is_dir():
        return ()
    shared = repository.parent / "blobs"
    marked = repository.name.startswith("models--") and (shared / SHARED_MARK).is_file()
    return (blobs, shared) if marked else (blobs,)
