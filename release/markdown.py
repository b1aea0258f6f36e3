"""Small pieces of Markdown that stay what they are, whatever text is put into them."""

from collections.abc import Sequence


def escape(text: str) -> str:
    """One line of text that starts no markup of its own and stays in its table cell."""
    flat = " ".join(text.split())
    for sign in ("\\", "|", "<", "[", "*", "_", "`"):
        flat = flat.replace(sign, "\\" + sign)
    return flat


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def counted(number: int, word: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def bytes_text(count: int) -> str:
    """``5.2 GB`` (10^9 bytes); below a kilobyte, bytes."""
    size = float(count)
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.1f} {unit}" if unit != "bytes" else f"{count} bytes"
        size /= 1000
    return f"{size:.1f} TB"
