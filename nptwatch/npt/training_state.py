"""What `training_state.pt` says of a checkpoint, read as data and never unpickled.

The file is the trainer's own pickle: optimizer state, numpy scalars, whatever class the trainer
liked. Unpickling it would run its code, and even a `find_class` that refuses every name leaves
CPython's unpickler open to a five-byte opcode that makes it allocate tens of gigabytes (a memo
index near 2**32). So the opcodes are walked with `pickletools.genops`, which only parses, and the
few that build dicts and plain values are followed; the result of every other one is a placeholder.
"""

from __future__ import annotations

import pickletools
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from nptwatch.errors import CheckpointError
from nptwatch.npt.archive import ARCHIVE_FAULTS, opened_archive

if TYPE_CHECKING:
    from pathlib import Path

MAX_PICKLE_BYTES: Final = 64 * 1024**2
MAX_OPCODES: Final = 500_000
"""Real states have thousands. Bounds time (about a second) and memory (about 100 bytes each)."""

_DICTS: Final = frozenset(
    {("collections", "OrderedDict"), ("builtins", "dict"), ("__builtin__", "dict")}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """The two things that nptwatch wants to know of a training state; None where it is silent."""

    global_step: int | None = None
    model_name: str | None = None


class _Opaque:
    """Stands for any object that is not followed."""

    __slots__ = ()


_Plain: TypeAlias = "str | int | None"
_Value: TypeAlias = "_Plain | _Opaque | dict[str, _Value]"
_OPAQUE: Final = _Opaque()
_MARK: Final = _Opaque()
_DICT_CLASS: Final = _Opaque()


class _Walker:
    """A stack machine for the part of the pickle language that builds dicts of plain values."""

    def __init__(self) -> None:
        self._stack: list[_Value] = []
        self._memo: dict[int, _Value] = {}

    def walk(self, data: bytes) -> _Value:
        """Follow one pickle to its STOP.

        Raises:
            ValueError: it is not a pickle, ends early, or has too many opcodes.
            IndexError, KeyError: its stack or memo do not add up.
        """
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count >= MAX_OPCODES:
                break
            if opcode.name == "STOP":
                return self._stack[-1]
            self._step(opcode, argument)
        message = "no end within the opcodes that are followed"
        raise ValueError(message)

    def _step(  # noqa: C901, PLR0912 - one case per opcode
        self, opcode: pickletools.OpcodeInfo, argument: object
    ) -> None:
        match opcode.name:
            case "MARK":
                self._stack.append(_MARK)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[_index(argument)] = self._stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self._stack.append(self._memo[_index(argument)])
            case "DUP":
                self._stack.append(self._stack[-1])
            case "EMPTY_DICT":
                self._stack.append({})
            case "DICT":
                self._stack.append(_dict_of(self._pop_to_mark()))
            case "SETITEM":
                items = [self._stack.pop(), self._stack.pop()][::-1]
                self._update(items)
            case "SETITEMS":
                self._update(self._pop_to_mark())
            case "GLOBAL":
                known = tuple(str(argument).split(" ")) in _DICTS
                self._stack.append(_DICT_CLASS if known else _OPAQUE)
            case "STACK_GLOBAL":
                self._stack_global()
            case "REDUCE":
                self._reduce()
            case "BUILD":
                self._build()
            case _:
                self._other(opcode, argument)

    def _pop_to_mark(self) -> list[_Value]:
        items: list[_Value] = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _update(self, items: list[_Value]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            target.update(_dict_of(items))

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        both = isinstance(name, str) and isinstance(module, str)
        # Only known names are kept: joining what a hostile file names, over and over, would grow.
        known = both and (module, name) in _DICTS
        self._stack.append(_DICT_CLASS if known else _OPAQUE)

    def _reduce(self) -> None:
        self._stack.pop()
        function = self._stack.pop()
        self._stack.append({} if function is _DICT_CLASS else _OPAQUE)

    def _build(self) -> None:
        """Let an object's attributes (argparse.Namespace, a dataclass) stand for the object."""
        state = self._stack.pop()
        if not isinstance(self._stack[-1], dict) and isinstance(state, dict):
            self._stack[-1] = state

    def _other(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Take from the stack what the opcode takes; push a plain value or the placeholder."""
        if pickletools.stackslice in opcode.stack_before:
            self._pop_to_mark()
            taken = opcode.stack_before.index(pickletools.markobject)
        else:
            taken = len(opcode.stack_before)
        for _ in range(taken):
            self._stack.pop()
        for kind in opcode.stack_after:
            self._stack.append(_plain(opcode.name, argument, kind))


def _index(argument: object) -> int:
    if not isinstance(argument, int):
        message = f"memo index {argument!r} is not a number"
        raise ValueError(message)  # noqa: TRY004 - the file is at fault, not the caller
    return argument


def _plain(name: str, argument: object, kind: pickletools.StackObject) -> _Value:
    if name == "NONE":
        return None
    is_plain = kind in (pickletools.pyint, pickletools.pyinteger_or_bool, pickletools.pyunicode)
    if is_plain and isinstance(argument, int | str) and not isinstance(argument, bool):
        return argument
    return _OPAQUE


def _dict_of(items: list[_Value]) -> dict[str, _Value]:
    return {k: v for k, v in zip(items[::2], items[1::2], strict=False) if isinstance(k, str)}


def read_training_facts(path: Path) -> TrainingFacts:
    """Read step and base model off a training state; nothing known where anything is wrong.

    Args:
        path: a `training_state.pt`; its tensors are not read.
    """
    try:
        data = _pickle_of(path)
        state = _Walker().walk(data) if data is not None else None
    except (CheckpointError, OSError, *ARCHIVE_FAULTS):
        return TrainingFacts()
    if not isinstance(state, dict):
        return TrainingFacts()
    step, config = state.get("global_step"), state.get("config")
    named = config.get("model_name") if isinstance(config, dict) else state.get("model_name")
    return TrainingFacts(
        global_step=step if isinstance(step, int) and step >= 0 else None,
        model_name=named if isinstance(named, str) and named else None,
    )


def _pickle_of(path: Path) -> bytes | None:
    with opened_archive(path) as archive:
        for member in archive.infolist():
            if member.filename.rpartition("/")[2] != "data.pkl":
                continue
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > MAX_PICKLE_BYTES:
                return None
            with archive.open(member) as file:  # read with a bound: declared sizes may lie
                return file.read(MAX_PICKLE_BYTES)
    return None
