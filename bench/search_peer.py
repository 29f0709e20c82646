"""The peer of the search figure, and what its recall is measured against: every vector compared with numpy, one probe after the other.

    search_peer.py VECTORS PROBES DIMENSIONS

Both files are single-precision numbers, vectors of unit length one behind the other. Prints one JSON line: the milliseconds of the median
and of the 99th percentile, the megabytes of memory, and of each probe the places of the two most similar vectors, the best first.
"""

import json
import resource
import sys
import time

import numpy as np

BEST = 2


def main():
    dimensions = int(sys.argv[3])
    vectors, probes = (np.fromfile(path, np.float32).reshape(-1, dimensions) for path in sys.argv[1:3])
    times, best = [], []
    for number, probe in enumerate(probes):
        start = time.perf_counter()
        cosines = vectors @ probe
        places = np.argpartition(cosines, -BEST)[-BEST:]
        places = places[np.argsort(-cosines[places])]
        times.append(1000 * (time.perf_counter() - start))
        best.append(places.tolist())
        if number % 250 == 0:
            print(f"numpy: {number} of {len(probes)} probes", file=sys.stderr)
    print(json.dumps({
        "p50_ms": float(np.percentile(times, 50)), "p99_ms": float(np.percentile(times, 99)),
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "best": best,
    }))


if __name__ == "__main__":
    main()
