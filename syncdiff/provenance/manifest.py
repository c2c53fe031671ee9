"""The C2PA manifest (Content Credentials): signed into a finished mp4, and read back from any file.

It states that the lips were redrawn by a trained model, by which program and version. It holds nothing about the
visitor: no thumbnail, no file name. Any later change of the file breaks the signature; re-encoding removes it.

To sign with its own key, a host names two PEM files in the environment:
    SYNCDIFF_C2PA_CERTIFICATE   the certificate chain, the signer's first
    SYNCDIFF_C2PA_KEY           the private key, PKCS#8
    SYNCDIFF_C2PA_ALGORITHM     es256 (default), es384, es512, ps256, ps384, ps512, ed25519
    SYNCDIFF_C2PA_TRUST         for reading: PEM file of certificate authorities to trust
Without them every process makes its own certificate, in memory only. It proves that a file is unchanged, not who made
it. No time stamp is requested, so nothing is sent over a network.
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
MEMORY = 2 * 2**30  # bytes of address space of the reading process
# Status codes that do not mean that the file was changed: an unknown signer, an expired certificate.
NOT_TAMPERING = {"signingCredential.untrusted", "signingCredential.expired", "claimSignature.outsideValidity"}
MARKERS = (b"jumdc2pa", bytes.fromhex("d8fec3d61b0e483c92975828877ec481"))  # of a manifest: in any file, in mp4
SETTINGS = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
# By default c2pa holds a file twice in memory while signing: 576 MiB for a file of 262, and 51 with these settings.
# Above 16 MiB it uses a temporary file; the frames are hashed in a Merkle tree of 1 MiB pieces.
CORE_SETTINGS = {"backing_store_memory_threshold_in_mb": 16, "merkle_tree_chunk_size_in_kb": 1024}
SIGNING_SETTINGS = SETTINGS | {"core": CORE_SETTINGS}


@dataclass(frozen=True)
class Manifest:
    """What the manifest of a file states."""

    state: State
    ours: bool = False  # this program wrote it
    maker: str = ""  # name and version of the program that wrote it
    signer: str = ""  # issuer of the certificate
    redrawn: bool = False  # it declares media made by a trained model
    labelled: bool = False  # it declares a label in the picture
    why: str = ""  # where tampered: the status codes, or why it cannot be read


@dataclass(frozen=True)
class Credentials:
    """Certificate chain and private key, as PEM."""

    chain: bytes
    key: bytes
    algorithm: str  # as in C2PA, such as "es256"


def sign(video: Path, *, labelled: bool) -> None:
    """Add the manifest to a finished mp4, which is replaced as a whole or not at all. Raises InputError."""
    signer = credentials()
    part = video.with_name(video.name + ".signed")
    try:
        with video.open("rb") as source, part.open("w+b") as target:
            _embed(signer, "video/mp4", source, target, labelled=labelled)
        part.replace(video)
    except InputError:
        for folder in (video.parent, Path(tempfile.gettempdir())):
            raise_if_full(folder)
        raise
    finally:
        part.unlink(missing_ok=True)


def read_manifest(video: str | Path) -> Manifest:
    """Read the manifest of any file, in a process with bounded memory and time and without network access.

    The state is "tampered" for a manifest that cannot be read, "none" for a file of any kind without one.
    """
    command = [sys.executable, "-P", "-m", "syncdiff.provenance.manifest", str(Path(video).resolve())]
    names = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", TRUST)
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment["PYTHONPATH"] = str(Path(syncdiff.__file__).parents[1])
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return Manifest("tampered", why=f"it cannot be read within {TIMEOUT:.0f} s")
    return Manifest("tampered", why="it cannot be read") if done.returncode else Manifest(**json.loads(done.stdout))


def credentials() -> Credentials:
    """The host's credentials from the environment, else this process's own. Raises InputError if they cannot sign."""
    certificate, key = (os.environ.get(name) for name in (CERTIFICATE, KEY))
    if not certificate and not key:
        return _self_signed()
    if not certificate or not key:
        raise InputError(f"To sign with a key of your own, set both {CERTIFICATE} and {KEY}.")
    try:
        files = Path(certificate).read_bytes(), Path(key).read_bytes()
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read ({error.strerror}): see {CERTIFICATE} and {KEY}.") from error
    return _tested(Credentials(*files, os.environ.get(ALGORITHM, "es256")))


@cache
def _tested(signer: Credentials) -> Credentials:
    """The same credentials, after they signed a small picture: c2pa checks them only when it signs."""
    from PIL import Image

    picture = BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    _embed(signer, "image/jpeg", picture, BytesIO(), labelled=False)
    return signer


def _embed(signer: Credentials, mime_type: str, source: BinaryIO, target: BinaryIO, *, labelled: bool) -> None:
    """Copy `source` to `target` with a manifest. Raises InputError."""
    import c2pa

    program = {"name": "syncdiff", "version": syncdiff.__version__}
    action = {"digitalSourceType": SOURCE, "softwareAgent": program}
    edits = [{"action": "c2pa.edited", "description": words, **action} for words in (REDRAWN, LABELLED)[: 1 + labelled]]
    actions = {"actions": [{"action": "c2pa.created", **action}, *edits]}  # C2PA requires the creation to come first
    manifest = {"claim_generator_info": [program], "assertions": [{"label": "c2pa.actions.v2", "data": actions}]}
    try:
        info = c2pa.C2paSignerInfo(signer.algorithm, signer.chain, signer.key, None)
        with (
            c2pa.Context(c2pa.Settings.from_dict(SIGNING_SETTINGS)) as context,
            c2pa.Signer.from_info(info) as c2pa_signer,
            c2pa.Builder(manifest, context=context) as builder,
        ):
            builder.sign(c2pa_signer, mime_type, source, target)
    except (c2pa.C2paError, ValueError) as error:  # UnicodeError is one
        raise InputError(
            f"Results cannot be signed with {CERTIFICATE}, {KEY} and the algorithm {signer.algorithm}: {error}."
        ) from error


@cache
def _self_signed() -> Credentials:
    """A certificate of an authority whose key is discarded: readers refuse a certificate that is its own authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    pem, now = serialization.Encoding.PEM, dt.datetime.now(dt.UTC)
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def name(text: str) -> x509.Name:
        texts = {NameOID.ORGANIZATION_NAME: "syncdiff (self-signed)", NameOID.COMMON_NAME: text}
        return x509.Name([x509.NameAttribute(oid, text) for oid, text in texts.items()])

    def certificate(text: str, owner: ec.EllipticCurvePrivateKey, usage: x509.ExtensionType) -> bytes:
        authority = owner is root
        # digital_signature for the signer, key_cert_sign for the authority
        rights = (not authority, False, False, False, False, authority, False, False, False)
        builder = x509.CertificateBuilder(name("local authority"), name(text), owner.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=3650))
        builder = builder.add_extension(usage, critical=authority).add_extension(x509.KeyUsage(*rights), critical=True)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
        return builder.add_extension(issuer, critical=False).sign(root, hashes.SHA256()).public_bytes(pem)

    chain = certificate("this machine", key, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]))
    chain += certificate("local authority", root, x509.BasicConstraints(ca=True, path_length=0))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credentials(chain, private, "es256")


def _read_in_process(path: Path) -> Manifest:
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
    except c2pa.C2paError as error:  # raised for any damage of the file, also without a manifest
        data = path.read_bytes()  # at most 200 MB (MAX_UPLOAD_BYTES), in a process of its own
        if any(marker in data for marker in MARKERS):
            return Manifest("tampered", why=str(error)[:200])
        return Manifest("none")


def _parsed(store: dict[str, Any]) -> Manifest:
    """The active manifest of c2pa's JSON report."""
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
    broken = [code for code in codes if code not in NOT_TAMPERING]
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
    print(json.dumps(vars(_read_in_process(Path(sys.argv[1])))))


if __name__ == "__main__":
    main()
