"""Which Stem a command works with: one of an application's module, or one made from ``STEM_*``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from stem_core.cli.output import say
from stem_core.errors import ConfigurationError
from stem_core.producer import Stem

__all__ = ["add_app_option", "chosen", "load", "load_object", "warn_if_alone", "with_stem"]

T = TypeVar("T")


def add_app_option(parser: argparse.ArgumentParser) -> None:
    """``--app``, for commands that can do without an application."""
    parser.add_argument(
        "--app", metavar="MODULE:STEM", help="use this application's Stem; without it STEM_* variables say"
    )


def chosen(app: str | None, names: Sequence[str] = ()) -> Stem:
    """The Stem of ``app``, or the one that the environment describes.

    :param names: what else was named: an application may be among them by mistake.
    :raises ConfigurationError: it cannot be found or made.
    """
    if app is not None:
        return load(app)
    if not os.environ.get("STEM_BROKER_URL"):
        mistaken = next((each for each in names if ":" in each), None)
        if mistaken is not None:
            raise ConfigurationError(
                f"{mistaken!r} does not say which application here, and STEM_BROKER_URL is not set; if it is the "
                f"application, write --app {mistaken}"
            )
        raise ConfigurationError(
            "no application is named and STEM_BROKER_URL is not set; give --app module:stem, or set STEM_BROKER_URL "
            "(and STEM_BACKEND_URL) to what to connect to"
        )
    return Stem.from_env()


def load(path: str) -> Stem:
    """The Stem at ``module:attribute``, or the one that a StemApp there holds.

    :raises ConfigurationError: there is none, and what is there.
    """
    found = load_object(path, "a Stem")
    stem = found if isinstance(found, Stem) else getattr(found, "stem", None)
    if not isinstance(stem, Stem):
        raise ConfigurationError(f"{path!r} is {found!r}, not a Stem; name an attribute that holds one")
    return stem


def load_object(path: str, what: str) -> Any:
    """What ``module:attribute`` names; the current directory is looked in first.

    :raises ConfigurationError: there is no such module or attribute, or importing it failed.
    """
    name, colon, attribute = path.partition(":")
    if not colon or not name or not attribute:
        raise ConfigurationError(f"{path!r} does not name {what}; write module:attribute, such as app:stem")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigurationError(
                f"there is no module {error.name!r} to find {path!r} in; run stem where it can be imported from, or "
                "set PYTHONPATH"
            ) from None
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            stems = [key for key, value in vars(module).items() if isinstance(value, Stem)]
            hint = f"; it has {', '.join(f'{name}:{each}' for each in stems)}" if stems else ""
            raise ConfigurationError(f"module {name!r} has no {attribute!r}{hint}")
        found = getattr(found, part)
    return found


def with_stem(stem: Stem, work: Callable[[Stem], Awaitable[T]]) -> T:
    """``work`` done with ``stem`` open, on a loop of its own."""
    import asyncio

    warn_if_alone(stem)

    async def run() -> T:
        async with stem:
            return await work(stem)

    return asyncio.run(run())


def warn_if_alone(stem: Stem) -> None:
    """Say so when nothing done here is seen by any other process: it looks like work that is lost."""
    if not stem.broker.capabilities.multi_process:
        say(
            f"The broker ({type(stem.broker).__name__}) lives in one process: what other processes enqueue does not come here, and what is enqueued here "
            "ends with this one. Use sqlite:///stem.db, or a server"
        )


def _broken(name: str, error: BaseException) -> ConfigurationError:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return ConfigurationError(f"importing {name!r} failed{where}: {type(error).__name__}: {error}")
