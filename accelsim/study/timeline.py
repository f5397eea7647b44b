"""What a replay did when, as Chrome trace events that Perfetto shows. docs/timeline.md says what is on each track.

Events are written while the replays run. A track that would have more than its share of them is put together: slices
within a window of time are regrouped by name, so that each name keeps its exact cycles, bytes and counts.
"""

from __future__ import annotations

import gzip
import io
import json
import math
from bisect import bisect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.errors import MachineError, OutputError
from accelsim.files import staged_file
from accelsim.hardware.hierarchy import OffChip
from accelsim.hardware.machine import Machine
from accelsim.hardware.movement.plan import JOBS, OFFCHIP, STALLS, Plan
from accelsim.hardware.movement.replay_simpy import Observer
from accelsim.hardware.movement.residency import Room
from accelsim.study.tracks import Entry, Level, Slices, Track

DETAILS = ("layers", "auto", "jobs")
MOST_EVENTS = 200_000  # of a file with detail "auto"
MOST_CHANNEL_TRACKS = 8
CHUNK = 4096  # windows that a track keeps before it is written, where nothing is put together
ROOMS = {
    "activation_memory": "activation memory", "weight_memory": "weight memory",
    "activation": "activation buffer of a PE or tile", "weight": "weight buffer of a PE or tile",
}  # fmt: skip

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


@contextmanager
def recording(
    path: Path, machine: Machine, replays: int, *, detail: str = "auto", origin: dict[str, Any] | None = None
) -> Iterator[Timeline]:
    """A timeline for ``simulate_records``; on a clean exit it is in the file, else nothing is.

    Parameters
    ----------
    path : Path
        Ends in .json, or .json.gz to be compressed.
    machine : Machine
        The one whose replays are written, of those simulated.
    replays : int
        Passes × snapshots that will be simulated; they share ``MOST_EVENTS``.
    detail : str
        "layers", a window a layer; "auto", windows as narrow as ``MOST_EVENTS`` allows; "jobs", every job and transfer.
    origin : dict, optional
        Provenance, kept in the file.

    Raises
    ------
    AccelsimError
        If the machine has no memory, so that nothing moves, or the file cannot be written.
    """
    if not machine.memory:
        raise MachineError(f"{machine.name}: memory: must be given for a timeline, without it nothing moves")
    if detail not in DETAILS:
        raise OutputError(f"timeline: detail must be one of {', '.join(DETAILS)}, got {detail}")
    if not path.name.endswith((".json", ".json.gz")):
        raise OutputError(f"{path}: must end in .json or .json.gz")
    with staged_file(path) as stage, _text(stage) as file:
        timeline = Timeline(file, machine, replays, detail)
        yield timeline
        timeline.finish(origin or {})


@contextmanager
def _text(path: Path) -> Iterator[io.TextIOBase]:
    """A text file; compressed, where its name says so, to the same bytes each time."""
    with path.open("wb") as file:
        packed = gzip.GzipFile("", "wb", 6, file, mtime=0) if path.suffix == ".gz" else file
        with packed, io.TextIOWrapper(packed, encoding="ascii", write_through=False) as text:
            yield text


class Timeline:
    """Writes each replay of a machine as a process of its own; ``recording`` makes one."""

    def __init__(self, file: io.TextIOBase, machine: Machine, replays: int, detail: str):
        self.machine, self.detail = machine, detail
        self.most = {"auto": MOST_EVENTS // max(1, replays)}.get(detail, math.inf)
        self.window = math.inf if detail == "layers" else 0
        self._file = file
        self._process: _Process | None = None
        self._merged: dict[str, dict[str, float | str]] = {}
        self._events = self._processes = 0
        file.write('{"displayTimeUnit":"ns","traceEvents":[')

    def __call__(self, machine: Machine, snapshot: str, which: str, plan: Plan) -> Observer | None:
        """What ``simulate_records`` asks before each replay."""
        if machine.name != self.machine.name or machine.memory is None:
            return None
        self._end_process()
        self._processes += 1
        name = f"{snapshot} {which}"
        offchip, bounds = machine.memory.offchip, (self.most, self.window)
        self._process = _Process(self._processes, name, offchip, machine.clock_mhz, plan, bounds, self._write)
        return self._process.observe

    def finish(self, origin: dict[str, Any]) -> None:
        """Writes what is left, and what the file was made from."""
        self._end_process()
        about = {
            "machine": self.machine.name,
            "clock_mhz": self.machine.clock_mhz,
            "time": "ts and dur are µs at clock_mhz, in whole ns; args hold cycles, exactly",
            "detail": self.detail,
            "merged": "within windows of so many cycles slices stand regrouped by name, counters at their most",
            "window_cycles": self._merged,
            "provenance": origin,
        }
        self._file.write(f'\n],"otherData":{_encode(about)}}}\n')

    def _end_process(self) -> None:
        if self._process:
            merged = self._process.finish()
            self._merged |= {self._process.name: merged} if merged else {}
            self._process = None

    def _write(self, event: dict[str, Any]) -> None:
        self._file.write((",\n" if self._events else "\n") + _encode(event))
        self._events += 1


class _Occupancy:
    """Bytes of a room that are taken: by a part from its first transfer on, by results from their first job's end."""

    def __init__(self, room: Room, jobs: int):
        job, size, until, rank = room.entries()
        self.sizes, self.bytes = size.tolist(), 0
        results = rank > 0
        taken = np.bincount(job[results], size[results], jobs) - np.bincount(until, size, jobs)
        self.changes: list[int] = taken.astype(np.int64).tolist()
        self.changes[-1] = 0  # until the last result has left
        self.entered = bytearray(size.size)

    def fill(self, number: int) -> bool:
        """A transfer of a part begins; whether that takes room."""
        if self.entered[number]:
            return False
        self.entered[number] = 1
        self.bytes += self.sizes[number]
        return True

    def end_job(self, job: int) -> bool:
        self.bytes += self.changes[job]
        return self.changes[job] != 0


class _Process:
    """One replay: its tracks, and what they have to tell."""

    def __init__(
        self,
        pid: int,
        name: str,
        offchip: OffChip,
        clock_mhz: int,
        plan: Plan,
        bounds: tuple[float, float],
        write: Callable[[dict[str, Any]], None],
    ):
        self.pid, self.name, self.clock_mhz, self.plan, self.write = pid, name, clock_mhz, plan, write
        most, window = bounds
        groups = _channel_groups(offchip.channels)
        self.rooms = {key: _Occupancy(room, len(plan.job_cycles)) for key, room in plan.rooms.items() if _used(room)}
        share = most / (3 + len(groups) + len(self.rooms))
        self.layers = Track[Slices]("layers", math.inf, math.inf)
        self.pes = Track[Slices]("PE array", share, window)
        self.channels = [Track[Slices](_channel_name(group), share, window) for group in groups]
        ports = ("activation_memory", "weight_memory")
        self.ports = {port: Track[Slices](ROOMS[port], share, window) for port in ports}
        self.levels = {
            key: Track[Level](f"{ROOMS[key]}, of {plan.rooms[key].capacity:,} bytes", share, window)
            for key in self.rooms
        }
        self.tracks = [self.layers, self.pes, *self.channels, *self.ports.values()]
        self.tids = {id(track): number for number, track in enumerate(self.tracks, start=1)}
        self.dealt = _Dealt(offchip, groups)
        self.job_cycles, self.ends = plan.job_cycles.tolist(), plan.ends.tolist()
        self.transfers = {
            name: list(zip(*(column.tolist() for column in (s.job, s.size, s.fills)), strict=True))
            for name, s in plan.streams.items()
        }
        self.stalls: list[Slices] = []
        self.layer = self.now = 0
        self._name()

    def observe(self, place: str, stream: str, number: int, start: int, end: int) -> None:
        """What ``memory.replay`` tells."""
        if place == STALLS:
            self.stalls.append(self._slice(stream.replace("_", " "), start, end, number))
        elif place == JOBS:
            worked = start + self.job_cycles[number]
            self._work([*self.stalls, self._slice("busy", start, worked, number)])
            self._end_job(number, end)
        else:
            self._transfer(place, stream, number, start, end)

    def finish(self) -> dict[str, float | str]:
        """Writes all that was not yet; returns the windows of the tracks that were put together."""
        self._work(self.stalls)
        for key, room in self.rooms.items():
            room.bytes = 0
            self._sample(key, self.now)
        for window in self.layers.entries:
            self._write_span(window)
        tracks: list[Track[Any]] = [*self.tracks[1:], *self.levels.values()]
        for track in tracks:
            self._flush(track)
        return {t.name: t.window if t.window < math.inf else "layer" for t in tracks if t.window}

    # What happens

    def _work(self, slices: list[Slices]) -> None:
        """PEs work and wait, in the order of time."""
        for each in sorted(slices, key=lambda each: (each.start, each.end)):
            self.layer = max(self.layer, bisect(self.ends, next(iter(each.parts.values()))[3]))
            each.layer, self.now = self.layer, each.end
            self.layers.add(Slices(each.layer, each.start, each.end, dict(each.parts)))
            self._add(self.pes, each)
        self.stalls = []

    def _end_job(self, job: int, end: int) -> None:
        for key, room in self.rooms.items():
            if room.end_job(job):
                self._sample(key, end)

    def _transfer(self, port: str, name: str, number: int, start: int, end: int) -> None:
        job, size, part = self.transfers[name][number]
        if port == OFFCHIP:
            for track, begin, moved in self.dealt.deal(size, start, end):
                self._add(self.channels[track], self._slice(name, begin, end, job, moved))
        else:
            self._add(self.ports[port], self._slice(name, start, end, job, size))
        room = self.plan.streams[name].room
        if part >= 0 and self.rooms[room].fill(part):
            self._sample(room, start)

    def _slice(self, name: str, start: int, end: int, job: int, size: int = 0) -> Slices:
        return Slices(self.layer, start, end, {name: (end - start, size, 1, job)})

    def _sample(self, key: str, now: int) -> None:
        track = self.levels[key]
        if track.entries and track.entries[-1].start == now:
            track.entries.pop()
            track.size -= 1
        self._add(track, Level(self.layer, now, now, self.rooms[key].bytes))

    def _add(self, track: Track[Entry], entry: Entry) -> None:
        track.add(entry)
        if track.window == 0 and track.most == math.inf and len(track.entries) > CHUNK:
            self._flush(track)

    # What is written

    def _name(self) -> None:
        def about(name: str, tid: int, /, **args: str | int) -> None:
            self.write({"ph": "M", "pid": self.pid, "tid": tid, "ts": 0, "name": name, "args": args})

        about("process_name", 0, name=self.name)
        about("process_sort_index", 0, sort_index=self.pid)
        for number, track in enumerate(self.tracks, start=1):
            about("thread_name", number, name=track.name)
            about("thread_sort_index", number, sort_index=number)

    def _flush(self, track: Track[Any]) -> None:
        """Writes what a track holds."""
        tid = self.tids.get(id(track), 0)
        for entry in track.entries:
            for name, start, cycles, args in entry.events():
                if tid:
                    self._write_slice(tid, name, start, cycles, args)
                else:
                    at = {"ph": "C", "pid": self.pid, "tid": 0, "ts": self._ns(start) / 1000}
                    self.write(at | {"name": track.name, "args": args})
        track.entries, track.size = [], 0

    def _write_span(self, window: Slices) -> None:
        """A layer, and its cycles by what they were for."""
        parts = {name: part[0] for name, part in window.parts.items()}
        jobs = {"jobs": window.parts["busy"][2]}
        self._write_slice(1, self.plan.layers[window.layer], window.start, window.end - window.start, jobs | parts)

    def _write_slice(self, tid: int, name: str, start: int, cycles: int, args: dict[str, int]) -> None:
        begin = self._ns(start)
        event = {"ph": "X", "pid": self.pid, "tid": tid, "ts": begin / 1000}
        event["dur"] = (self._ns(start + cycles) - begin) / 1000
        self.write(event | {"name": name, "args": {"cycle": start, "cycles": cycles, **args}})

    def _ns(self, cycles: int) -> int:
        """Whole nanoseconds: viewers round to them, and slices that touch would overlap."""
        return cycles * 1000 // self.clock_mhz


def _used(room: Room) -> bool:
    return bool(room.capacity and room.entries()[0].size)


def _channel_groups(channels: int) -> list[range]:
    """Channels that are drawn as one track, so that there are at most ``MOST_CHANNEL_TRACKS``."""
    step = -(-channels // MOST_CHANNEL_TRACKS)
    return [range(first, min(first + step, channels)) for first in range(0, channels, step)]


def _channel_name(group: range) -> str:
    return f"off-chip channel {group[0]}" if len(group) == 1 else f"off-chip channels {group[0]} to {group[-1]}"


class _Dealt:
    """Bursts dealt to the channels in turn, from transfer to transfer."""

    def __init__(self, offchip: OffChip, groups: list[range]):
        self.offchip, self.groups = offchip, groups
        self.bursts, self.ends = 0, [0] * len(groups)

    def deal(self, size: int, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The groups of channels that a transfer keeps, since when, and with what bytes.

        A transfer may begin in the cycle in which the one before it ends.
        """
        first = self.bursts
        self.bursts += -(-size // self.offchip.burst_bytes)
        for number, group in enumerate(self.groups):
            bursts = self._of(group, self.bursts) - self._of(group, first)
            if bursts:
                yield number, min(end, max(start, self.ends[number])), bursts * self.offchip.burst_bytes
                self.ends[number] = end

    def _of(self, group: range, bursts: int) -> int:
        """How many of the first bursts are a group's."""
        rounds, rest = divmod(bursts, self.offchip.channels)
        return rounds * len(group) + min(max(rest - group[0], 0), len(group))
