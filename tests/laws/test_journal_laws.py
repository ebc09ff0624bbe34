"""What holds of a journal whatever is done to it, in any order: an event counts once, what was forgotten is gone."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from m6rec.errors import DataError
from m6rec.serving.journal import FileJournal, content_of, later
from m6rec.serving.redis_journal import RedisJournal
from m6rec.types import Event
from tests.redis_server import Server

USERS = st.sampled_from(["ada-lovelace", "bob-the-builder"])
EVENTS = st.builds(
    Event,
    user=USERS,
    item=st.sampled_from("ij"),
    time=st.sampled_from([1, 2]),
    value=st.sampled_from([None, 0.0, 5.0]),
    text=st.sampled_from(["", "Poetical."]),
    kind=st.sampled_from(["", "cart"]),
    id=st.sampled_from(["", "", "x", "y", "z"]),
)


class Machine(RuleBasedStateMachine):
    """A journal beside the simplest thing that should behave alike."""

    def start(self):
        """A journal that is empty."""
        raise NotImplementedError

    def reopen(self):
        """The same journal, opened by somebody else."""
        raise NotImplementedError

    def bytes_on_disk(self):
        """All that its files hold."""
        raise NotImplementedError

    def __init__(self):
        super().__init__()
        self.journal = self.start()
        self.events, self.dropped, self.gone, self.ever_gone = [], [], set(), set()

    def is_known(self, event, known):
        same = [
            other for other in known if (other.id == event.id if event.id else content_of(other) == content_of(event))
        ]
        if event.id and any(content_of(other) != content_of(event) for other in same):
            raise DataError("another event's id")
        return bool(same)

    def expected(self, events):
        """What ``append`` returns, and what is kept then."""
        kept, new = list(self.events), []
        for event in events:
            new.append(event.user not in self.gone and not self.is_known(event, kept + self.dropped))
            kept += [event] * new[-1]
        return new, kept

    @rule(events=st.lists(EVENTS, max_size=4), again=st.booleans())
    def append(self, events, again):
        try:
            new, kept = self.expected(events)
        except DataError:
            with pytest.raises(DataError, match="belongs to another event"):
                self.journal.append(events)
            return
        assert self.journal.append(events) == new
        self.events = kept
        if again:  # as a client does that got no answer
            assert self.journal.append(events) == [False] * len(events)

    @rule(user=USERS)
    def forget(self, user):
        known = any(event.user == user for event in self.events + self.dropped)
        assert self.journal.forget(user) == known
        self.events = [event for event in self.events if event.user != user]
        self.dropped = [event for event in self.dropped if event.user != user]
        self.gone.add(user)
        self.ever_gone.add(user)
        assert user.encode() not in self.bytes_on_disk()

    @rule(user=USERS)
    def readmit(self, user):
        self.journal.readmit(user)
        self.gone.discard(user)

    @rule(log=st.lists(EVENTS, max_size=6), strip=st.booleans())
    def compact(self, log, strip):
        if strip:
            log = [replace(event, id="") for event in log]
        left = list(later(self.journal, log))
        assert self.journal.compact(log) == len(self.events) - len(left)
        self.dropped += [event for event in self.events if event not in left]
        self.events = left

    @rule()
    def open_again(self):
        self.journal.close()
        self.journal = self.reopen()

    @invariant()
    def it_tells_what_it_was_told(self):
        assert list(self.journal.replay()) == self.events
        assert self.journal.forgotten(["ada-lovelace", "bob-the-builder"]).keys() == self.ever_gone


class FileMachine(Machine):
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        return self.reopen()

    def reopen(self):
        return FileJournal(Path(self.folder.name))

    def bytes_on_disk(self):
        return b"".join(file.read_bytes() for file in Path(self.folder.name).iterdir())

    def teardown(self):
        self.journal.close()
        self.folder.cleanup()


def test_a_journal_in_a_folder():
    run_state_machine_as_test(FileMachine, settings=settings(max_examples=40, stateful_step_count=15, deadline=None))


def test_a_journal_on_a_server(tmp_path):
    server = Server(tmp_path / "redis", durable=True).start()

    class ServerMachine(Machine):
        def start(self):
            with redis.Redis(port=server.port) as client:
                client.flushall()
            return self.reopen()

        def reopen(self):
            return RedisJournal(server.url)

        def bytes_on_disk(self):
            return b"".join(file.read_bytes() for file in server.folder.rglob("*") if file.is_file())

        def teardown(self):
            self.journal.close()

    try:
        run_state_machine_as_test(
            ServerMachine, settings=settings(max_examples=8, stateful_step_count=12, deadline=None)
        )
    finally:
        server.stop()
