"""From a name as somebody wrote it to a key: today's names, older names, files that hold secrets, and what a misspelt name was meant to be."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from xzepr.settings.model import SECRETS, Knob, knobs
from xzepr.settings.older import DROPPED, MOVED_SECTIONS, RENAMED, new_name

ENV_PREFIX: Final = "XZEPR__"
FILE_SUFFIX: Final = "_file"
KNOBS: Final[dict[str, Knob]] = {knob.path: knob for knob in knobs()}

_KNOWN: Final = (*KNOBS, *sorted(secret + FILE_SUFFIX for secret in SECRETS))
_SECTIONS: Final = frozenset(
    path[: dot.start()] for path in (*KNOBS, *RENAMED, *DROPPED, *(old + "x" for old in MOVED_SECTIONS)) for dot in re.finditer(r"\.", path)
)
# Kubernetes puts the address of each service into the environment of every pod: a service xzepr-server gives XZEPR_SERVER_PORT.
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Name:
    """What a written name stands for. path: today's name, as far as there is one; names_file: its value is the path of a file with the secret."""

    path: str
    names_file: bool = False
    is_old: bool = False
    dropped: bool = False

    @property
    def is_known(self) -> bool:
        """Whether there is such a key."""
        return self.path in KNOBS

    @property
    def is_section(self) -> bool:
        """Whether keys stand below it, today or in older deployments."""
        return self.path in _SECTIONS and not self.is_known

    def spelled(self, *, as_variable: bool) -> str:
        """As it is to be written."""
        written = self.path + (FILE_SUFFIX if self.names_file else "")
        return variable(written) if as_variable else written


def resolve(dotted: str) -> Name:
    """Never fails: an unknown name is a Name that is not known."""
    stem = dotted.removesuffix(FILE_SUFFIX)
    if dotted in DROPPED or stem in DROPPED:
        return Name(stem if stem in DROPPED else dotted, dropped=True)
    if stem != dotted and (path := new_name(stem) or stem) in SECRETS:
        return Name(path, names_file=True, is_old=path != stem)
    path = new_name(dotted) or dotted
    return Name(path, is_old=path != dotted)


def nearest(dotted: str, *, as_variable: bool) -> str:
    """The known name most like it; one whose last part is the same counts before one that is merely far."""
    if dotted == "env":
        return "the variable XZEPR_ENV"
    last = dotted.rpartition(".")[2]
    same_last = [path for path in _KNOWN if path.rpartition(".")[2] == last]
    near = get_close_matches(dotted, _KNOWN, n=1, cutoff=0.7) or get_close_matches(dotted, same_last or _KNOWN, n=1, cutoff=0.0)
    return variable(near[0]) if as_variable else near[0]


def variable(path: str) -> str:
    """The variable of a key."""
    return ENV_PREFIX + path.replace(".", "__").upper()


def is_variable(name: str) -> bool:
    """Whether a variable claims to be a setting. In small letters too: ignored without a word it would be a trap."""
    return name.upper().startswith(ENV_PREFIX)


def path_of(name: str) -> str:
    """The dotted name that a variable spells."""
    return name[len(ENV_PREFIX) :].replace("__", ".").lower()


def meant_by(name: str, text: str) -> str | None:
    """For a variable that is no setting: the one that was meant, None when it is meant for somebody else. text: its value.

    XZEPR_ENV, XZEPR_URL, XZEPR_API_KEY, XZEPR_TOKEN and whatever else has a single underline and the letters of no key are not ours to judge.
    """
    if not name.upper().startswith("XZEPR_") or _SERVICE_LINK.fullmatch(text):
        return None
    rest = name[len("XZEPR_") :]
    same_letters = _BY_LETTERS.get(_letters(rest))
    if same_letters is not None:
        return variable(same_letters)
    return nearest(rest.replace("__", ".").lower(), as_variable=True) if "__" in rest else None


def _letters(name: str) -> str:
    return re.sub(r"[._]", "", name).lower()


_BY_LETTERS: Final = {_letters(path): path for path in (*RENAMED, *_KNOWN)}
