"""Whether the token may publish, asked before anything is sent.

`auth_check(write=True)` of the client asks the Hub itself. A repository that is not there yet has
nothing to ask about: then only what `whoami` says for certain is a refusal (a token for reading,
a namespace that a plain write token's account does not have; a fine-grained token may hide some).
"""

from dataclasses import dataclass

from release.errors import PublishError
from release.publish.client import as_publish_error, asking, client_errors, status_of
from release.publish.remote import Repo

TOKENS = "https://huggingface.co/settings/tokens"
_REFUSALS = (401, 403, 404)


@dataclass(frozen=True)
class _Identity:
    """Whose token it is; ``role``: read, write or fineGrained, as far as the Hub says."""

    name: str
    role: str
    namespaces: frozenset[str]


def require_write(repo: Repo, exists: bool) -> None:
    """Raise PublishError unless the token may write to ``repo``, or create it."""
    _require_token(repo)
    if exists:
        _ask(repo)
        return
    identity = _identity(repo)
    owner = repo.name.partition("/")[0]
    _refuse_reader(identity, repo)
    if identity.role == "write" and owner.lower() not in identity.namespaces:
        raise PublishError(
            f"{repo.name} is not there, or private and not shown to {identity.name}, who may not "
            f"create repositories of {owner}",
            f"Nothing was sent. Set HF_TOKEN to a token of an account that may write for {owner}.",
        )


def _require_token(repo: Repo) -> None:
    from huggingface_hub import get_token

    if not (repo.api.token or get_token()):
        raise PublishError(
            "there is no token for the Hub",
            f"Set HF_TOKEN to a token that may write to {repo.name} ({TOKENS}), or run "
            "`hf auth login`.",
        )


def _ask(repo: Repo) -> None:
    try:
        repo.api.auth_check(repo.name, write=True)
    except client_errors() as error:
        if status_of(error) not in _REFUSALS:
            raise as_publish_error(f"asking who may write to {repo.name}", error) from error
        identity = _identity(repo)
        _refuse_reader(identity, repo)
        raise PublishError(
            f"{identity.name} may not write to {repo.name} (the Hub answers {status_of(error)})",
            "Nothing was sent. Ask its owner for the right to write, or set HF_TOKEN to a token "
            "that may write to this repository.",
        ) from error


def _refuse_reader(identity: _Identity, repo: Repo) -> None:
    if identity.role == "read":
        raise PublishError(
            f"this token of {identity.name} is for reading only",
            f"Nothing was sent. Make one that may write to {repo.name} ({TOKENS}) and set HF_TOKEN "
            "to it.",
        )


def _identity(repo: Repo) -> _Identity:
    with asking("asking whose token this is"):
        said = repo.api.whoami()
    name = str(said["name"])
    role = (said.get("auth") or {}).get("accessToken", {}).get("role", "")
    orgs = [str(org.get("name", "")) for org in said.get("orgs") or []]
    return _Identity(name, str(role), frozenset(one.lower() for one in (name, *orgs)))
