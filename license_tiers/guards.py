"""What a gate holds on to besides signature and time; each part is optional."""

from dataclasses import dataclass
from pathlib import Path

from license_tiers.binding import Machine
from license_tiers.floor import Floor


@dataclass(frozen=True)
class Guards:
    """``floor``: the clock cannot go back. ``machine``: bound licences can be used.

    ``revocations``: path of the vendor's signed list; ``least_sequence``: the number of the list
    that was current when the product was built, 0 if there was none.
    """

    floor: Floor | None = None
    machine: Machine | None = None
    revocations: Path | None = None
    least_sequence: int = 0


NO_GUARDS = Guards()
