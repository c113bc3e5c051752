"""One settings file: YAML as its leaves, by dotted name, in the order of the file.

A key given twice in one mapping is a fault, not the later one's victory, and so is a merge (`<<`) of which it is not plain who wins. A fault
names file and line and never shows the text there, which may be a secret.
"""

import re
from collections import Counter
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
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_doubt(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_doubt(root: yaml.Node) -> None:
    """Raises ConstructorError where two values contend for one key. A key that overrides the one mapping merged into its own (`<<`) does not."""
    open_nodes, seen = [root], set[int]()
    while open_nodes:
        node = open_nodes.pop()
        # An alias leads to the node of its anchor again.
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _refuse_contest(node)
            open_nodes += [value for _, value in node.value]
        else:
            open_nodes += node.value


def _refuse_contest(node: yaml.MappingNode) -> None:
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    twice = next((key for key, times in Counter(keys).items() if times > 1), None)
    if twice is not None:
        raise yaml.constructor.ConstructorError(None, None, f"the key {twice} stands there twice", node.start_mark)
    # PyYAML 6.0.4 lets the wrong one win where merged mappings merge others or come in a list.
    for merged in _merged(node):
        if not isinstance(merged, yaml.MappingNode) or _merged(merged):
            raise yaml.constructor.ConstructorError(None, None, "only one mapping can be merged, and none that merges another", node.start_mark)


def _merged(node: yaml.MappingNode) -> list[yaml.Node]:
    return [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]


def _leaves(tree: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in KNOBS:
            yield from _leaves(value, path + ".")
        elif value is not None or not resolve(path).is_section:
            yield path, value
