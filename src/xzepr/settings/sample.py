"""`python -m xzepr.settings.sample yaml|page`: the sample file and the reference page, written from the model. A test compares both."""

import sys
from typing import Any

import msgspec

from xzepr.settings.model import SECRETS, Settings, knobs, sections

_HEAD = """\
# Every setting of XZepr with its default: this file changes nothing as it stands. Layers, later wins: built-in defaults, this file, config/<XZEPR_ENV>.yaml (or
# --config FILE), the environment (XZEPR__SECTION__KEY; lists comma-separated, lists of objects as JSON). A key that is not listed
# here stops the start. Secrets may come from a file: `url_file` beside `url`, or XZEPR__DATABASE__URL_FILE.
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
        secret = " Secret: may come from a file." if knob.path in SECRETS else ""
        lines.append(f"{indent}# {knob.description}{secret}\n{indent}{name}: {_plain(knob.default)}\n")
    return "".join(lines)


def reference_page() -> str:
    """`docs/reference/configuration.md`."""
    lines = [
        "# Configuration\n\n",
        "Written from the code by `make reference`. How values are found, and what stops a start: "
        "[how settings are read](../explanations/settings.md).\n",
    ]
    about = dict(sections())
    section = ""
    for knob in knobs():
        parent = knob.path.rpartition(".")[0]
        if parent != section:
            section = parent
            lines.append(f"\n## {section}\n\n{about[section]}\n\n| key | default | environment | what it is |\n|---|---|---|---|\n")
        variable = "XZEPR__" + knob.path.replace(".", "__").upper()
        secret = f" Secret: also `{variable}_FILE`." if knob.path in SECRETS else ""
        lines.append(f"| `{knob.path}` | `{_plain(knob.default)}` | `{variable}` | {knob.description}{secret} |\n")
    return "".join(lines)


def _plain(value: Any) -> str:
    """As YAML flow text; JSON is that."""
    return msgspec.json.encode(value).decode().replace(",", ", ")


def main() -> None:
    assert Settings() == msgspec.convert({}, Settings)
    sys.stdout.write({"yaml": sample_yaml, "page": reference_page}[sys.argv[1]]())


if __name__ == "__main__":
    main()
