"""A directory with settings files, and values that a key takes."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st
from msgspec import inspect

from support.signing import private_pem, public_pem, rsa_key
from xzepr.settings import Loaded, SettingsError, load_settings
from xzepr.settings.model import Knob

DEFAULT, DEVELOPMENT, PRODUCTION = "config/default.yaml", "config/development.yaml", "config/production.yaml"
URL = "postgresql://xzepr@db/xzepr"


class Home:
    """A working directory with settings files in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, content: str | dict[str, Any], mode: int = 0o600) -> Path:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), "utf-8")
        path.chmod(mode)
        return path

    def load(self, config_file: str | None = None, *, allow_embedded: bool = False, **environ: str) -> Loaded:
        return load_settings(Path(config_file) if config_file else None, environ=environ, cwd=self.path, allow_embedded=allow_embedded)

    def problems(self, config_file: str | None = None, *, allow_embedded: bool = False, **environ: str) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            self.load(config_file, allow_embedded=allow_embedded, **environ)
        return [problem.replace(f"{self.path}/", "") for problem in caught.value.problems]


@contextmanager
def a_home() -> Iterator[Home]:
    """For property tests: a new one each time."""
    with tempfile.TemporaryDirectory() as path:
        yield Home(Path(path))


def tree_of(path: str, value: Any) -> dict[str, Any]:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values that a type takes, as YAML would give them."""
    match kind:
        case inspect.Metadata():
            return values(kind.type)
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            return st.integers(kind.ge, kind.le)
        case inspect.FloatType():
            least = kind.ge if kind.ge is not None else kind.gt
            return st.floats(least, kind.le, exclude_min=kind.ge is None, allow_nan=False)
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.EnumType():
            return st.sampled_from([member.value for member in kind.cls])
        case inspect.NoneType():
            return st.none()
        case inspect.StrType(pattern=None):
            return st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=kind.min_length or 1, max_size=20)
        case inspect.StrType():
            return st.just("01JDJ6M3N9T6Y1Z6M0Q4QW8G7K")
        case inspect.UnionType():
            return st.one_of([values(member) for member in kind.types])
        case inspect.ListType():
            return st.lists(values(kind.item_type), max_size=3)
        case inspect.DictType():
            return st.dictionaries(values(kind.key_type), values(kind.value_type), min_size=kind.min_length or 0, max_size=3)
        case inspect.StructType():
            return st.fixed_dictionaries({field.name: values(field.type) for field in kind.fields})
    raise AssertionError(f"no values for {kind}")


def values_of(knob: Knob) -> st.SearchStrategy[Any]:
    return values(inspect.type_info(knob.type))


def ready_for_production(home: Home) -> dict[str, str]:
    return {
        "XZEPR_ENV": "production",
        "XZEPR__DATABASE__URL": URL,
        "XZEPR__SERVER__TRUSTED_PROXIES": "10.0.0.1",
        "XZEPR__JWT__PRIVATE_KEY_PATH": str(home.write("private.pem", private_pem(rsa_key()))),
        "XZEPR__JWT__PUBLIC_KEY_PATH": str(home.write("public.pem", public_pem(rsa_key()), 0o644)),
    }
