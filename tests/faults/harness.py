"""Adapters broken on purpose, and running the laws against one of them.

No shrinking, small budgets, the tests of the broken law first: what counts is whether and where it is caught.
"""

from __future__ import annotations

import inspect
import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis.stateful import run_state_machine_as_test

from stem_core.contracts import (
    BackendContract,
    BrokerContract,
    CommitterContract,
    EncoderContract,
    LawBroken,
    SignerContract,
)
from stem_core.contracts.backend.machine import backend_machine
from stem_core.contracts.broker.machine import broker_machine
from stem_core.contracts.profile import Profile

Contract = BrokerContract | BackendContract | CommitterContract | EncoderContract | SignerContract
#: Enough to find any planted fault, and not one example more than that takes.
HUNT = Profile(
    name="hunt",
    examples=60,
    steps=40,
    real_examples=3,
    real_steps=20,
    properties=60,
    messages=400,
    races=20,
    hunt=True,
)


@dataclass(frozen=True)
class Fault:
    """``law`` is the one it breaks; ``contract`` a class with its specs and settings."""

    name: str
    law: int
    contract: type[Contract]


FAULTS: list[Fault] = []


class Caught(NamedTuple):
    by: str
    message: str
    seconds: float


def broken(law: int, contract: type[Contract], **attributes: Any) -> Callable[[Any], Any]:
    """Register what the decorated function makes: the attributes (spec, say) of a contract class."""

    def register(make: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        name = make.__name__.replace("_", "-")
        made = type(
            f"Test_{make.__name__}", (contract,), {"prompt": 0.4, "profile": HUNT, **attributes, **make()}
        )
        FAULTS.append(Fault(name, law, made))
        return make

    return register


def named(law: int, make: Any, name: str) -> None:
    """Register a faulty backend under ``name``."""
    make.__name__ = name
    broken(law, BackendContract)(make)


def catch(fault: Fault) -> Caught | None:
    """The first test of the broken law that fails, else the state machine when it names the law."""
    start = time.perf_counter()
    for name, run in cases(fault.contract, f"test_law_{fault.law:02}_"):
        if (found := failure(run)) is not None:
            return Caught(name, found, time.perf_counter() - start)
    machine = history(fault.contract)
    if machine is not None:
        error = raised(machine)
        law = find(error)
        if law is not None and law.number == fault.law:
            return Caught("agrees_with_the_model", str(law), time.perf_counter() - start)
        if error is not None and law is None:
            raise error
    return None


def cases(contract: type[Contract], prefix: str = "test_") -> Iterator[tuple[str, Callable[[], None]]]:
    """Each test of ``contract`` with its parameters, ready to run; the state machine is not among them."""
    for name in dict.fromkeys(name for base in contract.__mro__ for name in vars(base)):
        if not name.startswith(prefix) or name == "test_agrees_with_the_model":
            continue
        test = getattr(contract, name)
        for label, arguments in parameters(test):
            yield f"{name.removeprefix('test_')}{label}", Run(contract, name, arguments)


def parameters(test: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    options = []
    for mark in marks:
        names = (
            mark.args[0]
            if not isinstance(mark.args[0], str)
            else [n.strip() for n in mark.args[0].split(",")]
        )
        values = list(mark.args[1])
        options.append([dict(zip(names, v if len(names) > 1 else (v,), strict=True)) for v in values])
    for chosen in itertools.product(*options):
        arguments = {key: value for one in chosen for key, value in one.items()}
        label = f"[{'-'.join(map(str, arguments.values()))}]" if arguments else ""
        yield label, arguments


@dataclass
class Run:
    """One test of a contract, with fixtures made as pytest would."""

    contract: type[Contract]
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> None:
        contract = self.contract()
        test = getattr(contract, self.name)
        with ExitStack() as stack:
            fixtures = dict(self.arguments)
            for parameter in inspect.signature(test).parameters:
                if parameter not in fixtures:
                    fixtures[parameter] = self._fixture(contract, parameter, stack)
            test(**fixtures)

    def _fixture(self, contract: Any, name: str, stack: ExitStack) -> Any:
        url = f"memory://{uuid.uuid4().hex}"
        match name:
            case "url":
                return url
            case "lab":
                urls = (url, url) if isinstance(contract, CommitterContract) else (url,)
                lab = contract.make_lab(*urls)
                stack.callback(lab.driver.close)
                return lab
            case "outage":
                return getattr(contract, "cut", None)
            case "connect":
                return getattr(contract, "connecting", None)
            case "encoder" | "signer":
                return contract.spec.open(contract.environment)
        raise LookupError(name)


def history(contract: type[Contract], profile: Profile = HUNT) -> Callable[[], None] | None:
    """The state machine of ``contract``, small; None when it has none."""
    case: Any = contract()
    url = f"memory://{uuid.uuid4().hex}"
    if isinstance(case, BrokerContract):
        machine = broker_machine(lambda: case.make_lab(url, once_ttl=30.0))
    elif isinstance(case, BackendContract):
        machine = backend_machine(lambda: case.make_lab(url))
    else:
        return None
    return lambda: run_state_machine_as_test(machine, settings=profile.machine(exact=True))


def raised(run: Callable[[], None]) -> BaseException | None:
    try:
        run()
    except (KeyboardInterrupt, SystemExit):
        raise
    except pytest.skip.Exception:
        return None
    except BaseException as error:  # noqa: BLE001 (also what pytest raises)
        return error
    return None


def failure(run: Callable[[], None]) -> str | None:
    """What ``run`` failed with, on one line; None when it passed or was skipped.

    :raises Exception: it failed with what is no finding of the suite's: the fault itself is badly made.
    """
    error = raised(run)
    if error is None:
        return None
    found = find(error) or (error if isinstance(error, pytest.fail.Exception) else None)
    if found is None:
        raise error
    return str(found).splitlines()[0]


def find(error: BaseException | None) -> LawBroken | None:
    """The broken law in an exception, its causes and its group."""
    if error is None or isinstance(error, LawBroken):
        return error
    inner = [*getattr(error, "exceptions", ()), error.__cause__, error.__context__]
    return next((found for each in inner if (found := find(each)) is not None), None)
