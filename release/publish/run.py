"""`publish`: the steps in their order."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from release import records
from release.errors import MirrorError, PublishError, StaleParentError, UnmirroredError
from release.lint import card
from release.lint.folder import Folder
from release.publish import after, collection
from release.publish.client import connect, is_final, settle, status_of
from release.publish.content import Plan, Release, Snapshot, compare, load_release
from release.publish.filling import fill, lacking_bytes, remaining
from release.publish.options import Gating, Publication, PublishOptions, Say
from release.publish.remote import Repo, Settings, verify
from release.publish.rights import require_write
from release.publish.staging import Stage, close, find_stage, merge, open_stage

if TYPE_CHECKING:
    from release.mirror import Mirror

_EMPTY = Snapshot("", {})


def _quiet(_line: str) -> None:
    return None


def publish(folder: Path, options: PublishOptions, say: Say = _quiet) -> Publication:
    """Make ``options.repo`` hold exactly the release in ``folder``; ``say`` hears each step.

    Before anything is sent the folder is checked as `release verify` does. Changed files go to a
    pull request, every file there is compared, and one merge makes them visible; files that the
    release does not have are deleted with it. Nothing is done when the Hub already holds it.

    Raises ManifestError, SigningError, PublishError, StaleParentError; each says how to go on.
    MirrorError for a mirror before anything is sent, UnmirroredError for one that fails when the
    Hub holds the release. After any of them main is the old release or the whole new one.
    """
    say(f"Checking {folder} as `moeship release verify` does.")
    release = load_release(folder, options.key)
    size = sum(file.size for file in release.files.values())
    say(f"The release holds: {len(release.files)} files, {size:,} bytes.")
    for note in release.notes:
        say(f"Note: {note}.")
    if release.name != options.repo and not options.rename:
        raise PublishError(
            f"this release is {release.name}, not {options.repo}: its model card would send "
            f"readers to {release.name}",
            "Build it under the new name, or add --rename to publish it as it is.",
        )
    if release.name != options.repo:
        say(
            f"Note: card and records go on naming {release.name}: for everybody who asks for "
            f"{options.repo}, `moeship release verify` fails `name`."
        )
    mirrors = _mirrors(release, options)
    repo = Repo(connect(options.endpoint, options.token, options.timeout), options.repo)
    settings = repo.settings()
    require_write(repo, settings is not None)
    base = repo.snapshot() if settings else _EMPTY
    options = replace(options, gated=_gating(release, options, settings))
    _check_gate(folder, repo, options.gated or (settings.gated if settings else None))
    plan = compare(release, base)
    if options.tag and settings:
        _check_tag(repo, release, options.tag, plan)
    say(_describe(repo, plan, settings))
    _check_replaced(repo, options, plan, base, say)
    known = collection.find(repo, options.collection) if options.collection else None
    if options.dry_run:
        planned = _planned(repo, options, plan, settings, base)
        size = _bytes_to_move(repo, release, plan, base, say)
        slug = known.slug if known else options.collection
        copies = tuple((one.target.name, one.bytes_to_copy()) for one in mirrors)
        return replace(planned, bytes=size, collection=slug, mirrored=copies)
    done = _Run(repo, release, options, say).go(plan, settings, base)
    return _mirrored(mirrors, done, say)


def _mirrors(release: Release, options: PublishOptions) -> list["Mirror"]:
    """Every mirror, looked at: one that cannot be is refused before anything is sent."""
    from release.mirror import prepare_all

    return prepare_all(options.also, release)


def _mirrored(mirrors: list["Mirror"], done: Publication, say: Say) -> Publication:
    """The Hub holds the release already: a mirror that fails after it says so."""
    for one in mirrors:
        try:
            copy = one.run(say)
        except MirrorError as error:
            said = f"{error}. The Hub holds the release: {done.url} at commit {done.commit}"
            raise UnmirroredError(said, error.hint, done) from error
        done = replace(done, mirrored=(*done.mirrored, (copy.target, copy.bytes)))
    return done


def _gating(release: Release, options: PublishOptions, settings: Settings | None) -> Gating | None:
    """What the record asks for is carried out; what contradicts it is refused, nothing sent."""
    recorded, asked = release.gating, options.gated
    if recorded is None:
        return asked
    if asked is not None and asked != recorded:
        raise PublishError(
            f"{records.RELEASE} says gating {recorded}, not {asked}",
            f"Leave out --gated, or build with `gating: {asked}` in release.yaml.",
        )
    if recorded != "none":
        return recorded
    if settings is not None and settings.gated is not None:
        raise PublishError(
            f"{records.RELEASE} says gating none, and {options.repo} is gated ({settings.gated})",
            "Nothing was sent. Turn gating off in the repository's settings, or build with "
            f"`gating: {settings.gated}` in release.yaml.",
        )
    return None


def _check_gate(folder: Path, repo: Repo, gated: Gating | None) -> None:
    """A card's form for access requests and the repository's setting agree, or nothing is sent."""
    unseen = [one for one in card.check(Folder(folder), gated or "no") if one.code == "H13"]
    if gated is None and unseen:
        raise PublishError(
            f"the card has a form for access requests, and {repo.name} is not gated",
            "Nothing was sent. Add --gated auto or manual, or take access out of release.yaml.",
        )


def _describe(repo: Repo, plan: Plan, settings: Settings | None) -> str:
    where = repo.name if settings else f"{repo.name} (to be created)"
    if plan.empty:
        return f"{where} already holds exactly this release."
    uploads = f"{len(plan.upload)} files to upload ({plan.bytes:,} bytes)"
    return f"{where}: {uploads}, {len(plan.delete)} to delete."


def _bytes_to_move(repo: Repo, release: Release, plan: Plan, base: Snapshot, say: Say) -> int:
    """Bytes that a run would send now: an earlier run may have sent a part."""
    stage = find_stage(repo, release, base.commit, say, look_only=True) if base.commit else None
    if stage is None or stage.head == base.commit:
        return lacking_bytes(plan, base)
    rest, held = remaining(repo, release, stage)
    say(f"Pull request {stage.number} of an earlier run holds a part; {len(rest.upload)} to go.")
    return lacking_bytes(rest, base, held)


def _check_tag(repo: Repo, release: Release, tag: str, plan: Plan) -> None:
    """A tag that names something else is refused before anything is sent; it is never moved."""
    commit = repo.tags().get(tag)
    if commit and (not plan.empty or not repo.holds(release, commit)):
        raise PublishError(
            f"tag {tag} of {repo.name} already names {commit[:12]}, which is not this release",
            "Choose another tag; published tags are not moved.",
        )


def _check_replaced(
    repo: Repo, options: PublishOptions, plan: Plan, base: Snapshot, say: Say
) -> None:
    """Files that no release of ours brought there are not deleted unasked."""
    if records.RELEASE in base.files:
        return
    replaced = [file.path for file in plan.upload if file.path in base.files]
    lost = [*plan.delete, *replaced]
    if not lost:
        return
    listed = ", ".join(lost[:5]) + (", ..." if len(lost) > 5 else "")
    said = (
        f"{repo.name} holds files and no moeship release: {len(plan.delete)} of them would be "
        f"deleted and {len(lost) - len(plan.delete)} replaced ({listed})"
    )
    if options.dry_run or options.replace:
        say(f"Note: {said}{'' if options.replace else '; that takes --replace'}.")
        return
    raise PublishError(said, "Look at them with --dry-run; --replace deletes and replaces them.")


def _planned(
    repo: Repo, options: PublishOptions, plan: Plan, settings: Settings | None, base: Snapshot
) -> Publication:
    private = settings.private if settings else False
    return Publication(
        repo=repo.name,
        url=repo.url,
        commit=base.commit or None,
        pull_request=None,
        uploaded=tuple(file.path for file in plan.upload),
        deleted=plan.delete,
        bytes=plan.bytes,
        created=settings is None,
        private=private if options.private is None else options.private,
        gated=options.gated or (settings.gated if settings else None),
        tag=options.tag,
        dry_run=True,
    )


class _Run:
    """One publication under way."""

    def __init__(self, repo: Repo, release: Release, options: PublishOptions, say: Say) -> None:
        self.repo = repo
        self.release = release
        self.options = options
        self.say = say
        self.changed: list[str] = []
        self.sent = 0
        self.restricted = False

    def go(self, plan: Plan, settings: Settings | None, base: Snapshot) -> Publication:
        created = settings is None
        try:
            if settings is None:
                settings, base = self._create()
                plan = compare(self.release, base)
                _check_replaced(self.repo, self.options, plan, base, self.say)
            return self._go(plan, settings, base, created)
        except PublishError as error:
            if self.changed:
                said = f"{error}; already changed: {self.repo.name} is now "
                error.args = (said + " and ".join(self.changed),)
            if created and not self.options.private:
                error.hint += self._private_hint()
            raise

    def _private_hint(self) -> str:
        """What to do about a repository that was not there when this run began, as it is now."""
        try:
            now = self.repo.settings()
        except PublishError:
            return " If the repository is there by then and stays private, add --public."
        if now is None or not now.private:
            return ""
        return (
            " The repository was created private; if it is still private when the release is "
            "complete there, add --public."
        )

    def _go(self, plan: Plan, settings: Settings, base: Snapshot, created: bool) -> Publication:
        goes_public = self.options.private is False or (created and self.options.private is None)
        commit, stage = base.commit, None
        if not plan.empty:
            becomes_public = goes_public and settings.private
            commit, stage = self._replace_main(plan, base, becomes_public, settings)
            goes_public = goes_public or (stage.becomes_public and self.options.private is None)
        self._restrict(settings)  # a second time is nothing; without a merge it is the first
        private = settings.private or bool(self.options.private)
        if private and goes_public:
            self._set_private(False)
            private = False
        elif private and self.options.private is None:
            self.say("The repository is private and stays so; --public makes it public.")
        if self.options.tag:
            self._tag(self.options.tag, commit)
        slug = None
        if self.options.collection:
            slug = collection.add(self.repo, self.options.collection, private, self.say)
        now = Settings(private, self.options.gated or settings.gated)
        remarks = after.look(self.repo, now)
        for remark in remarks:
            self.say(f"Note: {remark}")
        return Publication(
            repo=self.repo.name,
            url=self.repo.url,
            commit=commit,
            pull_request=stage.number if stage else None,
            uploaded=tuple(file.path for file in plan.upload),
            deleted=plan.delete,
            bytes=self.sent,
            created=created,
            private=private,
            gated=now.gated,
            tag=self.options.tag,
            dry_run=False,
            collection=slug,
            remarks=remarks,
        )

    def _create(self) -> tuple[Settings, Snapshot]:
        """A new repository, private until it is complete and gated as asked."""
        name = self.repo.name
        self.say(f"Creating {name}, private until it is complete.")
        settle(
            f"creating {name}",
            lambda: self.repo.api.create_repo(name, private=True, exist_ok=True),
            lambda: self.repo.settings() is not None,
        )
        settings = self.repo.settings()
        if settings is None:
            raise PublishError(f"{name} was created, but the Hub does not show it")
        return settings, self.repo.snapshot()

    def _replace_main(
        self, plan: Plan, base: Snapshot, becomes_public: bool, settings: Settings
    ) -> tuple[str, Stage]:
        repo, release, say = self.repo, self.release, self.say
        stage = find_stage(repo, release, base.commit, say)
        if stage:
            say(f"Going on with pull request {stage.number}, which an earlier run left open.")
        else:
            message = self.options.message.strip()
            stage = open_stage(repo, release, base.commit, message, becomes_public)
            say(f"Staging on pull request {stage.number}: {repo.url}/discussions/{stage.number}")
        known: tuple[Snapshot, ...] = (base,)
        if stage.head != base.commit:
            plan, held = remaining(repo, release, stage)
            known = (base, held)
        if not plan.empty:
            self.sent = lacking_bytes(plan, *known)
            say(f"Uploading {len(plan.upload)} files, {self.sent:,} bytes.")
            self._fill(stage, plan)
        say("Comparing every file on the pull request with SHA256SUMS.")
        staged = self._verify(stage)
        say(f"All {len(release.files)} files agree. Merging.")
        restrict = partial(self._restrict, settings)
        return merge(repo, release, stage, staged, say, restrict), stage

    def _fill(self, stage: Stage, plan: Plan) -> None:
        try:
            fill(self.repo, self.release, stage, plan, self.say)
        except PublishError as error:
            cause = error.__cause__
            # A token that was refused can be replaced, and the next run goes on from here.
            refused = cause is not None and is_final(cause) and status_of(cause) not in (401, 403)
            if isinstance(error, StaleParentError) or refused:
                # No later run can use it. If closing fails too, the refusal is what matters.
                with suppress(PublishError):
                    close(self.repo, stage.number, "Not merged: the release was refused.")
            raise

    def _verify(self, stage: Stage) -> Snapshot:
        try:
            return verify(self.repo, self.release, stage.ref)
        except PublishError as error:
            if error.__cause__ is None:  # a difference, not a failed request
                close(self.repo, stage.number, "Not merged: its files differ from SHA256SUMS.")
            raise

    def _restrict(self, settings: Settings) -> None:
        """What readers must not be without: set when the merge is all that is left to do.

        Earlier, a release that is then refused would lock them out of the old one; later, it
        would be open for a moment.
        """
        if self.restricted:
            return
        if self.options.private and not settings.private:
            self._set_private(True)
        wanted = self.options.gated
        if wanted is not None and wanted != settings.gated:
            self._set_gated(wanted)
        self.restricted = True

    def _set_gated(self, wanted: Gating) -> None:
        self.say(f"Gating access: {wanted}.")
        settle(
            f"gating {self.repo.name}",
            lambda: self.repo.api.update_repo_settings(self.repo.name, gated=wanted),
            lambda: (now := self.repo.settings()) is not None and now.gated == wanted,
        )
        self.changed.append(f"gated ({wanted})")

    def _set_private(self, private: bool) -> None:
        word = "private" if private else "public"
        self.say(f"Making the repository {word}.")
        settle(
            f"changing the visibility of {self.repo.name}",
            lambda: self.repo.api.update_repo_settings(self.repo.name, private=private),
            lambda: (now := self.repo.settings()) is not None and now.private == private,
        )
        self.changed.append(word)

    def _tag(self, tag: str, commit: str) -> None:
        if tag in self.repo.tags():
            return  # it names this release: `_check_tag` saw to that
        self.say(f"Tagging {commit[:12]} as {tag}.")
        settle(
            f"tagging {self.repo.name}",
            lambda: self.repo.api.create_tag(self.repo.name, tag=tag, revision=commit),
            lambda: self.repo.tags().get(tag) == commit,
        )
