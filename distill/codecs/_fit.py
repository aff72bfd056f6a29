"""What the `context` coder writes before its data: which neighbours count, how many contexts, and their tables.

Only the encoder runs this, so it may use floating point: what it finds is rounded before it is used.
"""

from dataclasses import replace

import numpy as np

from distill.codecs._lanes import BUCKETS, MOST_LANES, Layout, buckets
from distill.codecs._neighbours import NAMES, estimates, levels, neighbours
from distill.codecs._parameters import Parameters, rows
from distill.codecs._tables import SLOTS, Alphabet, Tables

CONTEXTS = (1, 2, 4, 8, 16, 32)
"""So many are tried; the shortest result counts."""
SAMPLES = 2**15
"""Weights that the estimate is fitted to."""
PER_STATE = 2**11
"""Bytes beside which the eight of another state are few."""
MOST_STATES = 8
"""More would make decoding no faster."""
NEWTON_STEPS = 12
ENOUGH = 0.5
"""Bits that another step has to save in some context."""
FITS = 3
LEAST = 0.05
"""Of the largest weight; what counts less is left out, and decoding is faster."""
SIGNS = 0.998
"""How much shorter a tensor has to become by contexts for signs, which take time to decode."""
POWERS = (0.0, 1.0, 2.0)
"""Of the mean, by which the variance may grow; which fits best is tried."""
CORRECTION = 6
"""Bits that a correction has to save."""


def fit(symbols: np.ndarray, alphabet: Alphabet, shape: tuple[int, ...]) -> tuple[float, Parameters, np.ndarray]:
    """The bytes that the shortest description found takes with the data, the description, and the table (uint8) of each
    weight.

    Args:
        symbols: uint8, flat.
        alphabet: of these.
        shape: of the tensor.
    """
    width, period, line = rows(shape)
    magnitudes, signs = (
        np.pad(table[symbols], (0, -len(symbols) % width)).reshape(-1, width)
        for table in (alphabet.magnitudes(), alphabet.signs())
    )
    lanes = min(MOST_LANES, width, -(-len(symbols) // width))
    layout = Layout(len(symbols), width, period, line, lanes, 1, *_estimate(magnitudes, period))
    totals = estimates(magnitudes, period, layout.prior, layout.weights).ravel()[: len(symbols)]
    places, expected = buckets(totals), levels(signs, period, line).ravel()[: len(symbols)]
    counts = np.bincount((places * 5 + expected + 2) * alphabet.size + symbols, minlength=BUCKETS * 5 * alphabet.size)
    size, found = _shortest(counts.reshape(BUCKETS, 5, alphabet.size), layout, alphabet)
    states = max(1, min(MOST_STATES, lanes, int(size) // PER_STATE))
    tables = found.contexts()[places, expected + 2 if found.signed else 0]
    return size, replace(found, layout=replace(layout, states=states)), tables


def _shortest(counts: np.ndarray, layout: Layout, alphabet: Alphabet) -> tuple[float, Parameters]:
    """Size in bytes and parameters, for these counts (buckets, levels, symbols)."""
    bounds = _merged(counts.sum(1))
    best: tuple[float, Parameters] | None = None
    for number in CONTEXTS:
        if best and (number * 64 > counts.sum() or len(best[1].thresholds) + 1 < number // 4):
            break
        joint = np.add.reduceat(counts, [0, *bounds[number]], axis=0)
        for split in (joint.sum(1, keepdims=True), joint):
            tables, size = _tables(split, alphabet)
            size = (size + number) / (SIGNS if split.shape[1] > 1 else 1)
            if best is None or size < best[0]:
                best = size, Parameters(layout, bounds[number], tables)
    assert best
    return best


def _estimate(magnitudes: np.ndarray, period: int) -> tuple[int, tuple[int, ...]]:
    """The prior, and the weight of each of NAMES."""
    prior = int(magnitudes.mean() * 256) << 8
    # Knuth's multiplier spreads them: a stride could hit always the same position of kernels.
    places = np.arange(min(SAMPLES, magnitudes.size)) * 2654435761 % magnitudes.size
    seen = [values.ravel()[places] / 2**16 for values in neighbours(magnitudes, period, prior)]
    known = np.stack([*seen, np.ones(len(seen[0]))])
    values = magnitudes.ravel()[places]
    found = min(
        (_fitted(known, values, power) for power in POWERS), key=lambda weights: _unsure(weights @ known, values)
    )
    found = found[: len(NAMES)]
    found[found < LEAST * found.max()] = 0
    scale = 255 / max(found.max(), 1e-9)
    return prior, tuple(int(weight) for weight in np.round(found * scale))


def _fitted(known: np.ndarray, values: np.ndarray, power: float) -> np.ndarray:
    """Weights of ``known`` that estimate ``values``, if their variance grows with this power of their mean."""
    certain = np.ones(len(values))
    for _ in range(FITS if power else 1):
        weights = _nonnegative(known, values, certain)
        certain = (weights @ known + 0.1 * values.mean() + 1e-9) ** -power
    return weights


def _unsure(estimated: np.ndarray, values: np.ndarray) -> float:
    """Entropy of the values when the estimate is known to one in 16."""
    order = np.argsort(estimated, kind="stable")
    parts = np.array_split(values[order], 16)
    return sum(_entropy(np.bincount(part).astype(np.float64)) for part in parts if len(part))


def _nonnegative(known: np.ndarray, values: np.ndarray, certain: np.ndarray) -> np.ndarray:
    """The weights, none below 0, of the sum of ``known`` nearest to ``values``, by coordinate descent on squared errors
    that count as much as ``certain`` says."""
    products, targets = known * certain @ known.T, known * certain @ values
    weights = np.zeros(len(known))
    for _ in range(100):
        for i, product in enumerate(products):
            if product[i] > 0:
                weights[i] = max(0.0, weights[i] + (targets[i] - product @ weights) / product[i])
    return weights


def _merged(counts: np.ndarray) -> dict[int, tuple[int, ...]]:
    """The first buckets of each context but the first, for every number of contexts in CONTEXTS: of neighbouring
    contexts, those are merged by whose merging the entropy grows least, until so many are left."""
    firsts = np.flatnonzero(counts.any(1)).tolist()
    groups = [counts[first].astype(np.float64) for first in firsts]
    bits = [_entropy(group) for group in groups]
    losses = [
        _entropy(left + right) - one - other for left, right, one, other in zip(groups, groups[1:], bits, bits[1:])
    ]
    found = {number: tuple(firsts[1:]) for number in CONTEXTS if number >= len(groups)}
    while len(groups) > 1:
        at = int(np.argmin(losses))
        groups[at : at + 2] = [groups[at] + groups[at + 1]]
        bits[at : at + 2] = [_entropy(groups[at])]
        del firsts[at + 1], losses[at]
        for pair in {at - 1, at} & set(range(len(losses))):
            losses[pair] = _entropy(groups[pair] + groups[pair + 1]) - bits[pair] - bits[pair + 1]
        if len(groups) in CONTEXTS:
            found[len(groups)] = tuple(firsts[1:])
    return found


def _entropy(counts: np.ndarray) -> float:
    """Bits of all values of these counts."""
    present = counts[counts > 0]
    return float(present.sum() * np.log2(present.sum()) - (present * np.log2(present)).sum())


def _tables(counts: np.ndarray, alphabet: Alphabet) -> tuple[Tables, float]:
    """Tables for these counts (contexts, 1 or 5 levels, symbols), and the size of tables and data in bytes."""
    features = alphabet.features() / 256
    number = features.shape[1] - 2
    nothing = np.zeros((1, alphabet.size))
    by_level = _newton(counts.sum(0)[:, None], features, nothing)[:, number:]
    odd = _rounded(_newton(counts.sum((0, 1))[None, None], features, nothing)[0, number:])
    tilts = _rounded((by_level[3:] - by_level[1::-1]) / 2) if len(by_level) > 1 else np.zeros((0, 2), np.int64)
    even = np.zeros((len(counts), number), np.int64)
    plain = Tables(alphabet, even, odd, tilts, np.zeros(alphabet.size, np.int8))
    shared = plain.odd_costs() @ features[:, number:].T / 16
    plain = replace(plain, even=_rounded(_newton(counts, features[:, :number], shared)))
    corrections = _corrections(plain, counts)
    even = _rounded(_newton(counts, features[:, :number], shared + corrections / 8))
    corrected = replace(plain, even=even, corrections=corrections)
    return min(((tables, _size(tables, counts)) for tables in (plain, corrected)), key=lambda pair: pair[1])


def _corrections(tables: Tables, counts: np.ndarray) -> np.ndarray:
    """By how much the tables are wrong over all contexts, for those symbols where that is worth storing."""
    chances = tables.frequencies()[:, : tables.alphabet.size] / SLOTS
    expected = counts.sum(2).ravel() @ chances
    found = counts.sum((0, 1))
    surprise = np.log2((expected + 0.5) / (found + 0.5))
    gain = np.log2(np.e) * (expected - found) - found * surprise
    return np.where(gain > CORRECTION, np.round(8 * surprise), 0).clip(-127, 127).astype(np.int8)


def _rounded(costs: np.ndarray) -> np.ndarray:
    return np.round(16 * costs).clip(-(2**14), 2**14).astype(np.int64)


def _size(tables: Tables, counts: np.ndarray) -> float:
    frequencies = tables.frequencies()[:, : tables.alphabet.size].reshape(counts.shape)
    bits = float((counts * (np.log2(SLOTS) - np.log2(frequencies))).sum())
    return bits / 8 + len(tables.to_bytes())


def _regressed(counts: np.ndarray, features: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The costs (contexts, features) nearest to what symbols of these counts (contexts, symbols) would ideally cost.
    From costs of 0, Newton's steps would go astray where most weights are zero."""
    known = np.hstack([features, np.ones((len(features), 1))])
    bits = np.log2(counts.sum(1, keepdims=True) / counts) - offsets
    products = np.einsum("cs,sf,sg->cfg", counts, known, known) + 1e-6 * counts.sum() * np.eye(known.shape[1])
    return np.linalg.solve(products, (counts * bits @ known)[:, :, None])[:, :-1, 0]


def _newton(counts: np.ndarray, features: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The costs (contexts, features) under which these counts are coded shortest.

    Args:
        counts: (contexts, levels, symbols); what is found is the same for all levels.
        features: (symbols, features).
        offsets: (levels, symbols) costs in bits that are given.
    """
    total = counts.sum(2)
    costs = _regressed(counts.sum(1) + 0.5, features, offsets.mean(0))
    ridge = 0.02 * np.eye(features.shape[1])
    target = counts.sum(1) @ features

    def loss(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = -np.log(2) * ((costs @ features.T)[:, None] + offsets)
        peak = logits.max(2, keepdims=True)
        powers = np.exp(logits - peak)
        sums = powers.sum(2, keepdims=True)
        bits = (total * (peak + np.log(sums))[:, :, 0]).sum(1) - (counts * logits).sum((1, 2))
        return bits / np.log(2) + 0.01 * (costs**2).sum(1), powers / sums

    value, chances = loss(costs)
    for _ in range(NEWTON_STEPS):
        means = chances @ features
        slope = target - np.einsum("cl,clf->cf", total, means) + 0.02 * costs
        squares = np.einsum("cs,sf,sg->cfg", np.einsum("cl,cls->cs", total, chances), features, features)
        curvature = np.log(2) * (squares - np.einsum("cl,clf,clg->cfg", total, means, means)) + ridge
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        rate = np.ones((len(costs), 1))
        for _ in range(8):
            new_value, new_chances = loss(costs - rate * step)
            worse = new_value > value
            if not worse.any():
                break
            rate[worse] /= 4
        better = new_value <= value
        done = (value - new_value).max() < ENOUGH
        costs = np.where(better[:, None], costs - rate * step, costs)
        value, chances = np.where(better, new_value, value), np.where(better[:, None, None], new_chances, chances)
        if done:
            break
    return costs
