"""Chat replies (``language.chat``): template sentences that name items, and a reason that the model may phrase.

Items come from retrieval and ranking as for any recommendation, with the likes and dislikes of the conversation laid
over the user's history (``InteractionStore.overlay``). So every recommended item exists, and titles are quoted, never
generated. The reason is that of an explanation and passes the same faithfulness check. Where a run of ``reply`` is
served, it words the recommendation: of what it draws, the likeliest sentence that says no more than ours does.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace

from m6rec.domains.domain import Domain
from m6rec.foundation.generate import Generated, Sampling
from m6rec.language import chat as words
from m6rec.language.chat import Session
from m6rec.language.lexicon import Lexicon
from m6rec.serving.backend import Chat, Explanation, Reason, Reply, Writing
from m6rec.serving.text_model_pool import TextModelPool
from m6rec.tasks import reply as replies
from m6rec.tasks import writing
from m6rec.text.constraints import Unquoted
from m6rec.text.tokenizer import Tokenizer
from m6rec.types import Draft, Event, Item, Ranked, User

NUM_OFFERED = 3
"""Items of a recommendation."""
TASK = replies.TASK.name
NUM_DRAWN = 6
DRAWING = Sampling(max_tokens=40, temperature=0.7, top_p=0.9, stops=("\n", *replies.SPEAKERS.values()))
"""How replies are drawn."""
_KINDS = {"user": "utterance", "assistant": "response"}


def events(session: Session, user: str, time: int) -> list[Event]:
    """What the conversation tells of the user, as if it had just happened."""
    told = (("dislike", session.disliked), ("like", session.liked))
    return [Event(user, item, time, kind=kind) for kind, items in told for item in items]


def reply_draft(
    chat: Chat, history: Sequence[Event], user: User, domain: Domain, items: Mapping[str, Item], time: int
) -> Draft:
    """What the task ``reply`` is asked: the next message of a conversation, after what the user did until ``time``."""
    said = [
        Event(user.id, "", time, text=" ".join(message.text.split()), kind=_KINDS[message.role])
        for message in chat.messages
        if message.role in _KINDS and message.text.strip()
    ]
    return writing.draft(replies.TASK, [*history, *said], user, domain, items, replies.prompt())


def worded_offer(
    writers: TextModelPool, draft: Draft, items: Sequence[Item], lexicon: Lexicon, wanted: int, seed: int
) -> Writing[tuple[str, int]]:
    """(a recommendation of the first items in the model's words, how many it names); ("", 0) where none may be said.

    Args:
        writers: Who write.
        draft: Of ``reply_draft``.
        items: What may be recommended, the best first.
        lexicon: The catalogue's names.
        wanted: How many items the user asked for; 0 for any number.
        seed: Of the draws.
    """
    sampling, rule = replace(DRAWING, seed=seed), Unquoted(writers.tokenizer)
    drawn: list[Generated] = yield from writers.write(TASK, [draft] * NUM_DRAWN, sampling, [rule] * NUM_DRAWN)
    for one in sorted(drawn, key=lambda one: -one.log_probability / (len(one.ids) + 1)):
        before, *after = one.text.strip().split(replies.TITLE)
        named = items[: len(after)]
        if one.finish_reason != "stop" or not len(named) == len(after) == (wanted or len(after)) or not named:
            continue
        text = before + "".join(words.title(item, lexicon) + rest for item, rest in zip(named, after, strict=True))
        if words.unsaid(text, named, lexicon) is None:
            return text, len(named)
    return "", 0


class ReplyWriter:
    """Writes a reply sentence by sentence, within the tokens and up to the stop strings that the client allows.

    Args:
        chat: The request.
        tokenizer: Counts the tokens.
    """

    def __init__(self, chat: Chat, tokenizer: Tokenizer) -> None:
        self._chat, self._tokenizer = chat, tokenizer
        self._text, self._num_told, self._left_out, self._stopped = "", 0, False, False

    def say(self, sentence: str) -> str:
        """Adds a sentence, unless there is no room for it; returns what may be read by now and was not yet."""
        longer = f"{self._text} {sentence}".strip()
        if not sentence or self._stopped or self._left_out:
            return ""
        if self._count(longer) > self._chat.max_tokens:
            self._left_out = True
            return ""
        places = [place for stop in self._chat.stops if (place := longer.find(stop)) >= 0]
        self._text, self._stopped = longer[: min(places, default=None)], bool(places)
        held = 0 if self._stopped else max(map(len, self._chat.stops), default=1) - 1
        return self._tell(len(self._text) - held)

    def end(self) -> str:
        """What was held back, as it might have been the beginning of a stop string."""
        return self._tell(len(self._text))

    def reply(self, session: Session, items: Sequence[Ranked], reasons: Sequence[Reason]) -> Reply:
        """The whole."""
        return Reply(
            self._text,
            session.intent,
            list(items),
            list(reasons),
            "length" if self._left_out else "stop",
            sum(self._count(message.text) for message in self._chat.messages),
            self._count(self._text),
        )

    def _tell(self, end: int) -> str:
        told = self._text[self._num_told : max(self._num_told, end)]
        self._num_told += len(told)
        return told

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode([text])[0])


def reply(
    writer: ReplyWriter,
    session: Session,
    items: Sequence[Ranked],
    about: Item | None,
    worded: Writing[tuple[str, int]] | None,
    explained: Generator[str, None, Explanation] | None,
    lexicon: Lexicon,
    domain: Domain,
    said: str,
) -> Writing[Reply]:
    """The reply to a turn.

    Args:
        writer: Takes the sentences.
        session: What the conversation has come to; its intent decides what is said.
        items: What is recommended where that is wanted.
        about: The item that is explained where that is wanted.
        worded: The recommendation in the model's words, of ``worded_offer``; None for ours.
        explained: Why the user would like ``about`` or the first of the items; None where nothing is to be explained.
        lexicon: The catalogue's names.
        domain: Its words.
        said: The user's last message.
    """
    text = ""
    if about is not None:
        yield writer.say(f"{words.WHY}{words.title(about, lexicon)}?")
    elif items:
        untold = writer.say(words.untold(session, domain.noun))
        text, count = (yield from worded) if worded is not None else ("", 0)
        items = items[: count or len(items)]
        yield untold + writer.say(text or words.offer([one.item for one in items], lexicon))
    elif session.intent in ("recommend", "feedback"):
        yield writer.say(words.nothing_fits(session, domain.noun))
    else:
        polite = writer.say(words.politeness(said)) if session.intent == "smalltalk" else ""
        yield polite + writer.say(words.question(lexicon, domain.noun))
    reasons: list[Reason] = []
    if explained is not None:
        made = yield from explained
        if text and made.reasons:
            yield writer.say(f"{words.WHY}{words.title(items[0].item, lexicon)}?")
        for one in made.reasons:
            told = writer.say(one.text)
            yield told
            reasons.append(one)
        if about is not None and not reasons:
            yield writer.say("I found no reason for it.")
    yield writer.end()
    return writer.reply(session, items, reasons)
