"""``stem migrate URL``: the schema of stem-postgres."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import os

from stem_core.cli.output import add_json_option, print_json
from stem_core.errors import ConfigurationError
from stem_core.url import mask, scheme_of

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Where, or only the script."""
    parser.add_argument("url", nargs="?", help="postgresql://...; default: STEM_BROKER_URL, STEM_BACKEND_URL")
    parser.add_argument("--sql", action="store_true", help="print the script instead, for whoever may run it")
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Migrate each database once."""
    given = [arguments.url] if arguments.url else _from_environment()
    answers = {}
    for url in given:
        if scheme_of(url) not in {"postgres", "postgresql"}:
            raise ConfigurationError(
                f"{mask(url)!r} has no schema to migrate; only postgresql:// has, and other stores prepare themselves"
            )
        if importlib.util.find_spec("stem_postgres") is None:
            raise ConfigurationError(f"nothing installed knows {mask(url)!r}; try: pip install stem-postgres")
        module = importlib.import_module("stem_postgres.migrate")
        answers[mask(url)] = asyncio.run(module.migrate(url, sql_only=arguments.sql))
    if arguments.json:
        print_json(answers)
    else:
        for url, answer in answers.items():
            print(answer if arguments.sql else f"{url}: {answer}")
    return 0


def _from_environment() -> list[str]:
    urls = [os.environ.get(name, "") for name in ("STEM_BROKER_URL", "STEM_BACKEND_URL")]
    found = [url for url in dict.fromkeys(urls) if url.partition("://")[0] in {"postgres", "postgresql"}]
    if not found:
        raise ConfigurationError(
            "give a postgresql:// URL, or set STEM_BROKER_URL or STEM_BACKEND_URL to one"
        )
    return found
