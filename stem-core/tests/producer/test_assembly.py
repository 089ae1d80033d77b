"""What a Stem is made from: URLs, ids, objects, environment variables; and what it says when one is wrong."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stem_core import ConfigurationError, Stem
from stem_core.plugins import Catalogue

KEYS = f"k1:{base64.b64encode(b'x' * 32).decode()}"


def test_the_backend_defaults_to_the_brokers_url_where_there_is_one(clean_environment: Any) -> None:
    assert Stem("memory://").backend is not None
    assert Stem("memory://", backend=False).backend is None
    assert type(Stem("memory://", backend="sqlite:///x.db").backend).__name__ == "SqliteBackend"
    assert Stem(Stem("memory://").broker).backend is None


def test_a_scheme_without_a_backend_has_none(clean_environment: Any) -> None:
    from stem_core.plugins import discover

    catalogue = discover()
    catalogue.backends.pop("memory")
    assert Stem("memory://", plugins=catalogue).backend is None


@pytest.mark.parametrize(
    ("broker", "arguments", "words"),
    [
        ("amqp://host", {}, r"No broker for 'amqp://'\. Installed: .*memory.*sqlite"),
        ("sqllite:///stem.db", {}, "Did you mean 'sqlite://'"),
        ("memory://", {"args_encoder": "jsn"}, "Did you mean 'json'"),
        ("nothing", {}, "'nothing' is not a URL"),
        ("memory://", {"backend": "amqp://host"}, "No backend for 'amqp://'"),
        ("memory://", {"args_encoder": "yaml"}, "No encoder for 'yaml'"),
        ("memory://", {"signer": "rsa"}, "No signer for 'rsa'"),
        ("memory://", {"signer": object()}, "is not a signer"),
        ("memory://", {"backend": object()}, "is not a backend: it has no record"),
        (object(), {}, "is not a broker: it has no publish"),
        ("memory://", {"namespace": "a\nb"}, "namespace"),
        ("memory://", {"namespace": ""}, "namespace"),
        ("memory://", {"publish_timeout": 0}, "publish_timeout=0"),
        ("memory://", {"max_payload": 0}, "max_payload=0"),
    ],
)
def test_what_is_wrong_is_named(
    clean_environment: Any, broker: Any, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Stem(broker, **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strict": "yes"}, "strict='yes' must be True or False"),
        ({"max_payload": "1M"}, "max_payload='1M' must be a whole number of bytes"),
        ({"max_payload": True}, "max_payload=True"),
        ({"encoders": None}, "encoders=None must be a registry"),
        ({"publish_timeout": "10"}, "publish_timeout='10' must be seconds"),
        ({"publish_timeout": True}, "publish_timeout=True must be seconds"),
        ({"tasks": 5}, r"tasks=5 must be a list of tasks: write tasks=\[add\]"),
    ],
)
def test_what_is_of_the_wrong_type_is_named(
    clean_environment: Any, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        Stem("memory://", **arguments)


def test_an_uninstalled_adapter_says_what_to_install(clean_environment: Any) -> None:
    with pytest.raises(ConfigurationError, match="Try: pip install stem-redis"):
        Stem("redis://localhost", plugins=Catalogue())


def test_signing_variables_need_a_word(clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("STEM_SIGNING_KEYS", KEYS)
    with pytest.raises(ConfigurationError, match="STEM_SIGNING_KEYS set, and no signer was given") as caught:
        Stem("memory://")
    assert KEYS not in str(caught.value)
    assert Stem("memory://", signer=False).wiring.signer is None


def test_nothing_set_is_unsigned(clean_environment: Any) -> None:
    assert Stem("memory://").wiring.signer is None


def test_from_env(clean_environment: pytest.MonkeyPatch) -> None:
    for name, value in {
        "STEM_BROKER_URL": "memory://",
        "STEM_BACKEND_URL": "sqlite:///x.db",
        "STEM_NAMESPACE": "shop",
        "STEM_ARGS_ENCODER": "json+gzip",
        "STEM_RESULT_ENCODER": "cbor",
        "STEM_STRICT": "yes",
        "STEM_PUBLISH_TIMEOUT": "2.5",
        "STEM_MAX_PAYLOAD": "1000",
    }.items():
        clean_environment.setenv(name, value)
    stem = Stem.from_env()
    assert type(stem.backend).__name__ == "SqliteBackend"
    assert (stem.namespace, stem.wiring.max_payload) == ("shop", 1000)
    assert (stem.encoders.default_args, stem.encoders.default_result) == ("json+gzip", "cbor")
    assert (stem._strict, stem._publish_timeout) == (True, 2.5)
    assert Stem.from_env(namespace="other").namespace == "other"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "STEM_BROKER_URL is not set"),
        ({"STEM_BROKER_URL": "memory://", "STEM_STRICT": "perhaps"}, "STEM_STRICT='perhaps' is not a flag"),
        ({"STEM_BROKER_URL": "memory://", "STEM_PUBLISH_TIMEOUT": "soon"}, "STEM_PUBLISH_TIMEOUT='soon'"),
        ({"STEM_BROKER_URL": "memory://", "STEM_MAX_PAYLOAD": "1k"}, "STEM_MAX_PAYLOAD='1k'"),
    ],
)
def test_from_env_names_the_variable(environment: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Stem.from_env(environment)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"encoders": "cbor"}, "args_encoder='cbor'"),
        ({"encoders": ["cbor"]}, "takes encoder objects"),
        ({"plugins": [object()]}, "mark its functions with stem_core.hookimpl"),
        ({"routing": 5}, "a int, where a Routing"),
    ],
)
def test_what_would_silently_do_nothing_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Stem("memory://", **arguments)


def test_no_secret_in_a_repr(clean_environment: Any) -> None:
    assert "secret" not in repr(Stem("redis://user:secret@localhost/0"))


def test_a_task_is_named_after_the_module_workers_import() -> None:
    stem = Stem("memory://")

    @stem.task
    async def work() -> None: ...

    assert work.name == f"{__name__}.work"


SCRIPT = """
from stem_core import Stem, TaskRetryPolicy
from stem_core.retry import class_names

class Busy(Exception): ...

stem = Stem("memory://")

@stem.task
def work() -> None: ...

print(work.name, *TaskRetryPolicy(auto_retry_for=Busy).auto_retry_for, class_names(Busy())[0])
"""


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("shop/jobs.py",), "jobs"),
        (("-m", "shop.jobs"), "shop.jobs"),
        # As a worker's child process does with a script.
        (("-c", "import runpy; runpy.run_path('shop/jobs.py', run_name='__mp_main__')"), "jobs"),
    ],
)
def test_what_a_script_defines_is_named_after_its_file(
    tmp_path: Path, words: tuple[str, ...], name: str
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "jobs.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [f"{name}.work", f"{name}.Busy", f"{name}.Busy"]


def test_tasks_of_another_stem_are_known_by_name(clean_environment: Any) -> None:
    first = Stem("memory://")
    work = first.task(name="work")(lambda: 1)
    second = Stem("memory://", tasks=[work])
    assert second.tasks == {"work": work}
    assert work.stem is first


def test_public_names_are_sorted_and_there() -> None:
    import stem_core

    assert all(hasattr(stem_core, name) for name in stem_core.__all__)


def test_the_environment_given_to_from_env_is_the_only_one_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEM_SIGNING_KEYS", "other:AAAA")
    stem = Stem.from_env({"STEM_BROKER_URL": "memory://"})
    assert stem.wiring.signer is None
