"""Computes golden.json: the numbers that the tests of metrics.rs compare with, by another way (sorting, no bins)."""

import json
import math
import pathlib


def sequence(x):
    while True:
        x = (x * 1103515245 + 12345) % 2**31
        yield x / 2**31


def rounded(value, digits):
    return math.floor(value * 10**digits + 0.5) / 10**digits


def rates():
    random = sequence(42)
    genuine = [rounded(100 * next(random) ** 0.25, 4) for _ in range(2000)]
    impostor = sorted((rounded(100 * next(random) ** 3, 4) for _ in range(20000)), reverse=True)
    found = {}
    for rate in ("0.1", "0.01", "0.001"):
        # The lowest similarity of an impostor at which the rate is kept.
        allowed = int(float(rate) * len(impostor) + 1e-9)
        while impostor[allowed - 1] == impostor[allowed]:
            allowed -= 1
        similarity = impostor[allowed - 1]
        found[rate] = {"similarity": similarity, "next_below": impostor[allowed], "false_rate": allowed / len(impostor),
                       "true_rate": sum(g >= similarity for g in genuine) / 2010}
    return found


def folded():
    random = sequence(7)
    pairs = []
    for index in range(600):
        same, drawn = index % 2 == 0, next(random)
        pairs.append((index // 60, same, rounded(40 + 60 * drawn if same else 55 * drawn, 2)))
    accuracies, thresholds = [], []
    for fold in range(10):
        others = [pair for pair in pairs if pair[0] != fold]
        seen = sorted({s for _, _, s in others})
        between = seen[:1] + [(low + high) / 2 for low, high in zip(seen, seen[1:])]
        score = {t: sum((s >= t) == same for _, same, s in others) for t in between}
        best = sorted(t for t in score if score[t] == max(score.values()))
        threshold = best[len(best) // 2]
        own = [pair for pair in pairs if pair[0] == fold]
        accuracies.append(sum((s >= threshold) == same for _, same, s in own) / len(own))
        thresholds.append(threshold)
    mean = sum(accuracies) / 10
    return {"accuracy": mean, "deviation": math.sqrt(sum((a - mean) ** 2 for a in accuracies) / 10), "similarity": sum(thresholds) / 10}


pathlib.Path(__file__).with_name("golden.json").write_text(json.dumps({"rates": rates(), "folded": folded()}, indent=2) + "\n")
