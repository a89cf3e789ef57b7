"""The one error tree.

NptwatchError                    exit 1
|-- ConfigError                  exit 2   settings, usage, state folder
|-- CheckpointError              exit 3   the file is at fault
|   |-- CheckpointDeletedError            it is gone: not an error of anybody
|   |-- CheckpointChangedError            it was rewritten while it was read (retryable)
|   |-- IncompleteCheckpointError         not whole: truncated, garbage, wrong CRC (retryable)
|   |-- UnsafeCheckpointError             refused unread: code, compression, sizes that lie
|   `-- LayoutError                       names or shapes are not those of an NPT; lists all faults
|-- BaseModelError               exit 4   missing, gated, not a Llama
|-- DatabaseError                exit 5   locked, gone, disk full (retryable)
|   `-- SchemaError                       schema behind or ahead of this version
|-- DeviceError                  exit 6   no such device, driver error
|   |-- OutOfMemoryError                  (retryable)
|   `-- GpuBusyError                      others need the GPU now (retryable)
`-- DeliveryError                exit 1   a channel or an export did not take it (retryable)
"""

from __future__ import annotations

from typing import ClassVar


class NptwatchError(Exception):
    """Root of all errors that nptwatch raises on purpose."""

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False


class ConfigError(NptwatchError):
    """A setting, flag or folder that cannot be used as given."""

    exit_code = 2


class CheckpointError(NptwatchError):
    """A checkpoint that cannot be measured."""

    exit_code = 3


class CheckpointDeletedError(CheckpointError):
    """The checkpoint is gone from disk."""


class CheckpointChangedError(CheckpointError):
    """The file was rewritten while it was being read."""

    retryable = True


class IncompleteCheckpointError(CheckpointError):
    """The file is not whole: truncated, garbage, or a CRC does not match."""

    retryable = True


class UnsafeCheckpointError(CheckpointError):
    """The file was refused unread: pickled code, compression, or sizes that lie."""


class LayoutError(CheckpointError):
    """Tensor names or shapes are not those of an NPT on this base.

    Args:
        faults: every fault found, one sentence each, with expected and actual value.
    """

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("; ".join(faults))


class BaseModelError(NptwatchError):
    """The base model is missing, gated, or not a Llama."""

    exit_code = 4


class DatabaseError(NptwatchError):
    """The database cannot be reached, is locked, full or read-only."""

    exit_code = 5
    retryable = True


class SchemaError(DatabaseError):
    """The database schema is behind or ahead of this version of nptwatch."""

    retryable = False


class DeviceError(NptwatchError):
    """The device does not exist or its driver failed."""

    exit_code = 6


class OutOfMemoryError(DeviceError):
    """The device ran out of memory."""

    retryable = True


class GpuBusyError(DeviceError):
    """Others use the GPU, and the settings say to wait.

    Args:
        is_spent: this process holds memory on the GPU that only its end gives back.
    """

    retryable = True

    def __init__(self, message: str, *, is_spent: bool = False) -> None:
        self.is_spent = is_spent
        super().__init__(message)


class DeliveryError(NptwatchError):
    """A channel did not take a message.

    Args:
        message: why, without a secret: it is logged and kept in the database.
        retry_after_seconds: how long the receiver asked to be left alone.
    """

    retryable = True

    def __init__(self, message: str, *, retry_after_seconds: float = 0.0) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)
