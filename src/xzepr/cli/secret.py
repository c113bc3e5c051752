"""Passwords on the command line: asked for without showing them, or read from standard input; never from an argument, which others can see."""

import sys
from typing import Final

import click

PASSWORD_MAX_BYTES: Final = 16_384

password_stdin_option = click.option("--password-stdin", "from_stdin", is_flag=True, help="Read the password from standard input.")


def password_of(*, from_stdin: bool, new: bool) -> str:
    """new: asked for twice. Wrong usage when nobody can be asked, or standard input holds none."""
    if from_stdin:
        return _read()
    require_terminal("the password", "--password-stdin")
    prompt = "New password" if new else "Password"
    password: str = click.prompt(prompt, hide_input=True, confirmation_prompt=new, err=True)
    return password


def require_terminal(what: str, option: str) -> None:
    """Wrong usage where nobody can be asked."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"nobody can be asked for {what} here: give {option}")


def _read() -> str:
    """All of it, less the end of its last line: what `echo` and files have behind a password is no part of it."""
    read = sys.stdin.buffer.read(PASSWORD_MAX_BYTES + 1)
    if len(read) > PASSWORD_MAX_BYTES:
        raise click.UsageError(f"standard input holds more than {PASSWORD_MAX_BYTES} bytes, which is no password")
    try:
        password = read.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.UsageError("the password on standard input is not UTF-8 text") from None
    if not password:
        raise click.UsageError("standard input holds no password")
    return password
