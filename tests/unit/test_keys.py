"""Files of keys: read with one clear line for each fault, made once, rotated without an end of tokens, taken up by who runs."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from support.settings_home import Home
from support.signing import key_pair, private_pem, public_pem, rsa_key, settings_with
from xzepr.auth import key_files
from xzepr.auth.jwks_http import Jwk
from xzepr.auth.key_files import KeyFiles, KeysError, make_missing, read_keys, rotate, thumbprint
from xzepr.auth.keys import LOOK_S, SigningKeys
from xzepr.cli.main import main
from xzepr.processes.serve import ServeError, with_keys
from xzepr.settings import Settings
from xzepr.settings.model import Server


def kid(number: int) -> str:
    return thumbprint(rsa_key(number).public_key())


def kids(files: KeyFiles) -> list[str]:
    return [key.kid for key in read_keys(files).valid]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def ours(state_dir: Path) -> KeyFiles:
    return KeyFiles.of(Settings(server=Server(state_dir=str(state_dir))))


# --- reading


def test_the_name_of_a_key_is_the_thumbprint_of_rfc_7638() -> None:
    """The example of the RFC, 3.1."""
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93l"
        "qt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPks"
        "INHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    number = int.from_bytes(base64.urlsafe_b64decode(n + "=="), "big")
    assert thumbprint(rsa.RSAPublicNumbers(65537, number).public_key()) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_all_keys_of_the_public_file_count_and_the_own_one_whether_it_stands_there_or_not(tmp_path: Path) -> None:
    files = key_pair(tmp_path)
    assert files.public is not None
    files.public.write_text(f"# our keys\n{public_pem(rsa_key(1))}\n\n{public_pem(rsa_key(2))}{public_pem(rsa_key(1))}")
    assert kids(files) == [kid(0), kid(1), kid(2)]
    assert kids(KeyFiles(files.private, None)) == [kid(0)]


def test_keys_in_the_older_form_are_read(tmp_path: Path) -> None:
    files = key_pair(tmp_path)
    assert files.public is not None
    older = rsa_key().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    files.private.write_bytes(older)
    files.public.write_bytes(rsa_key().public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1))
    assert kids(files) == [kid(0)]


def encrypted() -> str:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x"))
    return rsa_key().private_bytes(*form).decode()


@pytest.mark.parametrize(
    ("which", "content", "reason"),
    [
        ("private", lambda: "", "holds no private keys in PEM"),
        ("private", lambda: public_pem(rsa_key()), "holds no private keys in PEM"),
        ("private", lambda: private_pem(rsa_key()) + private_pem(rsa_key(1)), "holds 2 private keys in PEM, and must hold one"),
        ("private", lambda: private_pem(rsa.generate_private_key(65537, 1024)), "an RSA key of 1024 bits; 2048 to 8192"),
        ("private", lambda: private_pem(ec.generate_private_key(ec.SECP256R1())), "is not an RSA key"),
        ("private", lambda: private_pem(ed25519.Ed25519PrivateKey.generate()), "is not an RSA key"),
        ("private", encrypted, "is encrypted; write it without a passphrase"),
        ("private", lambda: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read"),
        ("public", lambda: "", "holds no public key in PEM"),
        ("public", lambda: public_pem(rsa_key()) + private_pem(rsa_key()), "holds a PRIVATE KEY; it must hold public keys only"),
        ("public", lambda: public_pem(rsa_key()) + public_pem(rsa.generate_private_key(65537, 1024)), "an RSA key of 1024 bits"),
        ("public", lambda: public_pem(rsa_key()) + public_pem(ec.generate_private_key(ec.SECP256R1())), "key 2 in"),
        ("public", lambda: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "key 1 in"),
        ("public", lambda: "x" * 300_000, "is larger than"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_that_names_the_setting(tmp_path: Path, which: str, content: Any, reason: str) -> None:
    files = key_pair(tmp_path)
    getattr(files, which).write_text(content())
    with pytest.raises(KeysError) as caught:
        read_keys(files)
    message = str(caught.value)
    assert message.startswith(f"jwt.{which}_key_path: ")
    assert reason in message
    assert "\n" not in message
    # So it is told at a start, and by the command that looks before one.
    with pytest.raises(ServeError, match=f"jwt.{which}_key_path: "):
        with_keys(settings_with(files))
    environ = {"XZEPR__JWT__PRIVATE_KEY_PATH": str(files.private), "XZEPR__JWT__PUBLIC_KEY_PATH": str(files.public)}
    looked = CliRunner().invoke(main, ["config", "check"], env=environ)
    assert (looked.exit_code, looked.output) == (1, f"error: {message}\n")


def test_a_file_that_is_not_there_or_may_not_be_read_names_the_setting(tmp_path: Path) -> None:
    files = key_pair(tmp_path)
    files.private.unlink()
    with pytest.raises(KeysError, match=r"^jwt\.private_key_path: .*private\.pem: No such file or directory$"):
        read_keys(files)


def test_a_public_file_alone_is_refused(tmp_path: Path) -> None:
    files = key_pair(tmp_path)
    with pytest.raises(KeysError, match=r"^jwt\.private_key_path: is missing; jwt\.public_key_path goes with it$"):
        KeyFiles.of(settings_with(files, jwt={"private_key_path": None}))


# --- made at the first start


def test_without_configured_files_a_pair_is_made_in_the_state_directory_once(tmp_path: Path) -> None:
    settings = with_keys(Settings(server=Server(state_dir=str(tmp_path / "state"))))
    files = ours(tmp_path / "state")
    assert (settings.jwt.private_key_path, settings.jwt.public_key_path) == (str(files.private), str(files.public))
    assert files.private == tmp_path / "state" / "keys" / "signing.pem"
    assert files.public == tmp_path / "state" / "keys" / "public.pem"
    assert (mode(files.private), mode(files.public), mode(files.private.parent)) == (0o600, 0o644, 0o700)
    made = kids(files)
    assert len(made) == 1
    assert with_keys(Settings(server=Server(state_dir=str(tmp_path / "state")))) == settings
    assert kids(files) == made
    assert SigningKeys.of(settings).signing[0] == made[0]


def test_configured_files_are_never_made(tmp_path: Path) -> None:
    files = KeyFiles(tmp_path / "a.pem", tmp_path / "b.pem")
    with pytest.raises(ServeError, match=r"^jwt\.private_key_path: .*a\.pem: No such file"):
        with_keys(settings_with(files))
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_start_at_once_one_makes_the_keys(tmp_path: Path) -> None:
    code = "import sys; from xzepr.processes.serve import with_keys; from xzepr.settings import Settings; from xzepr.settings.model import Server\n"
    code += "from xzepr.auth.key_files import KeyFiles, read_keys\n"
    code += "settings = with_keys(Settings(server=Server(state_dir=sys.argv[1])))\n"
    code += "print([key.kid for key in read_keys(KeyFiles.of(settings)).valid])"
    starts = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = {start.communicate(timeout=120)[0] for start in starts}
    assert [start.returncode for start in starts] == [0] * 4
    assert told == {f"{kids(ours(tmp_path))}\n"}


def test_a_start_that_was_cut_off_between_the_files_is_made_good(tmp_path: Path) -> None:
    files = ours(tmp_path)
    make_missing(files)
    assert files.public is not None
    before = kids(files)
    files.public.unlink()
    files.private.with_name("signing.pem.new").write_text("half a key")
    make_missing(files)
    assert kids(files) == before
    assert public_pem(read_keys(files).signs) in files.public.read_text()


def test_a_key_of_ours_that_everybody_can_read_stops_the_start(tmp_path: Path) -> None:
    files = ours(tmp_path)
    make_missing(files)
    files.private.chmod(0o644)
    with pytest.raises(ServeError, match=r"^jwt\.private_key_path: everybody can read .*signing\.pem: chmod 600 it$"):
        with_keys(Settings(server=Server(state_dir=str(tmp_path))))


def test_a_state_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServeError, match=r"^jwt\.private_key_path: the directory .* cannot be made: .*server\.state_dir$"):
        with_keys(Settings(server=Server(state_dir=str(tmp_path / "file"))))


# --- rotation


def test_a_rotation_signs_with_a_new_key_and_keeps_as_many_as_it_is_told(tmp_path: Path) -> None:
    files = key_pair(tmp_path)
    first = rotate(files, bits=None, keep=2)
    assert kids(files) == [first.valid[0].kid, kid(0)]
    second = rotate(files, bits=None, keep=2)
    assert kids(files) == [second.valid[0].kid, first.valid[0].kid, kid(0)]
    third = rotate(files, bits=3072, keep=1)
    assert kids(files) == [third.valid[0].kid, second.valid[0].kid]
    assert read_keys(files).signs.key_size == 3072
    alone = rotate(files, bits=None, keep=0)
    assert kids(files) == [alone.valid[0].kid]
    assert alone.signs.key_size == 3072, "as long as the one before"
    assert not list(tmp_path.glob("*.new"))


def test_a_rotation_keeps_owner_and_mode_of_the_files(tmp_path: Path) -> None:
    files = key_pair(tmp_path)
    assert files.public is not None
    files.private.chmod(0o640)
    files.public.chmod(0o604)
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(files.private, owner, -1)
    rotate(files, bits=None, keep=1)
    assert (mode(files.private), mode(files.public), files.private.stat().st_uid) == (0o640, 0o604, owner)


def test_a_rotation_that_is_cut_off_between_the_files_leaves_keys_that_fit_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = key_pair(tmp_path)

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(key_files, "_write_private", cut)
        with pytest.raises(KeyboardInterrupt):
            rotate(files, bits=None, keep=1)
    assert kids(files)[0] == kid(0)
    assert SigningKeys(files).signing[0] == kid(0)
    again = rotate(files, bits=None, keep=1)
    assert kids(files) == [again.valid[0].kid, kid(0)]


def test_a_rotation_without_a_public_file_is_refused(tmp_path: Path) -> None:
    files = KeyFiles(key_pair(tmp_path).private, None)
    with pytest.raises(KeysError, match=r"^jwt\.public_key_path: is missing"):
        rotate(files, bits=None, keep=1)
    assert kids(files) == [kid(0)]


def test_rotations_at_once_wait_for_each_other(tmp_path: Path) -> None:
    files = key_pair(tmp_path)
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(rotate(files, bits=None, keep=5).valid[0].kid)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(kids(files)) == {*made, kid(0)}
    assert len(made) == 3


def test_a_link_to_a_key_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = key_pair(tmp_path / "real")
    link = tmp_path / "private.pem"
    link.symlink_to(real.private)
    rotated = rotate(KeyFiles(link, real.public), bits=None, keep=1)
    assert link.is_symlink()
    assert kids(real)[0] == rotated.valid[0].kid


# --- a process that runs


def test_a_file_that_cannot_be_used_changes_nothing_for_who_runs(tmp_path: Path) -> None:
    files = key_pair(tmp_path)
    now_s = 0.0
    keys = SigningKeys(files, monotonic=lambda: now_s)
    files.private.write_text("half a key")
    now_s += LOOK_S
    assert keys.signing[0] == kid(0)
    files.private.unlink()
    now_s += LOOK_S
    assert keys.find(kid(0)) is not None
    files.private.write_text(private_pem(rsa_key(1)))
    now_s += LOOK_S
    assert keys.signing[0] == kid(1)
    assert [key.kid for key in keys.valid] == [kid(1), kid(0)]


def test_unknown_names_make_it_look_ten_times_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = key_pair(tmp_path)
    now_s = 0.0
    keys = SigningKeys(files, monotonic=lambda: now_s)
    looks = 0
    seen = sys.modules[SigningKeys.__module__]._seen  # type: ignore[attr-defined]

    def counted(files: KeyFiles) -> Any:
        nonlocal looks
        looks += 1
        return seen(files)

    monkeypatch.setattr("xzepr.auth.keys._seen", counted)
    for step in range(1000):
        now_s = step / 1000
        assert keys.find("unheard-of") is None
    assert 5 <= looks <= 10


def test_the_generation_rises_only_when_a_key_is_gone(tmp_path: Path) -> None:
    files = key_pair(tmp_path)
    now_s = 0.0
    keys = SigningKeys(files, monotonic=lambda: now_s)
    rotate(files, bits=None, keep=1)
    now_s += LOOK_S
    assert keys.signing[0] != kid(0)
    assert keys.generation == 0
    rotate(files, bits=None, keep=1)
    now_s += LOOK_S
    assert keys.generation == 1


def test_what_is_published_has_no_private_part(tmp_path: Path) -> None:
    [key] = SigningKeys(key_pair(tmp_path)).valid
    published = Jwk.of(key)
    assert set(published.__struct_fields__) == {"kty", "use", "alg", "kid", "n", "e"}
    number = int.from_bytes(base64.urlsafe_b64decode(published.n + "=="), "big")
    assert number == rsa_key().public_key().public_numbers().n
    canonical = json.dumps({"e": published.e, "kty": "RSA", "n": published.n}, separators=(",", ":")).encode()
    assert base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode() == published.kid


# --- the command


def run(*arguments: str, **environ: str) -> Any:
    return CliRunner().invoke(main, ["keys", *arguments], env=environ, catch_exceptions=False)


def test_generate_makes_a_pair_and_overwrites_nothing(tmp_path: Path) -> None:
    private, public = tmp_path / "deep" / "private.pem", tmp_path / "deep" / "public.pem"
    made = run("generate", "--private", str(private), "--public", str(public), "--bits", "3072")
    assert made.exit_code == 0
    files = KeyFiles(private, public)
    assert made.stdout == f"{kids(files)[0]}\n"
    assert (mode(private), mode(public), read_keys(files).signs.key_size) == (0o600, 0o644, 3072)
    content = private.read_bytes()
    again = run("generate", "--private", str(private), "--public", str(public))
    assert (again.exit_code, private.read_bytes()) == (1, content)
    assert (
        again.stderr
        == f"error: jwt.private_key_path: {private} is there already, and no key is overwritten; `xzepr keys rotate` makes a new one beside it\n"
    )
    other = run("generate", "--private", str(tmp_path / "new.pem"), "--public", str(public))
    assert other.exit_code == 1
    assert not (tmp_path / "new.pem").exists()
    assert run("generate", "--private", str(private)).exit_code == 2


def test_generate_without_files_makes_those_that_serve_would_make(tmp_path: Path) -> None:
    made = run("generate", XZEPR__SERVER__STATE_DIR=str(tmp_path))
    assert made.exit_code == 0
    assert kids(ours(tmp_path)) == [made.stdout.strip()]
    assert run("generate", XZEPR__SERVER__STATE_DIR=str(tmp_path)).exit_code == 1


def test_rotate_and_list_tell_which_key_signs(tmp_path: Path) -> None:
    home = Home(tmp_path)
    environ = {"XZEPR__SERVER__STATE_DIR": str(home.path)}
    first = run("generate", **environ).stdout.strip()
    second = run("rotate", **environ).stdout.strip()
    listed = json.loads(run("list", "--json", **environ).stdout)
    assert [(key["kid"], key["signs"], key["bits"]) for key in listed] == [(second, True, 2048), (first, False, 2048)]
    assert listed[0]["created_at"] > listed[1]["created_at"]
    shown = run("list", **environ).stdout
    assert second in shown
    assert first in shown
    assert run("rotate", "--keep", "0", **environ).exit_code == 0
    assert len(json.loads(run("list", "--json", **environ).stdout)) == 1


def test_list_and_rotate_without_keys_say_what_is_missing(tmp_path: Path) -> None:
    for command in ("list", "rotate"):
        refused = run(command, XZEPR__SERVER__STATE_DIR=str(tmp_path))
        assert refused.exit_code == 1
        assert refused.stderr.startswith("error: jwt.private_key_path: ")
