"""A host's key that cannot sign is found out at once, and not after a visitor's whole run."""

from pathlib import Path

import pytest

from syncdiff.errors import InputError
from syncdiff.provenance import manifest as note
from syncdiff.provenance.manifest import credentials


def given(monkeypatch: pytest.MonkeyPatch, folder: Path, chain: bytes, key: bytes, algorithm: str = "es256") -> None:
    for name, pem in ((note.CERTIFICATE, chain), (note.KEY, key)):
        (folder / name).write_bytes(pem)
        monkeypatch.setenv(name, str(folder / name))
    monkeypatch.setenv(note.ALGORITHM, algorithm)


def test_what_cannot_sign_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests) -> None:
    ours = credentials()
    note._self_signed.cache_clear()
    another = credentials()
    for what, chain, key, algorithm in [
        ("no key", ours.chain, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "es256"),
        ("no certificate", b"\xff\xfe nothing", ours.key, "es256"),
        ("another's key", ours.chain, another.key, "es256"),
        ("another algorithm", ours.chain, ours.key, "ps256"),
        ("no algorithm", ours.chain, ours.key, "rot13"),
    ]:
        given(monkeypatch, tmp_path, chain, key, algorithm)
        with subtests.test(what), pytest.raises(InputError, match="cannot be signed with SYNCDIFF_C2PA_CERTIFICATE"):
            credentials()


def test_what_can_sign_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = credentials()
    given(monkeypatch, tmp_path, ours.chain, ours.key)
    assert credentials() == ours
