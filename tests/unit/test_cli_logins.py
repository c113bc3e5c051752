"""How logins are kept on this machine, and when their tokens are renewed."""

import json
import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest
from xzepr_client import NoAnswer, ProblemError, TokenPair
from xzepr_client.auth import Login, TokenSource
from xzepr_client.models import LoggedIn

from xzepr.cli import logins as module
from xzepr.cli.connection import Failure
from xzepr.cli.logins import Entry, Logins, StoredLogin, default_directory, server_of

URL = "http://127.0.0.1:8042"
OVER = ProblemError(401, "invalid_token", "over")
SUPERSEDED = ProblemError(409, "refresh_superseded", "turned in a moment ago")
AWAY = NoAnswer(URL, "nobody", connected=False)


def pair(number: int, expires_in: int = 900) -> TokenPair:
    user = LoggedIn(id="01M88Q7AG504QSGMQWKDMNZ1V2", username="alice", email=None, roles=["user"])
    return TokenPair(access_token=f"access-{number}", refresh_token=f"refresh-{number}", expires_in=expires_in, expires_at="", user=user)


def entry(number: int, left_s: float = 900) -> Entry:
    return Entry.of(pair(number), time.time() - 900 + left_s)


@pytest.fixture
def logins(tmp_path: Path) -> Logins:
    return Logins(tmp_path / "config" / "xzepr")


def keep(logins: Logins, kept: Entry, url: str = URL) -> Entry:
    with logins.lock():
        logins.put(url, kept)
    return kept


def stored(logins: Logins, kept: Entry, *answers: TokenPair | Exception) -> tuple[StoredLogin, list[str]]:
    """With a server that answers so in turn, and the refresh tokens that it is brought."""
    brought: list[str] = []
    left = iter(answers)

    def refresh(token: str) -> TokenPair:
        brought.append(token)
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return StoredLogin(logins, URL, kept, refresh), brought


# --- the file ---


def test_a_login_is_kept_for_its_owner_alone(logins: Logins) -> None:
    assert logins.find(URL) is None
    before = os.umask(0)
    try:
        kept = keep(logins, entry(1))
    finally:
        os.umask(before)
    assert logins.find(URL) == kept
    assert logins.path.stat().st_mode & 0o777 == 0o600
    assert logins.directory.stat().st_mode & 0o777 == 0o700
    assert sorted(file.name for file in logins.directory.iterdir()) == ["credentials.json", "credentials.json.lock"]


def test_a_directory_that_others_can_enter_is_closed(logins: Logins) -> None:
    logins.directory.mkdir(parents=True)
    logins.directory.chmod(0o755)
    keep(logins, entry(1))
    assert logins.directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_that_others_can_read_is_refused(logins: Logins, mode: int) -> None:
    keep(logins, entry(1))
    logins.path.chmod(mode)
    with pytest.raises(Failure, match=f"credentials.json can be read by others .mode {mode:04o}") as caught:
        logins.find(URL)
    assert "xzepr login" in str(caught.value.advice)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"servers": {"x": {"username": "alice"}}}'])
def test_a_file_that_is_none_of_ours_is_refused(logins: Logins, text: str) -> None:
    logins.directory.mkdir(parents=True)
    logins.path.write_text(text)
    logins.path.chmod(0o600)
    with pytest.raises(Failure, match="is not as `xzepr login` writes it"):
        logins.find(URL)


def test_each_server_has_its_own_login(logins: Logins) -> None:
    keep(logins, entry(1))
    keep(logins, entry(2), "https://xzepr.example.com")
    with logins.lock():
        logins.remove(URL)
        logins.remove("https://nobody.example.com")
    assert logins.find(URL) is None
    assert logins.find("HTTPS://XZepr.example.com:443/") == entry_of(logins, "https://xzepr.example.com")


def entry_of(logins: Logins, url: str) -> Entry:
    found = logins.find(url)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("http://127.0.0.1:8042/", "http://127.0.0.1:8042"),
        ("https://A.example.com/xzepr/", "https://a.example.com:443/xzepr"),
        ("http://[::1]:8042", "http://[::1]:8042"),
        ("http://a:99999", "http://a:99999"),
    ],
)
def test_an_address_has_one_spelling(url: str, server: str) -> None:
    assert server_of(url) == server


def test_a_write_that_fails_leaves_the_old_file(logins: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep(logins, entry(1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Failure, match="No space left on device"):
        keep(logins, entry(2))
    assert logins.find(URL) == kept
    assert sorted(file.name for file in logins.directory.iterdir()) == ["credentials.json", "credentials.json.lock"]


def test_where_no_directory_can_be_made_one_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match="logins cannot be kept in"):
        keep(Logins(tmp_path / "file" / "xzepr"), entry(1))


def test_the_directory_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, expected in (("", tmp_path / ".config"), ("relative", tmp_path / ".config"), ("/elsewhere", Path("/elsewhere"))):
        monkeypatch.setenv("XDG_CONFIG_HOME", given)
        assert default_directory() == expected / "xzepr"


# --- renewing ---


def test_a_token_with_time_left_is_sent_as_it_is(logins: Logins) -> None:
    login, brought = stored(logins, keep(logins, entry(1, left_s=61)))
    assert (login.token(), brought) == ("access-1", [])


def test_a_token_that_is_about_to_end_is_renewed_once(logins: Logins) -> None:
    login, brought = stored(logins, keep(logins, entry(1, left_s=59)), pair(2))
    assert [login.token(), login.token()] == ["access-2", "access-2"]
    assert brought == ["refresh-1"]
    assert entry_of(logins, URL).refresh_token == "refresh-2"


def test_a_short_life_is_not_renewed_at_every_request(logins: Logins) -> None:
    kept = keep(logins, Entry.of(pair(1, expires_in=20), time.time()))
    login, brought = stored(logins, kept)
    assert (login.token(), brought) == ("access-1", [])


def test_a_refused_token_is_renewed(logins: Logins) -> None:
    login, brought = stored(logins, keep(logins, entry(1)), pair(2))
    assert login.renewed("access-1") == "access-2"
    # One that was sent before the renewal: there is another already.
    assert login.renewed("access-1") == "access-2"
    assert brought == ["refresh-1"]


def test_what_another_command_renewed_is_taken_from_the_file(logins: Logins) -> None:
    login, brought = stored(logins, keep(logins, entry(1, left_s=10)))
    keep(logins, entry(2))
    assert (login.token(), brought) == ("access-2", [])


def test_a_login_that_is_over_is_removed(logins: Logins) -> None:
    login, _ = stored(logins, keep(logins, entry(1, left_s=10)), OVER)
    with pytest.raises(ProblemError) as caught:
        login.token()
    assert caught.value.code == "invalid_token"
    assert logins.find(URL) is None


def test_a_token_is_used_while_it_lasts_when_nobody_answers(logins: Logins) -> None:
    login, brought = stored(logins, keep(logins, entry(1, left_s=10)), AWAY, ProblemError(503, "unavailable", "away"))
    assert [login.token(), login.token()] == ["access-1", "access-1"]
    assert brought == ["refresh-1"] * 2
    ended, _ = stored(logins, keep(logins, entry(1, left_s=-1)), AWAY)
    with pytest.raises(NoAnswer):
        ended.token()
    assert logins.find(URL) is not None


def test_a_superseded_token_is_looked_for_in_the_file(logins: Logins) -> None:
    kept = keep(logins, entry(1, left_s=-1))

    def refresh(_: str) -> TokenPair:
        # Of another machine that shares the file: it takes no lock of this one.
        threading.Timer(0.3, lambda: logins.put(URL, entry(2))).start()
        raise SUPERSEDED

    assert StoredLogin(logins, URL, kept, refresh).token() == "access-2"


def test_a_superseded_token_whose_successor_nobody_has_is_told(logins: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SUPERSEDED_WAIT_S", 0.2)
    login, _ = stored(logins, keep(logins, entry(1, left_s=-1)), SUPERSEDED)
    with pytest.raises(ProblemError) as caught:
        login.token()
    assert caught.value.code == "refresh_superseded"
    alive, _ = stored(logins, keep(logins, entry(1, left_s=10)), SUPERSEDED)
    assert alive.token() == "access-1"


def _renew(directory: str, begin: "multiprocessing.synchronize.Barrier") -> None:
    logins = Logins(Path(directory))
    kept = logins.find(URL)
    assert kept is not None

    def refresh(token: str) -> TokenPair:
        with (Path(directory) / "refreshed").open("a") as opened:
            opened.write(f"{token}\n")
        time.sleep(0.2)
        return pair(2)

    begin.wait(30)
    assert StoredLogin(logins, URL, kept, refresh).token() == "access-2"


def test_of_many_commands_at_once_one_renews(logins: Logins) -> None:
    keep(logins, entry(1, left_s=10))
    forking = multiprocessing.get_context("spawn")
    begin = forking.Barrier(4)
    processes = [forking.Process(target=_renew, args=(str(logins.directory), begin)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert (logins.directory / "refreshed").read_text().split() == ["refresh-1"]


def test_a_logout_meanwhile_stays_one(logins: Logins) -> None:
    login, _ = stored(logins, keep(logins, entry(1, left_s=10)), pair(2))
    with logins.lock():
        logins.remove(URL)
    assert login.token() == "access-2"
    assert logins.find(URL) is None


# --- in memory ---


def test_a_login_in_memory_renews_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    brought: list[str] = []

    def refresh(token: str) -> TokenPair:
        brought.append(token)
        return pair(len(brought) + 1)

    login: TokenSource = Login(pair(1), refresh)
    assert login.token() == "access-1"
    now_s += 841
    assert login.token() == "access-2"
    assert login.renewed("access-1") == "access-2"
    assert login.renewed("access-2") == "access-3"
    assert brought == ["refresh-1", "refresh-2"]


def test_the_file_is_readable_by_people(logins: Logins) -> None:
    keep(logins, entry(1))
    written = json.loads(logins.path.read_text())
    assert list(written) == ["servers"]
    assert list(written["servers"]["http://127.0.0.1:8042"]) == ["username", "access_token", "refresh_token", "expires_at", "lifetime_s"]
