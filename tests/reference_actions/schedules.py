"""What machines execute of their streams, as docs/model.md words it."""

from __future__ import annotations

import json

import numpy as np

T_MAP = [(1, -1), (1, 0), (1, 1), (1, 3), (2, -2), (2, 0), (2, 2)]


def search_map(machine: dict) -> list[tuple[int, int]]:
    """Lines ahead and lanes aside of each candidate, in ascending order."""
    if machine["search_shape"] == "T":
        return T_MAP
    aside = range(1, machine["lookaside_d"] + 1) if machine["lookahead_h"] else ()
    return sorted([(ahead, 0) for ahead in range(1, machine["lookahead_h"] + 1)] + [(1, -lane) for lane in aside])


def most_empty(machine: dict) -> int:
    """Empty lines that leave with the one that is executed, at most."""
    ports = machine.get("window_ports", 0)
    return min(machine["lookahead_h"], ports - 1) if ports else machine["lookahead_h"]


def bit_tactical_lines(tile: np.ndarray, machine: dict, memory: dict = {}) -> int:  # noqa: B006
    """Lines that a set (rows, T, lanes) executes."""
    moves, ahead = search_map(machine), most_empty(machine)
    key = tile.tobytes(), tile.shape, tuple(moves), ahead
    if key not in memory:
        memory[key] = _bit_tactical(tile, moves, ahead)
    return memory[key]


def _bit_tactical(tile, moves, ahead) -> int:
    lines, lanes = tile.shape[1:]
    left = [[set(np.flatnonzero(line).tolist()) for line in row] + [set()] * 128 for row in tile]
    executed = dropped = 0
    for t in range(lines):
        if not any(row[t] for row in left) and dropped < ahead:
            dropped += 1
            continue
        executed, dropped = executed + 1, 0
        for row in left:
            _promote(row, t, [lane for lane in range(lanes) if lane not in row[t]], moves, lanes)
    return executed


def _promote(row, t, empty, moves, lanes) -> None:
    """Repeatedly the empty lane with the most candidates, the lowest on a tie, takes its first."""
    places = {lane: [(t + dh, (lane + dl) % lanes) for dh, dl in moves] for lane in empty}
    candidates = {lane: [(line, other) for line, other in own if other in row[line]] for lane, own in places.items()}
    while any(candidates.values()):
        lane = max(candidates, key=lambda one: (len(candidates[one]), -one))
        line, other = taken = candidates.pop(lane)[0]
        row[line] = row[line] - {other}
        candidates = {lane: [one for one in left if one != taken] for lane, left in candidates.items()}


def tensordash_lines(pairs: np.ndarray, machine: dict, memory: dict = {}) -> int:  # noqa: B006
    """Lines that a tile executes of (schedules, T, lanes): of its rows, or of all its PEs."""
    key = pairs.tobytes(), pairs.shape, json.dumps(machine, sort_keys=True)
    if key not in memory:
        memory[key] = _tensordash(pairs, machine)
    return memory[key]


def _tensordash(pairs, machine) -> int:
    lines, lanes = pairs.shape[1:]
    d, order = machine["lookaside_d"], []
    while len(order) < lanes:
        first = min(lane for lane in range(lanes) if lane not in order)
        order.append(first)
        if d:
            order += range(first + d, min(lanes, lanes - d + first), d)
    moves, ahead = search_map(machine), most_empty(machine)
    left = [[set(np.flatnonzero(line).tolist()) for line in own] + [set()] * 128 for own in pairs]
    executed, skipped = 0, 0 if machine.get("free_skip_at_start", True) else ahead
    for t in range(lines):
        if not any(own[t] for own in left) and skipped < ahead:
            skipped += 1
            continue
        executed, skipped = executed + 1, 0
        for own in left:
            for lane in order:
                if lane in own[t]:
                    continue
                for dh, dl in moves:
                    if (lane + dl) % lanes in own[t + dh]:
                        own[t + dh] = own[t + dh] - {(lane + dl) % lanes}
                        break
    return executed


def cambricon_x_steps(stream: np.ndarray, lanes: int, window: int) -> int:
    """Cycles of one filter: its next ``lanes`` non-zeros, or those among the next ``window`` places."""
    places, at, steps = np.flatnonzero(stream).tolist(), 0, 0
    while places:
        taken = [place for place in places[:lanes] if place < at + window]
        at = taken[-1] + 1 if len(taken) == lanes else at + window
        places = places[len(taken) :]
        steps += 1
    return steps
