"""Feed the readers of sources with broken packages and descriptors, thousands of them.

Every case must end in a Source that holds together or in a SourceError with a sentence, within
SECONDS, within MEMORY_BYTES, without opening a file for writing outside of the work folder, any
file outside of the package, a connection or another program.  `script/fuzz` runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inventory.sources import ova, text
from inventory.sources.domain_xml import parse_domain
from inventory.sources.errors import SourceError
from inventory.sources.follow import OvaFollower
from inventory.sources.layers import path_below
from inventory.sources.manifest import parse_manifest
from inventory.sources.network_disks import Place, refuse_places
from inventory.sources.ova import OvaReader
from inventory.sources.ovf import parse_ovf
from inventory.sources.qcow2 import read_header
from inventory.sources.types import Source
from tests.fuzz_cases import Case, make_case

SECONDS = 10
MEMORY_BYTES = 512 << 20
_BATCH = 1000
# In memory where there is such a folder: the cases make and remove thousands of small files.
_FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_REPOSITORY = Path(__file__).resolve().parent.parent
# The interpreter's own files: modules are imported when they are first needed.
_OWN = tuple({str(_REPOSITORY), sys.prefix, sys.base_prefix, "/usr/lib", "/usr/share"})
_FORBIDDEN = ("subprocess.Popen", "os.exec", "os.system", "os.posix_spawn", "socket.connect",
              "os.symlink", "os.link", "os.chmod", "os.chown")  # fmt: skip
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


class ViolationError(BaseException):
    """A case did what none may do; not an Exception, so that no reader can catch it."""


class Guard:
    """Watches what the interpreter opens while a case runs."""

    def __init__(self) -> None:
        self._work = self._input = ""
        sys.addaudithook(self._hook)

    @contextmanager
    def watching(self, work: Path, given: Path) -> Iterator[None]:
        """Allow writing below `work` and reading below `given`."""
        self._input, self._work = str(given), str(work)
        try:
            yield
        finally:
            self._work = ""

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._work:
            return
        if event in _FORBIDDEN:
            raise ViolationError(f"{event} {arguments!r}")
        if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:
            return  # by a name in an open folder, as shutil.rmtree does; that was looked at
        if event in _CHANGES:
            self._check(arguments[0], event, (self._work,))
        elif event == "open":
            path, _mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            allowed = (self._work,) if writes else (self._work, self._input, *_OWN)
            self._check(path, event, allowed)

    def _check(self, path: object, event: str, allowed: tuple[str, ...]) -> None:
        if isinstance(path, int) or path is None:
            return
        name = os.path.normpath(os.path.join(os.getcwd(), os.fsdecode(path)))  # noqa: PTH109,PTH118
        if not any(name == folder or name.startswith(folder + "/") for folder in allowed):
            raise ViolationError(f"{event} {name!r}")


def judge(case: Case, folder: Path, guard: Guard) -> str:
    """Run a case and return its outcome: "source", "parsed" or the error's code.

    Raises AssertionError or ViolationError, or what the readers should not have raised.
    """
    given, work = folder / "in", folder / "out/work"
    given.mkdir()
    work.mkdir(parents=True)
    path = _stored(case, given)
    told: list[str] = []
    try:
        with guard.watching(work, given):
            outcome = _read(case, path, work, told.append)
    except SourceError as error:
        assert error.code.startswith("E-"), error.code
        told += [error.message, *([error.remedy] if error.remedy else [])]
        assert error.message.endswith((".", ":")), f"no sentence: {error.message!r}"
        outcome = error.code
    for line in told:
        assert line.isprintable() and line, f"not printable: {line!r}"
    found = {str(p.relative_to(folder)) for p in (*folder.iterdir(), *work.parent.iterdir())}
    assert found == {"in", "out", "out/work"}, found
    return outcome


def _stored(case: Case, given: Path) -> Path:
    """Write the input of a case; return where it is."""
    if case.kind != "folder":
        path = given / "a.ova"
        path.write_bytes(case.data)
        return path
    for name, data in case.files:
        flat = name.replace("/", "_").replace("\0", "_")[:200] if ".." in name else name
        try:
            (given / flat.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (given / flat.lstrip("/")).write_bytes(data)
        except (OSError, ValueError):
            continue  # no file can have this name
    for name, target in case.links:
        (given / name).symlink_to(target)
    return given


def _read(case: Case, path: Path, work: Path, warn: Callable[[str], None]) -> str:
    match case.kind:
        case "ovf":
            parse_ovf(case.data, warn)
            return "parsed"
        case "mf":
            parse_manifest(case.data, warn)
            return "parsed"
        case "domain" | "network":
            volume = Place(path="/v", format="raw")
            source = parse_domain(case.data, warn, lambda _pool, _name: volume)
            check_source(source)
            refuse_places(source, "qemu+ssh://root@h/system")
            return "source"
        case "qcow2":
            header = read_header(case.data, "top.qcow2")
            if header.backing:
                path, fmt = path_below("/images/top.qcow2", header)
                assert path.startswith("/") and path.isprintable(), path
                assert fmt in ("raw", "qcow2"), fmt
            return "parsed"
    if case.kind.startswith("tar"):
        follow(path.read_bytes(), work / "part")
    reader = OvaReader(path, work_dir=work, warn=warn)
    source = reader.read()
    check_source(source)
    for disk in source.disks:
        file = Path(disk.path)
        assert file.is_relative_to(path) or file.is_relative_to(work), file
        end = (disk.offset_bytes or 0) + (disk.length_bytes or 0)
        assert end <= -(-file.stat().st_size // 512) * 512, (end, file.stat().st_size)
    reader.verify(lambda _done, _total: None)
    return "source"


def check_source(source: Source) -> None:
    """Demand what the rest of the program relies on."""
    stored = source.to_dict()
    assert Source.from_dict(json.loads(json.dumps(stored))).to_dict() == stored
    assert [disk.id for disk in source.disks] == list(range(len(source.disks)))
    assert source.name and source.memory_bytes > 0 and source.vcpus > 0
    for layout in (text.current, text.legacy):
        layout(source).encode()


def follow(data: bytes, part: Path) -> None:
    """Let a file arrive in three parts; it must end in a SourceError or well."""
    part.write_bytes(b"")
    follower = OvaFollower(part, len(data), label="a.ova")
    try:
        for end in (len(data) // 3, len(data) * 2 // 3, len(data)):
            part.write_bytes(data[:end])
            follower.advance()
        follower.finish()
    except SourceError as error:
        assert error.message.isprintable(), error.message
    finally:
        part.unlink()


def _pretended_size(_uri: str, _fmt: str, _label: str) -> int:
    """Stand in for qemu-img, whose own robustness is not what is tested."""
    return 1 << 20


def run_cases(seed: int, numbers: range, tell: Callable[[int], None] = lambda _n: None) -> Result:
    """Run cases in this process; `tell` gets each number before it begins."""
    result = Result()
    guard = Guard()
    real, ova.virtual_size = ova.virtual_size, _pretended_size
    try:
        for number in numbers:
            tell(number)
            case = make_case(seed, number)
            with tempfile.TemporaryDirectory(prefix="v2v-fuzz-", dir=_FAST) as name:
                signal.alarm(SECONDS)
                started = time.perf_counter()
                try:
                    outcome = judge(case, Path(name).resolve(), guard)
                except (Exception, ViolationError) as error:
                    result.violations[number] = "".join(traceback.format_exception(error))
                    outcome = "violation"
                result.worst_seconds = max(result.worst_seconds, time.perf_counter() - started)
                signal.alarm(0)
            result.outcomes[f"{case.kind}: {outcome}"] += 1
    finally:
        ova.virtual_size = real
    result.memory_bytes = _peak_bytes()
    return result


def _peak_bytes() -> int:
    """Return the most memory this program ever had; ru_maxrss would begin with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


class Result:
    """What came out of a number of cases."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.violations: dict[int, str] = {}
        self.worst_seconds = 0.0
        self.memory_bytes = 0

    def add(self, other: dict[str, Any]) -> None:
        """Add what a child process printed."""
        self.outcomes.update(other["outcomes"])
        self.violations |= {int(n): why for n, why in other["violations"].items()}
        self.worst_seconds = max(self.worst_seconds, other["worst_seconds"])
        self.memory_bytes = max(self.memory_bytes, other["memory_bytes"])


def run_batch(seed: int, numbers: range, result: Result) -> range:
    """Run cases in a child under limits; return those that a killed child left undone."""
    with tempfile.NamedTemporaryFile() as state:
        child = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", "--seed", str(seed), "--first", str(numbers.start),
             "--cases", str(len(numbers)), "--child", state.name],
            cwd=_REPOSITORY, stdout=subprocess.PIPE, check=False,
        )  # fmt: skip
        if child.returncode == 0:
            result.add(json.loads(child.stdout))
            return range(0)
        last = int(Path(state.name).read_text() or numbers.start)
        result.violations[last] = f"the process ended with {child.returncode} (-14: over 10 s)"
        result.outcomes["violation"] += 1
        return range(last + 1, numbers.stop)


def _child(seed: int, numbers: range, state: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with Path(state).open("w") as stream:

        def tell(number: int) -> None:
            stream.seek(0)
            stream.write(str(number))
            stream.flush()

        result = run_cases(seed, numbers, tell)
    print(json.dumps(vars(result)))


def _keep(seed: int, result: Result) -> None:
    """Save the bytes of every violation, to look at and to make a test of."""
    folder = _REPOSITORY / "var/fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    for number, why in sorted(result.violations.items()):
        case = make_case(seed, number)
        file = folder / f"{seed}-{number}.{case.kind}"
        file.write_bytes(case.data or repr((case.files, case.links)).encode())
        print(f"\ncase {number} of seed {seed}, saved as {file.relative_to(_REPOSITORY)}:\n{why}")


def main() -> int:
    """Run as told by the command line; 1 when a case did what none may do."""
    parser = argparse.ArgumentParser(prog="script/fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.cases)
    if options.child:
        _child(options.seed, numbers, options.child)
        return 0
    result = Result()
    started = time.perf_counter()
    for start in range(numbers.start, numbers.stop, _BATCH):
        left = range(start, min(start + _BATCH, numbers.stop))
        while left:
            left = run_batch(options.seed, left, result)
    seconds = time.perf_counter() - started
    for outcome, count in sorted(result.outcomes.items()):
        print(f"{count:7}  {outcome}")
    _keep(options.seed, result)
    if result.memory_bytes > MEMORY_BYTES:
        print(f"a child had {result.memory_bytes >> 20} MiB in memory")
    print(
        f"{len(numbers)} cases, seed {options.seed}: {len(result.violations)} violations, "
        f"{len(numbers) / seconds:.0f} cases/s, worst {result.worst_seconds:.2f} s, "
        f"peak {result.memory_bytes >> 20} MiB"
    )
    return 1 if result.violations or result.memory_bytes > MEMORY_BYTES else 0


if __name__ == "__main__":
    sys.exit(main())
