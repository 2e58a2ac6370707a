import asyncio
from pathlib import Path

from server import allocator
from tests.support.until import until_async


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / (1 << 20)


async def test_a_server_gives_back_the_holes_that_requests_left(serve, monkeypatch):
    monkeypatch.setattr(allocator, "SECONDS", 0.05)
    # Below the size from which the allocator asks the system for each block. The kept ones hold the holes in place.
    blocks = [b"x" * 100_000 for _ in range(800)]
    kept = blocks[::8]
    full = resident_mb()
    del blocks
    await asyncio.sleep(0)
    assert resident_mb() > full - 20
    await serve({})
    await until_async(lambda: resident_mb() < full - 40)
    assert len(kept) == 100
