"""Is every shipped machine valid and sourced, and is every other file refused in one line that says where and why?"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.errors import ConfigError
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.machine import SECTIONS, Machine, baseline_of, load_machine, parse_machine, schema

CONFIGS = Path(__file__).parents[1] / "configs"
SHIPPED = sorted(file.name for file in CONFIGS.glob("*.yaml"))
DENSE = (CONFIGS / "dadiannao.yaml").read_text(encoding="utf-8")
SPARSE = (CONFIGS / "pe16x16.yaml").read_text(encoding="utf-8")
PRICES = yaml.safe_load((CONFIGS / "energy" / "45nm.yaml").read_text(encoding="utf-8"))
KEY = re.compile(r"^( *)([a-z_]+):( .*)?$")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, where file names in messages are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(content, name="m.yaml"):
    """The message with which a machine file in the current folder is refused, without the file's name."""
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_machine(name)
    lines = caught.value.lines
    assert all(line.isprintable() and len(line) < 1000 for line in lines), lines
    message = " | ".join(lines)
    assert message.startswith(f"{name}: "), message
    return message.removeprefix(f"{name}: ")


def put(text, key, value):
    """The text of a machine with another value for a key."""
    changed = re.sub(rf"(?m)^( *{key}:) *[^ #\n]+", lambda found: f"{found[1]} {value}", text)
    assert changed != text
    return changed


def test_there_are_shipped_machines():
    assert {"pe16x16.yaml", "pe8x8.yaml", "dadiannao.yaml", "bit-tactical.yaml", "tensordash.yaml"} < set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_machine_loads_and_gives_every_key(name):
    """Defaults are for users; a shipped file hides no choice."""
    machine = load_machine(CONFIGS / name)
    assert machine.name == Path(name).stem
    written = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
    for section in SECTIONS.keys() & {key for key, value in written.items() if isinstance(value, str)}:
        file = CONFIGS / section / written[section]
        written[section] = None if file.name == "none" else yaml.safe_load(file.read_text(encoding="utf-8"))
    assert written | {"area": None} == machine.resolved()  # it is measured, not chosen


def keys_without_source(text, anywhere=False):
    """Keys inside sections that lack a comment with a unit or "option", and where the value comes from."""
    inside = r"\w|  " if anywhere else "  "
    lines = [li for li in text.splitlines() if re.match(inside, li) and not re.match(r" *(model:|\w+:$)", li)]
    # "unit. Source", "unit; source" or "option: why"; more than the bare unit.
    sourced = re.compile(r"#\s+(option: \S+ .+|[^.;:]{4,}[.;:,] .{4,})$")
    return [line for line in lines if not sourced.search(line)]


PARTS = sorted(path.relative_to(CONFIGS).as_posix() for section in SECTIONS for path in (CONFIGS / section).iterdir())


@pytest.mark.parametrize("name", [*SHIPPED, *PARTS])
def test_each_key_of_a_shipped_machine_has_its_unit_and_source(name):
    text = (CONFIGS / name).read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert keys_without_source(text, anywhere="/" in name) == []


def test_a_key_without_source_is_noticed():
    assert keys_without_source("  rows: 16\n  lanes: 16 # lanes\n  tiles: 1 # tiles. MICRO 2014\n") == [
        "  rows: 16",
        "  lanes: 16 # lanes",
    ]


def test_a_name_means_the_file_here_then_the_shipped_one(here):
    assert load_machine("dadiannao.yaml") == load_machine(CONFIGS / "dadiannao.yaml")
    (here / "dadiannao.yaml").write_text(put(DENSE, "name", "mine"), encoding="utf-8")
    assert load_machine("dadiannao.yaml").name == "mine"
    with pytest.raises(ConfigError, match=r"^\./pe8x8\.yaml: no such file$"):
        load_machine("./pe8x8.yaml")


def test_a_missing_file_names_those_that_there_are(here):
    with pytest.raises(ConfigError) as caught:
        load_machine("pe.yaml")
    assert str(caught.value).startswith("pe.yaml: no such file here, nor among the shipped configs (")
    assert all(name in str(caught.value) for name in SHIPPED)


# What is wrong → what the message must begin with, after the file's name. Key path, rule and value.
WRONG = {
    "unknown key": (put(DENSE, "lanes", "16\n  lane: 3"), "accelerator.lane: unknown key, did you mean lanes?"),
    "unknown key, nothing close": (
        DENSE + "zzz: 1\n",
        "zzz: unknown key; known: name, description, clock_mhz, accelerator",
    ),
    "misspelt key": (DENSE.replace("  rows:", "  rowes:"), "accelerator.rowes: unknown key, did you mean rows?"),
    "duplicate key": (DENSE + "name: again\n", f"name: given twice, in lines 2 and {DENSE.count(chr(10)) + 1}"),
    "duplicate inner key": (
        "name: m\naccelerator: {model: dadiannao, tiles: 1, tiles: 2}",
        "accelerator.tiles: given twice, in lines 2 and 2",
    ),
    "text for int": (put(DENSE, "rows", "many"), "accelerator.rows: must be an integer in 1…256, got 'many'"),
    "quoted int": (put(DENSE, "rows", "'16'"), "accelerator.rows: must be an integer in 1…256, got '16'"),
    "bool for int": (put(DENSE, "rows", "true"), "accelerator.rows: must be an integer in 1…256, got True"),
    "float for int": (put(DENSE, "rows", "16.0"), "accelerator.rows: must be an integer in 1…256, got 16.0"),
    "nan for int": (put(DENSE, "rows", ".nan"), "accelerator.rows: must be an integer in 1…256, got nan"),
    "list for int": (put(DENSE, "rows", "[16]"), "accelerator.rows: must be an integer in 1…256, got [16]"),
    "nothing for int": (put(DENSE, "rows", "~"), "accelerator.rows: must be an integer in 1…256, got None"),
    "int for bool": (put(SPARSE, "halo_exchange", "1"), "accelerator.halo_exchange: must be true or false, got 1"),
    "int for text": (put(DENSE, "name", "7"), "name: must be text, got 7"),
    "too small": (put(DENSE, "tiles", "0"), "accelerator.tiles: must be an integer in 1…4096, got 0"),
    "negative": (put(DENSE, "lanes", "-1"), "accelerator.lanes: must be an integer in 1…64, got -1"),
    "too large": (put(DENSE, "lanes", "65"), "accelerator.lanes: must be an integer in 1…64, got 65"),
    "huge": (put(DENSE, "lanes", "9" * 4000), "accelerator.lanes: must be an integer in 1…64, got 9"),
    "huger": (put(DENSE, "lanes", "0x" + "f" * 9000), "accelerator.lanes: must be an integer in 1…64, got"),
    "option": (put(SPARSE, "banks", "3"), "accelerator.banks: must be 1, 2, 4, 8, 16 or 32, got 3"),
    "option of text": (
        put(SPARSE, "strided_input_grad", "both"),
        "accelerator.strided_input_grad: must be 'phase' or 'dilate', got 'both'",
    ),
    "keys together": (
        put(SPARSE, "weight_width", "64"),
        "accelerator: activation_width × weight_width × update_cycles must be at most 127, got 4 × 64 × 1",
    ),
    "name too long": (put(DENSE, "name", "n" * 61), "name: must "),
    "name empty": (put(DENSE, "name", "''"), "name: must "),
    "missing": ("\n".join(line for line in DENSE.splitlines() if "rows: 16" not in line), "accelerator.rows: must be"),
    "no accelerator": ("name: m", "accelerator: must be given"),
    "no model": (DENSE.replace("  model: dadiannao\n", ""), "accelerator.model: must be given"),
    "wrong model": (
        put(DENSE, "model", "tpu"),
        "accelerator.model: must be one of dadiannao, bit_tactical, tensordash, pe_array, ",
    ),
    "ill-typed model": (
        put(DENSE, "model", "[a]"),
        "accelerator.model: must be one of dadiannao, bit_tactical, tensordash, pe_arr",
    ),
    "key of another model": (put(DENSE, "lanes", "16\n  banks: 32"), "accelerator.banks: unknown key"),
    "accelerator a list": ("name: m\naccelerator: [1]", "accelerator: must be a mapping of keys, got [1]"),
    "accelerator a number": ("name: m\naccelerator: 1", "accelerator: must be a mapping of keys, got 1"),
    "a list": ("- 1", "must be a mapping with the keys name and accelerator, got [1]"),
    "a text": ("hello", "must be a mapping with the keys name and accelerator, got 'hello'"),
    "empty": ("", "must be a mapping with the keys name and accelerator, got None"),
    "only comments": ("# x\n", "must be a mapping with the keys name and accelerator, got None"),
    "two documents": (f"---\n{DENSE}---\n{DENSE}", "line "),
    "no YAML": ("name: [", "line "),
    "tab": ("name:\n\taccelerator: 1", "line 2, column 1: "),
    "colon in a text": ("name: a: b", "line 1, column 8: "),
    "control character": ("name: a\0b", "must be YAML: unacceptable character"),
    "binary": (bytes(range(256)), "must be UTF-8 text, got byte 128"),
    "latin-1": ("name: é".encode("latin-1"), "must be UTF-8 text, got byte 6"),
    "utf-16": (DENSE.encode("utf-16"), "must be UTF-8 text, got byte 0"),
    "python object": (DENSE + "x: !!python/object/apply:os.getcwd []", "line "),
    "unknown tag": (DENSE + "x: !mine 1", "line "),
    "unknown alias": (DENSE + "x: *a", "line "),
    "key that is a number": (DENSE + "1: 2", "1: "),
    "key that is a list": (DENSE + "? [a]\n: 2", "line "),
    "key of two lines": (DENSE + '"a\\nb": 2', ""),
    "key with an escape code": (DENSE + '"\\e[31m": 2', ""),
    "recursive alias": ("&a [*a]", "must be a mapping"),
    "recursive value": (put(DENSE, "rows", "&a [*a]"), "accelerator.rows: must be an integer in 1…256, got [[...]]"),
    "recursive mapping": ("&a\nname: m\naccelerator: *a", "accelerator"),
    "merge of nothing": ("<<: 1", "line 1, column 5: "),
    "impossible date": ("name: 2001-99-99", "must be YAML: "),
    "empty int": ("name: !!int ''", ""),
    "bool that is none": ("name: !!bool x", ""),
    "date that is none": ("name: !!timestamp x", ""),
    "number beyond floats": ("name: 1" + ":1" * 200 + ".0", ""),
    "deep nesting": ("[" * 50_000, "must be YAML: "),
    "number too small": (
        put(DENSE, "energy", f"{PRICES | {'multiply_pj': -1.5}}"),
        "energy.multiply_pj: must be a number in 0…1e+06, got -1.5",
    ),
    "text for a number": (
        put(DENSE, "energy", f"{PRICES | {'add_pj': 'cheap'}}"),
        "energy.add_pj: must be a number in",
    ),
    "nan for a number": (
        put(DENSE, "energy", f"{PRICES}".replace("640.0", ".nan")),
        "energy.offchip_pj: must be a number in 0…1e+06, got nan",
    ),
    "infinite number": (
        put(DENSE, "energy", f"{PRICES}".replace("640.0", ".inf")),
        "energy.offchip_pj: must be a number in 0…1e+06, got inf",
    ),
    "misspelt price": (
        put(DENSE, "energy", f"{PRICES}".replace("edram", "dram")),
        "energy.dram_pj: unknown key, did you mean edram_pj?",
    ),
    "prices together": (
        put(DENSE, "energy", f"{PRICES | {'sram_bytes': 256}}"),
        "energy: sram_smallest_bytes: must be at most sram_bytes, 256, got 512",
    ),
    "a list of prices": (put(DENSE, "energy", "[1]"), "energy: must be a mapping of keys, got [1]"),
    "no such prices": (
        put(DENSE, "energy", "5nm.yaml"),
        "energy: 5nm.yaml: no such file here, nor among the shipped configs/energy (28nm.yaml, 45nm.yaml)",
    ),
    "no such overheads": (
        put(DENSE, "overheads", "mine.yaml"),
        "overheads: mine.yaml: no such file here, nor among the shipped configs/overheads (swat.yaml)",
    ),
    "period of zero": (
        put(DENSE, "overheads", "{top_k: {period: 0}}"),
        "overheads.top_k.period: must be an integer in 1…1073741824, got 0 | overheads.top_k.sea",
    ),
    "overhead misspelt": (
        put(DENSE, "overheads", "{topk: {}}"),
        "overheads.topk: unknown key, did you mean top_k?",
    ),
    "overhead without its keys": (
        put(DENSE, "overheads", "{rotate_weights: {}}"),
        "overheads.rotate_weights.bytes_per_cycle: must be given",
    ),
    "too large a file": ("# " + "x" * (1 << 20), "must be at most 1048576 bytes, got 1048578"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_bad_file_is_refused_in_one_line_with_path_rule_and_value(here, wrong):
    content, expected = WRONG[wrong]
    assert refusal(content).startswith(expected)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_s_file_is_named_in_its_errors(here, section):
    (here / "mine.yaml").write_text("zzz: 1")
    message = refusal(put(DENSE, section, "mine.yaml"))
    assert message.startswith(f"{section}: mine.yaml: zzz: unknown key; known: ")


@pytest.mark.parametrize("section", SECTIONS)
def test_none_is_no_section(section):
    data = yaml.safe_load(DENSE) | {section: "none"}
    assert getattr(parse_machine(data), section) is None and accepts(data)


def test_a_section_that_is_not_there_cannot_be_replaced():
    with pytest.raises(ConfigError, match=r"dadiannao\.yaml: zzz: unknown key"):
        load_machine("dadiannao.yaml", zzz="mine.yaml")


def test_a_folder_is_no_machine(here):
    (here / "m.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"^m\.yaml: cannot read: Is a directory$"):
        load_machine("m.yaml")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(here):
    (here / "m.yaml").write_text(DENSE, encoding="utf-8")
    (here / "m.yaml").chmod(0)
    with pytest.raises(ConfigError, match=r"^m\.yaml: cannot read: Permission denied$"):
        load_machine("m.yaml")


@pytest.mark.parametrize("name", ["x" * 300 + ".yaml", "m.yaml/m.yaml"])
def test_a_name_that_cannot_be_a_file(here, name):
    """The library's own error, not the system's."""
    (here / "m.yaml").write_text(DENSE, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\.yaml: "):
        load_machine(name)


def within_a_minute(folder, code, seconds=60, gigabytes=4):
    """What a process of its own prints; it fails if it hangs or eats memory."""
    size = gigabytes << 30
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, preexec_fn=limit, timeout=seconds, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


LOAD = """
from accelsim.errors import ConfigError
from accelsim.hardware.machine import load_machine
try:
    load_machine("m.yaml")
except ConfigError as error:
    print(error)
"""
LEVELS = "".join(f"- &a{i} [{', '.join([f'*a{i - 1}'] * 9 if i else ['lol'] * 9)}]\n" for i in range(12))
BOMB = f"bomb:\n{LEVELS}"


@pytest.mark.parametrize(
    "text",
    [LEVELS, BOMB + DENSE, put(DENSE, "rows", f"[\n{LEVELS.replace('- ', '  ').replace(']', '],')} ]"), BOMB + "<<: 1"],
    ids=["as a list", "as a key", "as a value", "beside a merge"],
)
def test_a_billion_laughs_are_refused_at_once(tmp_path, text):
    """Nine aliases of nine aliases, twelve deep: 3·10¹¹ elements to whoever writes them out."""
    (tmp_path / "m.yaml").write_text(text, encoding="utf-8")
    printed = within_a_minute(tmp_path, LOAD)
    assert printed.startswith("m.yaml: ") and printed.count("\n") == 1 and len(printed) < 1000


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "m.yaml")
    assert within_a_minute(tmp_path, LOAD).startswith("m.yaml: ")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzzed") / "m.yaml"


@st.composite
def mutated(draw):
    """A shipped machine with some characters and lines lost, doubled, swapped or replaced."""
    text = (CONFIGS / draw(st.sampled_from(SHIPPED))).read_text(encoding="utf-8")
    text = re.sub("#.*", "", text) if draw(st.booleans()) else text
    for _ in range(draw(st.integers(1, 4))):
        parts = text.splitlines(keepends=True) if draw(st.booleans()) else list(text)
        at = draw(st.integers(0, max(0, len(parts) - 1)))
        strange = st.sampled_from(
            [*"{}[]&*!|>'\"%@`:,-?#~<=0.\t\n\r\\\x85\u2028\ufeff", "!!int ", "!!set ", "<<: ", "*a"]
        )
        new = draw(st.one_of(strange, st.characters(codec="utf-8"), st.sampled_from(parts or ["x"])))
        change = draw(st.sampled_from(["delete", "double", "insert", "replace"]))
        parts[at : at + (change in ("delete", "replace"))] = {
            "delete": [], "double": parts[at : at + 1], "insert": [new], "replace": [new],
        }[change]  # fmt: skip
        text = "".join(parts)
    return text


@given(text=mutated())
@settings(max_examples=400, deadline=None)
def test_a_mutated_machine_is_a_machine_or_one_line(fuzzed, text):
    fuzzed.write_text(text, encoding="utf-8", newline="")
    try:
        assert isinstance(load_machine(fuzzed), Machine)
    except ConfigError as error:
        assert all(line.isprintable() for line in error.lines)
        assert str(error).startswith(f"{fuzzed}: ")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@given(key=st.sampled_from(["name", "description", "accelerator", *yaml.safe_load(DENSE)["accelerator"]]), value=PLAIN)
@settings(max_examples=300, deadline=None)
def test_any_value_for_any_key_is_a_machine_or_one_line(key, value):
    data = yaml.safe_load(DENSE)
    (data if key in data else data["accelerator"])[key] = value
    try:
        parse_machine(data)
    except ConfigError as error:
        assert all(line.isprintable() for line in error.lines)
        assert re.match(rf"machine: (accelerator\.)?{key}|machine: accelerator\b", str(error))


def accepts(data):
    return jsonschema.Draft202012Validator(schema()).is_valid(data)


def test_the_schema_is_a_json_schema_that_says_what_keys_mean():
    jsonschema.Draft202012Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()
    rows = schema()["$defs"]["DaDianNao"]["properties"]["rows"]
    assert rows["minimum"] == 1 and rows["maximum"] == 256 and rows["description"] and rows["unit"]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_schema_accepts_a_shipped_machine(name):
    assert accepts(yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "wrong",
    ["unknown key", "unknown key, nothing close", "text for int", "bool for int", "int for bool", "too small", "option",
     "too large", "missing", "no accelerator", "no model", "wrong model", "key of another model", "a list", "empty",
     "name empty", "name too long"],
)  # fmt: skip
def test_the_schema_refuses_what_accelsim_refuses(wrong):
    """All but rules that join keys, and 16.0, which is an integer to JSON Schema."""
    assert not accepts(yaml.safe_load(WRONG[wrong][0]))


@given(key=st.sampled_from(list(yaml.safe_load(DENSE)["accelerator"])), value=PLAIN)
@settings(max_examples=100, deadline=None)
def test_the_schema_and_accelsim_agree(key, value):
    data = yaml.safe_load(DENSE)
    data["accelerator"][key] = value
    try:
        parse_machine(data)
        valid = True
    except ConfigError:
        valid = False
    assert accepts(data) == valid or isinstance(value, float)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_baseline_has_as_many_multipliers(name):
    machine = load_machine(CONFIGS / name)
    baseline = baseline_of(machine)
    assert baseline.accelerator.model == "dadiannao"
    assert baseline.accelerator.multipliers == machine.accelerator.baseline_multipliers


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (251, 241, 61, 1), (256, 256, 1, 61), (256, 256, 8, 8)])
def test_every_valid_machine_has_a_baseline(shape):
    """Prime or huge numbers of multipliers: a baseline of that size, or an error in one line."""
    keys = dict(zip(("pe_rows", "pe_columns", "activation_width", "weight_width"), shape, strict=True))
    data = yaml.safe_load(SPARSE)
    data["accelerator"] |= keys
    machine = parse_machine(data)
    try:
        assert baseline_of(machine).accelerator.multipliers == machine.accelerator.multipliers
    except ConfigError as error:
        assert str(error).isprintable()


@pytest.mark.filterwarnings("error")
def test_a_copy_takes_an_accelerator_that_files_do_not_know():
    class Mine(DaDianNao):
        model: Literal["mine"] = "mine"

    mine = Mine(tiles=2, rows=3, columns=1, lanes=4)
    machine = load_machine("dadiannao.yaml").model_copy(update={"name": "mine", "accelerator": mine})
    named = {"model": f"{__name__}:{Mine.__qualname__}"}
    assert machine.resolved()["accelerator"] == mine.model_dump() | named
    assert baseline_of(machine).accelerator.multipliers == mine.multipliers


def test_shipped_machines_are_found_when_installed(tmp_path):
    """An installed package has configs/ and traces/ inside; a checkout has them beside."""
    package = CONFIGS.parent / "accelsim"
    shutil.copytree(package, tmp_path / "accelsim", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONFIGS, tmp_path / "accelsim" / "configs")
    code = "import accelsim; print(accelsim.__file__, accelsim.load_machine('pe8x8.yaml').name)"
    assert within_a_minute(tmp_path, code).split() == [str(tmp_path / "accelsim" / "__init__.py"), "pe8x8"]
