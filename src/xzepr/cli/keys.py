"""`xzepr keys generate|rotate|list`: the files of the keys that sign and check access tokens. No server and no database is asked."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from xzepr.cli.local import config_option, embedded_option, load_or_exit
from xzepr.cli.output import json_option, print_json, print_table, yes_no
from xzepr.cli.text import when

if TYPE_CHECKING:
    from xzepr.auth.key_files import KeyFiles, KeySet, PublicKey

T = TypeVar("T")

bits_option = click.option("--bits", type=click.IntRange(2048, 8192), help="Length of the new key; otherwise 2048, at a rotation as before.")


@click.group()
def keys() -> None:
    """Make, change and list the keys that sign access tokens."""


@keys.command()
@config_option
@embedded_option
@click.option("--private", type=click.Path(path_type=Path, dir_okay=False), help="Where the private key goes; for jwt.private_key_path.")
@click.option("--public", type=click.Path(path_type=Path, dir_okay=False), help="Where the public key goes; for jwt.public_key_path.")
@bits_option
def generate(config_file: Path | None, allow_embedded: bool, private: Path | None, public: Path | None, bits: int | None) -> None:
    """Make a pair of files; never overwrites one. Prints the key's id.

    Without --private and --public: those of the settings, or in the state directory, where `xzepr serve` would make them too.
    """
    from xzepr.auth import key_files

    if (private is None) != (public is None):
        raise click.UsageError("give both --private and --public, or neither")
    if private is not None and public is not None:
        # No settings: they would be refused because these files are not there yet.
        files = key_files.KeyFiles(private.absolute(), public.absolute())
    else:
        files = _files(config_file, allow_embedded)
        if files.public is None:
            raise click.UsageError("jwt.public_key_path is not set: give --private and --public")
    made = _or_exit(lambda: key_files.generate(files, bits=bits or key_files.BITS_DEFAULT))
    click.echo(made.kid)
    click.echo(f"private: {files.private}\npublic:  {files.public}", err=True)


@keys.command()
@config_option
@embedded_option
@click.option(
    "--keep", type=click.IntRange(0, 100), default=1, show_default=True, help="Keys before it that still check; 0: their tokens end within a minute."
)
@bits_option
def rotate(config_file: Path | None, allow_embedded: bool, keep: int, bits: int | None) -> None:
    """Make a new key that signs from now on; keys before it still check tokens. Prints the new key's id.

    A server that runs takes it up within a minute, without a restart.
    """
    from xzepr.auth import key_files

    files = _files(config_file, allow_embedded)
    rotated = _or_exit(lambda: key_files.rotate(files, bits=bits, keep=keep))
    click.echo(rotated.valid[0].kid)
    click.echo(f"{len(rotated.valid)} keys check tokens now", err=True)


@keys.command("list")
@config_option
@embedded_option
@json_option
def list_keys(config_file: Path | None, allow_embedded: bool, as_json: bool) -> None:
    """List the keys that check tokens, the one that signs first."""
    from xzepr.auth import key_files

    files = _files(config_file, allow_embedded)
    found: KeySet = _or_exit(lambda: key_files.read_keys(files))
    if as_json:
        print_json([{"kid": key.kid, "created_at": _moment(key), "bits": key.key.key_size, "signs": key is found.valid[0]} for key in found.valid])
        return
    columns = ("key", "created", "bits", "signs")
    print_table(columns, [[key.kid, when(_moment(key)), str(key.key.key_size), yes_no(key is found.valid[0])] for key in found.valid])


def _moment(key: "PublicKey") -> str | None:
    from xzepr import clock

    return clock.rfc3339(key.created) if key.created is not None else None


def _files(config_file: Path | None, allow_embedded: bool) -> "KeyFiles":
    """Of the settings. Exits with a line when they name none that could be."""
    from xzepr.auth.key_files import KeyFiles

    settings = load_or_exit(config_file, allow_embedded)
    return _or_exit(lambda: KeyFiles.of(settings))


def _or_exit(work: Callable[[], T]) -> T:
    from xzepr.auth.key_files import KeysError

    try:
        return work()
    except KeysError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
