"""What a database's error means and what to do about it, in words."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from nptwatch.errors import DatabaseError, SchemaError
from nptwatch.store.lock_holder import lock_holder

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.exc import SQLAlchemyError

UPGRADE = "run `nptwatch db upgrade`"

_PRIMARY_CODE = 0xFF
"""The upper bits of SQLite's codes say more precisely what happened."""

_HOLDER = "<holder>"
"""Stands for whoever has the lock."""

_ADVICE = (
    (
        ("database is locked", "database table is locked"),
        f"{_HOLDER} has held its write lock too long; end that process, or raise"
        " database.busy_timeout_seconds",
    ),
    (
        ("readonly database", "read-only"),
        "it is read-only: give this user write permission on the file and its folder",
    ),
    (("database or disk is full", "no space left"), "the disk is full: free some space"),
    (
        ("unable to open database file",),
        "it cannot be opened: check that its folder exists and that this user may write there",
    ),
    (
        ("disk i/o error",),
        "reading or writing failed: check the disk, its free space and its quota",
    ),
    (
        ("file is not a database", "malformed"),
        "the file is damaged or no SQLite database: restore it from a copy, or move it away",
    ),
    (
        ("password authentication failed", "no password supplied"),
        "the password is wrong: check database.url",
    ),
    (
        ("lock timeout", "deadlock detected"),
        "another transaction held a lock too long; end it, or raise database.busy_timeout_seconds",
    ),
    (
        ("statement timeout",),
        "the server took too long; if it is only slow, raise database.statement_timeout_seconds",
    ),
    (
        ("too many clients", "remaining connection slots"),
        "the server has no connection left: raise its max_connections",
    ),
    (
        ("idle-in-transaction timeout",),
        "this process stood still in the middle of a transaction for longer than"
        " database.statement_timeout_seconds: the server undid it",
    ),
    (
        ("starting up", "shutting down", "terminating connection", "recovery mode"),
        "the server is being restarted",
    ),
    (
        ("permission denied for",),
        "this user may not: have the server's administrator grant it",
    ),
    (
        (
            "connection refused",
            "could not translate host",
            "failed to resolve host",
            "connection failed",
            "connection is bad",
            "connection timeout",
            "server closed",
            "connection is lost",
            "connection is closed",
            "consuming input failed",
            "does not exist",
        ),
        "the server or its database cannot be reached: check database.url and the server",
    ),
)

_NO_TABLE = (
    "no such table",
    "no such column",
    "has no column named",
    "undefinedtable",
    "undefinedcolumn",
)


def explain(error: SQLAlchemyError, url: str, file: Path | None = None) -> DatabaseError:
    """Turn SQLAlchemy's error into ours: which database, what failed, what to do.

    Args:
        error: what SQLAlchemy raised.
        url: the database, with the password masked.
        file: of a SQLite database.
    """
    cause = getattr(error, "orig", None) or error
    what = " ".join(str(cause).split())
    known = f"{type(cause).__name__} {what}".lower()
    if any(sign in known for sign in _NO_TABLE):
        return SchemaError(f"database {url}: the schema is not up to date ({what}): {UPGRADE}")
    for signs, advice in _ADVICE:
        if any(sign in known for sign in signs):
            return DatabaseError(f"database {url}: {_naming(advice, file)} ({what})")
    return DatabaseError(f"database {url}: {type(cause).__name__}: {what}")


def is_read_only(error: SQLAlchemyError) -> bool:
    """Say if SQLite could not write because the file, or its folder, is read-only."""
    code: int = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    return code & _PRIMARY_CODE == sqlite3.SQLITE_READONLY


def _naming(advice: str, file: Path | None) -> str:
    """Put in who is to blame, where that can be told."""
    if _HOLDER not in advice:
        return advice
    return advice.replace(_HOLDER, (file and lock_holder(file)) or "another process")
