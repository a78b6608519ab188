"""What comes from a program's main module travels by value, whatever it is wrapped in. Each case is a program."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from programs import run_python

PROGRAM = textwrap.dedent(
    """
    import functools, typing
    import millpond

    @functools.lru_cache(maxsize=3)
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    class Squares:
        @functools.cache
        def of(self, n):
            return n * n

    Meters = typing.NewType("Meters", float)

    class Nothing:
        def __reduce__(self):
            return "NOTHING"

    NOTHING = Nothing()

    def work(what):
        if what == "cached":
            return fibonacci(20), fibonacci.cache_parameters()["maxsize"], fibonacci.__name__
        if what == "method":
            return Squares().of(7)
        return float(Meters(2.5))

    def useless():
        return NOTHING

    with millpond.Guard(timeout=60) as guard:
        try:
            print({call})
        except Exception as error:
            print(error)
    """
)


@pytest.mark.parametrize(
    ("call", "printed"),
    [
        ("guard.call(work, 'cached')", "(6765, 3, 'fibonacci')"),
        ("guard.call(fibonacci, 20)", "6765"),
        ("guard.call(work, 'method')", "49"),
        ("guard.call(work, 'new type')", "2.5"),
    ],
)
def test_functions_behind_a_cache_and_new_types_arrive(tmp_path: Path, call: str, printed: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.replace("{call}", call))
    ran = run_python(["program.py"], directory=tmp_path)
    assert ran.stdout.strip() == printed, ran.stderr


def test_what_pickles_as_a_name_in_main_is_refused_where_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.replace("{call}", "guard.call(useless)"))
    ran = run_python(["program.py"], directory=tmp_path)
    assert "'NOTHING' of the main module, which workers do not import" in ran.stdout, ran.stderr
