"""The writers of a service: which tuned task writes which texts, and the engines that write them all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from m6rec.errors import ConfigError
from m6rec.foundation.generate import Engine, Generated, Sampling
from m6rec.readouts import GenerateModel, ScoreModel, TaskModelConfig
from m6rec.serving.backend import Writing
from m6rec.text.constraints import Constraint
from m6rec.text.tokenizer import Tokenizer
from m6rec.types import Draft


class TextModelPool:
    """Writes texts on one foundation, in slices.

    Args:
        rank: The tuned ranking task, whose foundation, untuned and at its split, writes what no tuned task does.
        tuned: Text models by task.

    Raises:
        ConfigError: A task is not that of its name.
    """

    def __init__(self, rank: ScoreModel, tuned: Mapping[str, GenerateModel]) -> None:
        for name, writer in tuned.items():
            if writer.task.name != name:
                raise ConfigError(
                    f"{name!r} can't be written by task {writer.task.name!r}; give a run of `m6rec tune {name}`"
                )
        self._rank, self._tuned = rank, dict(tuned)
        self._untuned: GenerateModel | None = None
        self._engines: dict[int, Engine] = {}

    @property
    def active(self) -> bool:
        """Whether a text is in the making."""
        return any(engine.active for engine in self._engines.values())

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the foundation."""
        return self._rank.foundation.tokenizer

    def tuned(self, task: str) -> GenerateModel | None:
        """The tuned writer of a task, if there is one."""
        return self._tuned.get(task)

    def write(
        self, task: str, drafts: Sequence[Draft], sampling: Sampling, constraints: Sequence[Constraint[Any]] = ()
    ) -> Writing[list[Generated]]:
        """What follows each prompt, by the task's writer or else by the foundation; closed, it is given up."""
        writer = self._tuned.get(task) or self._foundation()
        if id(writer) not in self._engines:
            self._engines[id(writer)] = writer.engine()
        engine = self._engines[id(writer)]
        streams = engine.begin(writer.prompts(engine, drafts), sampling, constraints)
        try:
            while any(stream.result is None for stream in streams):
                yield ""
        finally:
            for stream in streams:
                engine.cancel(stream)
        return [stream.result for stream in streams if stream.result is not None]

    def step(self) -> None:
        """Adds a token to every text in the making."""
        for engine in self._engines.values():
            engine.step()

    def _foundation(self) -> GenerateModel:
        """The foundation as it is, by a tuning which, fresh, changes nothing; made when it is first needed."""
        if self._untuned is None:
            config, states = self._rank.config, self._rank.cache.config
            fresh = TaskModelConfig(
                task="explain",
                domain=config.domain,
                rule=config.rule,
                foundation=config.foundation,
                method="adapter",
                depth=states.depth,
                keep=states.keep,
            )
            self._untuned = GenerateModel.create(fresh, self._rank.foundation, cache=self._rank.cache)
        return self._untuned
