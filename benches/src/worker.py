"""The benchmark's Python worker: sends frames back untouched, or reads and answers them whole."""

import sys
import time

import numpy as np

import frameport as fp


def echo(link: fp.Link) -> None:
    for frame in link:
        array = frame.array
        del array  # a view that is still alive would have the frame copied
        link.send_back(frame)


def answer(link: fp.Link) -> None:
    for frame in link:
        with link.reply(frame) as out:
            source, target = frame.array, out.array
            words = target.reshape(-1).view(np.uint64)
            if alone := frame.meta.get("alone"):
                times = []
                for _ in range(alone):
                    start = time.perf_counter_ns()
                    np.copyto(target, source)
                    words.sum()
                    times.append(time.perf_counter_ns() - start)
                out.meta["ns"] = times
            else:
                np.copyto(target, source)
            del source, target, words
        frame.release()


with fp.connect() as link:
    (echo if sys.argv[1] == "echo" else answer)(link)
