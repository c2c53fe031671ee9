"""The signed note in the file (C2PA): written into a finished mp4, read back from any file. Knows nothing of pixels.

It says that the lips were redrawn by a trained model, by which program and version: nothing about the visitor, no
thumbnail, no name of an input. Any later change of the file breaks the signature; a re-encode simply loses the note.

A host signs with its own key by naming two PEM files in the environment:
    SYNCDIFF_C2PA_CERTIFICATE   the certificate chain, its own first
    SYNCDIFF_C2PA_KEY           the private key, PKCS#8
    SYNCDIFF_C2PA_ALGORITHM     es256 (what is taken when it is not set), es384, es512, ps256, ps384, ps512, ed25519
    SYNCDIFF_C2PA_TRUST         for reading: PEM file of the authorities whose signers count as known
Without them each process makes a certificate of its own, in memory only: it shows that a file is unchanged, not who
made it. No time stamp is asked for, so nothing goes over a network.
"""

from __future__ import annotations

import datetime as dt
import json
import mmap
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import syncdiff
from syncdiff.errors import InputError

State = Literal["trusted", "self-signed", "tampered", "none"]
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
MADE = "Lips redrawn by a trained model to follow a voice"
LABELLED = "Label burnt into the picture"
CERTIFICATE, KEY = "SYNCDIFF_C2PA_CERTIFICATE", "SYNCDIFF_C2PA_KEY"
ALGORITHM, TRUST = "SYNCDIFF_C2PA_ALGORITHM", "SYNCDIFF_C2PA_TRUST"
TIMEOUT = 60.0  # s that reading a note may take
MEMORY = 2 * 2**30  # bytes of address space of the process that reads it
# What says nothing about whether the file was changed: nobody here vouches for the signer, or no longer.
NOT_PROOF = {"signingCredential.untrusted", "signingCredential.expired", "claimSignature.outsideValidity"}
SIGNS = (b"jumdc2pa", bytes.fromhex("d8fec3d61b0e483c92975828877ec481"))  # how a note begins, in any file and in mp4
SETTINGS = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}  # never asks a network


@dataclass(frozen=True)
class Manifest:
    """What the signed note of a file says."""

    state: State
    ours: bool = False  # it names this program as its maker
    maker: str = ""  # program that wrote it, as the file says
    signer: str = ""  # whom the certificate names
    redrawn: bool = False  # it declares media made by a trained model
    labelled: bool = False  # it declares a label in the picture
    why: str = ""  # where tampered: what does not fit, in C2PA's terms


@dataclass(frozen=True)
class Credentials:
    """What signs: PEM bytes."""

    chain: bytes
    key: bytes
    algorithm: str


def sign(video: Path, *, labelled: bool) -> None:
    """Add the note to a finished mp4. The file is replaced whole, or stays as it was. Raises InputError."""
    import c2pa

    ours = credentials()
    part = video.with_name(video.name + ".signed")
    info = c2pa.C2paSignerInfo(ours.algorithm, ours.chain, ours.key, None)
    try:
        with (
            c2pa.Context(c2pa.Settings.from_dict(SETTINGS)) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(_said(labelled), context=context) as builder,
            video.open("rb") as source,
            part.open("w+b") as target,
        ):
            builder.sign(signer, "video/mp4", source, target)
        part.replace(video)
    except c2pa.C2paError as error:
        raise InputError(f"The result cannot be signed with the key of {KEY}: {error}.") from error
    finally:
        part.unlink(missing_ok=True)


def read_manifest(video: str | Path) -> Manifest:
    """What the note of a file says, read in a process of its own, with bounded memory and time and no network.

    A note that cannot be read at all counts as tampered; a file without one, of whatever kind, has none.
    """
    command = [sys.executable, "-P", "-m", "syncdiff.provenance.manifest", str(Path(video).resolve())]
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR", TRUST) if name in os.environ}
    kept["PYTHONPATH"] = str(Path(syncdiff.__file__).parents[1])
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, env=kept, check=False
        )
    except subprocess.TimeoutExpired:
        return Manifest("tampered", why=f"it cannot be read within {TIMEOUT:.0f} s")
    if done.returncode:
        return Manifest("tampered", why="it cannot be read")
    return Manifest(**json.loads(done.stdout))


def credentials() -> Credentials:
    """The host's from the environment, else this process's own. Raises InputError for what cannot be read or sign."""
    given = [os.environ.get(name) for name in (CERTIFICATE, KEY)]
    if not any(given):
        return _own()
    if not all(given):
        raise InputError(f"To sign with a key of your own, set both {CERTIFICATE} and {KEY}.")
    try:
        chain, key = (Path(path).read_bytes() for path in given)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read ({error.strerror}): see {CERTIFICATE} and {KEY}.") from error
    return _proven(Credentials(chain, key, os.environ.get(ALGORITHM, "es256")))


@cache
def _proven(ours: Credentials) -> Credentials:
    """The same, after a try: key, certificates and algorithm are looked at only when something is signed."""
    import c2pa
    from PIL import Image

    picture = BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    try:
        info = c2pa.C2paSignerInfo(ours.algorithm, ours.chain, ours.key, None)
        with (
            c2pa.Context(c2pa.Settings.from_dict(SETTINGS)) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(_said(labelled=False), context=context) as builder,
        ):
            builder.sign(signer, "image/jpeg", picture, BytesIO())
    except (c2pa.C2paError, UnicodeError, ValueError) as error:
        raise InputError(
            f"Results cannot be signed with {CERTIFICATE}, {KEY} and the algorithm {ours.algorithm}: {error}."
        ) from error
    return ours


@cache
def _own() -> Credentials:
    """A certificate under an authority whose key is thrown away at once: readers refuse one that signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    pem, now = serialization.Encoding.PEM, dt.datetime.now(dt.UTC)
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def name(common: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "syncdiff (self-signed)"),
                x509.NameAttribute(NameOID.COMMON_NAME, common),
            ]
        )

    def certificate(common: str, whose: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        uses = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign",
             "encipher_only", "decipher_only"), False)  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(common))
            .issuer_name(name("local authority"))
            .public_key(whose.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))  # clocks differ
            .not_valid_after(now + dt.timedelta(days=3650))
            .add_extension(x509.BasicConstraints(authority, 0 if authority else None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, **uses), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(whose.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
        )
        if not authority:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
            )
        return builder.sign(root, hashes.SHA256())

    chain = [certificate("this machine", key, authority=False), certificate("local authority", root, authority=True)]
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credentials(b"".join(one.public_bytes(pem) for one in chain), private, "es256")


def _said(labelled: bool) -> dict[str, Any]:
    """The note before it is signed. C2PA wants the first action to say how the asset came about."""
    program = {"name": "syncdiff", "version": syncdiff.__version__}
    edits = [MADE, *([LABELLED] if labelled else [])]
    actions = [{"action": "c2pa.created", "digitalSourceType": SOURCE, "softwareAgent": program}]
    actions += [
        {"action": "c2pa.edited", "digitalSourceType": SOURCE, "softwareAgent": program, "description": words}
        for words in edits
    ]
    return {
        "claim_generator_info": [program],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
    }


def _read_here(path: Path) -> Manifest:
    """As read_manifest, in this process: c2pa meets whatever a stranger sends."""
    import c2pa

    settings = json.loads(json.dumps(SETTINGS))
    if os.environ.get(TRUST):
        settings["trust"] = {"user_anchors": Path(os.environ[TRUST]).read_text()}
        settings["verify"]["verify_trust"] = True
    try:
        with path.open("rb") as file, c2pa.Context(c2pa.Settings.from_dict(settings)) as context:
            reader = c2pa.Reader.try_create(file, context=context)
            if reader is None:
                return Manifest("none")
            with reader:
                return _understood(json.loads(reader.json()))
    except c2pa.C2paError as error:
        return Manifest("tampered", why=str(error)[:200]) if _has_note(path) else Manifest("none")


def _has_note(path: Path) -> bool:
    """Whether there is a note in a file that cannot be understood: other damage is not our business."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(sign) >= 0 for sign in SIGNS)


def _understood(store: dict[str, Any]) -> Manifest:
    active = store.get("manifests", {}).get(store.get("active_manifest"), {})
    makers = active.get("claim_generator_info") or [{"name": str(active.get("claim_generator", ""))}]
    maker = " ".join(str(makers[0].get(part, "")) for part in ("name", "version")).strip()
    actions = [
        action
        for assertion in active.get("assertions", [])
        if str(assertion.get("label", "")).startswith("c2pa.actions")
        for action in assertion.get("data", {}).get("actions", [])
    ]
    wrong = [status.get("code", "") for status in store.get("validation_status") or ()]
    broken = [code for code in wrong if code not in NOT_PROOF]
    state: State = "tampered" if broken else "self-signed" if wrong else "trusted"
    if store.get("validation_state") == "Invalid" and not wrong:
        state, broken = "tampered", ["invalid"]
    return Manifest(
        state=state,
        ours=makers[0].get("name") == "syncdiff",
        maker=maker[:80],
        signer=str((active.get("signature_info") or {}).get("issuer", ""))[:80],
        redrawn=any("rainedAlgorithmicMedia" in str(action.get("digitalSourceType", "")) for action in actions),
        labelled=any(action.get("description") == LABELLED for action in actions),
        why=", ".join(dict.fromkeys(broken))[:200],
    )


def main() -> None:
    """Read the note of the file in argv[1]; print it as one JSON object."""
    import resource

    with suppress(ValueError, OSError):  # macOS bounds no address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(json.dumps(vars(_read_here(Path(sys.argv[1])))))


if __name__ == "__main__":
    main()
