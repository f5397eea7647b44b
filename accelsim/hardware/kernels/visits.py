"""Visits to the parts of an operand, and the moves that bring them: single passes over the uses."""

import numpy as np

from accelsim.hardware.kernels.jit import Bools, Int64s, kernel


@kernel
def visits(
    jobs: Int64s, parts: Int64s, sizes: Int64s, samples: int, batch: int
) -> tuple[Int64s, Int64s, Int64s, Int64s, Bools, Int64s, Int64s, int]:
    """Uses of the same part in succession are one visit.

    Where jobs sum over a batch and the parts are of some of its samples, the others' come between two uses: each is a
    visit, and with a part that is visited again the others' are held as well.

    Parameters
    ----------
    jobs, parts : int64[uses]
        The part that each job uses; jobs ascend.
    sizes : int64[parts]
    samples, batch : int
        Samples that the parts are of, and that each job sums over.

    Returns
    -------
    part, first, last : int64[visits]
        The part, and the first and last job of each visit.
    of_use : int64[uses]
        The visit that each use belongs to.
    opens : bool[visits]
        Whether it is the first of its part.
    final : int64[parts]
        The last job that uses each part; −1 where none does.
    held : int64[parts that are used]
        Bytes of the parts that are in use, or will be again, as each is first used.
    largest : int
        Bytes of the largest part that is used.
    """
    of_use, count = np.empty(jobs.size, np.int64), 0
    for use in range(jobs.size):
        count += use == 0 or batch > samples or parts[use] != parts[use - 1]
        of_use[use] = count - 1
    part, first, last = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    final = np.full(sizes.size, -1)
    for use in range(jobs.size - 1, -1, -1):
        at = of_use[use]
        if use == jobs.size - 1 or of_use[use + 1] != at:
            part[at], last[at] = parts[use], jobs[use]
            final[parts[use]] = max(final[parts[use]], jobs[use])
        first[at] = jobs[use]
    opens, seen = np.empty(count, np.bool_), np.zeros(sizes.size, np.bool_)
    held, parts_seen, now, largest = np.empty(min(count, sizes.size), np.int64), 0, 0, 0
    for at in range(count):
        one = part[at]
        opens[at] = not seen[one]
        closes = final[one] == last[at]
        size = sizes[one] if opens[at] and closes else -(-sizes[one] * batch // samples)
        if opens[at]:
            seen[one] = True
            now += size
            largest = max(largest, sizes[one])
            held[parts_seen] = now
            parts_seen += 1
        if closes:
            now -= size
    return part, first, last, of_use, opens, final, held[:parts_seen].copy(), largest


@kernel
def moves(
    part: Int64s, first: Int64s, last: Int64s, of_use: Int64s, opens: Bools, final: Int64s, kept: Bools
) -> tuple[Int64s, Int64s, Int64s, Int64s]:
    """What has to be brought: parts that are kept once, the others for each visit.

    Parameters
    ----------
    part, first, last, of_use, opens, final
        As ``visits`` returns them.
    kept : bool[parts]

    Returns
    -------
    job, part, until : int64[moves]
        The first job that needs each, what it is, and the last job for which it is held.
    made : int64[uses]
        Moves made up to each use.
    """
    moved, count = np.empty(part.size, np.int64), 0
    job, what, until = np.empty(part.size, np.int64), np.empty(part.size, np.int64), np.empty(part.size, np.int64)
    for at in range(part.size):
        stays = kept[part[at]]
        if opens[at] or not stays:
            job[count], what[count] = first[at], part[at]
            until[count] = final[part[at]] if stays else last[at]
            count += 1
        moved[at] = count
    return job[:count].copy(), what[:count].copy(), until[:count].copy(), moved[of_use]
