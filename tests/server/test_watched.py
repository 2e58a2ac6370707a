import asyncio
import gc
import json
import os
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict

from server import logs
from server.watched import FileMetrics, watch_yaml
from server.yaml.strict import ConfigurationError
from tests.support.until import SECONDS


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def start(path: Path, registry: CollectorRegistry, **more):
    return watch_yaml(path, Settings, metrics=FileMetrics(registry), interval=0.02, **more)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"morphisms_file_{name}", {"file": "configuration", **labels})


async def test_swaps_a_good_change_in_and_tells(tmp_path, registry):
    path = tmp_path / "c.yaml"
    path.write_text("name: one")
    swapped = asyncio.Queue()
    watched = start(path, registry, changed=swapped.put_nowait)
    first = watched.digest
    task = asyncio.create_task(watched.watch())
    path.write_text("name: two")  # the same size, perhaps in the same tick of the clock
    async with asyncio.timeout(SECONDS):
        assert (await swapped.get()).name == "two"
    task.cancel()
    assert watched.value.name == "two"
    assert value(registry, "info", digest=first) is None
    assert value(registry, "info", digest=watched.digest) == 1


async def test_keeps_the_last_good_value_and_logs_once(tmp_path, registry, capsys):
    gc.collect()  # what other tests left behind says so now, and not among this test's own lines
    logs.configure()
    path = tmp_path / "c.yaml"
    path.write_text("name: one")
    watched = start(path, registry)
    loaded_at = value(registry, "last_reload_timestamp_seconds")
    path.write_text("name: two\nnmae: hunter2")
    assert not await watched.poll()
    assert not await watched.poll()
    assert (watched.value.name, value(registry, "last_reload_success")) == ("one", 0)
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert line["event"] == "file_not_reloaded"
    assert line["problems"] == [f"{path}:2: nmae: unknown key nmae, did you mean name?"]
    path.unlink()
    assert not await watched.poll()
    assert watched.value.name == "one"
    path.write_text("name: one")
    assert not await watched.poll()
    assert value(registry, "last_reload_success") == 1
    assert value(registry, "last_reload_timestamp_seconds") == loaded_at


async def test_an_unchanged_settled_file_is_not_read_again(tmp_path, registry):
    path = tmp_path / "c.yaml"
    path.write_text("name: one")
    os.utime(path, (1e9, 1e9))
    watched = start(path, registry)
    watched._read = None  # reading would raise
    assert not await watched.poll()
    assert value(registry, "last_reload_success") == 1


async def test_follows_a_config_maps_link(tmp_path, registry):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c.yaml").write_text(f"name: {name}")
        os.utime(tmp_path / name / "c.yaml", (1e9, 1e9))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "c.yaml").symlink_to("..data/c.yaml")
    watched = start(tmp_path / "c.yaml", registry)
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "..data")
    assert await watched.poll()
    assert watched.value.name == "two"


def test_a_bad_file_at_the_start_is_an_error(tmp_path, registry):
    (tmp_path / "c.yaml").write_text("nam: x")
    with pytest.raises(ConfigurationError):
        start(tmp_path / "c.yaml", registry)


async def test_a_change_within_one_tick_of_the_clock_is_seen(tmp_path, registry):
    path = tmp_path / "c.yaml"
    path.write_text("name: one")
    stamp = time.time_ns() + 600 * 10**9  # no time that passes here makes it an old one
    os.utime(path, ns=(stamp, stamp))
    watched = start(path, registry)
    path.write_text("name: two")
    os.utime(path, ns=(stamp, stamp))
    assert await watched.poll()
    assert watched.value.name == "two"
