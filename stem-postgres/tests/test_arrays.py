"""Columns arrive as they were sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_postgres import arrays

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
INSTANTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001


@pytest.fixture(scope="module")
def connection(postgres_url: str) -> Any:
    with psycopg.connect(postgres_url, autocommit=True, options="-c timezone=UTC") as made:
        arrays.teach(made)
        yield made


def echoed(connection: psycopg.Connection, column: list[Any]) -> list[Any]:
    row = connection.cursor(binary=True).execute("select %s", [column]).fetchone()
    assert row is not None
    found: list[Any] = row[0]
    return found


@given(column=st.lists(st.none() | TEXTS))
def test_texts(connection: psycopg.Connection, column: list[str | None]) -> None:
    assert echoed(connection, arrays.Texts(column)) == column


@given(column=st.lists(st.none() | st.binary()))
def test_blobs(connection: psycopg.Connection, column: list[bytes | None]) -> None:
    assert echoed(connection, arrays.Blobs(column)) == column


@given(column=st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_bigints(connection: psycopg.Connection, column: list[int]) -> None:
    assert echoed(connection, arrays.Bigints(column)) == column


@given(column=st.lists(st.integers(-(2**15), 2**15 - 1)))
def test_smallints(connection: psycopg.Connection, column: list[int]) -> None:
    assert echoed(connection, arrays.Smallints(column)) == column


@given(column=st.lists(st.none() | st.floats(allow_nan=False)))
def test_floats(connection: psycopg.Connection, column: list[float | None]) -> None:
    assert echoed(connection, arrays.Floats(column)) == column


@given(column=st.lists(st.booleans()))
def test_bools(connection: psycopg.Connection, column: list[bool]) -> None:
    assert echoed(connection, arrays.Bools(column)) == column


@given(column=st.lists(st.none() | INSTANTS))
def test_instants(connection: psycopg.Connection, column: list[datetime | None]) -> None:
    assert echoed(connection, arrays.Instants(column)) == column


@pytest.mark.parametrize(
    "column",
    [arrays.Texts(["same"] * 3), arrays.Texts([None] * 3), arrays.Bigints([7] * 3), arrays.Blobs([b""] * 3)],
)
def test_columns_that_say_one_thing(connection: psycopg.Connection, column: list[Any]) -> None:
    assert echoed(connection, column) == column


def test_instants_of_other_zones(connection: psycopg.Connection) -> None:
    there = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    assert echoed(connection, arrays.Instants([there])) == [there]


KINDS: arrays.Kinds = {
    "text": arrays.Texts,
    "blob": arrays.Blobs,
    "bigint": arrays.Bigints,
    "smallint": arrays.Smallints,
    "float": arrays.Floats,
    "bool": arrays.Bools,
    "instant": arrays.Instants,
}
ROWS = st.tuples(
    st.none() | TEXTS,
    st.none() | st.binary(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**15), 2**15 - 1),
    st.none() | st.floats(allow_nan=False),
    st.booleans(),
    st.none() | INSTANTS,
)


@given(
    row=ROWS, again=st.integers(0, 2), alike=st.sets(st.sampled_from(sorted(KINDS)), max_size=len(KINDS) - 1)
)
def test_rows_are_the_same_however_they_are_sent(
    connection: psycopg.Connection, row: tuple[Any, ...], again: int, alike: set[str]
) -> None:
    batch = [row] * (again + 1)
    values = {name: list(column) for name, column in zip(KINDS, zip(*batch, strict=True), strict=True)}
    plain, parameters = arrays.rows("x_", KINDS, values, arrays.Plain(alike))
    assert plain == (alike if again else set(KINDS))
    statement = f"select * from {arrays.relation('x_', KINDS, 'x', plain)}"
    assert connection.cursor(binary=True).execute(statement.encode(), parameters).fetchall() == batch


def test_what_differs_within_a_batch_is_sent_as_lists() -> None:
    kinds: arrays.Kinds = {"id": arrays.Texts, "level": arrays.Smallints}
    alike = arrays.Plain({"level"})
    assert arrays.rows("", kinds, {"id": ["a", "b"], "level": [1, 1]}, alike).plain == {"level"}
    assert arrays.rows("", kinds, {"id": ["a", "b"], "level": [1, 2]}, alike).plain == set()
