"""Uploads random objects of a pack's size with obstore, four at a time: ``python upload.py ENDPOINT BUCKET BYTES``."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import obstore
from obstore.store import S3Store

PACK = 64 << 20


def main() -> int:
    endpoint, bucket, total = sys.argv[1], sys.argv[2], int(sys.argv[3])
    store = S3Store(bucket, endpoint=endpoint, client_options={"allow_http": True, "timeout": "10min"})
    noise = os.urandom(PACK)

    def upload(at: int) -> None:
        part = memoryview(noise)[: min(PACK, total - at)]
        obstore.put(store, f"packs/{at:016x}", part, mode="create", use_multipart=False)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(upload, range(0, total, PACK)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
