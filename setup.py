"""Packaging of moeship. Tool settings are in pyproject.toml, tested versions in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

VERSION = "0.1.0"

# Where onnxruntime-gpu has wheels; platform_machine is AMD64 on Windows.
X86_64_GPU = "platform_system != 'Darwin' and platform_machine in 'x86_64 AMD64'"
ELSEWHERE = "platform_system == 'Darwin' or platform_machine not in 'x86_64 AMD64'"

RUNTIME = [
    "click>=8.1",  # the command line
    "cryptography>=45",  # Ed25519 licence signatures, PKCS#8 keys, EC keys for model signing
    "filelock>=3.16",  # one build at a time in a folder
    "fsspec>=2024.6",  # mirrors of a release: one interface to folders and object stores
    "holidays>=0.100",  # public holidays for support calendars
    "httpx2>=2",  # errors of the Hub client's transport, told apart when an answer is lost
    "huggingface-hub>=2.4",  # the real Hub client
    "icalendar>=6",  # deadlines and ends of life for calendar programs (RFC 5545)
    "Jinja2>=3.1.6",  # chat templates, parsed or rendered in its sandbox (older: escapes)
    "license-expression>=30.4",  # SPDX expressions of tiers
    "ml-dtypes>=0.5",  # bfloat16 in NumPy: casting without torch (onnx needs it as well)
    "numpy>=1.26",
    "onnx>=1.19",  # opset 23 (Attention, RMSNormalization, RotaryEmbedding)
    "onnx-ir>=0.1",  # building graphs over external data
    f"onnxruntime-gpu>=1.31; {X86_64_GPU}",  # runs on the CPU as well
    f"onnxruntime>=1.32; {ELSEWHERE}",
    "protobuf>=5",  # errors of parsing a graph that is none
    "pydantic>=2.10",  # release.yaml, tiers.yaml, support.yaml, each with a JSON Schema
    "PyYAML>=6",
    "rich>=13",  # tables and progress on a terminal
    "safetensors>=0.5",
    "torch>=2.9",  # a checkpoint's own framework; constraints.txt pins a small CPU build
    "tzdata>=2025.2",  # IANA time zones where the system has none (containers, Windows)
]

EXTRAS = {
    # The independent oracle of `moeship validate`, and the tokenizer.
    "reference": ["transformers>=5.23"],
    # model-signing imports pyopenssl and does not declare it.
    "sign": ["model-signing==1.1.1", "pyopenssl>=24"],
    # onnxruntime-genai depends on onnxruntime, which must not lie beside onnxruntime-gpu.
    "genai": [
        f"onnxruntime-genai-cuda>=0.18; {X86_64_GPU}",
        f"onnxruntime-genai>=0.18; {ELSEWHERE}",
    ],
    # The provider of license_tiers.openfeature; its behavior on errors is tested with 0.10.0.
    "openfeature": ["openfeature-sdk>=0.10.0"],
    # Sealed files of an enterprise edition: age encryption, streaming, without a binary to install.
    "seal": ["pyrage>=1.4"],
    # `moeship publish --also s3://...`; botocore's errors are told apart.
    "mirror": ["s3fs>=2025.3", "botocore>=1.35"],
    "test": [
        "accelerate>=1.1",  # without it transformers dequantizes no FP8 checkpoint, our reference
        "businesstimedelta==1.0.1",  # oracle for business hours; no longer kept up
        "flask>=3",  # moto's server runs on it
        "flask-cors>=5",
        "cyclonedx-python-lib[json-validation]>=11",  # CycloneDX's own schemas validate the BOM
        "hypothesis>=6.100",
        "import-linter>=2",
        "in-toto-attestation>=0.9",  # reads the provenance; model-signing brings it
        "joserfc>=1.8",  # oracle for licence tokens
        "jsonschema>=4.20",  # the schema of tiers.yaml, read as an editor does
        "lz4>=4",  # the loopback Hub unpacks compressed Xet uploads with it
        "moto[s3]>=5",  # an S3 server on loopback, for mirrors
        "mypy>=1.15",
        "packaging>=24",  # reads the requirements above, to hold imports against them
        "PyJWT>=2.10",  # oracle for licence tokens
        "pytest>=8",
        "pytz",  # zones of businesstimedelta
        "pytest-xdist>=3",  # the tests on both cores
        "reuse>=6.2",  # `reuse lint` on a built release
        "ruff>=0.9",
        "sigstore>=4",  # oracle for what a DSSE signature signs; model-signing brings it
        "types-PyYAML",
    ],
    # `moeship support advisory` validates CSAF documents with it.
    "advisories": ["csaf-lib>=0.1.0b12"],
    # The example's loss curve; benchmarks' figures; fuzzing what strangers write.
    # mobius-onnx, which benchmarks/convert.py runs, belongs into an environment of its own.
    "bench": ["matplotlib>=3.9", "atheris>=3; platform_system == 'Linux'"],
}

setup(
    name="moeship",
    version=VERSION,
    description="Open-weights release and licensing toolkit for Mixture-of-Experts language models",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(
        include=["converters*", "license_tiers*", "support*", "release*"], exclude=["tests*"]
    ),
    package_data={
        "converters": ["py.typed"],
        "license_tiers": ["py.typed", "data/*", "templates/*"],
        "support": ["py.typed", "templates/*"],
        "release": ["py.typed", "templates/*", "lint/data/*"],
    },
    install_requires=RUNTIME,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["moeship = release.cli.main:main"]},
)
