"""A worker written from PROTOCOL.md alone: the standard library, no frameport package. Inverts each frame in place.

It shows that the protocol is whole, not how to be fast: it polls where a real worker sleeps on the host's bell, and rings
whether or not the host sleeps, which needs no fence.
"""

import array
import ctypes
import json
import mmap
import os
import socket
import struct
import time

FUTEX_WAKE, SYS_FUTEX = 1, {"x86_64": 202, "aarch64": 98}[os.uname().machine]
libc = ctypes.CDLL(None)

link = socket.socket(fileno=int(os.environ.pop("FRAMEPORT_LINK").removeprefix("fd:")))


def say(message):
    body = json.dumps(message).encode()
    link.sendall(struct.pack("<I", len(body)) + body)


def hear():
    data, fds = b"", array.array("i")
    while len(data) < 4 or len(data) < 4 + struct.unpack_from("<I", data)[0]:
        part, ancillary, _, _ = link.recvmsg(65536, socket.CMSG_SPACE(17 * 4))
        for _, _, handles in ancillary:
            fds.frombytes(handles)
        data += part
    return json.loads(data[4:]), list(fds)


def words(fd, writable):
    size = os.fstat(fd).st_size
    memory = mmap.mmap(fd, size, prot=mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0))
    return memory, memoryview(memory)[: size - size % 8].cast("Q")


say({"type": "hello", "protocol": [1, 1], "pid": os.getpid(), "library": "PROTOCOL.md",
     "layout": {"descriptor": 64, "header": 128, "block": 128}})
welcome, fds = hear()
assert welcome["type"] == "welcome", welcome
host_fd, own_fd, *pool_fds = fds
(_, host), (own_map, own) = words(host_fd, False), words(own_fd, True)
bell = ctypes.c_uint32.from_buffer(own_map, 0)

starts, at = [], 128
for channel in welcome["channels"]:
    starts.append(at // 8)
    at += 128 + 64 * channel["capacity"]
(in_block, out_block), (source, sink) = starts, welcome["channels"]
assert (source["direction"], sink["direction"]) == ("in", "out")
pixels, _ = words(pool_fds[0], True)


def publish(block, capacity, seq, entry):
    first = block + 16 + seq % capacity * 8
    for index in range(1, 8):
        own[first + index] = entry[index]
    own[first] = seq + 1  # the ticket, last: x86 and ctypes keep the order
    own[block] = seq + 1  # produced
    ring()


def ring():
    bell.value += 1
    libc.syscall(SYS_FUTEX, ctypes.byref(bell), FUTEX_WAKE, 2**31 - 1, None)


say({"type": "ready"})
taken = 0
while True:
    closed = host[in_block + 10]
    first = in_block + 16 + taken % source["capacity"] * 8
    if host[first] != taken + 1:
        if closed:
            break
        time.sleep(0.0005)
        continue
    entry = [host[first + index] for index in range(8)]
    own[in_block + 9] = taken + 1
    slot, length = entry[2] >> 32, entry[7] & (1 << 40) - 1
    begin = slot * source["pool"]["stride"]
    pixels[begin : begin + length] = bytes(255 - value for value in pixels[begin : begin + length])
    # The same slot goes back: the entry with a ticket of this ring and without metadata.
    publish(out_block, sink["capacity"], taken, [*entry[:7], length])
    taken += 1

own[out_block + 10] = 1  # closed
ring()
say({"type": "bye"})
