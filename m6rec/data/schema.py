"""What the tables of a log hold: the roles of columns, the names they go by in the wild, and what fits in a cell."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from m6rec.errors import ConfigError, DataError


class Limits:
    """How much an id, a title or a text may hold, alike in a table that is read and a request to the service."""

    ID_CHARS: Final = 200
    TITLE_CHARS: Final = 2_000
    TEXT_CHARS: Final = 20_000
    """Of what a user wrote, and of a detail such as a description."""
    KIND_CHARS: Final = 64
    """Of the kind of an event, and of the name of a detail or of a context."""
    CATEGORY_CHARS: Final = 200
    NUM_CATEGORIES: Final = 32
    NUM_DETAILS: Final = 32
    NUMBER: Final = 2**53
    """Magnitude of a value or a number among the details: integers up to here are the same in every JSON reader."""
    TIME: Final = 9_214_646_400
    """Seconds since 1970: the start of the year 2262, up to which nanoseconds fit in 64 bits."""


ROLES = ("user", "item", "time", "value", "kind", "text", "query", "impression", "title", "category")
"""What one column can be; ``context`` and ``details`` are several."""

_NAMES: Mapping[str, str] = {
    "user": "user userid uid customer customerid customernumber reviewer reviewerid visitor visitorid viewer viewerid "
    "member memberid account accountid client clientid buyer buyerid shopper shopperid reader readerid listener "
    "listenerid player playerid person personid steamid profileid username cookie cookieid session sessionid",
    "item": "item itemid iid movie movieid product productid asin parentasin sku skuid article articleid news newsid "
    "book bookid isbn track trackid song songid artist artistid album albumid game gameid app appid ad adid video "
    "videoid content contentid business businessid listing listingid goods goodsid offer offerid stockcode itemnumber "
    "recipe recipeid job jobid course courseid",
    "time": "time timestamp unixreviewtime unixtime ts datetime eventtime eventtimestamp eventdate createdat created "
    "creationtime createdtime createdutc date reviewtime reviewtimestamp reviewdate orderdate ordertime purchasedate "
    "invoicedate watchedat playedat day when",
    "value": "value rating ratings score stars starrating star overall rate reviewscore reviewoverall bookrating label "
    "click clicked isclick isclicked liked like islike weight strength playcount plays playtime hours hoursplayed "
    "watchratio",
    "kind": "kind event eventtype eventname action actiontype behavior behaviour behaviortype "
    "behaviourtype interaction interactiontype activity activitytype type",
    "text": "text reviewtext review reviewbody comment comments body content",
    "query": "query search searchquery searchterm searchterms searchtext keyword keywords querytext",
    "impression": "impression impressionid impid slate slateid requestid exposureid rankingid",
    "title": "title name itemname itemtitle movietitle moviename productname producttitle booktitle articletitle "
    "newstitle headline tracktitle trackname songtitle songname gametitle gamename appname businessname",
    "category": "category categories genres genre tags tag topics topic department maincategory categoryname "
    "categorycode productcategory producttype categoryid",
}
"""Names by role, the likelier first, in lower case without separators; with a suffix ``:token`` they are RecBole's."""
_CONTEXT = frozenset(
    "place city region country location weather device devicetype platform os browser hour daypart season channel "
    "referrer page".split()
)
_DETAILS = frozenset(
    "description itemdescription productdescription abstract summary plot overview price listprice brand author "
    "authors publisher director directors actors cast artist album year releaseyear releasedate language color colour "
    "size material features condition seller manufacturer subcategory maincategory".split()
)
_SESSIONS = frozenset(("session", "sessionid"))
_AUTO = ""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of the tables hold what: "" is recognised by its name, None says that there is none.

    Attributes:
        user: Id of the user (events, users).
        item: Id of the item (events, items); where events have none, the title is the id.
        time: When it was: a number or text that ``data.times`` reads.
        value: Strength of an event; an empty cell says that it happened.
        kind: What the user did: view, click, purchase, …
        text: What the user wrote; may be empty.
        query: What the user searched for; a row with a query needs no item.
        impression: Names what was shown together.
        title: Title of the item (items, or events where there is no table of items).
        category: A list, or one string that ``category_separator`` divides; may be empty.
        context: Columns of events that say where and how; None for those that are recognised.
        details: Columns of events that are details of the item; None for those that are recognised.
        category_separator: What divides the categories of an item within a string; "" guesses.

    Further columns of items and users become their details.
    """

    user: str = _AUTO
    item: str = _AUTO
    time: str | None = _AUTO
    value: str | None = _AUTO
    kind: str | None = _AUTO
    text: str | None = _AUTO
    query: str | None = _AUTO
    impression: str | None = _AUTO
    title: str = _AUTO
    category: str | None = _AUTO
    context: tuple[str, ...] | None = None
    details: tuple[str, ...] | None = None
    category_separator: str = ""

    @classmethod
    def parse(cls, text: str) -> Columns:
        """From ``user=…,item=…``; several columns are joined by "+", and nothing after "=" says that there is none.

        Raises:
            ConfigError: A role is unknown, or given twice.
        """
        given: dict[str, str | tuple[str, ...] | None] = {}
        known = [one.name for one in fields(cls)]
        for part in filter(None, map(str.strip, text.split(","))):
            role, equals, name = (word.strip() for word in part.partition("="))
            if role not in known or not equals or role in given or (role in ("user", "item", "title") and not name):
                raise ConfigError(
                    f"--columns: {part!r} can't be used; write role=column, each role once, of {', '.join(known)}, "
                    "such as user=buyer,item=sku,time=when,context=city+device; 'value=' says that there is none"
                )
            several = role in ("context", "details")
            given[role] = tuple(filter(None, name.split("+"))) if several else name or None
        return cls(**given)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Roles:
    """What was found in one table.

    Attributes:
        of: Column by role.
        context: Columns that say where and how.
        details: Columns that describe an item or a user.
        unused: Columns that aren't read.
        notes: What a reader should know, in sentences.
    """

    of: Mapping[str, str]
    context: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def said(self) -> dict[str, str]:
        """Column by role, for a person."""
        several = {"context": ", ".join(self.context), "details": ", ".join(self.details)}
        return {**self.of, **{role: names for role, names in several.items() if names}}


def normalised(name: str) -> str:
    """A column's name without case, separators and RecBole's types.

    >>> normalised("User-ID"), normalised(" movieId"), normalised("item_id:token")
    ('userid', 'movieid', 'itemid')
    """
    head, _, tail = name.strip().partition(":")
    name = head if tail in ("token", "float", "token_seq", "float_seq") else name
    return re.sub(r"[\W_]+", "", name).lower()


def recognise(table: str, present: Sequence[str], columns: Columns, wanted: Sequence[str]) -> Roles:
    """Finds the column of each role that is wanted.

    A column that is named has to be there. Of several that are known for a role, the likelier name wins (the order
    of ``_NAMES``) and the others are told; two spellings of one name are refused.

    Args:
        table: events, items or users, for messages.
        present: The columns of the table.
        columns: What is named.
        wanted: Roles that the table can have.

    Raises:
        DataError: A named column is missing, or two columns could equally be one role.
    """
    by_plain: dict[str, list[str]] = {}
    for name in present:
        by_plain.setdefault(normalised(name), []).append(name)
    named = {role: getattr(columns, role) for role in wanted if getattr(columns, role)}
    of: dict[str, str] = {}
    notes: list[str] = []
    for role, name in named.items():
        of[role] = _present(table, name, present)
    taken = set(of.values()) | set(columns.context or ()) | set(columns.details or ())
    for role in wanted:
        if getattr(columns, role) != _AUTO:
            continue
        words = _NAMES[role].split()
        if table == "items" and role == "item":
            words = [*words, "id"]
        if table == "users" and role == "user":
            words = [*words, "id"]
        found = [name for word in words for name in by_plain.get(word, ()) if name not in taken]
        if not found:
            continue
        if len(found) > 1 and normalised(found[0]) == normalised(found[1]):
            raise DataError(
                f"{table}: columns {found[0]!r} and {found[1]!r} could both be the {role}; "
                f"say which: --columns {role}={found[0]} (in Python, Columns({role}={found[0]!r}))"
            )
        of[role] = found[0]
        taken.add(found[0])
        if len(found) > 1 and role != "category":
            others = ", ".join(map(repr, found[1:]))
            notes.append(f"{table}: {found[0]!r} is read as the {role}, not {others}; --columns {role}=… takes another")
        if role == "user" and normalised(found[0]) in _SESSIONS:
            notes.append(f"{table}: there is no column of users, so each session is read as a user")
    rest = [name for name in present if name not in of.values()]
    if table != "events":
        kept = tuple(name for name in rest if columns.details is None or name in columns.details)
        return Roles(of, details=kept, unused=tuple(name for name in rest if name not in kept), notes=tuple(notes))
    context = _several(table, columns.context, _CONTEXT, rest, present)
    rest = [name for name in rest if name not in context]
    details = _several(table, columns.details, _DETAILS, rest, present) if "title" in wanted else ()
    unused = tuple(name for name in rest if name not in details)
    return Roles(of, context, details, unused, tuple(notes))


def _several(
    table: str, named: tuple[str, ...] | None, known: frozenset[str], rest: Sequence[str], present: Sequence[str]
) -> tuple[str, ...]:
    if named is not None:
        return tuple(_present(table, name, present) for name in named)
    return tuple(name for name in rest if normalised(name) in known)


def _present(table: str, name: str, present: Sequence[str]) -> str:
    """The column of a name, whatever white space surrounds it. Raises DataError where there is none."""
    for column in present:
        if name in (column, column.strip()):
            return column
    raise no_column(table, name, present)


def no_column(table: str, what: str, present: Sequence[str]) -> DataError:
    """That a column is missing."""
    close = difflib.get_close_matches(what, present, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return DataError(
        f"{table}: column {what!r} is missing.{hint} Present are: {', '.join(present)}. Name yours with "
        f"--columns role=column (in Python, Columns), roles: {', '.join(ROLES)}."
    )
