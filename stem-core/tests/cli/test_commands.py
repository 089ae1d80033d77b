"""Mistakes are answered with what was wrong and the way out; and the commands that need no worker."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import pytest

from stem_core import ConfigurationError
from stem_core.cli import COMMANDS
from stem_core.cli.worker import _queues
from stem_core.worker import Worker

from .conftest import Shop


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), ""),
        (("wroker",), "did you mean 'stem worker'"),
        (("nothing",), "no command 'nothing'"),
        (("dlq",), "stem dlq needs: list, show, replay, purge"),
        (("dlq", "burn"), "no command 'stem dlq burn'"),
        (("worker",), "MODULE:STEM"),
        (("worker", "shop"), "write module:attribute"),
        (("worker", "nowhere:stem"), "no module 'nowhere'"),
        (("worker", "shop:nothing"), "it has shop:stem"),
        (("worker", "shop:not_a_stem"), "not a Stem"),
        (("worker", "broken:stem"), "importing 'broken' failed at"),
        (("worker", "syntax:stem"), "SyntaxError"),
        (("worker", "shop:stem", "--concurrency", "0"), "concurrency=0 must be at least 1"),
        (("worker", "shop:stem", "--concurrency", "five"), "--concurrency: 'five' is not a whole number"),
        (("worker", "shop:stem", "--concurency", "5"), "did you mean --concurrency?"),
        (("worker", "shop:stem", "--health-port", "99999"), "99999 is not a port"),
        (("worker", "ls", "shop:stem"), "did you mean --app shop:stem?"),
        (("worker", "ping", "one", "--app", "shop:stem"), "did you mean --worker one?"),
        (("dlq", "replay", "one", "--app", "shop:stem"), "did you mean --id one?"),
        (("tasks", "show"), "'stem tasks show --help' says more"),
        (("enqueue", "shop:stem"), "which task of 'shop:stem'?"),
        (("worker", "shop:stem", "--queue", "a", "--queue", "a"), "'a' was named already"),
        (("worker", "shop:stem", "--queue", "a", "--queue", "a=3"), "'a' was named already"),
        (("worker", "shop:stem", "--prefetch", "-1"), "prefetch=-1 must be at least 0"),
        (("worker", "shop:stem", "--name", "a\n"), "cannot be a worker's name"),
        (("worker", "shop:stem", "--lease", "soon"), "'soon' is not a duration"),
        (("worker", "shop:stem", "--max-memory", "lots"), "'lots' is not a size"),
        (("worker", "shop:stem", "--on-startup", "shop:not_a_stem"), "cannot be called"),
        (("worker", "shop:stem", "--processes", "0"), "at least 1"),
        (("worker", "shop:stem", "--processes", "2", "--until-empty"), "--until-empty"),
        (("enqueue", "shop:stem", "add", "--args", "[1"), "is not JSON"),
        (("enqueue", "shop:stem", "add", "--args", "7"), "neither a JSON list nor an object"),
        (("enqueue", "shop:stem", "add", "--args", "[]"), "missing a required argument: 'x'"),
        (("enqueue", "shop:stem", "add", "--args", "[1]", "--priority", "11"), "priority=11"),
        (("enqueue", "shop:stem", "add", "1"), "--args JSON"),
        (("enqueue", "shop:stem", "add", "--header", "tenant"), "is not name=value"),
        (("enqueue", "shop:stem", "add", "--args", "[1]", "--serializer", "morse"), "morse"),
        (("explain", "shop:stem", "add", "--delay", "-1"), "'-1' is not a duration"),
        (("explain", "shop:stem", "add", "--eta", "2030-01-01"), "is not an instant"),
        (("dlq", "replay", "--app", "shop:stem"), "say which"),
        (("dlq", "purge", "--app", "shop:stem"), "say which"),
        (("dlq", "list", "--app", "shop:stem", "--limit", "0"), "at least 1"),
        (("dlq", "list", "--app", "shop:stem", "--before", "yesterday"), "is not an instant"),
        (("queues", "--watch", "--every", "0"), "'0' leaves no time between two looks"),
        (("relay", "shop:stem", "--every", "0s"), "leaves no time"),
        (("migrate", "redis://localhost"), "has no schema to migrate"),
        (("migrate",), "postgresql://"),
        (("relay", "shop:stem"), "no outbox"),
        (("keys", "list"), "STEM_SIGNING"),
        (("keys", "generate", "--id", "not a key"), "not a key"),
        (("doctor", "nowhere"), "is not a URL"),
        (("doctor", "shop:stem"), "names an application"),
    ],
)
def test_mistakes_say_what_was_wrong(shop: Shop, words: tuple[str, ...], said: str) -> None:
    done = shop(*words)
    assert done.status in ({1, 2} if words[:1] == ("doctor",) else {2}), done
    assert said in done.out + done.err
    assert "Traceback" not in done.err
    assert "usage:" not in done.err  # a screen of flags would hide what was wrong


@pytest.mark.parametrize("command", COMMANDS, ids=[each.words for each in COMMANDS])
def test_every_command_has_help(shop: Shop, command) -> None:
    done = shop(*command.words.split(), "--help")
    assert done.status == 0
    assert command.summary in done.out
    assert command.words in shop("--help").out


def test_every_argument_of_worker_has_its_flag(shop: Shop) -> None:
    said = shop("worker", "--help").out
    renamed = {"queues": "queue", "processes": "task-processes"}
    for name in inspect.signature(Worker).parameters:
        if name not in {"stem", "clock", "encoders"}:  # the application; values that no word can name
            assert f"--{renamed.get(name, name).replace('_', '-')}" in said, name


def test_a_broker_of_one_process_is_told(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text("from stem_core import Stem\nstem = Stem('memory://')\n")
    for words in (
        ("worker", "alone:stem", "--until-empty"),
        ("queues", "--app", "alone:stem"),
        ("enqueue", "alone:stem", "add"),
    ):
        done = shop(*words)
        assert done.status == 0, done
        assert "The broker (MemoryBroker) lives in one process" in done.err
    assert "lives in one process" not in shop("queues", "--app", "shop:stem").err


def test_queues_may_have_weights_and_names_may_hold_anything() -> None:
    assert _queues(["mail", "a=b", "default"]) == ["mail", "a=b", "default"]
    assert _queues(["mail=3", "a=b", "default"]) == {"mail": 3, "a=b": 1, "default": 1}


def test_explain_says_what_happens_to_each_option(shop: Shop) -> None:
    done = shop("explain", "shop:stem", "add", "--delay", "2h", "--exchange", "x", "--json").json
    options = {each["option"]: each for each in done["options"]}
    assert options["countdown"] == {
        "option": "countdown",
        "requested": 7200.0,
        "effective": 7200.0,
        "reason": "",
    }
    assert (options["exchange"]["effective"], "no routing" in options["exchange"]["reason"]) == (None, True)
    text = shop("explain", "shop:stem", "unknown.task", "--priority", "9").out
    assert "its handler is not known here" in text
    assert not (shop.folder / "shop.db").exists(), "explain connects to nothing"


def test_check_fails_where_an_adapter_cannot(shop: Shop) -> None:
    assert shop("check", "shop:stem").status == 0
    (shop.folder / "wishes.py").write_text(
        "from stem_core import Stem\n"
        "stem = Stem('memory://', backend=False)\n"
        "@stem.task(name='limited', rate_limit='10/s')\n"
        "async def limited() -> None: ...\n"
    )
    done = shop("check", "wishes:stem", "--json")
    assert done.status == 1
    (finding,) = done.json["findings"]
    assert (finding["task"], finding["adjustments"][0]["option"]) == ("limited", "rate_limit")
    assert "rate_limit=10/s" in shop("check", "wishes:stem").out


def test_plugins_lists_what_is_installed(shop: Shop) -> None:
    found = shop("plugins", "--json").json
    assert {"memory", "sqlite"} <= set(found["brokers"])
    assert found["brokers"]["sqlite"]["capabilities"]["durable"] is True
    text = shop("plugins").out
    assert "broker can" in text
    assert "builtin" in text


def test_disabled_plugins_are_listed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEM_DISABLE_PLUGINS", "codecs")
    assert "disabled" in shop("plugins").out
    assert shop("plugins", "--json").json["disabled"] == ["codecs"]


def test_doctor_tries_the_stores(shop: Shop) -> None:
    done = shop("doctor", "sqlite:///doctor.db", "--json")
    assert done.status == 0
    keys = {(each["section"], each["key"]) for each in done.json}
    assert ("broker", "publish, receive, ack") in keys
    assert ("backend", "record, fetch") in keys
    assert shop("queues", "stem.doctor", "--app", "shop:stem", "--json").json[0]["ready"] == 0


def test_doctor_fails_and_masks_the_password(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEM_SIGNING_KEYS", "k1:c2VjcmV0LWJ5dGVzLXNlY3JldC1ieXRlcw==")
    monkeypatch.setenv("STEM_BACKEND_URL", "redis://user:hunter2@localhost:1/0")
    done = shop("doctor", "redis://user:hunter2@localhost:1/0")
    assert done.status == 1
    assert "hunter2" not in done.out + done.err
    assert "c2VjcmV0" not in done.out + done.err
    assert "***" in done.out


def test_doctor_reports_what_the_server_says(shop: Shop, redis_url: str) -> None:
    done = shop("doctor", redis_url, "--json")
    assert [each for each in done.json if each["failed"]] == []
    assert {"redis server", "redis memory", "redis persistence"} <= {each["section"] for each in done.json}


def test_migrate_and_doctor_on_postgresql(shop: Shop, postgres_url: str, unique_name: str) -> None:
    url = f"{postgres_url}{'&' if '?' in postgres_url else '?'}schema={unique_name}"
    first, again = shop("migrate", url), shop("migrate", url)
    assert (first.status, "applied" in first.out) == (0, True), first.err
    assert "up to date" in again.out
    assert "create table" in shop("migrate", url, "--sql").out.lower()
    done = shop("doctor", url, "--json")
    assert done.status == 0, done.out
    assert "postgres schema" in {each["section"] for each in done.json}


def test_keys_are_made_listed_and_rotated(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    made = shop("keys", "generate", "--id", "k1", "--json").json
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    secret = made["STEM_SIGNING_KEYS"].partition(":")[2]
    listed = shop("keys", "list")
    assert "k1" in listed.out
    assert secret not in listed.out + shop("doctor").out
    stages = shop("keys", "rotate", "k2", "--json").json
    assert [stage["variables"]["STEM_SIGNING_ACTIVE_KEY"] for stage in stages] == ["k1", "k2", "k2"]


def test_conformance_asks_for_its_extra(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    done = shop("conformance", "memory://")
    assert (done.status, "stem-core[contracts]" in done.err) == (2, True)


def test_help_imports_no_adapter_and_no_worker(shop: Shop) -> None:
    code = "import sys, stem_core.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    code += "import json; print(json.dumps([m for m in sys.modules if m.startswith('stem_')]))"
    import subprocess

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = json.loads(out.splitlines()[-1])
    assert not [
        name for name in loaded if ".sqlite" in name or name.startswith(("stem_redis", "stem_postgres"))
    ]
    assert not [name for name in loaded if name.startswith("stem_core.operations")]


def test_an_error_in_a_store_is_one_line(shop: Shop) -> None:
    (shop.folder / "shop.db").write_bytes(b"this is no database" * 100)
    done = shop("queues", "--app", "shop:stem")
    assert (done.status, "Traceback" in done.err) == (1, False)
    assert done.err.startswith("stem: ")


def test_a_closed_pipe_is_no_traceback(shop: Shop) -> None:
    reader = shop.spawn("plugins")
    assert reader.stdout is not None
    reader.stdout.close()
    assert reader.wait(timeout=30) in {0, 1}
    assert reader.stderr is not None
    with reader.stderr as errors:
        assert "Traceback" not in errors.read()


def test_unreadable_values_in_an_error_are_configuration_errors() -> None:
    from stem_core.cli.apps import load_object

    with pytest.raises(ConfigurationError, match="module:attribute"):
        load_object("no-colon", "a function")
    assert load_object("pathlib:Path.cwd", "a function") == Path.cwd
