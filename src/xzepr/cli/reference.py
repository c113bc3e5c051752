"""`make reference`: docs/reference/cli.md, written from the commands themselves.

Walks whatever is registered under `xzepr`: every command that is not hidden, with usage, help, arguments, options and what they take. A test
compares the page with what this writes, so a command or flag cannot be added without its line here.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any, Final

import click

from xzepr.cli.group import EXIT_NOT_COMPLETE, EXIT_WAITED_IN_VAIN
from xzepr.cli.main import main

_HEAD: Final = """\
# Command line

This page is written from the code by `make reference`. `xzepr COMMAND --help` says the same in a terminal.

One command runs the server and asks it: `serve`, `relay`, `migrate`, `admin`, `retention`, `keys`, `audit verify` and `config` read the
[settings](configuration.md); the commands that ask a server find it by `XZEPR_URL` (`http://127.0.0.1:8042` unless set). They print tables for people
and JSON for programs (`--json`); what went wrong goes to standard error, with advice.

Who is asking is the first of these that there is: the API key in `XZEPR_API_KEY`, the token in `XZEPR_TOKEN` (of a login, or of a
[trusted issuer](../how_to/ci_without_secrets.md)), the login of `xzepr login` at that server. A login is renewed by itself. No password, key or token
is ever an argument, because everybody on a machine can see those.

```sh
xzepr --version
xzepr config check
```

## Exit codes

| code | when |
|---|---|
| 0 | done; `xzepr group status` with `--assert` or `--wait`: complete |
| 1 | a fault: the server is not reached, it refused, a file cannot be read, the settings are not in order |
| 2 | wrong usage: an unknown command or option, a value that an option does not take |
| {not_complete} | `xzepr group status --assert`: not complete; the reasons are printed |
| {waited_in_vain} | `xzepr group status --wait`: not complete when the time was over |

[Gate a release in CI](../how_to/gate_a_release_in_ci.md) uses them.
"""
# Every command has it; repeated at each it would say nothing.
_EVERYWHERE: Final = frozenset({"--help", "-h"})


def reference_page() -> str:
    """`docs/reference/cli.md`."""
    sections = [(path, command) for path, command in walk(main, "xzepr")]
    rows = ["## All commands\n", "| | |", "|---|---|"]
    rows += [f"| [`{path}`](#{path.replace(' ', '-')}) | {cell(_summary(command))} |" for path, command in sections if not is_group(command)]
    head = _HEAD.format(not_complete=EXIT_NOT_COMPLETE, waited_in_vain=EXIT_WAITED_IN_VAIN)
    parts = [head, "\n".join(rows) + "\n", *(_section(path, command) for path, command in sections)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that is not hidden, with its words: a group before its members, members by name."""
    yield path, command
    if isinstance(command, click.Group):
        with click.Context(command, info_name=path) as context:
            for name in command.list_commands(context):
                member = command.get_command(context, name)
                if member is not None and not member.hidden:
                    yield from walk(member, f"{path} {name}")


def is_group(command: click.Command) -> bool:
    """Whether it only holds other commands."""
    return isinstance(command, click.Group)


def parameters_of(command: click.Command) -> tuple[list[click.Argument], list[click.Option]]:
    """What a command takes, in the order in which it is declared; hidden options and --help left out."""
    arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return arguments, [option for option in options if not option.hidden and not _EVERYWHERE & set(option.opts)]


def _section(path: str, command: click.Command) -> str:
    with click.Context(command, info_name=path) as context:
        usage = " ".join([path, *command.collect_usage_pieces(context)])
        arguments, options = parameters_of(command)
        parts = [f"## {path}\n", f"```text\n{usage}\n```\n", _help(command)]
        if arguments:
            parts.append("| argument | takes | |\n|---|---|---|\n" + "".join(_argument(argument, context) for argument in arguments))
        if options:
            parts.append("| option | takes | default | |\n|---|---|---|---|\n" + "".join(_option(option, context) for option in options))
    return "\n".join(parts) + "\n"


def _help(command: click.Command) -> str:
    """The help text and what stands below the options, as paragraphs. Behind click's mark for text not to be wrapped, lines stay as they are."""
    texts = [inspect.cleandoc(text).partition("\f")[0] for text in (command.help, command.epilog) if text]
    paragraphs = "\n\n".join(texts).split("\n\n")
    return "\n\n".join(_paragraph(paragraph) for paragraph in paragraphs if paragraph.strip()) + "\n"


def _paragraph(text: str) -> str:
    if text.startswith("\b\n"):
        return f"```text\n{inspect.cleandoc(text[2:])}\n```"
    return text.strip()


def _summary(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").partition("\n\n")[0]


def _argument(argument: click.Argument, context: click.Context) -> str:
    takes = "" if argument.metavar else _takes(argument, context)
    notes = [text for text in ("may be left out" if not argument.required else "", "several" if argument.nargs == -1 else "") if text]
    about = getattr(argument, "help", None) or ""
    return f"| `{cell(argument.make_metavar(context))}` | {takes} | {cell('; '.join([*notes, about] if about else notes))} |\n"


def _option(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    takes = "" if option.is_flag or option.count else _takes(option, context)
    notes = [option.help or ""]
    if option.required:
        notes.append("Needed.")
    if option.multiple:
        notes.append("May be given several times.")
    if variables := _variables(option):
        notes.append(f"Also from {variables}.")
    return f"| {names} | {takes} | {_default(option)} | {cell(' '.join(note for note in notes if note))} |\n"


def _takes(parameter: click.Parameter, context: click.Context) -> str:
    kind = parameter.type
    if isinstance(kind, click.Choice):
        return " or ".join(f"`{choice}`" for choice in kind.choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        return f"{kind.name.partition(' ')[0]}{_range(kind)}"
    shown = parameter.make_metavar(context) if isinstance(parameter, click.Option) else kind.name.upper()
    return f"`{cell(shown)}`"


def _range(kind: click.IntRange | click.FloatRange) -> str:
    low = "" if kind.min is None else f"more than {kind.min}" if kind.min_open else f"{kind.min} or more"
    high = "" if kind.max is None else f"less than {kind.max}" if kind.max_open else f"at most {kind.max}"
    bounds = " and ".join(text for text in (low, high) if text)
    return f", {bounds}" if bounds else ""


def _default(option: click.Option) -> str:
    """Only what is a plain value: a flag's absence, nothing, and what is worked out at the moment of the call are no defaults to tell."""
    if (
        option.is_flag
        or option.required
        or not isinstance(option.default, str | int | float)
        or isinstance(option.default, bool)
        or option.default == ""
    ):
        return ""
    return f"`{option.default}`"


def _variables(option: click.Option) -> str:
    names: Any = option.envvar or ()
    return ", ".join(f"`{name}`" for name in ([names] if isinstance(names, str) else names))


def cell(text: str) -> str:
    """For a cell of a table: on one line, and without what would end the cell or begin a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(reference_page())
