# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Xet for the server of `hub_server`, which is how `huggingface_hub` sends large files where `hf_xet` is installed.

Content-addressed blocks ("xorbs") of chunks come first, then a shard that tells which chunks make up which files. The
files are put together here, so that what was received can be compared with what was sent. Chunks must be uncompressed,
as those of noise are: nothing here decompresses.
"""

import struct
import time

from hub_server import REPO, REVISION, ROUTES, ApiError, Handler


CHUNK_HEADER, ENTRY, SHARD_HEADER = 8, 48, 48
HASH = 32
BOOKEND = b"\xff" * HASH
HAS_VERIFICATION, HAS_METADATA = 1 << 31, 1 << 30


def xet_token(handler: Handler, repo_id: str, revision: str):
    """Where the blocks go; of the block's server the answer is in headers too."""
    place, expires = f"{handler.hub.url}/xet", int(time.time()) + 3600
    headers = {
        "X-Xet-Cas-Url": place,
        "X-Xet-Access-Token": "xet",
        "X-Xet-Token-Expiration": str(expires),
    }
    return 200, {"casUrl": place, "accessToken": "xet", "exp": expires}, headers


def put_block(handler: Handler, oid: str):
    handler.hub.blocks[oid] = chunks_of(handler.body)
    handler.hub.bytes_received[oid] += len(handler.body)
    return {"was_inserted": True}


def put_shard(handler: Handler):
    for sha256, parts in files_of(handler.body):
        content = b"".join(b"".join(handler.hub.blocks[oid][start:end]) for oid, start, end in parts)
        handler.store(sha256, content)
    return {"result": 1}


def unknown(handler: Handler, path: str):
    raise ApiError(404, "this server does not have that")


def chunks_of(block: bytes) -> list[bytes]:
    """A block is chunks, each with its sizes and its compression before it; what follows the last one is a summary."""
    chunks, place = [], 0
    while place + CHUNK_HEADER <= len(block) and block[place] == 0:
        stored = int.from_bytes(block[place + 1 : place + 4], "little")
        if block[place + 4] != 0:
            raise ApiError(400, "this server reads uncompressed chunks only")
        place += CHUNK_HEADER
        chunks.append(block[place : place + stored])
        place += stored
    return chunks


def files_of(shard: bytes):
    """Yields each file's SHA-256 and its parts: block, first chunk, chunk after the last one."""
    place = SHARD_HEADER
    while shard[place : place + HASH] != BOOKEND:
        flags, count = struct.unpack_from("<II", shard, place + HASH)
        place += ENTRY
        parts = []
        for _ in range(count):
            _, _, start, end = struct.unpack_from("<IIII", shard, place + HASH)
            parts.append((hash_text(shard[place : place + HASH]), start, end))
            place += ENTRY
        if flags & HAS_VERIFICATION:
            place += count * ENTRY
        sha256 = hash_text(shard[place : place + HASH]) if flags & HAS_METADATA else None
        place += ENTRY if flags & HAS_METADATA else 0
        yield sha256, parts


def hash_text(value: bytes) -> str:
    """Xet writes hashes as four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", value))


ROUTES += [
    (("GET",), rf"/api/models/{REPO}/xet-write-token/{REVISION}", xet_token),
    (("POST",), r"/xet/v1/xorbs/default/(?P<oid>\w{64})", put_block),
    (("POST",), r"/xet/v1/shards", put_shard),
    (("GET", "POST", "HEAD"), r"/xet/(?P<path>.*)", unknown),
]
