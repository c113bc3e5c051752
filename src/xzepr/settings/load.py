"""Where values come from. Later wins: defaults; config/default.yaml; config/<XZEPR_ENV>.yaml or --config; the environment.

Nothing is guessed and nothing is dropped: an unknown key, in a file or in the environment, is a problem that names the nearest key there is.
All problems are told at once, each one line; a key that is wrong already is not reported again by the checks. A value is never shown in a
problem where it may be a secret. `config/` is looked for in the working directory; without it the defaults in the code count.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from xzepr.settings import names
from xzepr.settings.checks import Finding, Surroundings, faults, remarks
from xzepr.settings.masking import masked_url
from xzepr.settings.model import Settings
from xzepr.settings.older import DROPPED, otlp_of_jaeger
from xzepr.settings.values import convert
from xzepr.settings.yaml_file import YamlFault, read_yaml

SECRET_FILE_MAX_BYTES: Final = 65_536
_ENV_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")
_KNOWN_ENVS: Final = ("development", "production")


class SettingsError(Exception):
    """XZepr cannot start with these settings. problems: every reason; warnings: what was noticed besides; both one a line."""

    def __init__(self, problems: list[str], warnings: list[str] | None = None) -> None:
        self.problems = problems
        self.warnings = warnings or []
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class Loaded:
    """sources: for every key, by dotted path, where its value comes from: "default", the path of a file, the name of a variable."""

    settings: Settings
    sources: dict[str, str]
    warnings: list[str]


def load_settings(config_file: Path | None = None, *, environ: Mapping[str, str], cwd: Path, allow_embedded: bool = False) -> Loaded:
    """Read everything once. config_file: in place of config/<XZEPR_ENV>.yaml; relative paths begin at cwd. Raises SettingsError with all problems."""
    layers = _Layers(cwd)
    env = layers.add_files(config_file, environ.get("XZEPR_ENV") or "development", cwd)
    layers.add_environment(environ)
    layers.translate_jaeger()
    settings = layers.settings(env)
    layers.tell(faults(settings, Surroundings(environ=environ, cwd=cwd, allow_embedded=allow_embedded)), layers.problems)
    layers.tell(remarks(settings), layers.warnings)
    if layers.problems:
        raise SettingsError(layers.problems, layers.warnings)
    return Loaded(settings, {path: layers.sources.get(path, "default") for path in names.KNOBS}, layers.warnings)


@dataclass(frozen=True, slots=True)
class _Given:
    """One value of one layer. path: today's name; where: as it was written, for messages; source: of the layer."""

    path: str
    value: Any
    where: str
    source: str
    is_text: bool
    names_file: bool

    @property
    def is_empty(self) -> bool:
        return self.value is None or self.value == ""


@dataclass
class _Layers:
    """Values by dotted path, the last layer's; and what was wrong on the way. failed: keys with a value that does not count."""

    cwd: Path
    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add_files(self, config_file: Path | None, env: str, cwd: Path) -> str:
        """The files that are there. Returns the name of the environment that counts."""
        self._add_file(cwd / "config" / "default.yaml", missing=None)
        if not _ENV_NAME.fullmatch(env):
            self.problems.append(f"XZEPR_ENV: {env!r} is not a name of lower-case letters, digits, - and _, such as production")
            env = "development"
        if config_file is not None:
            self._add_file(cwd / config_file, missing=self.problems)
        else:
            self._add_file(cwd / "config" / f"{env}.yaml", missing=None if env in _KNOWN_ENVS else self.warnings)
        if env.startswith("prod") and env != "production":
            self.warnings.append(f"XZEPR_ENV: with {env} the rules for production do not count; their name is production")
        return env

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Every variable that is ours, or nearly."""
        given: list[tuple[str, Any, str]] = []
        for name, text in environ.items():
            if names.is_variable(name):
                given.append((names.path_of(name), text, name))
            elif (meant := names.meant_by(name, text)) is not None:
                self.problems.append(f"{name}: unknown variable; the nearest is {meant}")
        self._add_layer(given, None)

    def translate_jaeger(self) -> None:
        """Traces of an old deployment go to the OTLP route of the same host."""
        old = self.values.get("telemetry.jaeger_endpoint")
        if old is None:
            return
        if self.values.get("telemetry.otlp_endpoint") is not None:
            self.warnings.append("telemetry.jaeger_endpoint: ignored: telemetry.otlp_endpoint is set")
            return
        try:
            translated = otlp_of_jaeger(old)
        except ValueError as error:
            self.failed.add("telemetry.jaeger_endpoint")
            self.problems.append(f"telemetry.jaeger_endpoint: {error}")
            return
        self.values["telemetry.otlp_endpoint"] = translated
        self.sources["telemetry.otlp_endpoint"] = self.sources["telemetry.jaeger_endpoint"]
        self.warnings.append(
            f"telemetry.jaeger_endpoint: Jaeger has taken OTLP since 1.35 and no longer takes the route of {masked_url(old)}; "
            f"traces go to {translated}: use telemetry.otlp_endpoint"
        )

    def settings(self, env: str) -> Settings:
        """From the values that are good."""
        tree: dict[str, Any] = {"env": env}
        for path, value in self.values.items():
            *parents, last = path.split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = msgspec.to_builtins(value)
        return msgspec.convert(tree, Settings)

    def tell(self, findings: Iterable[Finding], lines: list[str]) -> None:
        """Findings as lines that say where the value comes from, if there is one."""
        for finding in findings:
            if finding.path not in self.failed:
                source = self.sources.get(finding.path) if self.values.get(finding.path) is not None else None
                lines.append(f"{finding.path}: {finding.reason}" + (f" (from {source})" if source else ""))

    def _add_file(self, path: Path, *, missing: list[str] | None) -> None:
        """missing: who is told when there is none, if anybody."""
        try:
            given = read_yaml(path)
        except FileNotFoundError:
            if missing is not None:
                missing.append(f"there is no settings file {path}")
        except YamlFault as fault:
            self.problems.append(str(fault))
        else:
            self._add_layer([(dotted, value, f"{path}: {dotted}") for dotted, value in given], str(path))

    def _add_layer(self, given: Iterable[tuple[str, Any, str]], file: str | None) -> None:
        """One layer of (dotted name, value, where). file: its path, None for the environment, whose values are text."""
        by_path: dict[str, list[_Given]] = {}
        for dotted, value, where in given:
            known = self._recognise(dotted, value, where, file)
            if known is not None:
                by_path.setdefault(known.path, []).append(known)
        for path, same in by_path.items():
            # The sample says `url: null`; a `url_file` beside it is no contradiction.
            filled = [one for one in same if not one.is_empty] or [one for one in same if not one.names_file][:1]
            if len(filled) > 1:
                self._fail(path, f"{filled[1].where}: {path} is given twice, also as {filled[0].where}")
            elif filled:
                self._take(filled[0])

    def _recognise(self, dotted: str, value: Any, where: str, file: str | None) -> _Given | None:
        """None: it does not count, and whoever reads the problems or warnings knows why."""
        name = names.resolve(dotted)
        if name.dropped:
            self.warnings.append(f"{where}: ignored: {DROPPED[name.path]}")
            return None
        if name.is_section:
            self.problems.append(f"{where}: is a section of keys, not a value")
            return None
        if not name.is_known:
            self.problems.append(f"{where}: unknown key; the nearest is {names.nearest(name.path, as_variable=file is None)}")
            return None
        if name.is_old:
            self.warnings.append(f"{where}: an older name; use {name.spelled(as_variable=file is None)}")
        return _Given(name.path, value, where, file or where, is_text=file is None, names_file=name.names_file)

    def _take(self, given: _Given) -> None:
        try:
            raw = _secret_in(self.cwd, given.value) if given.names_file else given.value
            self.values[given.path] = convert(names.KNOBS[given.path], raw, is_text=given.is_text or given.names_file)
        except ValueError as error:
            self._fail(given.path, f"{given.where}: {error}")
        else:
            self.sources[given.path] = given.source

    def _fail(self, path: str, problem: str) -> None:
        self.failed.add(path)
        self.problems.append(problem)


def _secret_in(cwd: Path, name: object) -> str:
    """The text of a file, without the line break at its end. An empty one is a fault: it would mean "not set". Raises ValueError."""
    if not isinstance(name, str):
        raise ValueError(f"takes the path of a file, not {type(name).__name__}")  # noqa: TRY004 - a problem of the settings like any other
    try:
        with (cwd / name).open("rb") as file:
            content = file.read(SECRET_FILE_MAX_BYTES + 1)
        text = content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{cwd / name} is not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"{cwd / name}: {error.strerror}") from None
    if len(content) > SECRET_FILE_MAX_BYTES:
        raise ValueError(f"{cwd / name} is longer than {SECRET_FILE_MAX_BYTES} bytes")
    if not text:
        raise ValueError(f"{cwd / name} is empty")
    return text
