"""The naive twin of what is where: docs/memory.md's rules, job by job, in lists. Shares no code with the program."""

from __future__ import annotations

from dataclasses import dataclass, replace

FORMATS = {
    "dense": lambda values, nonzeros, spelled, bits: values * bits,
    "bitmask": lambda values, nonzeros, spelled, bits: values + nonzeros * bits,
    "run_length": lambda values, nonzeros, spelled, bits: (nonzeros + spelled) * (bits + 4),
    "zvc": lambda values, nonzeros, spelled, bits: 32 * up(values, 32) + nonzeros * bits,
}


class Refused(Exception):
    """A layer that a machine cannot run: its number, and what is too small for how many bytes."""


def up(n: int, unit: int) -> int:
    """How many units n takes."""
    return (n + unit - 1) // unit


@dataclass
class Asked:
    """One operand of a layer, in bytes: of parts in memory and in a buffer, and job by job if it streams."""

    tensor: str
    buffer: str
    memory: str
    part: list[int]
    stored: list[int]
    inside: list[int]
    streamed: list[int]


@dataclass
class AskedByLayer:
    """One pass of one layer, in bytes, job by job."""

    operands: list[Asked]
    result_memory: str
    result: list[int]
    spilled: list[int]
    reads_result: int
    crossed: bool
    samples: int = 1
    batch: int = 1
    summed: tuple[int, int] = (1, 1)
    weight_share: tuple[int, int] = (1, 1)
    sums: int = 0
    in_groups: AskedByLayer | None = None

    def between(self) -> tuple[int, int]:
        """Samples of a part, and of those whose parts all come before the next job."""
        return (1, 1) if self.sums else self.summed


@dataclass
class Where:
    """What was decided of an operand. Moves are (job, part, until, bytes); ``made`` counts fetches up to each load."""

    held: bool
    loads: list[tuple[int, int, int, int]]
    found: bool = False
    stays: set[int] | None = None
    fetches: list[tuple[int, int, int, int]] | None = None
    made: list[int] | None = None


@dataclass
class WhereOfLayer:
    """What was decided of a layer."""

    operands: list[Where]
    kept: bool
    leaving: int


# From values to bytes


def stored_bytes(memory, operand) -> list[int]:
    """Each part in the format of its tensor."""
    form = FORMATS[getattr(memory.formats, operand.tensor)]
    columns = operand.values.tolist(), operand.nonzeros.tolist(), operand.placeholders.tolist()
    return [up(form(*counts, memory.value_bits), 8) for counts in zip(*columns, strict=True)]


def asked(memory, layers) -> list[AskedByLayer]:
    """What the layers of a pass ask of memories and buffers."""
    return [_asked(memory, layers, at) for at in range(len(layers))]


def _asked(memory, layers, at) -> AskedByLayer:
    layer, operands, reads_result = layers[at], [], -1
    for number, operand in enumerate(layer.traffic.operands):
        stored = stored_bytes(memory, operand)
        streamed = []
        for job, part in enumerate(operand.part.tolist()):
            if part < 0:
                streamed.append(0)
            elif operand.streamed is None:
                streamed.append(stored[part])
            else:
                streamed.append(up(int(operand.streamed[job]) * memory.value_bits, 8))
        place = "weight_memory" if operand.tensor == "weight" else "activation_memory"
        inside = [up(size, operand.units) for size in stored]
        operands.append(Asked(operand.tensor, operand.buffer, place, operand.part.tolist(), stored, inside, streamed))
        if at and layers[at - 1].feeds(layer) and operand.tensor == {"fwd": "activation"}.get(layer.which, "gradient"):
            reads_result = number
    place = "weight_memory" if layer.which == "weight_grad" else "activation_memory"
    spilled = [up(sums * memory.accumulator_bits, 8) for sums in layer.traffic.spilled.tolist()]
    own = AskedByLayer(
        operands,
        place,
        _result(memory, layers, at),
        spilled,
        reads_result,
        layer.traffic.crossed,
        1 if layer.turn is not None or layer.which == "weight_grad" else layer.samples,
        1 if layer.turn is not None or layer.which == "weight_grad" else layer.batch,
        (layer.samples, layer.batch) if layer.which == "weight_grad" else (1, 1),
        _weight_share(memory, layers, layer),
    )
    sums = [up(results * memory.accumulator_bits, 8) for results in layer.traffic.result.tolist()]
    others = layer.batch - layer.samples
    if layer.which == "weight_grad" and layer.traffic.sums_leave and others and sum(sums):
        comes_and_goes = [up(size * others, layer.batch) for size in sums]
        own.in_groups = replace(own, spilled=comes_and_goes, sums=sum(sums))
    return own


def _weight_share(memory, layers, layer) -> tuple[int, int]:
    """Once a batch; or for each sample, unless the weights of all layers have room at once."""
    if layer.turn is None:
        return layer.samples, layer.batch
    room = memory.weight_memory.capacity_bytes
    for other in layers:
        for operand in other.traffic.operands:
            if operand.tensor == "weight" and other.turn == 0:
                sizes = stored_bytes(memory, operand)
                room -= sum(sizes[p] for p in set(operand.part.tolist()) if p >= 0)
    if room < 0:
        return 1, 1
    return (layer.samples, layer.batch) if layer.turn == 0 else (0, 1)


def _result(memory, layers, at) -> list[int]:
    layer = layers[at]
    dense = [up(values * memory.value_bits, 8) for values in layer.traffic.result.tolist()]
    if at + 1 < len(layers) and layer.feeds(layers[at + 1]):
        for operand in layers[at + 1].traffic.operands:
            read, sizes = {p for p in operand.part.tolist() if p >= 0}, stored_bytes(memory, operand)
            whole = sum(up(int(operand.values[p]) * memory.value_bits, 8) for p in read)
            if operand.tensor == {"fwd": "activation"}.get(layer.which, "gradient") and whole:
                return [up(size * sum(sizes[p] for p in read), whole) for size in dense]
    if layer.which == "weight_grad":
        return [up(size * layer.samples, layer.batch) for size in dense]
    return dense


# What moves if so much stays


def uses_of(part: list[int]) -> list[tuple[int, int]]:
    """Jobs that read a part, and the part."""
    return [(job, p) for job, p in enumerate(part) if p >= 0]


def most_at_once(uses, sizes, parts, summed) -> int:
    """The most bytes at once of these parts, each held from its first use to its last.

    Where each job sums over more samples than the parts are of, all samples' parts are held together with them, if
    another job uses them too.
    """
    spans = {p: (min(j for j, q in uses if q == p), max(j for j, q in uses if q == p)) for p in parts}
    held = {p: up(sizes[p] * summed[1], summed[0]) if first < last else sizes[p] for p, (first, last) in spans.items()}
    jobs = [job for job, _ in uses]
    return max((sum(held[p] for p, (a, b) in spans.items() if a <= job <= b) for job in jobs), default=0)


def in_order(uses) -> list[int]:
    """Parts in the order of their first use."""
    return list(dict.fromkeys(p for _, p in uses))


def earliest_within(uses, sizes, room, summed) -> set[int]:
    """The most parts, the earliest first, that can stay in so much room."""
    parts = in_order(uses)
    fitting = [n for n in range(len(parts) + 1) if most_at_once(uses, sizes, parts[:n], summed) <= room]
    return set(parts[: max(fitting, default=0)])


def largest(uses, sizes) -> int:
    return max((sizes[p] for _, p in uses), default=0)


def moves(uses, stays, moved_bytes, summed):
    """What is brought, use by use: a part that was there a use ago is there still, unless other samples' have come
    since; one that stays has been there.
    """
    others = summed[1] > summed[0]
    brought, made, before = [], [], None
    for at, (job, p) in enumerate(uses):
        if (p != before or others) and not (p in stays and any(part == p for _, part, _, _ in brought)):
            until = job
            for later, q in uses[at:]:
                if q == p:
                    until = later
                if p not in stays and (q != p or others):
                    break
            brought.append((job, p, until, moved_bytes[p]))
        made.append(len(brought))
        before = p
    return brought, made


# What is decided


def in_groups_or_not(layers: list[AskedByLayer], memories: dict[str, int], piece: int):
    """In groups: where parts of all samples have no room in memory, and all sums have it beside two pieces."""
    chosen = []
    for layer in layers:
        room = dict(memories)
        for operand in layer.operands:
            uses = uses_of(operand.part)
            room[operand.memory] -= most_at_once(uses, operand.stored, in_order(uses), layer.between())
        crowded = any(left < 0 for left in room.values())
        if layer.in_groups and crowded and layer.in_groups.sums + 2 * piece <= memories[layer.result_memory]:
            layer = layer.in_groups
        chosen.append(layer)
    return chosen


def decided(layers: list[AskedByLayer], memories: dict[str, int], buffers: dict[str, int], piece: int):
    """Rules 2 to 4 and 8 of docs/memory.md."""
    to_pes = [[_to_pes(o, buffers[o.buffer], layer.between()) for o in layer.operands] for layer in layers]
    made, before = [], WhereOfLayer([], False, 0)
    for at in range(len(layers)):
        before = _Layer(layers, to_pes, memories, piece, at, before).decided()
        made.append(before)
    return made


def _to_pes(operand: Asked, capacity: int, summed) -> Where:
    uses = uses_of(operand.part)
    everything = set(in_order(uses))
    if most_at_once(uses, operand.inside, everything, summed) <= capacity:
        stays = everything
    else:
        stays = earliest_within(uses, operand.inside, max(0, capacity - 2 * largest(uses, operand.inside)), summed)
    loads, _ = moves(uses, stays, operand.stored, summed)
    passing = [(job, p, job, operand.streamed[job]) for job, p in uses if operand.streamed[job]]
    fits = all(operand.inside[p] <= capacity for p in everything)
    if fits and sum(load[3] for load in loads) <= sum(load[3] for load in passing):
        return Where(True, loads)
    return Where(False, passing)


class _Layer:
    """One layer's decisions, the layer before being decided."""

    def __init__(self, layers, to_pes, memories, piece, at, before):
        self.layers, self.to_pes, self.memories, self.piece = layers, to_pes, memories, piece
        self.at, self.before, self.layer = at, before, layers[at]
        self.found = self.layer.reads_result if before.kept else None

    def decided(self) -> WhereOfLayer:
        """Refuses, or decides."""
        operands = self.to_pes[self.at]
        if self.layer.crossed and not any(where.held for where in operands):
            sizes = [max(asked.inside[p] for _, p in uses_of(asked.part)) for asked in self.layer.operands]
            raise Refused(self.at, "buffers", *sizes)
        for name in self.memories:
            needed = self.least(self.at, name, self.found) + self.held_before(name)
            if needed > self.memories[name]:
                raise Refused(self.at, name, needed)
        kept, leaving = self.result()
        for name in self.memories:
            self.operands_in(name, leaving if name == self.layer.result_memory else 0)
        return WhereOfLayer(operands, kept, leaving)

    def uses(self, at, number):
        """Loads, as uses of the memory."""
        return [(job, p) for job, p, _, _ in self.to_pes[at][number].loads]

    def amount(self, at, name, found, count) -> int:
        """Something of each operand in a memory, but of the one that is found there."""
        return sum(
            count(self.uses(at, number), operand.stored)
            for number, operand in enumerate(self.layers[at].operands)
            if operand.memory == name and number != found
        )

    def whole_parts(self, at, name, found) -> int:
        summed = self.layers[at].between()
        return self.amount(at, name, found, lambda uses, sizes: most_at_once(uses, sizes, in_order(uses), summed))

    def of_all(self, at, share) -> int:
        """Results of all samples that jobs sum over."""
        some, every = self.layers[at].summed
        return up(share * every, some)

    def one_piece(self, at) -> int:
        return min(self.piece, self.of_all(at, max(self.layers[at].result, default=0)))

    def spilled(self, at, name) -> int:
        most = self.layers[at].sums or max(self.layers[at].spilled, default=0)
        return most if name == self.layers[at].result_memory else 0

    def held_before(self, name) -> int:
        return self.before.leaving if name == self.layer.result_memory else 0

    def least(self, at, name, found) -> int:
        """Without which a layer cannot run: the largest part of each operand, partial sums, a piece of results."""
        if at == len(self.layers):
            return 0
        piece = self.one_piece(at) if name == self.layers[at].result_memory else 0
        return self.amount(at, name, found, largest) + self.spilled(at, name) + piece

    def result(self):
        """Whether the result stays for the next layer, and in how many bytes it stays or passes through."""
        name, piece = self.layer.result_memory, self.one_piece(self.at)
        own = self.of_all(self.at, sum(self.layer.result))
        total = up(own * self.layer.batch, self.layer.samples)  # of all samples before the next layer begins
        room = self.memories[name] - self.held_before(name) - self.spilled(self.at, name)
        beside_all = room - self.whole_parts(self.at, name, self.found)
        after = self.layers[self.at + 1] if self.at + 1 < len(self.layers) else None
        if after and after.reads_result >= 0:
            next_needs = self.least(self.at + 1, name, after.reads_result)
            if total <= beside_all and total + next_needs <= self.memories[name]:
                return True, total
        whole_next = 0
        if after:
            theirs = self.of_all(self.at + 1, sum(after.result)) if name == after.result_memory else 0
            whole_next = theirs + self.whole_parts(self.at + 1, name, None)
        beside_both = min(beside_all, self.memories[name] - whole_next)
        two_pieces = min(2 * piece, room - self.amount(self.at, name, self.found, largest))
        most = max(beside_both, two_pieces)
        if most > self.memories[name] - self.least(self.at + 1, name, None):
            most = self.memories[name] - self.least(self.at + 1, name, None)
        return False, min(own, max(piece, most))

    def operands_in(self, name, leaving):
        """Which parts stay in a memory, and so what is fetched."""
        numbers = [n for n, o in enumerate(self.layer.operands) if o.memory == name]
        uses = {n: self.uses(self.at, n) for n in numbers}
        sizes = {n: self.layer.operands[n].stored for n in numbers}
        every = self.layer.between()
        wanted = {n: most_at_once(uses[n], sizes[n], in_order(uses[n]), every) for n in numbers if n != self.found}
        ones = {n: largest(uses[n], sizes[n]) for n in wanted}
        room = self.memories[name] - self.held_before(name) - self.spilled(self.at, name) - leaving
        for n in numbers:
            where = self.to_pes[self.at][n]
            where.found = n == self.found
        smallest = sorted(wanted, key=lambda n: (wanted[n], n))
        # As many stay whole as leave a part of each other room; of those parts the first has what two of each leave.
        fits = [sum(wanted[n] for n in smallest[:many]) + sum(ones[n] for n in smallest[many:]) <= room
                for many in range(len(smallest) + 1)]  # fmt: skip
        many = max((many for many, fit in enumerate(fits) if fit), default=0)
        rest = room - sum(wanted[n] for n in smallest[:many])
        rest -= sum(min(wanted[n], 2 * ones[n]) for n in smallest[many:])
        for at, n in enumerate(smallest):
            where = self.to_pes[self.at][n]
            if at < many:
                where.stays = set(in_order(uses[n]))
            else:
                where.stays = earliest_within(uses[n], sizes[n], rest if at == many and rest > 0 else 0, every)
            where.fetches, where.made = moves(uses[n], where.stays, sizes[n], every)
