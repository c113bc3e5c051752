"""What is fetched for the tests is what was meant."""

from hashlib import sha256
from pathlib import Path

import pytest

from support.keycloak import require_sha256


def test_an_archive_that_is_another_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keycloak.zip"
    file.write_bytes(b"not what was meant")
    with pytest.raises(RuntimeError, match=r"keycloak\.zip is not what was to be fetched"):
        require_sha256(file, sha256(b"what was meant").hexdigest())
    require_sha256(file, sha256(b"not what was meant").hexdigest())
