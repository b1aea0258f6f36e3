"""What the Hub shows of a published release, held against what was asked for."""

from typing import TYPE_CHECKING

from release.publish.client import asking
from release.publish.remote import Repo, Settings

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

FORM = "extra_gated_"
"""Keys of the form that readers of a gated model fill in (huggingface.co/docs/hub/models-gated)."""


def look(repo: Repo, wanted: Settings) -> tuple[str, ...]:
    """Each thing that is not as it should be, one sentence; none: all is as asked.

    The card's metadata are read as the Hub understood them, so a card that it could not read is
    seen here as well.
    """
    with asking(f"reading {repo.name} once more"):
        info = repo.api.model_info(repo.name)
    card: dict[str, object] = info.card_data.to_dict() if info.card_data else {}  # type: ignore[no-untyped-call]
    return (*_settings(info, wanted), *_card(card, wanted))


def _settings(info: "ModelInfo", wanted: Settings) -> list[str]:
    found = []
    if bool(info.private) != wanted.private:
        is_now = "private" if info.private else "public"
        found.append(f"The repository is {is_now}; someone else changed it meanwhile.")
    if (info.gated or None) != wanted.gated:
        found.append(
            f"Gating is {info.gated or 'off'}, not {wanted.gated or 'off'}; "
            "someone else changed it meanwhile."
        )
    return found


def _card(card: dict[str, object], wanted: Settings) -> list[str]:
    form = sorted(key for key in card if key.startswith(FORM))
    found = []
    if not card:
        found.append("The Hub shows no metadata for README.md: no licence, no filters, no widget.")
    elif not card.get("license"):
        found.append("The model card names no licence.")
    if form and wanted.gated is None:
        found.append(
            f"The card asks readers for {', '.join(form)}, but the repository is not gated: "
            "nobody sees the form. Add --gated auto or --gated manual."
        )
    return found
