"""Replays a plan, compiled: what ``replay_simpy``, its readable twin, does event by event. docs/memory.md: rules."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

from accelsim import ledger
from accelsim.hardware.movement.plan import JOBS, OFFCHIP, PORTS, Plan, Replay
from accelsim.hardware.movement.port import TICKS, check_exact


@dataclass(frozen=True, eq=False)
class Played:
    """What happened when.

    Parameters
    ----------
    streams : list of str
    transfers : list of ndarray of int64, (transfers, 3)
        Of each stream the cycles in which each transfer starts, and in which its first byte and its last have come.
    jobs : ndarray of int64, (jobs, 2)
        The cycles in which each begins and ends.
    waits : ndarray of int64, (2, layers, causes)
        Cycles that PEs waited, and the order in which a layer came to wait for each cause.
    causes : list of tuple of str
        A place and an operand each.
    left : int
        The cycle in which the last result has left.
    """

    streams: list[str]
    transfers: list[np.ndarray]
    jobs: np.ndarray
    waits: np.ndarray
    causes: list[tuple[str, str]]
    left: int


def replay(plan: Plan) -> Replay:
    """Plays a plan through."""
    played = play(plan)
    ends = played.jobs[plan.ends - 1, 1]
    ends[-1] = played.left
    stalls: list[dict[str, int]] = [{} for _ in plan.ends]
    cycles, order = played.waits
    layers, causes = np.nonzero(cycles)
    for at in np.lexsort((order[layers, causes], layers)).tolist():
        layer, cause = layers[at], causes[at]
        stalls[layer][ledger.waiting(*played.causes[cause])] = int(cycles[layer, cause])
    return Replay(ends.tolist(), stalls)


def play(plan: Plan) -> Played:
    """Plays a plan through, and tells when everything happened.

    Raises
    ------
    MachineError
        If times might not be exact.
    """
    from accelsim.hardware.kernels import ports

    check_exact(longest(plan), "a pass")
    # Of causes at the same time the last by name is told.
    operands = sorted({stream.operand for stream in plan.streams.values()})
    names = list(plan.streams)
    sizes = [stream.job.size for stream in plan.streams.values()]
    ends = np.cumsum(sizes)
    transfers = np.zeros((int(ends[-1]), ports.MOVED + 1), np.int64)
    streams = np.zeros((len(names), ports.SEEN + 1), np.int64)
    needs: list[tuple[int, int]] = []
    counts, at = [np.zeros(0, np.int64)], 0
    for row, end, size, stream in zip(streams, ends.tolist(), sizes, plan.streams.values(), strict=True):
        transfers[end - size : end, ports.JOB], transfers[end - size : end, ports.TICKS] = stream.job, stream.ticks
        first_need = len(needs)
        for name, needed in stream.needs.items():
            if needed.any():
                needs.append((ports.JOBS if name == JOBS else names.index(name), at))
                counts.append(needed)
                at += needed.size
        port, operand = PORTS.index(stream.port), operands.index(stream.operand)
        row[: ports.NEED] = end - size, end, port, stream.latency, operand, stream.writes
        row[ports.NEED :] = first_need, len(needs), end - size, ports.NEVER, 0
    waits = np.zeros((2, len(plan.ends), 2 * len(operands)), np.int64)
    jobs = _jobs(plan)
    known = [names.index(name) for name in (*plan.load_of_job, "store", "write")]
    columns = np.array(needs, np.int64).reshape(-1, 2), np.concatenate(counts)
    left = ports.play(streams, *columns, transfers, jobs, np.array(known), _ports(plan), waits)
    assert left >= 0, "deadlock"
    causes = [(place, operand) for place in (OFFCHIP, "onchip") for operand in operands]
    each = np.split(transfers[:, ports.START : ports.DONE + 1], ends[:-1])
    return Played(names, each, jobs[:, ports.BEGUN : ports.ENDED + 1], waits, causes, left)


def longest(plan: Plan) -> int:
    """No pass takes more cycles: all in turn, each transfer with a turn of the bus and a burst, and the refreshes."""
    off, streams = plan.offchip, plan.streams.values()
    each = -(-(off.burst + max(off.to_read, off.to_write)) // TICKS) + 1
    moving = sum(int(stream.ticks.sum(dtype=float)) // TICKS for stream in streams)  # sums of integers may wrap around
    waiting = sum((stream.latency + each) * stream.job.size for stream in streams)
    cycles = int(plan.job_cycles.sum(dtype=float)) + moving + waiting
    refreshed = off.refresh * (cycles * TICKS // (off.interval - off.refresh) + 1) // TICKS if off.interval else 0
    return cycles + refreshed + 1


def _jobs(plan: Plan) -> np.ndarray:
    """The table of jobs that ``ports.play`` takes."""
    from accelsim.hardware.kernels import ports

    jobs = np.zeros((plan.job_cycles.size, ports.LOADS + len(plan.load_of_job)), np.int64)
    jobs[:, ports.LAYER] = np.repeat(np.arange(plan.ends.size), np.diff(plan.ends, prepend=0))
    jobs[:, ports.WORK], jobs[:, ports.STORES] = plan.job_cycles, plan.stores_needed
    for number, of_job in enumerate(plan.load_of_job.values()):
        jobs[:, ports.LOADS + number] = of_job
    return jobs


def _ports(plan: Plan) -> np.ndarray:
    """The table of ports that ``ports.play`` takes."""
    from accelsim.hardware.kernels import ports

    table = np.zeros((len(PORTS), ports.WROTE + 1), np.int64)
    table[:, ports.WROTE] = -1
    table[PORTS.index(OFFCHIP), : ports.FREE] = astuple(plan.offchip)
    return table
