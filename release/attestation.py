"""moeship/provenance.intoto.json: how the release was built, signed with the release's key.

An in-toto Statement v1 (https://in-toto.io/Statement/v1) whose predicate is SLSA Provenance v1
(https://slsa.dev/spec/v1.0/provenance): the files with their SHA-256, what was asked for, what it
was made from, with which tools, and the validation as a byproduct. It lies in a DSSE envelope
(https://github.com/secure-systems-lab/dsse) with an ECDSA signature, as the Model Signing bundle
does, so that both are checked with one public key.

moeship runs where its user runs it: nothing but the signer says that the build was as described
(SLSA build level 1). A release that is not signed has no provenance. The date of the build is in
release.json alone, one of the files; the signature is the same for the same content (RFC 6979).
"""

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release import records
from release.errors import VerifyError
from release.records import PROVENANCE, ReleaseRecord, ValidationRecord
from release.spec import ReleaseSpec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
PAYLOAD = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:moeship:release-build:1"
BUILDER = "urn:moeship:release-build"
Json = dict[str, Any]


def statement(
    spec: ReleaseSpec,
    release: ReleaseRecord,
    validation: ValidationRecord,
    sums: dict[str, str],
    inputs: dict[str, str],
) -> Json:
    """The statement of a release whose files have these SHA-256 (path -> hexadecimal).

    ``inputs``: the same of release.yaml and of the files that it names (`provenance.inputs_of`).
    """
    asked = spec.model_dump(mode="json", include={"name", "version", "dtype", "max_shard_size"})
    ran = {run.target: bool(run.report and run.report.get("passed")) for run in validation.runs}
    source = {"name": "source checkpoint", "digest": {"sha256": release.source.sha256}}
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": path, "digest": {"sha256": sums[path]}}
            for path in sorted(sums)
            if path != PROVENANCE
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {**asked, "targets": list(spec.targets)},
                "internalParameters": {"validated": ran},
                "resolvedDependencies": [
                    {**source, "annotations": release.source.model_dump(mode="json")},
                    *({"name": name, "digest": {"sha256": inputs[name]}} for name in inputs),
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": dict(sorted(release.tools.items()))},
                "byproducts": [
                    {
                        "name": records.VALIDATION,
                        "digest": {"sha256": sums[records.VALIDATION]},
                    }
                ],
            },
        },
    }


def sign_statement(content: Json, key: Path) -> str:
    """The statement in a signed DSSE envelope, as JSON text. Raises SigningError."""
    from cryptography.hazmat.primitives.asymmetric import ec

    from release.signing import fingerprint_of, load_private_key

    private = load_private_key(key)
    payload = json.dumps(content, sort_keys=True).encode()
    way = ec.ECDSA(_hash(private.curve), deterministic_signing=True)
    signature = private.sign(_encoded(payload), way)
    envelope = {
        "payloadType": PAYLOAD,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {
                "keyid": fingerprint_of(private.public_key()),
                "sig": base64.b64encode(signature).decode(),
            }
        ],
    }
    return json.dumps(envelope, indent=2, sort_keys=True) + "\n"


def check_provenance(
    text: str,
    sums: dict[str, str],
    release: ReleaseRecord,
    key: "ec.EllipticCurvePublicKey | None",
) -> str:
    """What the provenance says, in words, if it is of these files and (with ``key``) signed by it.

    Raises RecordError for text that is not JSON, VerifyError if it does not hold.
    """
    payload, signatures = _opened(text)
    said = records.parse_json(payload.decode("utf-8", "replace"), PROVENANCE)
    try:
        files = {item["name"]: item["digest"]["sha256"] for item in said["subject"]}
        kinds = (said["_type"], said["predicateType"])
        made = said["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"]["sha256"]
    except (KeyError, TypeError, IndexError) as error:
        raise VerifyError(f"{PROVENANCE} is not as moeship writes it ({error!r})") from error
    if kinds != (STATEMENT, PREDICATE):
        raise VerifyError(f"{PROVENANCE} states something else than how it was built: {kinds}")
    listed = {path: sha for path, sha in sums.items() if path != PROVENANCE}
    if odd := sorted(p for p in files.keys() | listed if files.get(p) != listed.get(p)):
        raise VerifyError(f"{PROVENANCE} and SHA256SUMS differ: {', '.join(odd[:5])}")
    if made != release.source.sha256:
        raise VerifyError(f"{PROVENANCE} and release.json name different sources")
    if key is None:
        return f"of these {len(files)} files; its signature was not checked"
    _verify(payload, signatures, key)
    return f"of these {len(files)} files, signed with the key that was given"


def _opened(text: str) -> tuple[bytes, list[bytes]]:
    envelope = records.parse_json(text, PROVENANCE)
    try:
        if envelope["payloadType"] != PAYLOAD:
            raise VerifyError(f"{PROVENANCE} holds {envelope['payloadType']!r}, not {PAYLOAD}")
        payload = base64.b64decode(envelope["payload"], validate=True)
        return payload, [
            base64.b64decode(one["sig"], validate=True) for one in envelope["signatures"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise VerifyError(f"{PROVENANCE} is not a DSSE envelope ({error!r})") from error


def _verify(payload: bytes, signatures: list[bytes], public: "ec.EllipticCurvePublicKey") -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    for signature in signatures:
        try:
            public.verify(signature, _encoded(payload), ec.ECDSA(_hash(public.curve)))
            return
        except InvalidSignature:
            continue
    raise VerifyError(
        f"{PROVENANCE} is not signed with the key that was given",
        "Get the files and the public key again from the publisher.",
    )


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: lengths, so that type and payload cannot be shifted."""
    kind = PAYLOAD.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _hash(curve: "ec.EllipticCurve") -> Any:
    """The hash that goes with a curve, as in model_signing (P-256: SHA-256, and so on)."""
    from cryptography.hazmat.primitives import hashes

    kinds: dict[int, Any] = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}
    return kinds[curve.key_size]()
