"""golden.npz from strangers: anything but a whole, bounded file is refused before it is used."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.errors import ConverterError
from converters.validation.compact import columns, condensed
from converters.validation.golden_file import (
    MOST_BYTES,
    About,
    GoldenFile,
    read_file,
    write_file,
)
from converters.validation.metrics import differences, largest, log_softmax

ABOUT = About(
    format="moeship/golden/1",
    model_type="mixtral",
    fingerprint="0" * 64,
    vocabulary=20,
    experts=4,
    moe_layers=[0],
    prompts=["one"],
    scales=[2.0],
    tolerances={},
    made_by={"torch": "2"},
)


def golden() -> GoldenFile:
    rows = 3
    return GoldenFile(
        ABOUT,
        np.array([1, 2, 3]),
        np.array([[2, 3, 7]]),
        np.tile(np.arange(20), (rows, 1)),
        np.linspace(-1, 2, rows * 20, dtype=np.float32).reshape(rows, 20),
        np.array([[[0, 1], [1, 2], [3, 0]]]),
        np.ones((1, rows, 2), np.float32),
        np.array([[0.5, np.inf, 0.1]]),
        np.array([[1.0]], np.float32),
    )


def write(path: Path) -> Path:
    write_file(golden(), path)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def rewrite(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=True)
    return buffer.getvalue()


def header(shape: str, descr: str = "<f4") -> bytes:
    """A .npy header that says ``shape``, with nothing behind it."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_round_trip(tmp_path: Path) -> None:
    read = read_file(write(tmp_path / "sub" / "golden.npz"))
    assert read.about == ABOUT
    np.testing.assert_array_equal(read.logits, golden().logits)
    np.testing.assert_array_equal(read.margin, golden().margin.astype(np.float32))


def test_pickles_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "golden.npz")
    content = members(path) | {"logits.npy": npy(np.array([[object()]], dtype=object))}
    with pytest.raises(ConverterError, match="logits is"):
        read_file(rewrite(path, content))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("(4611686018427387904, 4)", "says"),
        ("(3, -20)", "says"),
        ("(3,)", "not <f4 of 2 axes"),
        ("(2000, 2000)", "says"),
    ],
)
def test_shapes_that_lie(tmp_path: Path, shape: str, said: str) -> None:
    path = write(tmp_path / "golden.npz")
    with pytest.raises(ConverterError, match=said):
        read_file(rewrite(path, members(path) | {"logits.npy": header(shape)}))


def test_a_bomb_is_refused_by_its_size(tmp_path: Path) -> None:
    path = write(tmp_path / "golden.npz")
    content = members(path) | {"logits.npy": bytes(MOST_BYTES + 100_000)}
    rewrite(path, content)
    assert path.stat().st_size < 100_000
    with pytest.raises(ConverterError, match="too large"):
        read_file(path)


def test_members_missing_and_too_many(tmp_path: Path) -> None:
    path = write(tmp_path / "golden.npz")
    whole = members(path)
    with pytest.raises(ConverterError, match="it holds"):
        read_file(rewrite(path, whole | {"evil.npy": b""}))
    whole.pop("ids.npy")
    with pytest.raises(ConverterError, match="it holds"):
        read_file(rewrite(path, whole))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ids", np.array([1, 2, 20], np.int32), "ids outside"),
        ("columns", np.full((3, 20), -1, np.int32), "columns outside"),
        ("chosen", np.full((1, 3, 2), 4, np.int32), "chosen outside"),
        ("lengths", np.array([[2, 4, 7]], np.int32), "lengths"),
        ("lengths", np.array([[0, 3, 7]], np.int32), "nothing to compare"),
        ("lengths", np.array([[2, 3, 99]], np.int32), "tokens outside"),
        ("logits", np.full((3, 20), np.nan, np.float32), "NaN or Inf"),
        ("margin", np.full((1, 3), np.nan, np.float32), "not numbers"),
        ("margin", np.full((1, 3), -np.inf, np.float32), "not numbers"),
        ("chosen", np.full((1, 3, 2), 1, np.int32), "one token chose twice"),
        ("router_scale", np.array([[-1]], np.float32), "negative scales"),
        ("logits", np.full((3, 20), 3e38, np.float32), "a scale of 2"),
        ("router", np.ones((1, 2, 2), np.float32), "shape of router"),
        ("about", np.frombuffer(b"{}", np.uint8), "Field required"),
        ("about", np.frombuffer(b"\xff\xfe", np.uint8), "Invalid JSON"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, name: str, value: np.ndarray, said: str) -> None:
    path = write(tmp_path / "golden.npz")
    with pytest.raises(ConverterError, match=said):
        read_file(rewrite(path, members(path) | {f"{name}.npy": npy(value)}))


def test_no_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "golden.npz")
    none = {"columns.npy": npy(np.zeros((3, 0), np.int32))}
    none |= {"logits.npy": npy(np.zeros((3, 1), np.float32))}
    with pytest.raises(ConverterError, match="no logits"):
        read_file(rewrite(path, members(path) | none))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"scales": [0.0]}, "a scale of 0"),
        ({"scales": [-2.0]}, "a scale of -2"),
        ({"scales": [1.9]}, "a scale of 1.9"),
        ({"scales": [1e308]}, "a scale of 1e"),
        ({"moe_layers": [-1]}, "numbers of its layers"),
        ({"vocabulary": 10**18}, "shape of logits"),
    ],
)
def test_figures_that_contradict(tmp_path: Path, values: dict[str, object], said: str) -> None:
    """A scale that is too large would let any difference pass."""
    path = write(tmp_path / "golden.npz")
    about = np.frombuffer(json.dumps(ABOUT.model_dump() | values).encode(), np.uint8)
    with pytest.raises(ConverterError, match=said):
        read_file(rewrite(path, members(path) | {"about.npy": npy(about)}))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_an_error_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any byte changed, any cut: an error with words, or a file that is still whole."""
    path = write(tmp_path_factory.mktemp("damage") / "golden.npz")
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw = raw[:at]
    else:
        raw[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(raw))
    try:
        read_file(path)
    except ConverterError as error:
        assert error.hint


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 3000), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_columns_are_a_coarser_vocabulary(vocabulary: int, rows: int, seed: int) -> None:
    """Condensed differences and divergences are never larger than those of the whole."""
    draw = np.random.default_rng(seed)
    one = draw.normal(size=(rows, vocabulary)).astype(np.float32) * 5
    other = one + draw.normal(size=one.shape).astype(np.float32) * np.float32(0.1)
    ids = columns(one)
    assert ids.shape == (rows, min(vocabulary, 128))
    assert all(len(set(row)) == len(row) for row in ids.tolist())
    np.testing.assert_array_equal(ids[:, 0], one.argmax(axis=1))
    few, few_other = condensed(one, ids), condensed(other, ids)
    np.testing.assert_allclose(
        np.exp(log_softmax(few)).sum(axis=1), np.ones(rows), rtol=1e-5, atol=1e-5
    )
    whole, part = differences(other, one, largest(one)), differences(few_other, few, largest(one))
    assert (part <= whole + 1e-6).all()
    assert (_kl(few, few_other) <= _kl(one, other) + 1e-6).all()


def _kl(reference: np.ndarray, ours: np.ndarray) -> np.ndarray:
    p, q = log_softmax(reference), log_softmax(ours)
    return (np.exp(p) * (p - q)).sum(axis=1)


def test_every_id_is_reached_by_some_token() -> None:
    logits = np.zeros((124, 8000), np.float32)
    assert len(set(columns(logits).reshape(-1).tolist())) > 7900


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_seen_wherever_it_is(bad: float) -> None:
    logits = np.zeros((2, 500), np.float32)
    ids = columns(logits)
    hidden = next(i for i in range(500) if i not in ids[1])
    logits[1, hidden] = bad
    assert np.isfinite(condensed(logits, ids)[0]).all()
    assert not np.isfinite(condensed(logits, ids)[1]).all()
