"""The house rules of DESIGN section 2, held by a machine: directions, sizes, errors, imports."""

import ast
import importlib.metadata
import json
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from release.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("converters", "license_tiers", "support", "release")
OURS = (*PACKAGES, "benchmarks", "docs", "examples")
LONGEST_FILE = 500
LONGEST_FUNCTION = 60
# Extras that only developers install; what the packages import comes from the others.
DEVELOPERS = {"test", "docs", "bench"}
# The one broad handler: a gate that meets foreign code must deny, whatever went wrong.
BROAD_ON_PURPOSE = {("license_tiers/gate.py", "_look")}
HEAVY = ("torch", "onnx", "onnxruntime", "transformers", "huggingface_hub", "numpy", "pydantic")


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert found
    return sorted(found)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--no-logo"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_import_contracts_hold():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_every_import_contract_breaks_when_it_is_violated(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    violations = {
        "support": "import converters.errors",
        "license_tiers": "import openfeature, pyrage",
        "release": "import release.cli.main",
        "converters": "import click, huggingface_hub, onnxruntime, converters.architectures.olmoe",
        "converters/architectures": "import converters.layout",
        "converters/formats": "import converters.validation",
        "converters/checkpoints": "import converters.spec",
    }
    for folder, line in violations.items():
        (tmp_path / folder / "violation.py").write_text(f"{line}\n", encoding="utf-8")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert "Contracts: 0 kept" in done.stdout, done.stdout


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_files_and_functions_stay_small():
    large = []
    for path in sources(*OURS, "tests"):
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > LONGEST_FILE:
            large.append(f"{name_of(path)}: {lines} lines")
        for function in functions(ast.parse(text)):
            length = (function.end_lineno or 0) - function.lineno + 1
            if length > LONGEST_FUNCTION:
                large.append(f"{name_of(path)}:{function.lineno}: {function.name}, {length} lines")
    assert large == []


def broad_handlers(path: Path) -> Iterator[str]:
    """Functions that catch everything; BaseException is allowed where it is raised again."""
    for function in functions(tree_of(path)):
        for node in ast.walk(function):
            if not isinstance(node, ast.ExceptHandler):
                continue
            names = (
                {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)}
                if (node.type)
                else {"BaseException"}
            )
            last = node.body[-1]
            raised_again = isinstance(last, ast.Raise) and last.exc is None
            if "Exception" in names or ("BaseException" in names and not raised_again):
                yield function.name


def test_no_handler_swallows_everything():
    found = {(name_of(path), name) for path in sources(*OURS) for name in broad_handlers(path)}
    assert found <= BROAD_ON_PURPOSE


def test_nothing_is_called_utils_and_nothing_is_left_to_do():
    everything = sources(*OURS, "tests")
    assert [name_of(path) for path in everything if path.stem in ("utils", "helpers", "misc")] == []
    unfinished = re.compile(
        r"\b(TO" r"DO|FIX" r"ME|XX" r"X|place" r"holder|Not" r"ImplementedError)\b"
    )
    marks = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in everything
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if unfinished.search(line)
    ]
    assert marks == []


def test_names_of_test_modules_are_unique():
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_the_line_in_the_table(name):
    command = cli.get_command(None, name)
    assert command is not None
    assert command.get_short_help_str(limit=200) == COMMANDS[name].help


def modules_after(statement: str) -> set[str]:
    """Top-level modules that are loaded in a fresh interpreter after a statement."""
    code = (
        f"import sys, json\ntry:\n    {statement}\nexcept SystemExit:\n    pass\n"
        "json.dump(sorted({name.partition('.')[0] for name in sys.modules}), sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Commands:" in done.stdout or not done.stdout
    return set(json.loads(done.stderr))


def test_help_loads_nothing_heavy():
    loaded = modules_after("from release.cli.main import main; main()")
    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY), loaded.intersection(HEAVY)


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_heavy(package):
    loaded = modules_after(f"import {package}")
    assert loaded.isdisjoint({*HEAVY, "click", "rich"})


def third_party_imports() -> dict[str, set[str]]:
    """Each imported module that is neither ours nor Python's, with the files that import it."""
    found: dict[str, set[str]] = {}
    for path in sources(*PACKAGES):
        for node in ast.walk(tree_of(path)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(name_of(path))
    return {
        name: files
        for name, files in found.items()
        if name not in PACKAGES and name not in sys.stdlib_module_names
    }


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture
def declared(monkeypatch) -> set[str]:
    """Distributions that setup.py declares for people who run the product."""
    given: dict[str, object] = {}
    monkeypatch.setattr("setuptools.setup", lambda **options: given.update(options))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    extras = given["extras_require"]
    assert isinstance(extras, dict)
    lines = [*given["install_requires"]]
    lines += [line for name, more in extras.items() if name not in DEVELOPERS for line in more]
    return {normalized(Requirement(line).name) for line in lines}


def test_setup_declares_every_import(declared):
    providers = importlib.metadata.packages_distributions()
    missing = {
        module: sorted(files)
        for module, files in third_party_imports().items()
        if declared.isdisjoint(map(normalized, providers.get(module, [module])))
    }
    assert missing == {}
