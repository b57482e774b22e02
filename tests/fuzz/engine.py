"""One input of one surface: made from a seed, tried under a limit of processor time, and judged.

A surface is a module of ``surfaces``:

  case(rng)    an input, a function of the ``random.Random`` alone, so that its seed replays it
  check(case)  tries it: returns if the answer is right, raises one of ``ERRORS`` if it is refused; whatever else it raises is a find
  ERRORS       the errors with which this surface may refuse
  WEIGHT       its share of a run's inputs
  show(case)   optional: the input in a line or several, for the report (its ``repr`` unless given)
  GUIDED       optional: True where coverage of pure Python guides atheris to new inputs
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import re
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

FOLDER = Path(__file__).parent
CPU_SECONDS = 10.0  # that one input may take
_LONGEST_TEXT = 4000  # of an error
_SHOWN = 3000


class Hang(BaseException):
    """Raised where an input has used up its processor time."""


@dataclass(frozen=True)
class Find:
    surface: str
    seed: int
    kind: str  # "error" | "wrong" | "hang" | "crash"
    where: str  # what two finds of one cause share
    text: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.surface, self.kind, self.where


def surface_names() -> list[str]:
    return sorted(found.name for found in pkgutil.iter_modules([str(FOLDER / "surfaces")]))


def surface(name: str) -> ModuleType:
    return importlib.import_module(f"fuzz.surfaces.{name}")


def make(module: ModuleType, seed: int) -> Any:
    """The input of a seed."""
    return module.case(random.Random(seed))


def attempt(name: str, seed: int, seconds: float = CPU_SECONDS) -> str | Find:
    """ "accepted", "refused", or what is wrong."""
    return judge(name, seed, random.Random(seed), seconds)


def judge(name: str, seed: int, rng: random.Random, seconds: float = CPU_SECONDS) -> str | Find:
    """``attempt`` on an input that ``rng`` makes."""
    module, given = surface(name), None
    begin = time.process_time()
    try:
        with limited(seconds):
            given = module.case(rng)
            module.check(given)
        outcome, error = "accepted", None
    except (KeyboardInterrupt, SystemExit):
        raise
    except Hang as hang:
        return _find(name, seed, "hang", hang, module, given)
    except BaseException as raised:
        outcome, error = "refused", raised
    took = time.process_time() - begin
    if took > seconds:  # somebody caught our signal's exception
        late = error or Hang(f"{took:.1f} s of processor time")
        return _find(name, seed, "hang", late, module, given)
    if error is None:
        return outcome
    if type(error) not in module.ERRORS:
        return _find(name, seed, "wrong" if isinstance(error, AssertionError) else "error", error, module, given)
    if why := unreadable(str(error)):
        return _find(name, seed, "error", AssertionError(f"{why}: {str(error)[:300]!r}"), module, given)
    return outcome


def unreadable(text: str) -> str:
    """Why nobody can read the text of an error; empty when everybody can."""
    if not text.strip():
        return "an error without a text"
    if len(text) > _LONGEST_TEXT:
        return f"an error of {len(text)} characters"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "an error that cannot be printed"
    return ""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Processor time, of all threads: a busy machine makes no hang. pytest-timeout has the other clock."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _find(name: str, seed: int, kind: str, error: BaseException, module: ModuleType, given: Any) -> Find:
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if "internvl_kernels" in f.filename] or frames
    place = f"{Path(inside[-1].filename).name}:{inside[-1].name}" if inside else "?"
    if isinstance(error, AssertionError):  # of one check, told apart by the first words of what it says
        place += ": " + " ".join(re.findall("[A-Za-z_]+", str(error))[:12])
    show = getattr(module, "show", repr)
    try:
        shown = "the input was not made" if given is None else show(given)[:_SHOWN]
    except Exception as problem:
        shown = f"{type(problem).__name__} while it is shown"
    trace = "".join(traceback.format_list(frames[-6:]))
    text = f"{type(error).__name__}: {str(error)[:1500]}\ninput: {shown}\n{trace}".encode(
        "utf-8", "backslashreplace"
    ).decode()
    return Find(name, seed, kind, f"{type(error).__name__} in {place}", text)


def quiet(surface_name: str) -> None:
    """Warnings: of Pillow and the like about broken files they are nothing new, of the ops they are finds."""
    module = surface(surface_name)
    warnings.resetwarnings()
    warnings.simplefilter("error" if getattr(module, "STRICT", False) else "ignore")
    for text in getattr(module, "EXPECTED_WARNINGS", ()):
        warnings.filterwarnings("ignore", message=text)
