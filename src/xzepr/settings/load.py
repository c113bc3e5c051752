"""Where values come from. Later wins: defaults; config/default.yaml; config/<XZEPR_ENV>.yaml or --config; the environment.

Nothing is guessed and nothing is dropped: an unknown key, in a file or in the environment, is a problem that names the nearest key there
is. All problems are told at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import msgspec
import yaml

from xzepr.settings.checks import check
from xzepr.settings.model import SECRETS, Knob, Settings, knobs
from xzepr.settings.older import DROPPED, new_name, otlp_of_jaeger

_ENV_PREFIX: Final = "XZEPR__"
_KNOBS: Final[dict[str, Knob]] = {knob.path: knob for knob in knobs()}


class SettingsError(Exception):
    """XZepr cannot start with these settings; every reason, one a line."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class Loaded:
    """sources: dotted path to where its value comes from ("default", a file, a variable)."""

    settings: Settings
    sources: dict[str, str]
    warnings: list[str]


def load_settings(
    config_file: Path | None = None, *, environ: Mapping[str, str], cwd: Path, allow_embedded: bool = False
) -> Loaded:
    """Read everything once. Raises SettingsError with all problems."""
    env = environ.get("XZEPR_ENV") or "development"
    layers = _Layers()
    for path in (cwd / "config" / "default.yaml", config_file or cwd / "config" / f"{env}.yaml"):
        if path.is_file():
            layers.add_file(path)
        elif path == config_file:
            layers.problems.append(f"--config: there is no file {path}")
    layers.add_environment(environ)
    settings = _build(layers, env)
    layers.warnings += _translate_jaeger(layers)
    if not layers.problems:
        settings = _build(layers, env)
        problems, warnings = check(settings, layers.sources, environ, allow_embedded=allow_embedded)
        layers.problems += problems
        layers.warnings += warnings
    if layers.problems:
        raise SettingsError(layers.problems)
    sources = {path: layers.sources.get(path, "default") for path in _KNOBS}
    return Loaded(settings, sources, layers.warnings)


@dataclass
class _Layers:
    """Values by dotted path, the last layer's; and what was wrong on the way."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add_file(self, path: Path) -> None:
        try:
            tree = yaml.load(path.read_text("utf-8"), Loader=_StrictLoader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            self.problems.append(f"{path}: {' '.join(str(error).split())}")
            return
        if tree is None:
            return
        if not isinstance(tree, dict):
            self.problems.append(f"{path}: holds no mapping of sections")
            return
        given = dict(_flatten(tree, ""))
        self._add_layer({dotted: (value, f"{path}: {dotted}") for dotted, value in given.items()}, "_file", str(path))

    def add_environment(self, environ: Mapping[str, str]) -> None:
        given: dict[str, tuple[Any, str]] = {}
        for name, text in environ.items():
            if name.startswith(_ENV_PREFIX):
                given[name.removeprefix(_ENV_PREFIX).replace("__", ".").lower()] = (text, name)
            elif name.startswith("XZEPR_") and (meant := _letters(name.removeprefix("XZEPR_"))) in _BY_LETTERS:
                self.problems.append(f"{name}: unknown variable; did you mean {_variable(_BY_LETTERS[meant])}?")
        self._add_layer(given, "_file", None)

    def _add_layer(self, given: dict[str, tuple[Any, str]], suffix: str, file: str | None) -> None:
        """One layer; file: its name, None for the environment, whose values are text."""
        seen: dict[str, str] = {}
        for dotted, (value, where) in given.items():
            if dotted in DROPPED:
                self.warnings.append(f"{where}: ignored: {DROPPED[dotted]}")
                continue
            renamed = new_name(dotted)
            if renamed is not None:
                self.warnings.append(f"{where}: an older name; use {renamed if file else _variable(renamed)}")
                dotted = renamed
            from_file = dotted.endswith(suffix) and dotted.removesuffix(suffix) in SECRETS
            name = dotted.removesuffix(suffix) if from_file else dotted
            if name not in _KNOBS:
                self.problems.append(f"{where}: unknown key{_nearest(dotted, as_variable=file is None)}")
                continue
            if name in seen:
                self.problems.append(f"{where}: {name} is given twice, also as {seen[name]}")
                continue
            seen[name] = where
            try:
                raw = _secret_from(str(value)) if from_file else value
                self.values[name] = _converted(_KNOBS[name], raw, text=file is None or from_file)
                self.sources[name] = where
            except (ValueError, OSError) as error:
                # The value itself is not shown: it may be a secret, or a whole file.
                self.problems.append(f"{where}: {error}")


def _flatten(tree: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Leaves by dotted path; a mapping where a key holds one stays whole."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in _KNOBS:
            yield from _flatten(value, path + ".")
        elif not (value is None and any(name.startswith(path + ".") for name in _KNOBS)):
            yield path, value


def _secret_from(path: str) -> str:
    """The text of a file, without the line break at its end."""
    try:
        return Path(path).read_text("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"the file {path} is not UTF-8 text") from None


def _converted(knob: Knob, raw: Any, *, text: bool) -> Any:
    """As the key's type. text: from the environment, where a list is comma-separated, and a list of objects or a mapping is JSON."""
    if text:
        raw = _from_text(knob, raw)
    elif knob.path == "kafka.brokers" and isinstance(raw, str):
        raw = _split(raw)
    if isinstance(raw, int) and not isinstance(raw, bool) and isinstance(knob.default, float):
        raw = float(raw)
    try:
        return msgspec.convert(raw, knob.type, strict=not text)
    except msgspec.ValidationError as error:
        raise ValueError(str(error).replace("`", "")) from None


def _from_text(knob: Knob, text: str) -> Any:
    if isinstance(knob.default, list | dict):
        holds_objects = isinstance(knob.default, dict) or _item_type(knob.type) not in (str, None)
        if text.lstrip().startswith(("[", "{")) or (holds_objects and _item_is_struct(knob.type)):
            try:
                return msgspec.json.decode(text)
            except msgspec.DecodeError as error:
                raise ValueError(f"is not JSON: {error}") from None
        return _split(text)
    if text == "" and knob.default is None:
        return None
    return text


def _item_type(hint: Any) -> Any:
    inner = get_args(hint)[0] if get_origin(hint) is not list and get_args(hint) else hint
    return get_args(inner)[0] if get_origin(inner) is list else None


def _item_is_struct(hint: Any) -> bool:
    item = _item_type(hint)
    return isinstance(item, type) and issubclass(item, msgspec.Struct)


def _split(text: str) -> list[str]:
    return [piece.strip() for piece in text.split(",") if piece.strip()]


def _build(layers: _Layers, env: str) -> Settings:
    tree: dict[str, Any] = {"env": env}
    for path, value in layers.values.items():
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = msgspec.to_builtins(value)
    return msgspec.convert(tree, Settings)


def _translate_jaeger(layers: _Layers) -> list[str]:
    old = layers.values.get("telemetry.jaeger_endpoint")
    if old is None or layers.values.get("telemetry.otlp_endpoint") is not None:
        return []
    layers.values["telemetry.otlp_endpoint"] = translated = otlp_of_jaeger(old)
    layers.sources["telemetry.otlp_endpoint"] = layers.sources["telemetry.jaeger_endpoint"]
    return [f"telemetry.jaeger_endpoint: Jaeger no longer takes {old}; traces go to its OTLP route {translated}: use telemetry.otlp_endpoint"]


def _nearest(dotted: str, *, as_variable: bool) -> str:
    known = [*_KNOBS, *(f"{secret}_file" for secret in SECRETS)]
    near = get_close_matches(dotted, known, n=1, cutoff=0.5) or [
        path for path in known if path.rsplit(".", 1)[-1] == dotted.rsplit(".", 1)[-1]
    ]
    if not near:
        return ""
    return f"; did you mean {_variable(near[0]) if as_variable else near[0]}?"


def _variable(path: str) -> str:
    return _ENV_PREFIX + path.replace(".", "__").upper()


def _letters(name: str) -> str:
    return name.replace("_", "").replace(".", "").lower()


_BY_LETTERS: Final = {_letters(path): path for path in _KNOBS}


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key given twice in one mapping is a fault, not the later one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands there twice", node.start_mark)
        return mapping
