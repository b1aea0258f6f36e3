"""Putting a published model into a collection on the Hub, once.

https://huggingface.co/docs/huggingface_hub/guides/collections
"""

import re
from typing import TYPE_CHECKING

from release.errors import PublishError
from release.publish.client import AGAIN, asking, settle
from release.publish.options import Say
from release.publish.remote import Repo

if TYPE_CHECKING:
    from huggingface_hub import Collection

# OWNER/words-of-the-title-ID, the ID being 24 hexadecimal digits.
_SLUG = re.compile(r"[\w.-]+/[\w.-]*-[0-9a-f]{24}", re.ASCII)


def find(repo: Repo, wanted: str) -> "Collection | None":
    """The collection that ``wanted`` names: a slug, or a title of the repository's owner.

    None: no collection has this title yet. Raises PublishError for a slug that the Hub does not
    know, and for a title that several have.
    """
    if _SLUG.fullmatch(wanted):
        with asking(f"reading collection {wanted}"):
            return repo.api.get_collection(wanted)
    owner = repo.name.split("/")[0]
    with asking(f"listing the collections of {owner}"):
        found = [one for one in repo.api.list_collections(owner=owner) if one.title == wanted]
    if len(found) > 1:
        slugs = ", ".join(one.slug for one in found)
        raise PublishError(
            f"{owner} has {len(found)} collections named {wanted!r}: {slugs}",
            "Give the one you mean by its slug.",
        )
    return found[0] if found else None


def add(repo: Repo, wanted: str, private: bool, say: Say) -> str:
    """Add the model to the collection, which is made if ``wanted`` is a new title.

    Returns the slug. A model that is in it already is left where it stands. ``private``: of a
    new collection.
    """
    collection = find(repo, wanted) or _create(repo, wanted, private, say)
    slug = collection.slug

    def done() -> bool:
        return any(
            item.item_type == "model" and item.item_id == repo.name
            for item in repo.api.get_collection(slug).items
        )

    with asking(f"reading collection {slug}"):
        if done():
            return slug
    say(f"Adding {repo.name} to collection {slug}.")
    settle(
        f"adding {repo.name} to collection {slug}",
        lambda: repo.api.add_collection_item(slug, repo.name, "model", exists_ok=True),
        done,
    )
    return slug


def _create(repo: Repo, title: str, private: bool, say: Say) -> "Collection":
    owner = repo.name.split("/")[0]
    say(f"Creating collection {title!r} of {owner}.")
    settle(
        f"creating collection {title!r}",
        lambda: repo.api.create_collection(title, namespace=owner, private=private, exists_ok=True),
        lambda: find(repo, title) is not None,
    )
    made = find(repo, title)
    if made is None:
        raise PublishError(f"collection {title!r} was created, but the Hub does not list it", AGAIN)
    return made
