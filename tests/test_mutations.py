"""Is the list of mutations current, and would what tries them say so if one were not noticed?"""

import ast
import re
from pathlib import Path

import mutate
import pytest
from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[1]
UNNOTICED = 2


def source_of(mutation):
    return (ROOT / "accelsim" / mutation.file).read_text(encoding="utf-8")


def test_there_are_many_each_has_a_name_of_its_own_and_few_survive():
    assert len(MUTATIONS) >= 60
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS)
    survivors = [m.name for m in MUTATIONS if m.survives]
    assert len(survivors) <= UNNOTICED, survivors


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_what_a_mutation_changes_is_there_once_and_is_another_program_after(mutation):
    source = source_of(mutation)
    wrong = mutation.applied(source)
    assert ast.dump(ast.parse(wrong)) != ast.dump(ast.parse(source))


def test_a_stale_mutation_says_what_is_no_longer_there():
    gone = Mutation("gone", "errors.py", "no such text", "nothing", (), "")
    with pytest.raises(ValueError, match=r"gone: must be in errors\.py once, is 0 times: no such text"):
        gone.applied(source_of(gone))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_the_tests_that_must_notice_exist(mutation):
    assert mutation.tests and mutation.why
    for test in mutation.tests:
        file, _, name = test.partition("::")
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert not name or re.search(rf"^def {name.partition('[')[0]}\(", source, re.M), test


HARMLESS = Mutation(
    "harmless", "workload/bits.py", "return (count + 7) // 8", "return (count + 7) >> 3",
    ("test_bits.py::test_unpack_undoes_pack",), "nothing: the same program",
)  # fmt: skip
HARMFUL = Mutation(
    "harmful", "workload/bits.py", "return (count + 7) // 8", "return count // 8",
    ("test_bits.py::test_unpack_undoes_pack",), "the last bits have no byte",
)  # fmt: skip


@pytest.mark.parametrize(
    ("mutation", "fine", "said"),
    [(HARMLESS, False, "harmless: SURVIVES"), (HARMFUL, True, "harmful: noticed by test_bits.py::test_unpack_")],
    ids=["harmless", "harmful"],
)
def test_a_survivor_is_told_from_what_is_noticed(mutation, fine, said):
    """In a process of its own, as all are tried."""
    verdict, line = mutate.verdict(mutation)
    assert verdict is fine and line.startswith(said)
