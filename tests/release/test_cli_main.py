"""``moeship`` as a process: errors become messages, and exit codes mean what the help says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import support

ROOT = Path(support.__file__).parents[1]
TEMPLATE = str(ROOT / "support" / "templates" / "support.yaml")
DUE = ["support", "due", "--support", TEMPLATE, "--severity", "S2"]


@pytest.fixture
def moeship(tmp_path):
    """Run the command in an empty folder, as a process of its own."""

    def run(*arguments: str, **options):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-m", "release.cli.main", *arguments],
            cwd=tmp_path,
            env=environment,
            text=True,
            check=False,
            **({"capture_output": True} | options),
        )

    return run


def test_help_lists_every_command(moeship):
    from release.cli.main import COMMANDS

    done = moeship("--help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (
            [*DUE, "--plan", "glod", "--opened", "2026-12-24T22:00:00Z"],
            "Error: no plan 'glod'",
            "Hint: Did you mean 'gold'?",
        ),
        (
            [*DUE, "--plan", "gold", "--opened", "2026-12-24T22:00:00"],
            "has no offset|not a time with an offset",
            "Hint: Write the time with its offset",
        ),
        (["support", "show"], "Error: No such file or directory: support.yaml", "Hint: Check the"),
        (["support", "show", "--support", "."], "Error: Is a directory", "Hint: Check the path."),
    ],
)
def test_an_error_is_a_message_with_a_hint_and_exit_1(moeship, arguments, error, hint):
    done = moeship(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert any(part in done.stderr for part in error.split("|"))
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "nowhere"],
        ["export", "safetensors", "nowhere", "out"],
        ["export", "onnx", "nowhere"],
        ["validate", "nowhere"],
        ["release", "build", "nowhere.yaml", "out"],
        ["release", "verify", "nowhere"],
        ["publish", "nowhere", "--repo", "owner/name"],
        ["license", "verify", "nowhere", "--trust", "nowhere.jwks"],
        ["tiers", "check", "nowhere.yaml"],
    ],
    ids=" ".join,
)
def test_a_path_that_is_not_there_is_a_message_in_every_command(moeship, tmp_path, arguments):
    done = moeship(*arguments)
    assert done.returncode in (1, 2)
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []  # nothing was left


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["suport"], "No such command 'suport'. Did you mean 'support'?"),
        (["zzz"], "No such command 'zzz'."),
        (["support", "deu"], "Did you mean 'due'?"),
        (["--bogus"], "No such option '--bogus'"),
        (["support", "show", "--bogus"], "No such option '--bogus'"),
        (["support", "due"], "Missing option '--plan'"),
        ([], "Usage:"),
    ],
)
def test_what_is_not_understood_is_exit_2(moeship, arguments, said):
    done = moeship(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_a_message(moeship):
    with Path("/dev/full").open("w") as full:
        done = moeship(
            "support",
            "show",
            "--support",
            TEMPLATE,
            stdout=full,
            capture_output=False,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 1
    assert "Error: No space left on device" in done.stderr
    assert "free space" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_news(moeship):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as pipe:
        done = moeship(
            "support",
            "show",
            "--support",
            TEMPLATE,
            stdout=pipe,
            capture_output=False,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 1
    assert done.stderr == ""


def test_cells_of_a_table_are_data_and_not_styles(capsys):
    from release.cli.output import print_table

    print_table("Plan [bold]", ("Name", ">Count"), [["[red]a[/red] :smile:", "[1]"]])
    shown = capsys.readouterr().out
    assert "Plan [bold]" in shown
    assert "[red]a[/red] :smile:" in shown
    assert "[1]" in shown


def test_no_word_of_a_table_is_cut_in_a_pipe(capsys):
    """Also where many short words stand beside a long one: the widest column is narrowed first."""
    from release.cli.output import print_table

    address = "(https://example.com/" + "a" * 40 + ")"
    rows = [[f"{'short words ' * 4}", f"keep to the policy of theirs {address}"]] * 2
    print_table("Terms", ["First of the columns", "What"], rows)
    shown = capsys.readouterr().out
    assert shown.count(address) == 2 and "\u2026" not in shown
