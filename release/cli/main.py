"""``moeship``: finds the command, loads only its module, and turns errors into messages.

Every command stands in the table below with its one-line help, so that ``moeship --help`` imports
none of their modules (and so neither torch, onnx nor the Hub client).
"""

import sys
from difflib import get_close_matches
from importlib import import_module
from typing import NamedTuple

import click


class Entry(NamedTuple):
    """Where a command lives (``module:attribute``) and its line in ``moeship --help``."""

    target: str
    help: str


COMMANDS = {
    "inspect": Entry("release.cli.inspect:command", "Show what a checkpoint is."),
    "export": Entry("release.cli.export:group", "Write safetensors shards or an ONNX graph."),
    "validate": Entry("release.cli.validate:command", "Compare a graph with transformers."),
    "bench": Entry("release.cli.bench:command", "Measure a graph's speed and memory."),
    "init": Entry("release.cli.init:command", "Write release.yaml, tiers.yaml and support.yaml."),
    "release": Entry("release.cli.release:group", "Build, lint and verify a release."),
    "publish": Entry("release.cli.publish:command", "Publish a release to the Hub."),
    "access": Entry("release.cli.access:group", "Answer access requests to a gated repository."),
    "license": Entry("release.cli.license:group", "Issue and verify licence keys."),
    "tiers": Entry("release.cli.tiers:group", "Show and check tiers.yaml."),
    "lineage": Entry(
        "release.cli.lineage:group", "Check what upstream models' terms ask of a release."
    ),
    "support": Entry("release.cli.support:group", "Show support terms, compute deadlines."),
}


# Longer messages are cut: they quote what a damaged file says.
LONGEST = 4000


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # Click suggests from the commands it holds; this group holds none until they are called.
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            close = get_close_matches(args[0], COMMANDS, n=1)
            meant = f" Did you mean '{close[0]}'?" if close else ""
            ctx.fail(f"No such command '{args[0]}'.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"moeship {version('moeship')}")
    except PackageNotFoundError as error:
        raise click.ClickException(
            "moeship runs from its sources and is not installed, so it has no version\n"
            "Hint: Install it: pip install -e ."
        ) from error
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Turn trained Mixture-of-Experts weights into a release that strangers can trust.

    Exit 0: done, or the check holds. Exit 1: the check does not hold, or it failed.
    Exit 2: the command was not understood.
    """


def _package_errors() -> tuple[type[Exception], ...]:
    """The base error of each package; imported only once something went wrong."""
    from converters.errors import ConverterError
    from license_tiers.errors import LicenseError
    from release.errors import ReleaseError
    from support.errors import SupportError

    return (ConverterError, LicenseError, SupportError, ReleaseError)


def _say(message: str, hint: str) -> None:
    click.echo(f"Error: {_plain(message)}", err=True)
    if hint:
        click.echo(f"Hint: {_plain(hint)}", err=True)


def _plain(text: str) -> str:
    """Escaped for the terminal, and cut: messages quote what a damaged file says."""
    from release.cli.output import plain

    shown = plain(text)
    return shown if len(shown) <= LONGEST else shown[:LONGEST] + " ..."


def _os_message(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{where}"


def _os_hint(error: OSError) -> str:
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return "Check the path."
    return (
        "Nothing that looks finished was left. Check the path, its permissions and the free space, "
        "then run the same command again."
    )


def main() -> None:
    """Entry point of the console script; the one place where errors become messages."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        _say("interrupted", "")
        sys.exit(130)
    except _package_errors() as error:
        _say(str(error), getattr(error, "hint", ""))
        sys.exit(1)
    except OSError as error:  # but not a closed pipe: click itself turns that into exit 1
        _say(_os_message(error), _os_hint(error))
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
