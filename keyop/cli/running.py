"""Running one command, and what becomes of its errors: a sentence on standard error and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys

import click

from keyop.cli import exit_codes
from keyop.cli.commands import commands
from keyop.errors import KeyopError

COMPLETION_VARIABLE = "_KEYOP_COMPLETE"


def run(arguments: list[str]) -> int:
    """Run a command line; its exit code. Never raises for what a user can do wrong."""
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if instruction:
        return _complete(instruction)
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.UsageError as error:
        return _wrong_usage(error)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        forget_standard_output()
        return exit_codes.OK
    except KeyopError as error:
        return _say(str(error), exit_codes.of_error(error))
    except OSError as error:
        return _say(_sentence(error), exit_codes.FAILED)
    return code


def _complete(instruction: str) -> int:
    """Answer a shell that completes a word. In the middle of somebody's line nothing is said of what went wrong."""
    from click.shell_completion import shell_complete

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        try:
            code = shell_complete(commands, {}, "keyop", COMPLETION_VARIABLE, instruction)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt):
            forget_standard_output()
            return exit_codes.FAILED
    return code


def _invoke(arguments: list[str]) -> int:
    with commands.make_context("keyop", arguments) as context:
        code = commands.invoke(context)
        return code if isinstance(code, int) else exit_codes.OK


def _wrong_usage(error: click.UsageError) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # click 8.1 has no such class
        click.echo(error.format_message(), err=True)
        return exit_codes.USAGE
    if error.ctx is not None:
        print(error.ctx.get_usage(), file=sys.stderr)
        print(f"Try '{error.ctx.command_path} --help'.\n", file=sys.stderr)
    return _say(error.format_message(), exit_codes.USAGE)


def _sentence(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def _say(text: str, code: int) -> int:
    try:
        for line in text.splitlines() or ["failed"]:
            print(f"keyop: {line}", file=sys.stderr)
    except OSError:
        pass  # nobody reads it
    return code


def forget_standard_output() -> None:
    """Whoever read it has gone: what is still buffered goes nowhere, and the interpreter's last flush succeeds."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
