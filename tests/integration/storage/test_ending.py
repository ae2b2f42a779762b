"""A process that used an object store ends with its own exit status."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, sys, threading
from perdure.cli.ending import Ending
ending = Ending()
import obstore
from obstore.store import MemoryStore

store, loop = MemoryStore(), asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()

async def leave_requests_under_way():
    await obstore.put_async(store, "a", b"content")
    try:
        async with asyncio.timeout(0.00001):
            await asyncio.gather(*[obstore.get_async(store, "a") for _ in range(200)])
    except TimeoutError:
        pass

asyncio.run_coroutine_threadsafe(leave_requests_under_way(), loop).result()
print("done")
ending.status = 7
sys.exit(7)
"""


def test_a_process_ends_in_order_while_requests_are_under_way() -> None:
    """The threads of the object store's library cannot turn a finished command into a crash at its end."""
    ends = [subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=False) for _ in range(20)]
    assert {(end.returncode, end.stdout, end.stderr) for end in ends} == {(7, b"done\n", b"")}
