"""ONNX Runtime with its CUDA provider in small pieces, for a GPU machine without a network.

    python benchmarks/gpu_pack.py OUT [--wheel FILE] [--archs 90] [--piece-mib 60]

Run where pip works; carry OUT to the machine and give it to ``benchmarks/gpu.py --parts``. The
wheel (255 MB for 1.31.1) is for CPython 3.12 unless --python says otherwise, and is fetched by pip
unless it is given. What loads models and the CUDA provider are kept. Device code of other
generations than --archs (90: Hopper; PTX of the same number counts) is zeroed where it lies, which
compresses to nothing: all offsets stay as they are. --archs all keeps every one.

The section .nv_fatbin is a row of containers: magic 0xBA55ED50, u16 version, u16 header size, u64
size of what follows; in each, entries of u16 kind, u16 version, u32 header size, u64 payload size,
with the generation as u32 at byte 28 (read off the 1.31.1 wheel; nothing of it is documented). A
library in which that is not so is an error.
"""

import argparse
import hashlib
import lzma
import mmap
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

VERSION = "1.31.1"
CUDA = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
SUMS, MANIFEST = "ortgpu.parts.sha256", "manifest.sha256"
MAGIC, CONTAINER, ENTRY, GENERATION = 0xBA55ED50, "<IHHQ", "<HHIQ", 28
ELF_SECTIONS, ELF_COUNTS, ELF_SECTION = 0x28, 0x3A, "<IIQQQQIIQQ"


@dataclass(frozen=True)
class Code:
    """One piece of device code in a library: where its bytes lie, and for which generation."""

    offset: int
    size: int
    generation: int


def is_kept(name: str) -> bool:
    """Whether a member of the wheel is needed to load a model with the CUDA provider."""
    path = PurePosixPath(name)
    folder = path.parent.as_posix()
    if folder == "onnxruntime":
        return path.name in ("__init__.py", "LICENSE", "ThirdPartyNotices.txt")
    if folder != "onnxruntime/capi":
        return False
    kept = ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so")
    return path.suffix == ".py" or path.name in kept or "pybind11_state" in path.name


def section(data: "mmap.mmap | bytes", wanted: bytes) -> tuple[int, int]:
    """Offset and size of a section of a 64-bit little-endian ELF file (elf(5))."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise SystemExit("Error: the CUDA provider is no 64-bit ELF library")
    (start,) = struct.unpack_from("<Q", data, ELF_SECTIONS)
    width, count, names = struct.unpack_from("<HHH", data, ELF_COUNTS)
    rows = [struct.unpack_from(ELF_SECTION, data, start + width * at) for at in range(count)]
    texts = rows[names][4]
    for row in rows:
        at = texts + row[0]
        if data[at : at + len(wanted) + 1] == wanted + b"\0":
            return row[4], row[5]
    raise SystemExit(f"Error: the CUDA provider has no section {wanted.decode()}")


def device_code(data: "mmap.mmap | bytes") -> Iterator[Code]:
    """Every piece of device code, in order; ``SystemExit`` where the section is another form."""
    at, size = section(data, b".nv_fatbin")
    end = at + size
    while at + struct.calcsize(CONTAINER) <= end:
        magic, _, header, inside = struct.unpack_from(CONTAINER, data, at)
        if magic != MAGIC:
            if data[at : at + 8] != bytes(8):
                raise SystemExit(f"Error: at byte {at} of the CUDA provider is no device code")
            at += 8  # filling between containers
            continue
        entry, at = at + header, at + header + inside
        while entry < at:
            _, _, head, payload = struct.unpack_from(ENTRY, data, entry)
            (generation,) = struct.unpack_from("<I", data, entry + GENERATION)
            if head < GENERATION + 4 or entry + head + payload > min(at, end):
                raise SystemExit(f"Error: the device code at byte {entry} has an impossible size")
            yield Code(entry + head, payload, generation)
            entry += head + payload


def slim(library: Path, generations: Collection[int]) -> tuple[int, int]:
    """Zero the code of all other generations in place; bytes that stay, and that went."""
    stays = goes = 0
    with library.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        for code in list(device_code(data)):
            if code.generation in generations:
                stays += code.size
                continue
            data[code.offset : code.offset + code.size] = bytes(code.size)
            goes += code.size
    if not stays:
        raise SystemExit(f"Error: the library has no code for {sorted(generations)}")
    return stays, goes


def write_parts(folder: Path, out: Path, piece: int) -> list[Path]:
    """``folder`` as a compressed archive in pieces of at most ``piece`` bytes, with their sums."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = [f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / MANIFEST).write_text("".join(sums), encoding="utf-8")
    out.mkdir(parents=True)
    whole = out / "ortgpu.tar.xz"
    with lzma.open(whole, "wb") as raw, tarfile.open(fileobj=raw, mode="w|") as archive:
        for path in [*files, folder / MANIFEST]:
            archive.add(path, path.relative_to(folder).as_posix())
    parts: list[Path] = []
    with whole.open("rb") as file:
        while data := file.read(piece):
            parts.append(out / f"ortgpu.part.{len(parts):02d}")
            parts[-1].write_bytes(data)
    whole.unlink()
    text = "".join(f"{_digest(part)}  {part.name}\n" for part in parts)
    (out / SUMS).write_text(text, encoding="utf-8")
    return parts


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(folder: Path, python: str) -> Path:
    """The wheel, by pip."""
    asked = f"download --quiet --no-deps --only-binary=:all: --python-version {python}".split()
    asked += ["--platform", "manylinux_2_28_x86_64", "-d", str(folder)]
    pip = [sys.executable, "-m", "pip", *asked, f"onnxruntime-gpu=={VERSION}"]
    if subprocess.run(pip, check=False).returncode:
        raise SystemExit("Error: pip could not fetch the wheel; give it with --wheel")
    return next(folder.glob("*.whl"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, help="a new folder for the pieces")
    parser.add_argument("--wheel", type=Path, help="of onnxruntime-gpu, for Linux on x86-64")
    parser.add_argument("--archs", default="90", help="generations with commas, or all")
    parser.add_argument("--piece-mib", type=int, default=60)
    parser.add_argument("--python", default="3.12", help="of the GPU machine")
    asked = parser.parse_args()
    archs = None if asked.archs == "all" else asked.archs.split(",")
    if archs is not None and not all(arch.isascii() and arch.isdigit() for arch in archs):
        parser.error("--archs: numbers with commas between them, or all")
    if asked.out.exists() or asked.piece_mib < 1:
        parser.error(f"{asked.out} is there" if asked.out.exists() else "--piece-mib: 1 or more")
    with tempfile.TemporaryDirectory(prefix="moeship-gpu-") as work:
        wheel = asked.wheel or fetch(Path(work), asked.python)
        kept = Path(work) / "kept"
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if is_kept(name)]
            if CUDA not in names:
                parser.error(f"{wheel} is no wheel of onnxruntime-gpu for Linux")
            archive.extractall(kept, names)
        if archs is not None:
            stays, goes = slim(kept / CUDA, {int(arch) for arch in archs})
            print(f"device code: {stays / 1e6:.0f} MB stay, {goes / 1e6:.0f} MB are zeroed")
        for part in write_parts(kept, asked.out, asked.piece_mib << 20):
            print(f"{part}: {part.stat().st_size / (1 << 20):.1f} MiB")


if __name__ == "__main__":
    main()
