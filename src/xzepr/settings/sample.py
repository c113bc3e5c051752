"""`make reference`: config/default.yaml and docs/reference/configuration.md, written from the model.

A test compares both files with what this writes.
"""

import sys
from collections.abc import Callable
from textwrap import fill
from typing import Any, Final

import msgspec

from xzepr.settings.checks import NOT_THERE_YET
from xzepr.settings.model import SECRETS, Knob, knobs, sections
from xzepr.settings.names import FILE_SUFFIX, variable
from xzepr.settings.older import DROPPED, MOVED_SECTIONS, RENAMED
from xzepr.settings.values import in_words

_WIDTH: Final = 150
# What the default beside it says already.
_EVIDENT: Final = ("a text", "true or false", "a list, each a text")

_HEAD: Final = """\
# Every setting of XZepr with its default: as it stands, this file changes nothing.
# Layers, later wins: the defaults in the code, config/default.yaml (this file), config/<XZEPR_ENV>.yaml or --config FILE, the environment
# (XZEPR__SECTION__KEY; lists comma-separated, lists of objects and mappings as JSON). A key that is not listed here stops the start.
# A secret may come from a file: `url_file` beside or instead of `url: null`, or XZEPR__DATABASE__URL_FILE.
"""

_PAGE_HEAD: Final = """\
# Configuration

This page is written from the code by `make reference`.

Values are taken in this order, later wins:

1. the defaults below,
2. `config/default.yaml` in the working directory,
3. `config/<XZEPR_ENV>.yaml` there (`XZEPR_ENV` is `development` unless set), or the file given with `--config`,
4. the environment, `XZEPR__SECTION__KEY`.

In the environment a list is comma-separated; a list of objects and a mapping are JSON. An empty value means `null` where the key takes
`null`. An unknown key, in a file or in the environment, stops the start with the nearest known name, and so does a variable that only looks
like a setting (`XZEPR_SERVER__PORT`). `XZEPR_ENV`, `XZEPR_URL`, `XZEPR_API_KEY` and `XZEPR_TOKEN` are no settings.

A secret may come from a file, whose last line break does not count: `XZEPR__DATABASE__URL_FILE`, in YAML `url_file`. Value and file together
in one layer are refused; of different layers the later counts. A relative path begins at the working directory.

`xzepr config show` prints every effective value with its source, secrets masked (`--json` for programs). `xzepr config check` prints every fault and
warning on a line of its own to standard error, and exits with 1 when there is a fault.

## What stops a start

- A value that its key does not take, an unknown key, a secret file that is missing or empty.
- A key that would weaken security if it were ignored, as long as its part is not there: {stops}.
- `auth.anonymous_networks` beyond this machine, or `server.trusted_proxies` that trusts everybody together with `auth.anonymous_roles`, without
  `auth.allow_anonymous_remote`.
- `jwt.private_key_path`: a file that everybody can read, unless it lies on a read-only mount (Kubernetes and Docker secrets) or in
  `$CREDENTIALS_DIRECTORY`.
- With `XZEPR_ENV=production`: no signing key files, `auth.anonymous_roles` set, `*` as an allowed origin, plain HTTP without
  `server.trusted_proxies`, the embedded PostgreSQL without `--allow-embedded`.

Every reason is told at once, one a line.

## Not there yet

These keys are read and checked, and warn when they are set to something else than their default, because their part does not exist yet:

{warns}

## Older names

They are accepted with a warning that gives the new name.

| older name | today |
|---|---|
{older}

`kafka.brokers` may be one comma-separated text. `telemetry.jaeger_endpoint` is translated to the OTLP route of the same host: Jaeger has
taken OTLP since 1.35 and no longer takes the route `:14268/api/traces`.
"""


def sample_yaml() -> str:
    """The complete, commented sample, equal to the defaults."""
    about, lines = dict(sections()), [_HEAD]
    known: set[str] = set()
    for knob in knobs():
        *parents, name = knob.path.split(".")
        for depth in range(1, len(parents) + 1):
            path = ".".join(parents[:depth])
            if path not in known:
                known.add(path)
                blank = "\n" if depth == 1 else ""
                lines.append(f"{blank}{'  ' * (depth - 1)}{parents[depth - 1]}:  # {about[path]}\n")
        indent = "  " * len(parents)
        lines.append(f"{_comment(knob, indent)}\n{indent}{name}: {_plain(knob.default)}\n")
    return "".join(lines)


def reference_page() -> str:
    """`docs/reference/configuration.md`."""
    lines = [
        _PAGE_HEAD.format(stops=", ".join(_not_there(stops=True)), warns="\n".join(f"- {key}" for key in _not_there(stops=False)), older=_older())
    ]
    about = dict(sections())
    section = ""
    for knob in knobs():
        parent = knob.path.rpartition(".")[0]
        if parent != section:
            section = parent
            lines.append(f"\n## `{section}`\n\n{about[section]}\n\n| key | takes | default | environment | what it is |\n|---|---|---|---|---|\n")
        secret = f" Secret: also `{variable(knob.path + FILE_SUFFIX)}`." if knob.path in SECRETS else ""
        takes, default = in_words(knob.type), _plain(knob.default)
        lines.append(f"| `{knob.path}` | {takes} | `{default}` | `{variable(knob.path)}` | {knob.description}{secret} |\n")
    return "".join(lines)


def _comment(knob: Knob, indent: str) -> str:
    takes = in_words(knob.type)
    text = knob.description
    if not takes.startswith(_EVIDENT):
        text += f" Takes {takes}."
    if knob.path in SECRETS:
        text += " Secret: may come from a file."
    return fill(text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_long_words=False, break_on_hyphens=False)


def _not_there(*, stops: bool) -> list[str]:
    keys = [beginning for beginning, reason in NOT_THERE_YET.items() if (reason is not None) == stops]
    return [f"`{key}*`" if key.endswith((".", "_")) else f"`{key}`" for key in keys]


def _older() -> str:
    rows = [f"| `{old}` | `{new}` |" for old, new in RENAMED.items()]
    rows += [f"| `{old}*` | `{new}*` |" for old, new in MOVED_SECTIONS.items()]
    rows += [f"| `{old}` | ignored: {reason} |" for old, reason in DROPPED.items()]
    return "\n".join(rows)


def _plain(value: Any) -> str:
    """As YAML flow text; JSON is that."""
    return msgspec.json.encode(value).decode().replace(",", ", ")


WRITERS: Final[dict[str, Callable[[], str]]] = {"yaml": sample_yaml, "page": reference_page}


def main(arguments: list[str]) -> None:
    """Write one of them to standard output. Exits with a line of usage when none is named."""
    if len(arguments) != 1 or arguments[0] not in WRITERS:
        sys.exit("usage: python -m xzepr.settings.sample yaml|page")
    sys.stdout.write(WRITERS[arguments[0]]())


if __name__ == "__main__":
    main(sys.argv[1:])
