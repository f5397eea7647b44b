"""Programs that are wrong, and the tests that must say so: ``python tests/mutate.py`` tries them all.

Each row is a change that somebody could make without noticing: a bound off by one, a maximum for a minimum, a term
left out, two operands exchanged. Who changes the text that a row names changes the row too: tests/test_mutations.py
fails where the old text is not there exactly once. A row whose tests do not notice is a hole: write the test.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """A wrong program.

    Parameters
    ----------
    name : str
    file : str
        Below accelsim/.
    old, new : str
        A part of the file, and what stands there instead.
    tests : tuple of str
        Below tests/: the tests that must notice, as pytest names them; one of them fails.
    why : str
        What it would do unnoticed.
    jit : bool
        A mutated kernel runs compiled; by default as Python, which takes less time on small arrays.
    survives : str
        Why no test can notice, where none can.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    why: str
    jit: bool = False
    survives: str = ""

    @property
    def module(self) -> str:
        return f"accelsim.{self.file.removesuffix('.py').replace('/', '.')}"

    @property
    def is_kernel(self) -> bool:
        return "/kernels/" in self.file

    @property
    def compiled(self) -> bool:
        """Whether its tests run with compiled kernels."""
        return self.jit or not self.is_kernel

    def applied(self, source: str) -> str:
        """The source with the change."""
        if source.count(self.old) != 1:
            raise ValueError(f"{self.name}: must be in {self.file} once, is {source.count(self.old)} times: {self.old}")
        return source.replace(self.old, self.new)


KERNELS = "hardware/kernels/"
CARTESIAN, DYNAMIC, PROMOTION = (f"{KERNELS}{name}.py" for name in ("cartesian", "dynamic", "promotion"))
COMPRESSED, ZERO_RUNS = (f"{KERNELS}{name}.py" for name in ("compressed", "zero_runs"))
BIT_LEVEL, PRESENTED = (f"{KERNELS}{name}.py" for name in ("bit_level", "presented"))
LOWERING = "workload/lowering.py"
MODELS = "hardware/accelerators/"
BIT_WIDTHS, BIT_ACCOUNT = (f"{MODELS}bit_level/{name}.py" for name in ("widths", "account"))
PE_ARRAY, MAPPING, PE_TRAFFIC = (f"{MODELS}pe_array/{name}.py" for name in ("model", "mapping", "traffic"))
LINES, RESIDENCY, HIERARCHY = "hardware/lines.py", "hardware/movement/residency.py", "hardware/hierarchy.py"
PLACEMENT, PLANNER, DEMAND = (f"hardware/movement/{name}.py" for name in ("placement", "planner", "demand"))
LEDGER, TRAFFIC = "ledger.py", "hardware/movement/traffic.py"
CATALOGUE, MACHINE, LAYERS = f"{MODELS}catalogue.py", "hardware/machine.py", "hardware/layers.py"
PRICING, OVERHEADS = "hardware/pricing.py", "hardware/overheads.py"
TILED, TILED_TRAFFIC = f"{MODELS}tiled.py", f"{MODELS}tiled_traffic.py"

# Kernels -----------------------------------------------------------------------------------------------------------

_REPLAYED = "test_accelerators.py::test_the_schedule_executed_with_numbers_is_the_convolution"
PE_TWINS = (
    "test_accelerators.py::test_one_vector_pair_by_hand",
    "test_accelerators.py::test_conflicts_of_many_filters_and_groups_are_those_of_the_replay",
    f"{_REPLAYED}[pe_array-fwd]",
)
OUTER = (f"{_REPLAYED}[pe_array-weight_grad]",)
PROMOTED = ("test_accelerators.py::test_the_promotion_kernel_is_its_naive_twin",)
DYNAMICS = ("test_tensordash.py::test_the_dynamic_kernel_is_its_naive_twin",)
RULES = "test_bit_level.py::test_cycles_are_those_of_the_rules_a_value_at_a_time[{}]"
DEALT = ("test_bit_level.py::test_the_steps_of_a_linear_layer_are_dealt_to_the_columns",)
COMPRESSEDS = ("test_published.py::test_the_compressed_kernel_is_its_naive_twin",)
RUNS = ("test_memory.py::test_run_length_codes_decode",)
LOWERED = ("test_lowering.py::test_the_lowered_product_is_the_pass",)
TILED_CYCLES = (f"{_REPLAYED}[dadiannao-fwd]", f"{_REPLAYED}[bit_tactical-fwd]")
TILED_SLOTS = ("test_accelerators.py::test_slots_add_up_and_no_machine_beats_the_ideal", *TILED_CYCLES)
ACTIONS = ("test_actions.py",)
MOVED = ("test_placement.py", "test_actions.py")
_HAND = (
    "three_jobs_by_hand",
    "results_kept_on_chip_are_not_fetched_again",
    "partial_sums_that_find_no_accumulator_go_out_and_come_back",
    "room_of_results_is_free_when_they_have_left_by_hand",
    "results_pass_through_as_room_allows_by_hand",
    "partial_sums_go_before_what_a_later_job_reads_by_hand",
)
BY_HAND = tuple(f"test_memory.py::test_{name}" for name in _HAND)
REPLAYED = (*BY_HAND, "test_memory.py::test_the_replay_agrees_with_its_twin_to_the_cycle")
STORED = (
    "test_memory.py::test_stored_sizes_by_hand",
    "test_placement.py::test_bytes_are_asked_for_as_the_twin_counts_them",
    "test_memory.py::test_a_preset_moves_its_bandwidth",
    "test_memory.py::test_three_jobs_by_hand",
)
ENERGY = ("test_energy.py", "test_actions.py")
PLACED = ("test_placement.py",)
PLANNED = (*BY_HAND, "test_placement.py::test_each_transfer_waits_for_what_the_rules_say_and_no_more")
OVER = ("test_overheads.py",)
STRANGERS, MACHINES = ("test_strangers.py",), ("test_strangers.py", "test_machine.py")

MUTATIONS = [
    Mutation(
        "cartesian-vector-width",
        CARTESIAN,
        "for i in range(start, min(start + width, count)):",
        "for i in range(start, min(start + width - 1, count)):",
        PE_TWINS,
        "the last activation of each full vector is lost",
    ),
    Mutation(
        "cartesian-every-place-counts",
        CARTESIAN,
        "count += acts[c, x, y]",
        "count += 1",
        PE_TWINS,
        "zeros are multiplied as on a dense machine",
    ),
    Mutation(
        "cartesian-phase-of-the-tile",
        CARTESIAN,
        "range(top + (phase // phases[1] - top) % phases[0],",
        "range(top + phase // phases[1],",
        PE_TWINS,
        "stride phases of a tile that begins between them are exchanged",
    ),
    Mutation(
        "cartesian-names-by-hash-alone",
        CARTESIAN,
        "if words[table[slot], t] != words[row, t]:",
        "if False:",
        PE_TWINS,
        "vectors that share a slot of the hash table cost the same",
    ),
    Mutation(
        "cartesian-cost-of-nothing",
        CARTESIAN,
        "cost += np.int64(max(_ONE, byte & np.uint64(0xFF)))",
        "cost += np.int64(byte & np.uint64(0xFF))",
        PE_TWINS,
        "a pair of vectors whose products no output takes is free",
    ),
    Mutation(
        "cartesian-banks-turned",
        CARTESIAN,
        "terms[2 * tap + 1] = (counters[tap] << np.uint64(32)) | (counters[tap] >> np.uint64(32))",
        "terms[2 * tap + 1] = counters[tap]",
        PE_TWINS,
        "filters 4 to 7 fall into the banks of filters 0 to 3",
    ),
    Mutation(
        "cartesian-slowest-pe",
        CARTESIAN,
        "slowest = max(slowest, own)",
        "slowest = own",
        PE_TWINS,
        "the barrier waits for the last PE instead of the slowest",
    ),
    Mutation(
        "cartesian-stale-costs",
        CARTESIAN,
        "                stamp += 1\n",
        "                stamp = 1\n",
        PE_TWINS,
        "costs counted with another channel's weights are used again",
    ),
    Mutation(
        "cartesian-bank-words-add-up",
        CARTESIAN,
        "keep[at, column] = _NONE if fresh else _ALL",
        "keep[at, column] = _ALL",
        PE_TWINS,
        "products of different banks are added up as if in one",
    ),
    Mutation(
        "cartesian-folding-the-banks",
        CARTESIAN,
        "byte = _larger_bytes(byte, byte >> np.uint64(16))",
        "byte = byte",
        PE_TWINS,
        "half of the banks are not looked at",
    ),
    Mutation(
        "cartesian-pairs",
        CARTESIAN,
        "totals[0] += vectors * (stop - start)",
        "totals[0] += vectors",
        PE_TWINS,
        "buffer reads and imbalance are counted once a vector of activations",
    ),
    Mutation(
        "outer-slowest-pe",
        CARTESIAN,
        "cycles[tap, cb, kb] = own.max()",
        "cycles[tap, cb, kb] = own.min()",
        OUTER,
        "the weight gradient waits for the fastest PE",
    ),
    Mutation(
        "outer-owner-of-a-place",
        CARTESIAN,
        "own[p // tile[0] * grid[1] + q // tile[1]] += pairs",
        "own[p // tile[0] * grid[1] + q // tile[0]] += pairs",
        OUTER,
        "output places go to the wrong PE where tiles are no squares",
    ),
    Mutation(
        "outer-whole-vectors",
        CARTESIAN,
        "((b + widths[1] - 1) // widths[1])",
        "(b // widths[1])",
        OUTER,
        "gradients that do not fill a vector cost nothing",
    ),
    Mutation(
        "outer-steps-exchanged",
        CARTESIAN,
        "a = first[cb, n, x0 + p * steps[0], y0 + q * steps[2]]",
        "a = first[cb, n, x0 + p * steps[0], y0 + q * steps[0]]",
        OUTER,
        "the columns of a layer with two strides are read with the stride of its rows",
    ),
    Mutation(
        "promotion-one-more-line-dropped",
        PROMOTION,
        "if dropped < lookahead and _is_empty(window, used, t):",
        "if dropped <= lookahead and _is_empty(window, used, t):",
        PROMOTED,
        "more lines drop in succession than the window can skip",
    ),
    Mutation(
        "promotion-first-lane-instead-of-most-wanted",
        PROMOTION,
        "                most &= planes[plane]\n",
        "                pass\n",
        PROMOTED,
        "the lane with most candidates no longer goes first",
    ),
    Mutation(
        "promotion-turn-of-the-lanes",
        PROMOTION,
        "((word >> turn) | ((word << _ONE) << (last_lane - turn)))",
        "((word << turn) | ((word >> _ONE) >> (last_lane - turn)))",
        PROMOTED,
        "lookaside takes from the other side",
    ),
    Mutation(
        "promotion-taken-twice",
        PROMOTION,
        "                row[t + ahead[j]] &= ~taken\n",
        "                taken &= full\n",
        PROMOTED,
        "a weight is executed where it was taken to and where it was",
    ),
    Mutation(
        "promotion-a-counter-of-one-bit",
        PROMOTION,
        "                found = carry\n",
        "                found = carry & planes[plane]\n",
        PROMOTED,
        "candidates are counted without their carries",
    ),
    Mutation(
        "promotion-rows-of-the-last-set",
        PROMOTION,
        "used = min(rows, filters - first)",
        "used = min(rows, filters - first + 1)",
        (*PROMOTED, f"{_REPLAYED}[bit_tactical-fwd]"),
        "the last set waits for a filter that it does not have",
    ),
    Mutation(
        "dynamic-one-more-line-skipped",
        DYNAMIC,
        "if skipped < lookahead and _is_empty(window, slot):",
        "if skipped <= lookahead and _is_empty(window, slot):",
        DYNAMICS,
        "more lines are skipped in succession than the window holds",
    ),
    Mutation(
        "dynamic-around-the-end-of-the-line",
        DYNAMIC,
        "if other >= lanes:",
        "if other > lanes:",
        DYNAMICS,
        "a candidate beyond the last lane is read out of bounds",
    ),
    Mutation(
        "dynamic-taken-twice",
        DYNAMIC,
        "            window[slots[j], other] ^= taken\n",
        "            taken ^= np.uint64(0)\n",
        DYNAMICS,
        "a pair is executed where it was taken to and where it was",
    ),
    Mutation(
        "dynamic-one-sided",
        DYNAMIC,
        "both = rows[i, t, lane] & columns[j, t, lane]",
        "both = rows[i, t, lane]",
        DYNAMICS,
        "zeros of the columns are not skipped",
    ),
    Mutation(
        "dynamic-order-of-the-lanes",
        DYNAMIC,
        "    for lane in order:\n",
        "    for lane in range(lanes):\n",
        (*DYNAMICS, "test_tensordash.py::test_a_schedule_by_hand"),
        "lanes take from left to right, not in the order of the paper's levels",
    ),
    Mutation(
        "dynamic-the-last-line",
        DYNAMIC,
        "if t < rows.shape[1]:",
        "if t < rows.shape[1] - 1:",
        DYNAMICS,
        "the last line of a stream is not executed",
    ),
    Mutation(
        "bits-wait-for-a-step-less",
        BIT_LEVEL,
        "free = all_ended[i % (registers + 1)]",
        "free = all_ended[(i + 1) % (registers + 1)]",
        (RULES.format("shapeshifter"),),
        "columns run ahead by a step less than there are registers",
    ),
    Mutation(
        "bits-deal-two-a-cycle",
        BIT_LEVEL,
        "begun = max(begun + 1, ends[i % places])",
        "begun = max(begun, ends[i % places])",
        DEALT,
        "two steps of a linear layer begin in one cycle",
    ),
    Mutation(
        "bits-shift-reaches-further",
        BIT_LEVEL,
        "if own < beyond:",
        "if own <= beyond:",
        (RULES.format("pragmatic"),),
        "a lane reaches a power of two more than its shift has",
    ),
    Mutation(
        "bits-presented-by-another-step",
        PRESENTED,
        "                    if place >= 0 and seen[place] != s * lines + t:\n"
        "                        seen[place] = s * lines + t\n"
        "                        is_any = True\n",
        "                    if place >= 0 and seen[place] != t:\n"
        "                        seen[place] = t\n"
        "                        is_any = True\n",
        (RULES.format("tclp"),),
        "a set does not wait for values that an earlier set waited for in the same line",
    ),
    Mutation(
        "bits-dearest-of-all-sets",
        BIT_LEVEL,
        "rows[s, t, lane])\n",
        "rows[0, t, lane])\n",
        (RULES.format("laconic"),),
        "the weights of the first set stand for all",
    ),
    Mutation(
        "bits-sign-of-a-group",
        BIT_WIDTHS,
        "axis=1)) + operand.signed\n        if",
        "axis=1))\n        if",
        (RULES.format("shapeshifter"),),
        "the sign of a group takes no bit",
    ),
    Mutation(
        "bits-serial-slots",
        BIT_ACCOUNT,
        '"serial": worked - nonzero',
        '"serial": worked',
        ("test_bit_level.py::test_stripes_by_hand",),
        "lost slots are accounted to the wrong cause",
    ),
    Mutation(
        "bits-scale-of-a-part",
        "hardware/bits.py",
        "np.abs(whole.astype(float)).max",
        "np.abs(values.astype(float)).max",
        ("test_bit_level.py::test_the_scale_is_the_whole_tensor_s_though_a_pass_reads_a_part_of_it",),
        "what lowering leaves out changes the scale of the rest",
    ),
    Mutation(
        "compressed-window",
        COMPRESSED,
        "stop = min(place + window, elements)",
        "stop = min(place + window + 1, elements)",
        COMPRESSEDS,
        "step indices reach one element too far",
    ),
    Mutation(
        "compressed-lanes",
        COMPRESSED,
        "free = lanes\n",
        "free = lanes + 1\n",
        COMPRESSEDS,
        "a PE takes one non-zero more a cycle than it has lanes",
    ),
    Mutation(
        "zero-runs-rounded-up",
        ZERO_RUNS,
        "counts[part] += run >> RUN_BITS",
        "counts[part] += (run + 1) >> RUN_BITS",
        RUNS,
        "a run of 15 zeros needs a placeholder",
    ),
    Mutation(
        "zero-runs-across-values",
        ZERO_RUNS,
        "                run = 0\n            else",
        "                run = run\n            else",
        RUNS,
        "zeros before a value are counted again before the next",
    ),
    Mutation(
        "zero-runs-across-parts",
        ZERO_RUNS,
        "    for part in range(parts.shape[0]):\n        run = 0\n",
        "    run = 0\n    for part in range(parts.shape[0]):\n",
        RUNS,
        "a part's code goes on from the part before it, which may not be on chip",
    ),
    # Lowering --------------------------------------------------------------------------------------------------------
    Mutation(
        "rotate-rows-only",
        LOWERING,
        "[..., ::-1, ::-1]",
        "[..., ::-1, :]",
        ("test_lowering.py::test_the_lowered_product_is_the_pass",),
        "the input gradient meets the columns of a kernel the wrong way round",
    ),
    Mutation(
        "rotate-without-exchange",
        LOWERING,
        "return split.swapaxes(1, 2).reshape(",
        "return split.reshape(",
        LOWERED,
        "filters and channels of the input gradient's kernel are mixed",
    ),
    Mutation(
        "weight-grad-begins",
        LOWERING,
        "begins = geometry.padding[0], geometry.padding[2]",
        "begins = geometry.padding[1], geometry.padding[3]",
        LOWERED,
        "layers with unequal padding get the weight gradient of another layer",
    ),
    Mutation(
        "weight-grad-strides",
        LOWERING,
        "geometry.dilation, padding, geometry.stride, g, batch",
        "geometry.stride, padding, geometry.dilation, g, batch",
        LOWERED,
        "stride and dilation change places only where both are 1",
    ),
    Mutation(
        "weight-grad-groups",
        LOWERING,
        "transpose(2, 1, 0, 3, 4)",
        "transpose(2, 0, 1, 3, 4)",
        LOWERED,
        "groups and samples are exchanged",
    ),
    Mutation(
        "dilated-gradient-padding",
        LOWERING,
        "begins = extent[0] - 1 - geometry.padding[0],",
        "begins = extent[0] - 1 - geometry.padding[1],",
        LOWERED,
        "layers with unequal padding get the input gradient of another layer",
    ),
    Mutation(
        "phase-taps-by-stride-alone",
        LOWERING,
        "step, spacing = stride // gcd, dilation // gcd",
        "step, spacing = stride, dilation",
        LOWERED,
        "dilated and strided layers lose taps",
    ),
    Mutation(
        "phase-first-place",
        LOWERING,
        "first_place = (first_output + padding - first_tap * dilation) // stride",
        "first_place = (first_output + padding) // stride",
        LOWERED,
        "the phases of a dilated layer are shifted",
    ),
    Mutation(
        "phase-of-padding",
        LOWERING,
        "first_output = (i - padding) % stride",
        "first_output = i",
        LOWERED,
        "phases are scattered to the wrong places of a padded layer",
    ),
    Mutation(
        "phase-reached-too-far",
        LOWERING,
        "if any(0 <= first_place + output - tap * spacing < places for tap in range(count))",
        "if any(0 <= first_place + output - tap * spacing <= places for tap in range(count))",
        ("test_tensordash.py::test_outputs_that_no_gradient_reaches_cost_nothing", "test_lowering.py"),
        "outputs that no gradient reaches are computed",
    ),
    Mutation(
        "phase-unread-rows-stay",
        LOWERING,
        "array = array.take(range(max(0, -begin), size - max(0, -end)), axis) if min(begin, end) < 0 else array",
        "array = array.take(range(max(0, -begin), size), axis) if begin < 0 else array",
        ("test_lowering.py",),
        "rows that no window reads are computed with",
    ),
    Mutation(
        "effectual-of-few-places",
        LOWERING,
        "int(np.vdot(_window(inputs, at, self.stride, taps, self.dilation), kernels))",
        "int(np.vdot(_window(inputs, at, self.dilation, taps, self.stride), kernels))",
        ("test_lowering.py::test_the_effectual_count_is_the_number_of_nonzero_products",),
        "the least work of a strided layer is counted on the wrong inputs",
    ),
    Mutation(
        "weight-grad-reads-what-fwd-read",
        LOWERING,
        '"weight_grad": ("saved_activation", "gradient")',
        '"weight_grad": ("activation", "gradient")',
        ("test_lowering.py::test_every_pass_reads_what_swat_says",),
        "SWAT's saved activation counts as the dense one",
    ),
    Mutation(
        "space-to-depth-order",
        LINES,
        "return split.transpose(0, 3, 5, 1, 2, 4)",
        "return split.transpose(0, 5, 3, 1, 2, 4)",
        ("test_golden.py",),
        "folded positions lie on other lanes than DNNsim's",
    ),
    Mutation(
        "lanes-of-a-word",
        LINES,
        'bitorder="little"',
        'bitorder="big"',
        ("test_accelerators.py::test_words_hold_the_lanes",),
        "lookaside looks to the other side",
    ),
    # Machines --------------------------------------------------------------------------------------------------------
    Mutation(
        "tiled-last-set",
        TILED,
        "sets[-1] = streams - (sets.size - 1) * self.rows",
        "sets[-1] = self.rows",
        ACTIONS,
        "rows without a filter are busy",
    ),
    Mutation(
        "tiled-visits",
        TILED,
        "visits, tile = lines.repeats * -(-lines.windows // self.columns), self.rows * self.lanes",
        "visits, tile = -(-lines.repeats * lines.windows // self.columns), self.rows * self.lanes",
        TILED_CYCLES,
        "windows of different samples share a visit",
    ),
    Mutation(
        "tiled-weight-reads",
        TILED,
        "visits * int((read @ used).sum()) * self.lanes",
        "shared * int((read @ used).sum()) * self.lanes",
        ACTIONS,
        "where visits have cycles of their own, weights are read in the first alone",
    ),
    Mutation(
        "tiled-activation-reads",
        TILED,
        "windows.sum() * used.size * lines.shape[2] * lines.lanes",
        "windows.sum() * used.size * lines.shape[2]",
        ACTIONS,
        "one lane of activations is read for all",
    ),
    Mutation(
        "tiled-updates",
        TILED,
        '"accumulator_updates": windows @ row_lines,',
        '"accumulator_updates": windows @ row_lines * self.lanes,',
        ACTIONS,
        "adder trees update an accumulator for each product",
    ),
    Mutation(
        "tiled-barrier",
        TILED,
        '"barrier": windows @ (held - busy) * tile',
        '"barrier": windows @ (held - busy) * self.lanes',
        TILED_SLOTS,
        "lost slots no longer add up",
    ),
    Mutation(
        "tiled-copies",
        TILED_TRAFFIC,
        "copies=grid.buffers, streamed=per_job(depth, windows)",
        "copies=1, streamed=per_job(depth, windows)",
        ACTIONS,
        "activations are written to one tile's buffer instead of all",
    ),
    Mutation(
        "tiled-units",
        TILED_TRAFFIC,
        "units=min(grid.buffers, sets)",
        "units=grid.buffers",
        ACTIONS,
        "the weights of a few sets are spread over tiles that hold none",
    ),
    Mutation(
        "tiled-streamed",
        TILED_TRAFFIC,
        "streamed=summed(work.row_lines) * grid.lanes",
        "streamed=summed(work.row_lines)",
        MOVED,
        "weights that stream past a buffer come one a line",
    ),
    Mutation(
        "tiled-row-parts",
        TILED_TRAFFIC,
        "row_part = run * parts + at * grid.tiles % sets // grid.tiles",
        "row_part = run * parts + at % parts",
        MOVED,
        "rounds that begin inside a tap's sets read another part",
    ),
    Mutation(
        "tiled-results",
        TILED_TRAFFIC,
        "return Traffic(cycles, (columns, rows), per_job(work.streams, windows),",
        "return Traffic(cycles, (columns, rows), per_job(work.streams, visits_of),",
        MOVED,
        "a visit of many columns completes one result a row",
    ),
    Mutation(
        "pe-array-copies",
        PE_TRAFFIC,
        'measured("weight", "weight", blocks, weight, copies=used[0] * used[1])',
        'measured("weight", "weight", blocks, weight, copies=1)',
        ACTIONS,
        "weights are written to one PE's buffer; the energy of pe16x16 falls by 27.8 %",
    ),
    Mutation(
        "pe-array-units",
        PE_TRAFFIC,
        '"activation", [held], activation, units=used[0] * used[1])',
        '"activation", [held], activation)',
        ACTIONS,
        "each PE's buffer must hold the whole map",
    ),
    Mutation(
        "pe-array-spills-after-the-last-channel",
        PE_TRAFFIC,
        "np.where(channel < channels - 1, array.spilled_per_channel(conv), 0)",
        "np.where(channel < channels, array.spilled_per_channel(conv), 0)",
        MOVED,
        "finished results are spilled as partial sums too",
    ),
    Mutation(
        "pe-array-results",
        PE_TRAFFIC,
        "np.where(halo, counts[filter_group] * places, 0)",
        "np.where(halo, per_group * places, 0)",
        MOVED,
        "the last filter group stores filters that it does not have",
    ),
    Mutation(
        "pe-array-bands",
        PE_TRAFFIC,
        "of_row = np.arange(height) % tile * bands // tile",
        "of_row = np.arange(height) * bands // height",
        ("test_actions.py::test_large_blocks_of_a_weight_gradient_move_in_bands",),
        "bands are parts of the map instead of each PE's tile",
    ),
    Mutation(
        "pe-array-cuts",
        PE_TRAFFIC,
        "cuts = cycles * np.arange(bands + 1) // bands",
        "cuts = cycles // bands * np.arange(bands + 1)",
        ("test_actions.py::test_large_blocks_of_a_weight_gradient_move_in_bands",),
        "cycles of a block in bands are lost",
    ),
    Mutation(
        "halo-smallest-border",
        MAPPING,
        "return filters * max(sides[0][i] * sides[1][j] for i, j in borders)",
        "return filters * min(sides[0][i] * sides[1][j] for i, j in borders)",
        ("test_golden.py",),
        "the exchange takes as long as its smallest border",
    ),
    Mutation(
        "halo-of-the-padding-behind",
        MAPPING,
        "(extent - 1 - begin, size, begin)",
        "(extent - begin, size, begin)",
        ("test_golden.py",),
        "a column more is exchanged",
    ),
    Mutation(
        "reduction-hops",
        MAPPING,
        "hops = used[0] + used[1] - 2",
        "hops = used[0] + used[1] - 1",
        ("test_accelerators.py::test_the_weight_gradients_reduction_is_shared_by_the_batch",),
        "the first PE passes its sums to itself",
    ),
    Mutation(
        "reduction-once-a-sample",
        PE_ARRAY,
        "reduction = -(-reduction * samples // max(samples, conv.batch))",
        "reduction = reduction",
        ("test_accelerators.py::test_the_weight_gradients_reduction_is_shared_by_the_batch",),
        "each stored sample pays for the whole batch's reduction",
    ),
    Mutation(
        "weight-grad-blocks-by-the-root",
        MAPPING,
        "min(channels, whole(self.accumulators // filters_per_block, self.activation_width))",
        "min(channels, whole(int(np.sqrt(self.accumulators)), self.activation_width))",
        ("test_accelerators.py::test_blocks_of_the_weight_gradient_by_hand",),
        "blocks of layers with few filters leave accumulators unused",
    ),
    Mutation(
        "outputs-beyond-the-map",
        PE_ARRAY,
        "(outputs_of < outputs)",
        "(outputs_of <= outputs)",
        PE_TWINS,
        "products beyond the map fall into banks",
    ),
    Mutation(
        "pe-array-reads",
        PE_ARRAY,
        '"weight_buffer_reads": pairs * self.weight_width',
        '"weight_buffer_reads": pairs * self.activation_width',
        ACTIONS,
        "arrays that are no squares read weights as often as activations",
    ),
    Mutation(
        "pe-array-updates",
        PE_ARRAY,
        '"accumulator_updates": conv.effectual',
        '"accumulator_updates": products',
        ACTIONS,
        "products without an output update an accumulator",
    ),
    Mutation(
        "tensordash-tie",
        f"{MODELS}tensordash.py",
        "return names[0] if zeros[0] * tensors[1].size > zeros[1] * tensors[0].size else names[1]",
        "return names[0] if zeros[0] * tensors[1].size >= zeros[1] * tensors[0].size else names[1]",
        ("test_tensordash.py::test_the_operand_with_more_zeros_is_scheduled",),
        "a tie schedules the other operand than the paper",
    ),
    Mutation(
        "cnvlutin-empty-bricks",
        f"{MODELS}cnvlutin.py",
        "np.maximum(filled, self.empty_brick_cycles)",
        "filled + self.empty_brick_cycles",
        (f"{_REPLAYED}[cnvlutin-fwd]",),
        "every brick costs a cycle more",
    ),
    Mutation(
        "cnvlutin-reads",
        f"{MODELS}cnvlutin.py",
        'accesses["activation_buffer_reads"] += passes * self.tiles * products',
        'accesses["activation_buffer_reads"] += passes * products',
        ACTIONS,
        "one tile reads for all",
    ),
    Mutation(
        "cambricon-x-updates",
        f"{MODELS}cambricon_x.py",
        "sums += outputs * int(own.sum())",
        "sums += int(own.sum())",
        ACTIONS,
        "accumulators are updated for one output",
    ),
    Mutation(
        "structured-full-groups",
        f"{MODELS}structured.py",
        "np.count_nonzero(block, axis=-1).max() <= self.n",
        "np.count_nonzero(block, axis=-1).max() < self.n",
        ("test_published.py::test_two_of_four_is_exactly_twice_as_fast",),
        "2:4 needs one non-zero less than it says",
    ),
    Mutation(
        "ideal-rounded-down",
        f"{MODELS}ideal.py",
        "cycles = -(-products // self.multipliers)\n        slots",
        "cycles = products // self.multipliers\n        slots",
        ("test_published.py::test_the_bounds_by_hand",),
        "a bound that no machine can keep",
    ),
    Mutation(
        "a-bit-level-lane-s-worth",
        f"{MODELS}bit_level/model.py",
        "self.multipliers // self._bits_of_a_product",
        "self.multipliers",
        ("test_bit_level.py::test_a_lane_is_worth_as_many_multipliers_as_a_full_product_has_bits",),
        "a bit-serial lane is compared with a full multiplier",
    ),
    # Movement --------------------------------------------------------------------------------------------------------
    Mutation(
        "feeds-a-layer-further",
        TRAFFIC,
        "abs(self.position - other.position) == 1",
        "abs(self.position - other.position) >= 1",
        ("test_memory.py::test_a_layer_feeds_its_neighbour_alone",),
        "a result is found on chip that was written layers ago",
    ),
    Mutation(
        "peak-of-what-ends",
        RESIDENCY,
        'gone = left[np.searchsorted(ends[by_end], begins[order], side="left")]',
        'gone = left[np.searchsorted(ends[by_end], begins[order], side="right")]',
        MOVED,
        "what a job still reads makes room for what it reads too",
    ),
    Mutation(
        "kept-one-fewer",
        RESIDENCY,
        "<= room else (low, middle - 1)",
        "< room else (low, middle - 1)",
        MOVED,
        "what fits exactly is not kept",
    ),
    Mutation(
        "room-opens-early",
        RESIDENCY,
        "np.searchsorted(freed, taken - self.capacity))",
        "np.searchsorted(freed, taken - self.capacity) - 1)",
        MOVED,
        "a part enters before there is room for it",
    ),
    Mutation(
        "port-takes-the-latest",
        "hardware/movement/replay_simpy.py",
        "queue.job[queue.started] < chosen.job[chosen.started]",
        "queue.job[queue.started] <= chosen.job[chosen.started]",
        REPLAYED,
        "of transfers for the same job another goes first",
    ),
    Mutation(
        "jobs-wait-for-all-stores",
        "hardware/movement/replay_simpy.py",
        "number = self.plan.stores_needed[job] - 1",
        "number = self.plan.stores_needed[job]",
        REPLAYED,
        "accumulators are free a store later than they are",
    ),
    Mutation(
        "jobs-begin-on-the-last-of-their-data",
        "hardware/movement/replay_simpy.py",
        "queue.first.append(now + queue.latency)",
        "queue.first.append(now + queue.latency + cycles)",
        REPLAYED,
        "a job waits for the last of its data before it begins",
    ),
    Mutation(
        "blame-on-chip-first",
        "hardware/movement/replay_simpy.py",
        "offchip = min(start, max(begin, until))",
        "offchip = max(begin, min(start, begin))",
        REPLAYED,
        "stalls off chip are called stalls on chip",
    ),
    Mutation(
        "the-last-result-stays",
        "hardware/movement/replay_simpy.py",
        'for name in ("store", "write"):',
        'for name in ("store",):',
        REPLAYED,
        "a pass ends before its results have left",
    ),
    Mutation(
        "one-channel-has-it-all",
        HIERARCHY,
        "of_channel = -(-bursts // self.channels) * self.burst_bytes",
        "of_channel = bursts // self.channels * self.burst_bytes",
        STORED,
        "bursts that do not fill all channels take no time",
    ),
    Mutation(
        "latency-rounded-down",
        HIERARCHY,
        "return -(-self.latency_ns * clock_mhz // 1000)",
        "return self.latency_ns * clock_mhz // 1000",
        ("test_memory.py::test_a_latency_takes_whole_cycles",),
        "latency is a cycle short",
    ),
    Mutation(
        "half-bursts",
        HIERARCHY,
        "return -(-sizes_bytes // self.burst_bytes) * self.burst_bytes",
        "return sizes_bytes",
        STORED,
        "off-chip bytes are less than whole bursts",
    ),
    Mutation(
        "bitmask-is-free",
        HIERARCHY,
        "bits: np.ndarray = values + nonzeros * self.value_bits",
        "bits: np.ndarray = nonzeros * self.value_bits",
        STORED,
        "a compressed tensor has no metadata",
    ),
    Mutation(
        "placeholders-are-free",
        HIERARCHY,
        "bits = (nonzeros + operand.placeholders) * (self.value_bits + RUN_BITS)",
        "bits = nonzeros * (self.value_bits + RUN_BITS)",
        STORED,
        "long runs of zeros cost nothing",
    ),
    Mutation(
        "zvc-of-a-part-block",
        HIERARCHY,
        "bits = -(-values // ZVC_VALUES) * ZVC_VALUES + nonzeros * self.value_bits",
        "bits = values + nonzeros * self.value_bits",
        STORED,
        "the masks of the last block are shorter than they are",
    ),
    Mutation(
        "partial-sums-of-value-bits",
        HIERARCHY,
        "return -(-sums * self.accumulator_bits // 8)",
        "return -(-sums * self.value_bits // 8)",
        MOVED,
        "spilled partial sums are half as large",
    ),
    # Energy and overheads --------------------------------------------------------------------------------------------
    Mutation(
        "leakage-in-microseconds",
        PRICING,
        "* cycles * 1000 / machine.clock_mhz",
        "* cycles / machine.clock_mhz",
        ENERGY,
        "leakage is a thousandth",
    ),
    Mutation(
        "words-of-eight-bytes",
        PRICING,
        "WORD_BYTES = 4",
        "WORD_BYTES = 8",
        ENERGY,
        "every byte costs half",
    ),
    Mutation(
        "adders-of-the-other-kind",
        f"{MODELS}cambricon_x.py",
        'additions="multiplications"',
        'additions="accumulator_updates"',
        ENERGY,
        "adder trees are charged as accumulators: cambricon-x's adders fall from 10.4 to 0.67 µJ",
    ),
    Mutation(
        "weight-memory-does-not-leak",
        PRICING,
        "memory.activation_memory.capacity_bytes + memory.weight_memory.capacity_bytes if memory",
        "memory.activation_memory.capacity_bytes if memory",
        ENERGY,
        "half of the memory has no leakage",
    ),
    Mutation(
        "rotation-reads-only",
        OVERHEADS,
        'cycles["rotate"] = -(-2 * moved // self.rotate_weights.bytes_per_cycle)',
        'cycles["rotate"] = -(-moved // self.rotate_weights.bytes_per_cycle)',
        OVER,
        "rotated weights are read and not written",
    ),
    Mutation(
        "topk-rounded-down",
        OVERHEADS,
        "- (-values * self.search_comparisons // self.period)",
        "+ values * self.search_comparisons // self.period",
        OVER,
        "a rare search is free",
    ),
    Mutation(
        "topk-of-the-saved-weights",
        OVERHEADS,
        '"activation": tensors.activations}',
        '"activation": tensors.weights}',
        OVER,
        "the threshold of activations is searched among weights",
    ),
    Mutation(
        "conversion-without-results",
        OVERHEADS,
        "self.activation * (inputs + saved + outputs)",
        "self.activation * (inputs + outputs)",
        OVER,
        "what Top-K keeps for the backward pass is encoded for nothing",
    ),
    Mutation(
        "overheads-once-a-sample",
        OVERHEADS,
        "weights = -(-prod(geometry.weight_shape) * layer.samples // layer.batch)",
        "weights = prod(geometry.weight_shape)",
        OVER,
        "each sample rotates the weights of the batch",
    ),
    Mutation(
        "cut-before-cuts",
        LINES,
        "at = -(-len(values) * cuts // total)",
        "at = len(values) * cuts // total",
        ACTIONS,
        "what a window at a cut reaches comes a part late",
    ),
    Mutation(
        "accumulators-written-only",
        LEDGER,
        '"partial sum", ("read", "write"))',
        '"partial sum", ("write",))',
        ENERGY,
        "a partial sum is written and never read",
    ),
    Mutation(
        "accumulator-bits",
        PRICING,
        "summation.partial_sums * _partial_sum_bits(machine) // 8",
        "summation.partial_sums * _partial_sum_bits(machine)",
        ENERGY,
        "accumulators are priced as arrays of eight times the size",
    ),
    Mutation(
        "partial-sums-of-32-bits",
        PRICING,
        "_partial_sum_bits(machine) / 32)",
        "32 / 32)",
        ENERGY,
        "narrow partial sums cost as much as wide ones",
    ),
    Mutation(
        "memory-at-the-price-of-a-buffer",
        PRICING,
        "size * _table(machine).edram_pj / WORD_BYTES",
        "size * _array_pj(machine, place) / WORD_BYTES",
        ENERGY,
        "eDRAM is priced as SRAM",
    ),
    Mutation(
        "joined-phases",
        TRAFFIC,
        "np.maximum(own, getattr(operand, name), out=own)",
        "np.minimum(own, getattr(operand, name), out=own)",
        ACTIONS,
        "of a gradient that phases share only what all read is moved, or nothing",
    ),
    Mutation(
        "joined-parts",
        TRAFFIC,
        "np.where(o.part < 0, -1, o.part + begin)",
        "np.where(o.part < 0, -1, o.part)",
        ACTIONS,
        "a group reads the parts of the group before it",
    ),
    Mutation(
        "joined-weights",
        TRAFFIC,
        'if shared and operand.tensor != "weight" else size)',
        "if shared else size)",
        ACTIONS,
        "phases have weights in common that are different taps",
    ),
    # Where things are, and what waits for what -----------------------------------------------------------------------
    Mutation(
        "kept-without-the-rest",
        PLACEMENT,
        "total <= min(capacity - fixed - sum(peaks), rest)",
        "total <= capacity - fixed - sum(peaks)",
        PLACED,
        "results stay in the room without which the next layer cannot run",
    ),
    Mutation(
        "kept-one-byte-too-much",
        PLACEMENT,
        "if reader >= 0 and total <= min(",
        "if reader >= 0 and total < min(",
        PLACED,
        "results that just fit do not stay",
    ),
    Mutation(
        "buffer-room-for-one",
        PLACEMENT,
        "kept = visits.kept_within(max(0, capacity - 2 * visits.largest_bytes))",
        "kept = visits.kept_within(max(0, capacity - visits.largest_bytes))",
        PLACED,
        "a buffer has room for one part that passes instead of two",
    ),
    Mutation(
        "buffer-keeps-the-rest",
        PLACEMENT,
        "if not kept[visits.part].all():",
        "if not kept.any():",
        PLACED,
        "parts that stay leave no room for those that pass",
    ),
    Mutation(
        "results-stored-once",
        PLACEMENT,
        "some = min(2 * piece, capacity - fixed - sum(least))",
        "some = min(piece, capacity - fixed - sum(least))",
        PLACED,
        "a result waits until the one before it has left",
    ),
    Mutation(
        "results-take-all",
        PLACEMENT,
        "free = min(capacity - fixed - sum(peaks), capacity - self._whole_bytes(index + 1, name))",
        "free = capacity - fixed - sum(peaks)",
        PLACED,
        "results pass through room that the next layer's operands could stay in",
    ),
    Mutation(
        "largest-operand-stays-first",
        PLACEMENT,
        "for i in sorted(range(len(visits)), key=peaks.__getitem__):",
        "for i in sorted(range(len(visits)), key=peaks.__getitem__, reverse=True):",
        PLACED,
        "the operand that needs most room stays, and others are fetched again",
    ),
    Mutation(
        "operands-reserve-nothing",
        PLACEMENT,
        "spare = budget - sum(reserves)",
        "spare = budget",
        PLACED,
        "an operand stays in room that another needs for what passes",
    ),
    Mutation(
        "what-is-found-is-counted",
        PLACEMENT,
        "return [0 if at == found else self.loads[index][at].peak_bytes for at in self._of(index, name)]",
        "return [self.loads[index][at].peak_bytes for at in self._of(index, name)]",
        PLACED,
        "what the layer before left is given room twice",
    ),
    Mutation(
        "streams-where-it-moves-more",
        PLACEMENT,
        "held = visits.largest_bytes <= capacity and sizes.sum() <= streamed[uses].sum()",
        "held = visits.largest_bytes <= capacity",
        PLACED,
        "a buffer is filled with more than PEs would read",
    ),
    Mutation(
        "buffer-bytes-rounded-down",
        DEMAND,
        "-(-sizes * stored // dense)",
        "sizes * stored // dense",
        ("test_placement.py::test_bytes_are_asked_for_as_the_twin_counts_them",),
        "compressed results lose a part of a byte each",
    ),
    Mutation(
        "results-once-a-sample",
        DEMAND,
        'if layer.which == "weight_grad" and memory.weights_once_a_batch:',
        'if layer.which == "none":',
        ("test_placement.py::test_bytes_are_asked_for_as_the_twin_counts_them",),
        "each sample stores the whole weight gradient",
    ),
    Mutation(
        "writes-before-the-layer-has-ended",
        PLANNER,
        "[np.maximum(finished - 1, least)]",
        "[np.maximum(finished, least)]",
        PLANNED,
        "what needs room waits for the results of a layer that is not over",
    ),
    Mutation(
        "fetched-before-it-is-written",
        PLANNER,
        "rewritten = index if number == demand.reads_result else 0",
        "rewritten = 0",
        PLANNED,
        "a result is fetched again before it has left",
    ),
    Mutation(
        "fetched-two-layers-ahead",
        PLANNER,
        "earliest = self.starts[max(0, index - 1)]",
        "earliest = 0",
        PLANNED,
        "fetches begin before the layer before has its turn",
    ),
    Mutation(
        "one-port-fills-while-read",
        PLANNER,
        "if loads.held and self.buffers[operand.buffer].ports == 2:",
        "if loads.held:",
        PLANNED,
        "a buffer with one port is filled while PEs read it",
    ),
    Mutation(
        "one-accumulator-set",
        PLANNER,
        "np.array(self.stores_by)[before - sets]",
        "np.array(self.stores_by)[before - 1]",
        PLANNED,
        "a second set of accumulators is of no use",
    ),
    Mutation(
        "results-leave-through-all",
        PLANNER,
        "before = np.searchsorted(left, left[1:] - placed.leaving_bytes)",
        "before = np.searchsorted(left, left[1:] - left[-1])",
        PLANNED,
        "results that pass through memory never wait for room",
    ),
    Mutation(
        "room-of-results-until-the-layer-ends",
        PLANNER,
        "ends = self.starts[[min(index + 2, len(self.layers)), index + 1]]",
        "ends = self.starts[[index + 1, index + 1]]",
        PLANNED,
        "what the next layer reads is overwritten",
    ),
    Mutation(
        "partial-sums-in-the-order-of-accumulators",
        PLANNER,
        '            again[np.array(partial.needs["store"]) - 1] = partial.job\n',
        "            assert partial.job\n",
        PLANNED,
        "a spilled partial sum leaves after what later jobs need",
    ),
    Mutation(
        "last-piece-is-whole",
        PLANNER,
        "np.minimum(self.piece_bytes, sizes[of] - number * self.piece_bytes)",
        "np.minimum(self.piece_bytes, sizes[of])",
        PLANNED,
        "the last piece of a transfer is as large as the others",
    ),
    Mutation(
        "copies-are-free",
        PLANNER,
        'self.actions[index][ledger.moved(f"{operand.buffer}_buffer", "write")] += moved * copies',
        'self.actions[index][ledger.moved(f"{operand.buffer}_buffer", "write")] += moved',
        ACTIONS,
        "values in many buffers are written to one",
    ),
    Mutation(
        "weights-once-a-sample",
        PLANNER,
        'if operand.tensor == "weight" and self.memory.weights_once_a_batch:',
        'if operand.tensor == "none":',
        (*ACTIONS, *PLANNED),
        "each sample fetches the weights of the batch",
    ),
    # Machine files and strangers --------------------------------------------------------------------------------------
    Mutation(
        "code-without-consent",
        CATALOGUE,
        "if not allow_code and name not in",
        "if allow_code and name not in",
        STRANGERS,
        "whoever wrote a machine file runs code, and who allows it cannot",
    ),
    Mutation(
        "shipped-names-taken",
        CATALOGUE,
        "if point.name not in SHIPPED}",
        "if point.name}",
        STRANGERS,
        "an installed package is listed as a shipped model, which it is not",
        survives="a shipped name is looked up before the installed ones, so that the filter only shortens lists",
    ),
    Mutation(
        "other-code-same-point",
        CATALOGUE,
        'digest.update(path.name.encode() + b"\\0" + path.read_bytes())',
        'digest.update(b"")',
        STRANGERS,
        "a sweep keeps the points of a model that was changed since",
    ),
    Mutation(
        "half-a-machine",
        CATALOGUE,
        "if lacking:",
        "if not PIECES:",
        STRANGERS,
        "a class that lacks a piece fails in the middle of a run",
    ),
    Mutation(
        "base-wins",
        LAYERS,
        "merged = over(_spelled_out(merged, data, sections), data)",
        "merged = over(data, merged)",
        MACHINES,
        "a base's value stands before the file's own",
    ),
    Mutation(
        "other-model-keeps-keys",
        LAYERS,
        'if "preset" in data or data.get("model", base.get("model")) != base.get("model"):',
        'if "preset" in data:',
        MACHINES,
        "keys of the base's model are unknown keys of another model",
    ),
    Mutation(
        "fault-in-the-base",
        LAYERS,
        "if not self.bases or _has(self.bases[0][1], location):",
        "if not self.bases:",
        MACHINES,
        "a fault of the file itself is told as its base's",
    ),
    Mutation(
        "set-by-name",
        MACHINE,
        "having = [name] if colon else",
        "having = [*changes] if colon else",
        ("test_compare.py", *MACHINES),
        "NAME:KEY=VALUE changes other machines too",
    ),
]
