"""Whether new terms keep the hours that earlier ones had: calendars, up to a day.

A deadline was promised with the hours in force. Hours that have begun may be followed by others,
from a date to come; changing them in place would re-rate what was promised.
"""

from collections.abc import Iterator
from datetime import date

from support.calendars import CalendarSpec
from support.combined import AnyCalendar, RegionsSpec
from support.terms import SupportTerms


def changed_hours(old: SupportTerms, new: SupportTerms, today: date) -> tuple[str, ...]:
    """What differs in calendars that have begun by ``today``, a line each; empty if nothing does.

    A calendar without versions has always been in force; it may become the first of versions.
    """
    return tuple(
        f"calendars.{name}{text}"
        for name, spec in old.calendars.items()
        for text in _changes(spec, new.calendars.get(name), today)
    )


def _changes(old: AnyCalendar, new: AnyCalendar | None, today: date) -> Iterator[str]:
    if new is None:
        yield ": is gone"
    elif isinstance(old, RegionsSpec) or isinstance(new, RegionsSpec):
        if old != new:
            yield ": is another"
    else:
        before, after = _rules(old), _rules(new)
        if old.business_day != new.business_day and min(before) <= today:
            yield ".business_day: is another"
        for day in sorted({*before, *after}):
            was, now = _in_force(before, day), _in_force(after, day)
            begins = now is None and isinstance(old, CalendarSpec)
            if day <= today and was is not None and was != now and not begins:
                since = "" if day == date.min else f" from {day}"
                yield f": the hours{since} are others{_fields(was, now)}"


def _rules(spec: object) -> dict[date, CalendarSpec]:
    versions: dict[date, CalendarSpec] | None = getattr(spec, "versions", None)
    return {date.min: spec} if isinstance(spec, CalendarSpec) else dict(versions or {})


def _in_force(rules: dict[date, CalendarSpec], day: date) -> CalendarSpec | None:
    begun = [start for start in rules if start <= day]
    return rules[max(begun)] if begun else None


def _fields(was: CalendarSpec, now: CalendarSpec | None) -> str:
    if now is None:
        return " (none any more)"
    names = [name for name in CalendarSpec.model_fields if getattr(was, name) != getattr(now, name)]
    return f" ({', '.join(names)})"
