"""A host's key that cannot sign is found out at once, and not after a visitor's whole run."""

from pathlib import Path

import pytest

from syncdiff.errors import InputError
from syncdiff.provenance import credentials
from syncdiff.provenance import manifest as note


def given(monkeypatch: pytest.MonkeyPatch, folder: Path, chain: bytes, key: bytes, algorithm: str = "es256") -> None:
    for name, pem in ((note.CERTIFICATE, chain), (note.KEY, key)):
        (folder / name).write_bytes(pem)
        monkeypatch.setenv(name, str(folder / name))
    monkeypatch.setenv(note.ALGORITHM, algorithm)


@pytest.mark.parametrize("what", ["no key", "no certificate", "another's key", "another algorithm", "no algorithm"])
def test_what_cannot_sign_is_said_before_the_work(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = credentials()
    note._self_signed.cache_clear()
    chain, key, algorithm = ours.chain, ours.key, ours.algorithm
    if what == "no key":
        key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    elif what == "no certificate":
        chain = b"\xff\xfe nothing"
    elif what == "another's key":
        key = credentials().key
    else:
        algorithm = {"another algorithm": "ps256", "no algorithm": "rot13"}[what]
    given(monkeypatch, tmp_path, chain, key, algorithm)
    with pytest.raises(InputError, match="Results cannot be signed with SYNCDIFF_C2PA_CERTIFICATE"):
        credentials()


def test_what_can_sign_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = credentials()
    given(monkeypatch, tmp_path, ours.chain, ours.key)
    assert credentials() == ours
