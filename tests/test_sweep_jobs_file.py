"""A jobs file is read as it is, chunks of it keep all of it but other jobs, and what is wrong with one is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond._sweep.command import check_command, fill_command, uses_metrics
from millpond._sweep.jobs_file import JobsFile, read_jobs_file

ODD = {"seed": 2**70, "rate": 0.1 + 0.2, "worst": float("inf"), "text": "naïve ☃", "half": "\ud83d"}
YAML = """\
base: &base {speed: 1e-3, on: 007}   # a comment
jobs:
- &first {name: a, code: "1e3", day: 2024-01-02, <<: *base}
- name: b
  text: |
    two
     lines
  like: *first
- c
zeta: [1, 2]
alpha: no
"""


def read(tmp_path: Path, text: str | bytes, name: str = "jobs.json", **keys: str) -> JobsFile:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_jobs_file(path, **keys)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"jobs": [{"name": "a"}, "b", 3]}', "x.json"),
        ('\ufeff[{"name": "a"}, "b", 3]', "x.JSON"),
        ('\ufeff{"name": "a"}\n\n  \n"b"\r\n3', "x.jsonl"),
        ("jobs: [{name: a}, b, 3]", "x.yaml"),
        ("- name: a\n- b\n- 3", "x.yml"),
    ],
)
def test_jobs_and_their_names_are_read_from_every_format(tmp_path: Path, text: str, name: str) -> None:
    jobs = read(tmp_path, text, name)
    assert (jobs.jobs, jobs.names) == (({"name": "a"}, "b", 3), ("a", "b", "3"))
    assert (jobs.jobs_key, jobs.suffix) == ("jobs" if "jobs" in text else "", Path(name).suffix.lower())


def test_json_chunk_keeps_other_keys_order_and_numbers(tmp_path: Path) -> None:
    jobs = [{"name": f"j{i}", "level": i, **ODD} for i in range(5)]
    document = {"scene": ODD, "jobs": jobs, "after": [1, 2]}
    chunk = read(tmp_path, json.dumps(document)).chunk_bytes(["j3", "j1"])
    assert repr(json.loads(chunk)) == repr({**document, "jobs": [jobs[3], jobs[1]]})
    assert "naïve ☃" in chunk.decode()


def test_json_list_stays_a_list(tmp_path: Path) -> None:
    assert json.loads(read(tmp_path, "[1, 2, 3]").chunk_bytes(["2"])) == [2]


def test_lines_are_kept_byte_for_byte(tmp_path: Path) -> None:
    lines = [b'{"name":"a",  "x": 1.00}\r\n', b"\n", '{"name": "b", "é": 1e5}\n'.encode(), b'{"name": "\\u0063"} ']
    jobs = read(tmp_path, b"".join(lines), "x.jsonl")
    assert jobs.chunk_bytes(["c", "a", "b"]) == lines[3] + b"\n" + lines[0] + lines[2]


def test_yaml_chunk_keeps_keys_order_and_spelling(tmp_path: Path) -> None:
    chunk = read(tmp_path, YAML, "x.yaml").chunk_bytes(["c", "b"])
    whole, found = yaml.safe_load(YAML), yaml.safe_load(chunk)
    assert list(found.items()) == list({**whole, "jobs": [whole["jobs"][2], whole["jobs"][1]]}.items())
    assert all(spelled in chunk for spelled in (b"speed: 1e-3", b'code: "1e3"', b"on: 007", b"alpha: no"))


def test_other_keys_name_list_and_jobs(tmp_path: Path) -> None:
    text = '{"jobs": 3, "episodes": [{"id": 7, "name": "x"}, {"id": 8, "name": "x"}]}'
    jobs = read(tmp_path, text, jobs_key="episodes", name_key="id")
    assert jobs.names == ("7", "8")
    assert json.loads(jobs.chunk_bytes(["8"])) == {"jobs": 3, "episodes": [{"id": 8, "name": "x"}]}


def test_hash_is_of_the_bytes(tmp_path: Path) -> None:
    assert read(tmp_path, "[1]").sha256 != read(tmp_path, "[1] ").sha256


def test_chunk_of_an_unknown_job_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="stranger"):
        read(tmp_path, "[1]").chunk_bytes(["stranger"])


WRONG: list[tuple[str, str | bytes, str]] = [
    ("x.json", "", "is empty"),
    ("x.yaml", "# nothing", "there are only comments"),
    ("x.jsonl", "\n \n", "is empty"),
    ("x.json", "[]", "its list is empty"),
    ("x.json", '{"jobs": []}', "its list is empty"),
    ("x.json", "3", "holds int, not a list of jobs"),
    ("x.json", '{"runs": [1], "k": 2, "all": [3]}', r"no key 'jobs': say --jobs-key .*'runs', 'all'"),
    ("x.json", '{"jobs": {"a": 1}}', r"no list under 'jobs': say --jobs-key .*no list at its top level"),
    ("x.json", '{"jobs": [1], "jobs": [2]}', "key 'jobs' twice"),
    ("x.json", '[{"name": "a", "env": {"x": 1, "x": 1}}]', "key 'x' twice"),
    ("x.jsonl", '1\n{"name": "a", "x": 1, "x": 1}', "line 2: it has the key 'x' twice"),
    ("x.yaml", "jobs: [1]\nk: {x: 1, y: 2, 'x': 3}", r"key 'x' twice in one mapping \(line 2\)"),
    ("x.yaml", "b: &b {jobs: [1]}\n<<: *b", "'jobs' by a merge"),
    ("x.yaml", "[a\n", r"not YAML.*\(line 2"),
    ("x.yaml", "- !!bool maybe", "not YAML"),
    ("x.yaml", "[" * 200_000, "deeper than 100 levels"),
    ("x.json", "[" * 200_000, "deeper than 100 levels"),
    ("x.json", "[" * 200 + "]" * 200, "deeper than 100 levels"),
    ("x.json", "[" + "1" * 5000 + "]", "digits"),
    ("x.json", '{"name": "a"}\n{"name": "b"}', r"call the file \.jsonl"),
    ("x.jsonl", '{"name": "a"}\n{"name": ', "line 2: "),
    ("x.txt", "a", r"suffix '.txt': its format is known by \.json, \.jsonl, \.yaml, \.yml"),
    ("x.json", b"[1, \xff]", r"not UTF-8 \(byte 4"),
    ("x.json", '["a", {"id": "b"}]', "job 2 has no 'name': .*--name-key .*it has 'id'"),
    ("x.json", '[{"name": null}]', "job 1: its 'name' is null"),
    ("x.json", '[{"name": true}]', "is True"),
    ("x.json", "[0.5]", "job 1 is 0.5"),
    ("x.json", '[""]', "empty text"),
    ("x.json", r'["\ud83d"]', "surrogate"),
    ("x.yaml", "- 2024-01-02", "datetime.date"),
    ("x.json", '["a", "b", "a", 1, "1"]', "must be unique: more than one job is called 'a', '1'; rename"),
    ("x.json", json.dumps([*range(7), *range(7)]), "'0', '1', '2', '3', '4' and 2 more"),
]


@pytest.mark.parametrize(("name", "text", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_what_is_wrong_is_said(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, text, name)
    assert name in str(caught.value)


def test_missing_file_is_said_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no jobs file .*write one"):
        read_jobs_file(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.yaml"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.binary() | st.text(alphabet='[]{}":,-1ae\n !&*<?\\').map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path: Path, name: str, data: bytes) -> None:
    try:
        jobs = read(tmp_path, data, name)
    except ValueError:
        return
    assert read(tmp_path, jobs.chunk_bytes(jobs.names), name).names == jobs.names


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"))
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab1 :é", max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", ["x.json", "x.yaml"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(first=values, job=values, last=values)
def test_chunk_has_what_the_file_has(tmp_path: Path, name: str, first: Any, job: Any, last: Any) -> None:
    document = {"first": first, "jobs": [{"name": "a", "job": job}, {"name": "b"}], "last": last}
    dump, load = (json.dumps, json.loads) if name == "x.json" else (yaml.safe_dump, yaml.safe_load)
    chunk = load(read(tmp_path, dump(document), name).chunk_bytes(["a"]))
    assert repr(chunk) == repr({**load(dump(document)), "jobs": [load(dump(document))["jobs"][0]]})


def test_placeholders_are_filled_once_and_other_braces_left() -> None:
    command = ["x", "--jobs={jobs}", "{metrics}{chunk}", '{"a": {b}}', "{{jobs}}"]
    filled = fill_command(command, jobs="/{metrics}/j", metrics="/m", chunk=7)
    assert filled == ["x", "--jobs=/{metrics}/j", "/m7", '{"a": {b}}', "{/{metrics}/j}"]


def test_command_tells_whether_it_is_told_where_metrics_go() -> None:
    assert uses_metrics(["x", "--out={metrics}"])
    assert not uses_metrics(["x", "{jobs}"])


def test_command_without_jobs_is_refused_unless_it_reads_the_variable() -> None:
    with pytest.raises(
        ValueError, match=r"--eval_jobs_config \{jobs\}; or read \$MILLPOND_JOBS and say --jobs-from-env"
    ):
        check_command([sys.executable, "x.py"])
    check_command([sys.executable, "x.py"], jobs_from_environment=True)


def test_command_that_cannot_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eval.py").write_text("")
    monkeypatch.chdir(tmp_path)
    for program, error, message in [
        ("no-such-program", FileNotFoundError, "on PATH: install"),
        ("./none", FileNotFoundError, "no program './none': install"),
        ("./eval.py", PermissionError, "chmod"),
        ("eval.py", FileNotFoundError, r"write './eval.py'"),
    ]:
        with pytest.raises(error, match=message):
            check_command([program, "{jobs}"])
        check_command([program, "{jobs}"], runs_here=False)


def test_command_must_be_a_list_with_something_in_it() -> None:
    with pytest.raises(TypeError, match=r"shlex\.split"):
        check_command("python x.py {jobs}")
    with pytest.raises(ValueError, match="there is no command: write it after --"):
        check_command([])
