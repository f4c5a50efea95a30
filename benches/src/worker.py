"""The benchmark's Python worker: sends frames back untouched, or reads and answers them whole."""

import sys
import time

import numpy as np

import frameport as fp

with fp.connect() as link:
    if sys.argv[1] == "echo":
        for frame in link:
            a = np.asarray(frame)
            del a
            link.send_back(frame)
    for frame in link:
        with link.reply(frame) as out:
            source, answer = np.asarray(frame), np.asarray(out)
            words = answer.reshape(-1).view(np.uint64)
            if alone := frame.meta.get("alone"):
                times = []
                for _ in range(alone):
                    start = time.perf_counter_ns()
                    np.copyto(answer, source)
                    words.sum()
                    times.append(time.perf_counter_ns() - start)
                out.meta["ns"] = times
            else:
                np.copyto(answer, source)
            del source, answer, words
        frame.release()
