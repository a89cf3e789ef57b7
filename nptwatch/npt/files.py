"""Checkpoint files from the outside: identity, integrity, step and base model. No torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from nptwatch.errors import IncompleteCheckpointError, UnsafeCheckpointError
from nptwatch.npt.archive import ARCHIVE_FAULTS, opened, opened_archive
from nptwatch.npt.training_state import TrainingFacts, read_training_facts

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path


__all__ = [
    "TrainingFacts",
    "base_model_of",
    "check_crc",
    "fingerprint",
    "has_crcs",
    "step_of",
    "step_of_folder",
    "training_facts",
]

TRAINING_STATE: Final = "training_state.pt"
CONFIG: Final = "config.json"
_STEP_FOLDER: Final = re.compile(r"checkpoint-(\d{1,18})")
CRC_THREADS: Final = 4
_MAX_JSON_BYTES: Final = 1024**2
_MAX_HEADER_BYTES: Final = 100 * 1024**2  # safetensors' own limit


def fingerprint(path: Path) -> str:
    """Content identity of a weights file: equal for copies and renames, new when rewritten.

    Returns:
        "zip:" and a SHA-256 over the archive's directory (name below the root, CRC, size), or
        "sha256:" and that of the file where there are no CRCs, as in safetensors.

    Raises:
        IncompleteCheckpointError: the file is not whole; says why.
        CheckpointDeletedError: it is gone.
        UnsafeCheckpointError: its directory is absurdly large.
    """
    if path.suffix == ".safetensors":
        return _safetensors_fingerprint(path)
    with opened_archive(path) as archive:
        members = archive.infolist()
        if not members:
            message = f"{path} is an empty ZIP archive"
            raise IncompleteCheckpointError(message)
        if _has_crcs(members):
            return "zip:" + _digest_of_directory(members)
    with opened(path) as file:
        return _digest_of_file(file)


def check_crc(path: Path) -> None:
    """Read every stored member once and compare its CRC; nothing is ever inflated.

    Files without CRCs (safetensors, or a writer that switched them off) pass: they have nothing
    to compare with but their fingerprint, which is that of all bytes.

    Raises:
        IncompleteCheckpointError: a member's bytes are not those that were written; names it.
        UnsafeCheckpointError: a member is compressed or encrypted, or sizes exceed the file's.
        CheckpointDeletedError: it is gone.
    """
    if path.suffix == ".safetensors":
        with opened(path) as file:
            _require_safetensors_size(path, file)
        return
    with opened(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
    with opened_archive(path) as archive:
        members = archive.infolist()
        _refuse_bombs(path, size_bytes, members)
        if not _has_crcs(members):
            return
        # CRCs and reads leave the interpreter's lock: of hundreds of MB this halves the time
        with ThreadPoolExecutor(CRC_THREADS) as pool:
            for _ in pool.map(partial(_check_member, path, archive), members):
                pass


def has_crcs(path: Path) -> bool:
    """Tell whether a file's members carry CRCs; safetensors and some writers have none.

    Raises:
        IncompleteCheckpointError, CheckpointDeletedError, UnsafeCheckpointError: as fingerprint.
    """
    if path.suffix == ".safetensors":
        return False
    with opened_archive(path) as archive:
        return _has_crcs(archive.infolist())


def training_facts(path: Path) -> TrainingFacts:
    """Step and base model as a `training_state.pt` gives them; nothing known on any failure."""
    return read_training_facts(path)


def step_of_folder(path: Path) -> int | None:
    """Training step that the name of the file's folder (`checkpoint-<n>`) gives, if it does."""
    match = _STEP_FOLDER.fullmatch(path.parent.name)
    return int(match[1]) if match else None


def step_of(path: Path) -> int | None:
    """Training step of a weights file: its folder's number, else the training state beside it."""
    step = step_of_folder(path)
    return step if step is not None else training_facts(path.parent / TRAINING_STATE).global_step


def base_model_of(path: Path, run_path: Path) -> str | None:
    """Base model that a checkpoint names: config.json beside it, the run's, or training state."""
    for config in (path.parent / CONFIG, run_path / CONFIG):
        name = _model_name_in(config)
        if name is not None:
            return name
    return training_facts(path.parent / TRAINING_STATE).model_name


def _model_name_in(config: Path) -> str | None:
    try:
        with config.open("rb") as file:
            content = json.loads(file.read(_MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError):  # absent, or being written: others may know
        return None
    name = content.get("model_name") if isinstance(content, dict) else None
    return name if isinstance(name, str) and name else None


def _has_crcs(members: list[zipfile.ZipInfo]) -> bool:
    return any(member.CRC for member in members)


def _digest_of_directory(members: list[zipfile.ZipInfo]) -> str:
    # The root is the file's stem: without it a copy under another name keeps its identity.
    entries = sorted(
        (m.filename.partition("/")[2] or m.filename, m.CRC, m.file_size) for m in members
    )
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _digest_of_file(file: BufferedReader) -> str:
    return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _safetensors_fingerprint(path: Path) -> str:
    with opened(path) as file:
        _require_safetensors_size(path, file)
        file.seek(0)
        return _digest_of_file(file)


def _require_safetensors_size(path: Path, file: BufferedReader) -> None:
    """The header says where the last tensor ends; that must be the end of the file."""
    size_bytes = os.fstat(file.fileno()).st_size
    fault = _safetensors_fault(file, size_bytes)
    if fault:
        message = f"{path} is not whole: {fault}"
        raise IncompleteCheckpointError(message)


def _safetensors_fault(file: BufferedReader, size_bytes: int) -> str | None:
    if size_bytes == 0:
        return "zero bytes"
    header_bytes = int.from_bytes(file.read(8), "little")
    if size_bytes < 8 or header_bytes > min(size_bytes - 8, _MAX_HEADER_BYTES):  # noqa: PLR2004
        return f"{size_bytes} bytes, its safetensors header does not fit: half-written or garbage"
    try:
        header = json.loads(file.read(header_bytes))
        ends = [e["data_offsets"][1] for name, e in header.items() if name != "__metadata__"]
        expected = 8 + header_bytes + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return f"{size_bytes} bytes, its safetensors header cannot be read"
    if expected != size_bytes:
        return f"{size_bytes} bytes where the safetensors header says {expected}"
    return None


def _refuse_bombs(path: Path, size_bytes: int, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            message = (
                f"{path}: member {member.filename!r} is compressed or encrypted; refused unread"
            )
            raise UnsafeCheckpointError(message)
    declared = sum(m.file_size for m in members)
    if declared > size_bytes:
        message = f"{path}: members of {declared} bytes in a file of {size_bytes}; refused unread"
        raise UnsafeCheckpointError(message)


def _check_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    try:
        with archive.open(member) as file:
            while file.read(1024**2):
                pass
    except ARCHIVE_FAULTS as exc:
        message = f"{path}: member {member.filename!r} is damaged: {exc}"
        raise IncompleteCheckpointError(message) from exc
