"""Whether the groups that a router limits its choice to fit its experts."""

from converters.errors import ConfigError
from converters.spec import Config, ScoredTopK


def check_groups(router: ScoredTopK, config: Config, experts: int, chosen: int) -> None:
    """Groups of experts are of one size, and those kept hold as many as are chosen."""
    number, kept = router.groups(config) or (1, 1)
    each = experts // number
    scored = number == 1 or router.group_score != "top2" or each >= 2
    if kept is None or experts % number or kept > number or kept * each < chosen or not scored:
        raise ConfigError(
            f"config.json: {kept} of {number} groups kept, of {experts} experts, {chosen} chosen",
            "Correct n_group or topk_group: groups are of one size (2 or more where their two best "
            "count), and those kept hold all that are chosen.",
        )
