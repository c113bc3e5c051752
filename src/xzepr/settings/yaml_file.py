"""One settings file: YAML as its leaves, by dotted name, in the order of the file.

A key given twice in one mapping is a fault, not the later one's victory. A fault names file and line and never shows the text there, which may
be a secret.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from xzepr.settings.names import KNOBS, resolve


class YamlFault(Exception):
    """The file cannot be read as settings; one line."""


def read_yaml(path: Path) -> list[tuple[str, Any]]:
    """Leaves: a mapping or list where a key holds one stays whole, an empty section has none. Raises FileNotFoundError, YamlFault."""
    try:
        tree = _parse(path.read_text("utf-8"))
        if tree is None:
            return []
        if not isinstance(tree, dict):
            raise YamlFault(f"{path}: holds no mapping of sections")
        return list(_leaves(tree, ""))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise YamlFault(f"{path}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise YamlFault(f"{path}: is not YAML{line}: {_without_quotes(error.problem or '')}") from None
    except UnicodeDecodeError:
        raise YamlFault(f"{path}: is not UTF-8 text") from None
    except yaml.YAMLError:
        raise YamlFault(f"{path}: holds a character that YAML does not allow") from None
    except ValueError:
        raise YamlFault(f"{path}: holds a number or a date that does not exist; text that looks like one needs quotes") from None
    except RecursionError:
        raise YamlFault(f"{path}: is nested too deeply") from None


def _without_quotes(problem: str) -> str:
    """A password that begins with ! or * reads as a tag or an alias, and the parser names it."""
    return re.sub(r"""['"].*['"]""", "…", problem, flags=re.DOTALL)


def _parse(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _leaves(tree: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in KNOBS:
            yield from _leaves(value, path + ".")
        elif value is not None or not resolve(path).is_section:
            yield path, value


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice; one that overrides a merged key (`<<`) is not that."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in own if own.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)
