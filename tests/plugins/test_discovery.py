"""Broken, duplicate, misspelt, disabled, coroutine and mismatched plugins, each as an installed distribution."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from stem_core.errors import PluginError
from stem_core.plugins import discover
from tests.plugins.distributions import install, report, run, wheel

BROKER = """
from stem_core.hookspecs import hookimpl
from stem_core.ports import BrokerCapabilities, BrokerSpec

def _open(url, options):
    raise AssertionError("a description must not connect")

@hookimpl
def stem_brokers():
    return [BrokerSpec(name="{scheme}", schemes=("{scheme}",), contract={contract},
                       capabilities=BrokerCapabilities(), summary="for a test", open=_open)]
"""


def plugin(folder: Path, name: str, source: str) -> Path:
    module = name.replace("-", "_")
    return wheel(folder, name, {name.removeprefix("stem-"): module}, {f"{module}.py": source})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site"


def test_a_good_plugin_and_the_built_in_one_are_found(tmp_path: Path, site: Path) -> None:
    install(site, plugin(tmp_path, "stem-good", BROKER.format(scheme="good", contract=1)))
    found = report(site)
    assert found["plugins"]["good"]["distribution"] == "stem-good"
    assert found["plugins"]["good"]["provides"] == ["broker good"]
    assert {"good", "memory", "sqlite"} <= set(found["brokers"])


def test_a_broken_plugin_is_recorded_and_hides_no_other(tmp_path: Path, site: Path) -> None:
    install(
        site,
        plugin(tmp_path, "stem-bad", "import a_driver_that_is_not_there\n"),
        plugin(tmp_path, "stem-exits", "raise SystemExit(3)\n"),
        plugin(
            tmp_path, "stem-raises", BROKER.format(scheme="x", contract=1).replace("return", "return 1/0 and")
        ),
        plugin(tmp_path, "stem-good", BROKER.format(scheme="good", contract=1)),
    )
    found = report(site)
    assert "a_driver_that_is_not_there" in found["broken"]["bad"]["cause"]
    assert "SystemExit" in found["broken"]["exits"]["cause"]
    assert "ZeroDivisionError" in found["broken"]["raises"]["cause"]
    assert "good" in found["brokers"]


def test_asking_for_what_is_missing_prints_why_it_may_be(tmp_path: Path, site: Path) -> None:
    install(site, plugin(tmp_path, "stem-bad", "import a_driver_that_is_not_there\n"))
    code = "from stem_core.plugins import discover; discover().broker('nosuch://host')"
    done = run(site, "-c", code)
    assert done.returncode != 0
    assert "No broker for 'nosuch://'" in done.stderr
    assert "Installed: memory" in done.stderr
    assert "Broken: bad (stem-bad 1.0): ModuleNotFoundError" in done.stderr


def test_a_name_taken_twice_names_both_distributions(tmp_path: Path, site: Path) -> None:
    install(
        site,
        plugin(tmp_path, "stem-first", BROKER.format(scheme="same", contract=1)),
        plugin(tmp_path, "stem-second", BROKER.format(scheme="same", contract=1)),
    )
    found = report(site)
    assert "same" in found["brokers"]
    cause = found["broken"]["second"]["cause"]
    assert "stem-first" in cause
    assert "stem-second" in cause


def test_a_misspelt_hook_is_an_error(tmp_path: Path, site: Path) -> None:
    source = BROKER.format(scheme="typo", contract=1).replace("def stem_brokers", "def stem_broker")
    install(site, plugin(tmp_path, "stem-typo", source))
    assert "stem_broker" in report(site)["broken"]["typo"]["cause"]


def test_a_coroutine_hook_is_refused(tmp_path: Path, site: Path) -> None:
    source = BROKER.format(scheme="async", contract=1).replace("def stem_brokers", "async def stem_brokers")
    install(site, plugin(tmp_path, "stem-async", source))
    found = report(site)
    assert "coroutine" in found["broken"]["async"]["cause"]
    assert "async" not in found["brokers"]


def test_another_contract_is_explained(tmp_path: Path, site: Path) -> None:
    install(site, plugin(tmp_path, "stem-future", BROKER.format(scheme="future", contract=99)))
    assert "contract 99; this Stem speaks 1" in report(site)["broken"]["future"]["cause"]


def test_a_spec_without_a_contract_is_refused(tmp_path: Path, site: Path) -> None:
    source = BROKER.format(scheme="vague", contract=1).replace("contract=1,", "")
    install(site, plugin(tmp_path, "stem-vague", source))
    assert "contract" in report(site)["broken"]["vague"]["cause"]


def test_something_that_is_no_spec_is_refused(tmp_path: Path, site: Path) -> None:
    source = (
        "from stem_core.hookspecs import hookimpl\n@hookimpl\ndef stem_encoders():\n    return ['rot13']\n"
    )
    install(site, plugin(tmp_path, "stem-odd", source))
    assert "EncoderSpec" in report(site)["broken"]["odd"]["cause"]


def test_plugins_are_switched_off_and_allowed_by_name(tmp_path: Path, site: Path) -> None:
    install(
        site,
        plugin(tmp_path, "stem-one", BROKER.format(scheme="one", contract=1)),
        plugin(tmp_path, "stem-two", BROKER.format(scheme="two", contract=1)),
    )
    off = report(site, STEM_DISABLE_PLUGINS="one")
    assert ("one" in off["disabled"], "one" in off["brokers"], "two" in off["brokers"]) == (True, False, True)
    only = report(site, STEM_PLUGINS="builtin, two")
    assert ("two" in only["brokers"], "one" in only["disabled"]) == (True, True)


def test_event_hooks_take_what_they_name(tmp_path: Path, site: Path) -> None:
    source = """
from stem_core.hookspecs import hookimpl

@hookimpl
def stem_task_started(envelope):
    print("started", envelope)

@hookimpl
def stem_worker_stopped():
    print("stopped")
"""
    install(site, plugin(tmp_path, "stem-events", source))
    code = (
        "from stem_core.plugins import discover; hooks = discover().hooks;"
        "hooks['stem_task_started'][0](envelope='e', attempt=1); hooks['stem_worker_stopped'][0](worker_id='w')"
    )
    done = run(site, "-c", code)
    assert done.stdout.split() == ["started", "e", "stopped"], done.stderr


def test_discovery_keeps_nothing_in_the_module() -> None:
    from stem_core import plugins

    before = dict(vars(plugins))
    first, second = plugins.discover([]), plugins.discover([])
    assert first is not second
    assert vars(plugins) == before


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("SPEC", r"stem_brokers must return its specs in a tuple, .*: write return \(MY_SPEC,\)"),
        ("None", "must return its specs in a tuple, not None"),
        ("[replace(SPEC, schemes='shelf')]", r"schemes='shelf' of the broker must be .*: write \('shelf',\)"),
        ("[replace(SPEC, schemes=('Shelf',))]", "lower-case names"),
        ("[replace(SPEC, schemes=())]", r"schemes=\(\)"),
        ("['shelf']", "must return BrokerSpec values"),
    ],
)
def test_what_a_hook_returns_by_mistake(returned: str, words: str) -> None:
    module = ModuleType("mistaken")
    source = BROKER.format(scheme="shelf", contract=1).replace("return [", "return first([") + ")"
    code = f"from dataclasses import replace\ndef first(made):\n    SPEC = made[0]\n    return {returned}\n{source}"
    exec(code, module.__dict__)
    with pytest.raises(PluginError, match=words):
        discover((), {}, [module])
