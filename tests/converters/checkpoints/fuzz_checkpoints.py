"""Coverage-guided fuzzing of what reads a checkpoint that a stranger wrote; run by hand.

    pip install atheris
    python tests/converters/checkpoints/fuzz_checkpoints.py CORPUS -max_total_time=600 \
        -max_len=8192 -timeout=20 -rss_limit_mb=1500

The first byte of an input chooses the reader: a safetensors file, its header alone (behind the
right length), an index, DCP metadata, a zip file of torch's, the pickle in one, config.json (of
many families), the journal of an interrupted export, what a rank's safetensors file says of its
slices. What opens is read to the end. Only errors of ours may escape, each with a hint; a run ends
at a hang (-timeout) or at memory beyond what the inputs can hold (-rss_limit_mb).

Half of what is JSON is changed in its structure (`json_mutations.py`), the rest byte by byte.
"""

import contextlib
import json
import pickle
import random
import shutil
import struct
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import atheris
import json_mutations
import numpy as np
import safetensors.numpy

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["converters"]):
    from converters.architectures import find
    from converters.checkpoints import dcp, open_checkpoint
    from converters.errors import ConverterError
    from converters.journal import Checksum, Journal, Whole
    from converters.layout import expected_tensors, open_model
    from converters.reading import read_tensor
    from converters.staging import Staging

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-checkpoints-"))
MOST_BYTES = 1 << 24
CONFIG = {
    "model_type": "qwen3_moe",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "vocab_size": 16,
    "max_position_embeddings": 32,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 4,
    "intermediate_size": 8,
}


def read_all(folder: Path) -> None:
    """Open it and read every tensor; no file of a few kilobytes may stand for gigabytes."""
    total = 0
    for ref in open_checkpoint(folder).tensors.values():
        total += ref.nbytes
        if total > MOST_BYTES:
            raise AssertionError(f"{total} bytes out of a file of kilobytes")
        for _ in read_tensor(ref, 4096):
            pass


def place(name: str) -> Path:
    """The folder of one reader."""
    folder = FOLDER / name
    folder.mkdir(exist_ok=True)
    return folder


def read_safetensors(data: bytes) -> None:
    (place("file") / "model.safetensors").write_bytes(data)
    read_all(place("file"))


def read_header(data: bytes) -> None:
    """JSON behind its right length, before 64 bytes of data."""
    read_safetensors(struct.pack("<Q", len(data)) + data + b"\0" * 64)


def read_slices(data: bytes) -> None:
    """What one rank says of its slices, beside another rank's."""
    header = {name: {"dtype": "F32", "shape": [2, 2]} for name in "ab"}
    for at, name in enumerate(sorted(header)):
        header[name]["data_offsets"] = [16 * at, 16 * at + 16]
    for rank, said in enumerate([SLICES, data.decode("utf-8", "surrogateescape")], 1):
        text = json.dumps({**header, "__metadata__": {"DCP_SHARDING_INFO": said}}).encode()
        file = place("slices") / f"shard-{rank:05}-model-00001-of-00001.safetensors"
        file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(32))
    read_all(place("slices"))


def read_index(data: bytes) -> None:
    (place("index") / "model.safetensors.index.json").write_bytes(data)
    read_all(place("index"))


def read_metadata(data: bytes) -> None:
    dcp._located.cache_clear()
    (place("dcp") / ".metadata").write_bytes(data)
    read_all(place("dcp"))


def read_zip(data: bytes) -> None:
    (place("zip") / "model.pt").write_bytes(data)
    read_all(place("zip"))


def archive(data: bytes) -> bytes:
    path = place("made") / "model.pt"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("model/data.pkl", data)
        made.writestr("model/data/0", b"\0" * 64)
    return path.read_bytes()


def read_config(data: bytes) -> None:
    (place("config") / "config.json").write_bytes(data)
    open_model(place("config"))


def read_pickle(data: bytes) -> None:
    read_zip(archive(data))


SLICES = json.dumps({name: {"saved_offsets": [0, 0]} for name in "ab"})
SHARDS = {"a.safetensors": b"a" * 64, "b.safetensors": b"b" * 80}


def staged() -> tuple[Staging, dict[str, int]]:
    """An export under way, both of its shards whole."""
    staging = Staging(place("partial"))
    shutil.rmtree(staging.root)
    staging.folder.mkdir(parents=True)
    for name, data in SHARDS.items():
        (staging.folder / name).write_bytes(data)
    return staging, {name: len(data) for name, data in SHARDS.items()}


def read_journal(data: bytes) -> None:
    """What it calls whole is so, and nothing else is left."""
    staging, planned = staged()
    staging.journal.write_bytes(data)
    journal = Journal(staging, "key", planned)
    held = {name for name in planned if journal.holds(name, lambda count: None)}
    left = {path.name: path.read_bytes() for path in staging.folder.iterdir()}
    if left != {name: SHARDS[name] for name in held}:
        raise AssertionError(f"held {held}, left {set(left)}")


def journal_document() -> bytes:
    staging, planned = staged()
    journal = Journal(staging, "key", planned)
    for name, data in SHARDS.items():
        (staging.folder / name).write_bytes(data)
        checksum = Checksum()
        checksum.update(memoryview(data))
        journal.add(name, Whole(len(data), checksum.hexdigest()))
    return staging.journal.read_bytes()


READERS = [
    read_safetensors,
    read_header,
    read_index,
    read_metadata,
    read_zip,
    read_pickle,
    read_config,
    read_journal,
    read_slices,
]
DOCUMENTS = (read_header, read_index, read_config, read_journal, read_slices)
# Inputs tried and those that were read to the end, by reader; said every so often.
TRIED: Counter[str] = Counter()
READ: Counter[str] = Counter()
STRUCTURE: Counter[str] = Counter()
EVERY = 20_000


def one_input(data: bytes) -> None:
    """What atheris calls."""
    if not data:
        return
    reader = READERS[data[0] % len(READERS)]
    TRIED[reader.__name__] += 1
    try:
        reader(data[1:])
        READ[reader.__name__] += 1
    except ConverterError as error:
        if not error.hint:
            raise AssertionError(f"no hint: {error}") from error
    if TRIED.total() % EVERY == 0:
        said = f"inputs: {dict(TRIED)}; read: {dict(READ)}; structure: {dict(STRUCTURE)}"
        print(TRIED.total(), said, file=sys.stderr)


def change(data: bytes, most: int, seed: int) -> bytes:
    """The next input, made of one that is known; what atheris calls."""
    draw = random.Random(seed)
    reader = READERS[data[0] % len(READERS)] if data else read_zip
    made = data
    if reader in DOCUMENTS and draw.random() < 0.5:
        made = data[:1] + json_mutations.mutated(data[1:], draw)
    elif reader is read_safetensors and draw.random() < 0.5:
        end = 9 + int.from_bytes(data[1:9], "little")
        header = json_mutations.mutated(data[9:end], draw)
        made = data[:1] + struct.pack("<Q", len(header)) + header + data[end:]
    if made == data or len(made) > most:
        mutated: bytes = atheris.Mutate(data, most)
        return mutated
    STRUCTURE[reader.__name__] += 1
    return made


def model_tensors() -> dict[str, Any]:
    architecture = find("qwen3_moe")
    expected = expected_tensors(architecture, architecture.config(CONFIG))
    return {tensor.name: np.ones(tensor.shape, np.float32) for tensor in expected}


def family_configs() -> dict[str, bytes]:
    """The tiny configs that the tests list as data, as transformers writes a config.json."""
    import transformers

    found: dict[str, bytes] = {}
    for path in sorted(Path(__file__).parents[1].glob("*.json")):
        for name, one in json.loads(path.read_text()).items():
            config = getattr(transformers, f"{one['class']}Config")(**one["config"])
            found[name] = config.to_json_string(use_diff=False).encode()
    return found


def write_seeds(corpus: Path) -> None:
    """One good document for each reader to start from, and what it names."""
    import torch
    import torch.distributed.checkpoint as torch_dcp

    corpus.mkdir(exist_ok=True)
    small = {"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)}
    whole = safetensors.numpy.save(small)
    for name in ("m1.safetensors", "m2.safetensors"):
        safetensors.numpy.save_file({name[:2]: np.ones(2, np.float32)}, place("index") / name)
    safetensors.numpy.save_file(model_tensors(), place("config") / "model.safetensors")
    weights = {"a": torch.ones(2, 3), "b": torch.ones(3, 2).T}
    state = {"model": weights, "optimizer": {"s": torch.ones(1)}}
    beside = {"device": torch.device("cpu"), "path": Path("x"), "numpy": np.arange(3), "lr": 0.1}
    with contextlib.redirect_stderr(None):
        torch_dcp.save(state, checkpoint_id=place("dcp"))
    metadata = (place("dcp") / ".metadata").read_bytes()
    torch.save({**state, "beside": beside}, place("zip") / "model.pt")
    zipped = (place("zip") / "model.pt").read_bytes()
    torch.save({"a": torch.ones(2, 3)}, place("zip") / "model.pt")
    with zipfile.ZipFile(place("zip") / "model.pt") as opened:
        pickled = opened.read("model/data.pkl")
    header = json.dumps({"a": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}})
    places = {"m1": "m1.safetensors", "m2": "m2.safetensors"}
    documents = [
        whole,
        header.encode(),
        json.dumps({"metadata": {}, "weight_map": places}).encode(),
        metadata,
        zipped,
        pickled,
        json.dumps(CONFIG).encode(),
        journal_document(),
        SLICES.replace("0, 0", "2, 0").encode(),
    ]
    for number, document in enumerate(documents):
        READERS[number](document)
        (corpus / f"seed{number}").write_bytes(bytes([number]) + document)
    for name, config in family_configs().items():
        (corpus / f"seed-{name}").write_bytes(bytes([6]) + config)
    old = pickle.dumps(pickle.loads(metadata), 2)  # of torch's own making, a line above
    (corpus / "seed-protocol2").write_bytes(bytes([3]) + old)


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
    atheris.Setup(sys.argv, one_input, custom_mutator=change)
    atheris.Fuzz()
