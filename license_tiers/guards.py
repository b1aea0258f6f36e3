"""What a gate holds on to besides signature and time; each part is optional."""

from dataclasses import dataclass
from pathlib import Path

from license_tiers.binding import Machine
from license_tiers.errors import LicenseError
from license_tiers.floor import Floor


@dataclass(frozen=True)
class Guards:
    """``floor``: the clock cannot go back. ``machine``: bound licences can be used.

    ``revocations``: path of the vendor's signed list; ``least_sequence``: the number of the list
    that was current when the product was built. With 0 no list is required: one that is missing is
    missed only by a process, or a floor, that has seen one. With 1 any list is required, with a
    higher number one at least as new. Raises LicenseError for a number without a path, which would
    require nothing.
    """

    floor: Floor | None = None
    machine: Machine | None = None
    revocations: Path | None = None
    least_sequence: int = 0

    def __post_init__(self) -> None:
        if type(self.least_sequence) is not int or self.least_sequence < 0:
            raise LicenseError(f"least_sequence is a whole number, not {self.least_sequence!r}")
        if self.least_sequence and self.revocations is None:
            raise LicenseError(
                "least_sequence requires a revocation list, and no path of one is given",
                "Give `revocations`, the path at which customers install the list.",
            )


NO_GUARDS = Guards()
