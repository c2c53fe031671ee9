"""The C2PA manifest (Content Credentials): signed into a finished mp4, and read back from any file.

It states that the lips were redrawn by a trained model, by which program and version. It holds nothing about the
visitor: no thumbnail, no name of an input. Any later change of the file breaks the signature; re-encoding drops it.

A host signs with its own key by naming two PEM files in the environment:
    SYNCDIFF_C2PA_CERTIFICATE   the certificate chain, its own first
    SYNCDIFF_C2PA_KEY           the private key, PKCS#8
    SYNCDIFF_C2PA_ALGORITHM     es256 (default), es384, es512, ps256, ps384, ps512, ed25519
    SYNCDIFF_C2PA_TRUST         for reading: PEM file of the authorities whose signers count as known
Without them each process makes a certificate of its own, in memory only: it shows that a file is unchanged, not who
made it. No time stamp is requested, so nothing goes over a network.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import syncdiff
from syncdiff.errors import InputError, raise_if_full

State = Literal["trusted", "self-signed", "tampered", "none"]
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
REDRAWN = "Lips redrawn by a trained model to follow a voice"
LABELLED = "Label burnt into the picture"
CERTIFICATE, KEY = "SYNCDIFF_C2PA_CERTIFICATE", "SYNCDIFF_C2PA_KEY"
ALGORITHM, TRUST = "SYNCDIFF_C2PA_ALGORITHM", "SYNCDIFF_C2PA_TRUST"
TIMEOUT = 60.0  # s that reading a manifest may take
MEMORY = 2 * 2**30  # bytes of address space of the process that reads it
# Codes that say nothing about whether the file was changed: the signer is unknown here, or the certificate too old.
NOT_PROOF = {"signingCredential.untrusted", "signingCredential.expired", "claimSignature.outsideValidity"}
STARTS = (b"jumdc2pa", bytes.fromhex("d8fec3d61b0e483c92975828877ec481"))  # of a manifest, in any file and in mp4
SETTINGS = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
# By default c2pa holds a file twice while it signs it: 576 MiB for one of 262, with these 51. Above 16 MiB it works in
# a temporary file, and the pictures are hashed in pieces of 1 MiB, which a Merkle tree holds together.
SIGNING = SETTINGS | {"core": {"backing_store_memory_threshold_in_mb": 16, "merkle_tree_chunk_size_in_kb": 1024}}


@dataclass(frozen=True)
class Manifest:
    """What the manifest of a file states."""

    state: State
    ours: bool = False  # it names this program as its maker
    maker: str = ""  # program that wrote it
    signer: str = ""  # issuer of the certificate
    redrawn: bool = False  # it declares media made by a trained model
    labelled: bool = False  # it declares a label in the picture
    why: str = ""  # where tampered: the codes of what does not fit


@dataclass(frozen=True)
class Credentials:
    """What signs: PEM bytes."""

    chain: bytes
    key: bytes
    algorithm: str


def sign(video: Path, *, labelled: bool) -> None:
    """Add the manifest to a finished mp4. The file is replaced whole, or stays as it was. Raises InputError."""
    ours = credentials()
    part = video.with_name(video.name + ".signed")
    try:
        with video.open("rb") as source, part.open("w+b") as target:
            _embed(ours, "video/mp4", source, target, labelled=labelled)
        part.replace(video)
    except InputError:
        for folder in (video.parent, Path(tempfile.gettempdir())):
            raise_if_full(folder)
        raise
    finally:
        part.unlink(missing_ok=True)


def read_manifest(video: str | Path) -> Manifest:
    """What the manifest of a file states, read in a process with bounded memory and time, and without a network.

    A manifest that cannot be read counts as tampered; a file without one, of whatever kind, has none.
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
    return Manifest("tampered", why="it cannot be read") if done.returncode else Manifest(**json.loads(done.stdout))


def credentials() -> Credentials:
    """The host's from the environment, else this process's own. Raises InputError for what cannot be read or sign."""
    certificate, key = (os.environ.get(name) for name in (CERTIFICATE, KEY))
    if not certificate and not key:
        return _self_signed()
    if not certificate or not key:
        raise InputError(f"To sign with a key of your own, set both {CERTIFICATE} and {KEY}.")
    try:
        chain, secret = Path(certificate).read_bytes(), Path(key).read_bytes()
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read ({error.strerror}): see {CERTIFICATE} and {KEY}.") from error
    return _tried(Credentials(chain, secret, os.environ.get(ALGORITHM, "es256")))


@cache
def _tried(ours: Credentials) -> Credentials:
    """The same, after signing a small picture: key, chain and algorithm are checked only when something is signed."""
    from PIL import Image

    picture = BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    _embed(ours, "image/jpeg", picture, BytesIO(), labelled=False)
    return ours


def _embed(ours: Credentials, kind: str, source: BinaryIO, target: BinaryIO, *, labelled: bool) -> None:
    """Copy `source` to `target` with a manifest. Raises InputError. C2PA wants the first action to be the creation."""
    import c2pa

    program = {"name": "syncdiff", "version": syncdiff.__version__}
    action = {"digitalSourceType": SOURCE, "softwareAgent": program}
    edits = [{"action": "c2pa.edited", "description": words, **action} for words in (REDRAWN, LABELLED)[: 1 + labelled]]
    actions = {"actions": [{"action": "c2pa.created", **action}, *edits]}
    manifest = {"claim_generator_info": [program], "assertions": [{"label": "c2pa.actions.v2", "data": actions}]}
    try:
        info = c2pa.C2paSignerInfo(ours.algorithm, ours.chain, ours.key, None)
        with (
            c2pa.Context(c2pa.Settings.from_dict(SIGNING)) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(manifest, context=context) as builder,
        ):
            builder.sign(signer, kind, source, target)
    except (c2pa.C2paError, ValueError) as error:  # UnicodeError is one
        raise InputError(
            f"Results cannot be signed with {CERTIFICATE}, {KEY} and the algorithm {ours.algorithm}: {error}."
        ) from error


@cache
def _self_signed() -> Credentials:
    """A certificate under an authority whose key is dropped at once: readers refuse one that signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    pem, now = serialization.Encoding.PEM, dt.datetime.now(dt.UTC)
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def name(text: str) -> x509.Name:
        texts = {NameOID.ORGANIZATION_NAME: "syncdiff (self-signed)", NameOID.COMMON_NAME: text}
        return x509.Name([x509.NameAttribute(oid, text) for oid, text in texts.items()])

    def certificate(text: str, whose: ec.EllipticCurvePrivateKey, usage: x509.ExtensionType) -> bytes:
        authority = whose is root
        rights = (not authority, False, False, False, False, authority, False, False, False)  # to sign
        builder = x509.CertificateBuilder(name("local authority"), name(text), whose.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=3650))
        builder = builder.add_extension(usage, critical=authority).add_extension(x509.KeyUsage(*rights), critical=True)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
        return builder.add_extension(issuer, critical=False).sign(root, hashes.SHA256()).public_bytes(pem)

    chain = certificate("this machine", key, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]))
    chain += certificate("local authority", root, x509.BasicConstraints(ca=True, path_length=0))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credentials(chain, private, "es256")


def _read_here(path: Path) -> Manifest:
    """As read_manifest, in this process."""
    import c2pa

    settings: dict[str, Any] = SETTINGS
    if anchors := os.environ.get(TRUST):
        settings = {"verify": SETTINGS["verify"] | {"verify_trust": True}}
        settings["trust"] = {"user_anchors": Path(anchors).read_text()}
    try:
        with path.open("rb") as file, c2pa.Context(c2pa.Settings.from_dict(settings)) as context:
            reader = c2pa.Reader.try_create(file, context=context)
            if reader is None:
                return Manifest("none")
            with reader:
                return _parsed(json.loads(reader.json()))
    except c2pa.C2paError as error:  # other damage than a manifest's is not this module's business
        data = path.read_bytes()  # at most 200 MB (MAX_UPLOAD_BYTES), in a process of its own
        return Manifest("tampered", why=str(error)[:200]) if any(s in data for s in STARTS) else Manifest("none")


def _parsed(store: dict[str, Any]) -> Manifest:
    active = store.get("manifests", {}).get(store.get("active_manifest"), {})
    maker = (active.get("claim_generator_info") or [{"name": str(active.get("claim_generator", ""))}])[0]
    actions = [
        action
        for assertion in active.get("assertions", [])
        if str(assertion.get("label", "")).startswith("c2pa.actions")
        for action in assertion.get("data", {}).get("actions", [])
    ]
    codes = [status.get("code", "") for status in store.get("validation_status") or ()]
    if store.get("validation_state") == "Invalid" and not codes:
        codes = ["invalid"]
    broken = [code for code in codes if code not in NOT_PROOF]
    return Manifest(
        state="tampered" if broken else "self-signed" if codes else "trusted",
        ours=maker.get("name") == "syncdiff",
        maker=f"{maker.get('name', '')} {maker.get('version', '')}".strip()[:80],
        signer=str((active.get("signature_info") or {}).get("issuer", ""))[:80],
        redrawn=any("rainedAlgorithmicMedia" in str(action.get("digitalSourceType", "")) for action in actions),
        labelled=any(action.get("description") == LABELLED for action in actions),
        why=", ".join(dict.fromkeys(broken))[:200],
    )


def main() -> None:
    """Read the manifest of the file in argv[1]; print it as one JSON object."""
    import resource

    with suppress(ValueError, OSError):  # macOS bounds no address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(json.dumps(vars(_read_here(Path(sys.argv[1])))))


if __name__ == "__main__":
    main()
