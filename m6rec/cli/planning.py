"""What a service of a given size takes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from m6rec.cli.app import Device, Dtype, Foundation, Json, app, say
from m6rec.cli.config import of_foundation, settings
from m6rec.errors import ConfigError


@app.command()
def plan(
    *,
    users: Annotated[float, typer.Option(help="Users with a history, such as 1e9.")],
    items: Annotated[float, typer.Option(help="Items in the catalogue.")],
    qps: Annotated[float, typer.Option(help="Recommendations per second at the peak.")],
    history: Annotated[float, typer.Option(help="Events per user on average.")],
    candidates: Annotated[int, typer.Option(help="Items ranked per recommendation.")] = 100,
    item_tokens: Annotated[float, typer.Option(help="Tokens of an item's text.")] = 20,
    churn: Annotated[float, typer.Option(help="Share of the catalogue that is new or reworded per day.")] = 0.01,
    user_exponent: Annotated[float, typer.Option(help="Zipf exponent of how often users ask.")] = 0.8,
    item_exponent: Annotated[float, typer.Option(help="Zipf exponent of how often items occur.")] = 1.0,
    foundation: Foundation = None,
    cores: Annotated[int, typer.Option(help="Cores of a machine.")] = 32,
    memory: Annotated[float, typer.Option(help="GiB of a machine that the service may use.")] = 128,
    utilisation: Annotated[float, typer.Option(help="Share of the cores to plan for.")] = 0.5,
    price: Annotated[float | None, typer.Option(help="Price of a machine per hour, in any currency.")] = None,
    watts: Annotated[float | None, typer.Option(help="Watts of a machine.")] = None,
    grams_per_kwh: Annotated[float | None, typer.Option(help="Grams of CO₂ per kWh.")] = None,
    rates: Annotated[Path | None, typer.Option(help="Rates that --measure wrote; by default those of ours.")] = None,
    measure: Annotated[
        Path | None, typer.Option(help="Measure the rates of this machine first, and write them to this file.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Estimates memory, disk, cache hits, arithmetic and machines for a service, from measured rates."""
    from m6rec import files
    from m6rec.foundation.checkpoint import load, model_config_of
    from m6rec.scale import measuring, planning

    if rates is not None and measure is not None:
        raise ConfigError("--rates and --measure were given; measure into a file first, then give it as --rates")
    load_ = planning.Load(
        users=users,
        items=items,
        qps=qps,
        history=history,
        candidates=candidates,
        item_tokens=item_tokens,
        churn=churn,
        user_exponent=user_exponent,
        item_exponent=item_exponent,
    )
    machine = planning.Machine(
        cores=cores,
        memory_gib=memory,
        utilisation=utilisation,
        price_per_hour=price,
        watts=watts,
        grams_per_kwh=grams_per_kwh,
    )
    config = settings(None, None, of_foundation(foundation, device, dtype)).foundation
    if measure is not None:
        found = measuring.measure(load(config.name, dtype=config.dtype, device=config.device))
        files.write(measure, json.dumps(asdict(found), indent=1) + "\n")
    else:
        found = planning.Rates.read(rates)
    made = planning.service_plan(load_, measuring.shape_of(model_config_of(config.name)), found, machine)
    say(made, as_json, "\n".join(_lines(made)))


def _lines(made: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in made.items():
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {part}: {_number(number, name)}" for part, number in value.items())]
        else:
            lines.append(f"{name}: {value}")
    return lines


def _number(value: float, kind: str) -> str:
    """A number as people read it.

    >>> _number(1.5e12, "bytes on disk"), _number(0.25, "hit rates"), _number(1234.5, "flop")
    ('1.36 TiB', '0.25', '1.23e+03')
    """
    if kind.startswith("bytes"):
        for unit, size in (("PiB", 2**50), ("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
            if value >= size:
                return f"{value / size:.3g} {unit}"
        return f"{value:.3g} B"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
