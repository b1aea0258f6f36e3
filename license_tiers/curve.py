"""Which 32 bytes may serve as an Ed25519 public key.

``cryptography`` (OpenSSL) takes any 32 bytes as a public key, the neutral point included, for which
anyone can make a signature that verifies over every message. A trust store therefore looks first.
Curve and encoding: RFC 8032 section 5.1. The points of small order and why they matter: Chalkias,
Garillot, Nikolaenko, "Taming the many EdDSAs" (2020), section 3; libsodium keeps the same ones as
a list (``ge25519_has_small_order``), which the tests use as an independent oracle.
"""

from license_tiers.errors import TrustError

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P


def refuse_weak_key(encoded: bytes) -> None:
    """Raise TrustError unless ``encoded`` is a canonical point of large order.

    Refused: another length, y >= p, no point of the curve, and the eight points whose order divides
    the cofactor 8 in any encoding.
    """
    if len(encoded) != 32:
        raise TrustError(f"an Ed25519 public key has 32 bytes, not {len(encoded)}")
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    if _small_order(y % _P):
        raise TrustError("a public key of small order: anyone could sign for it")
    if y >= _P:
        raise TrustError("a public key that is not encoded canonically (y >= p)")
    if pow(_x_squared(y), (_P - 1) // 2, _P) != 1:  # Euler's criterion; x = 0 has small order
        raise TrustError("these 32 bytes are no point of the curve Ed25519")


def _x_squared(y: int) -> int:
    """x^2 from -x^2 + y^2 = 1 + d x^2 y^2. The divisor is never zero, as -1/d is no square."""
    return (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P


def _small_order(y: int) -> bool:
    """Whether 8 P is the neutral point (0, 1), by doubling three times with y and x^2 alone.

    y(2P) = (y^2 + x^2) / (1 - d x^2 y^2): the sign of x does not enter.
    """
    for _ in range(3):
        x2, y2 = _x_squared(y), y * y
        divisor = (1 - _D * x2 * y2) % _P
        if divisor == 0:  # impossible on the curve (the addition law is complete), so y is off it
            return False
        y = (y2 + x2) * pow(divisor, -1, _P) % _P
    return y == 1
