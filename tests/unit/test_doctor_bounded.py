"""Checks that hang, crash or say much: none holds up the report, none is left running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

SCRIPT = """
import json, os, sys, time
from dataclasses import asdict
from nptwatch.doctor.bounded import Check, findings_of
from nptwatch.doctor.finding import ok
from nptwatch.errors import DeviceError

def fine(name):
    print("not for the terminal")
    yield ok(name, "fine")

def hangs():
    time.sleep(600)
    yield ok("hangs", "never")

def hangs_later():
    yield ok("later", f"begun by {os.getpid()}")
    time.sleep(600)

def crashes():
    os.kill(os.getpid(), 11)
    yield ok("crashes", "never")

def raises():
    yield ok("raises", "begun")
    raise ZeroDivisionError("by zero")

def refuses():
    raise DeviceError("no such device")
    yield ok("refuses", "never")

def says_much():
    for n in range(2000):
        yield ok("much", "x" * 100)

CHECKS = {
    "fine": lambda: fine("fine"), "hangs": hangs, "later": hangs_later, "crashes": crashes,
    "raises": raises, "refuses": refuses, "much": says_much, "last": lambda: fine("last"),
}
names = sys.argv[1:]
checks = [Check(name=n, run=CHECKS[n], seconds=1.0, when_late=f"fix {n}") for n in names]
for finding in findings_of(checks):
    print(json.dumps(asdict(finding)), flush=True)
"""


def findings(*names: str) -> list[dict[str, Any]]:
    """Run checks of the script, each allowed a second, in a process of their own."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert ended.stderr == ""
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_findings_come_in_order_and_nothing_else_is_printed() -> None:
    """What a check itself prints goes nowhere."""
    found = findings("fine", "last")
    assert [(f["check"], f["mark"], f["text"]) for f in found] == [
        ("fine", "OK", "fine"),
        ("last", "OK", "fine"),
    ]


def test_what_hangs_is_told_and_left() -> None:
    """All run at once: three that hang take no longer than one; what was found before is kept."""
    begun = time.monotonic()
    found = findings("hangs", "later", "fine", "hangs")
    assert time.monotonic() - begun < 3.0
    assert [(f["check"], f["mark"]) for f in found] == [
        ("hangs", "FAIL"),
        ("later", "OK"),
        ("later", "WARN"),
        ("fine", "OK"),
        ("hangs", "FAIL"),
    ]
    assert found[0]["text"] == "no answer within 1 s"
    assert found[2]["text"] == "no end within 1 s"
    assert (found[0]["fix"], found[2]["fix"]) == ("fix hangs", "fix later")
    left = int(found[1]["text"].rpartition(" ")[2])
    assert not os.path.exists(f"/proc/{left}")  # noqa: PTH110 - a text


def test_crashes_and_errors_are_findings() -> None:
    """A signal, a surprise and one of our own errors; the next check is not touched."""
    found = findings("crashes", "raises", "refuses", "last")
    assert [(f["check"], f["mark"], f["text"]) for f in found] == [
        ("crashes", "FAIL", "the process that looked was killed by signal 11"),
        ("raises", "OK", "begun"),
        ("raises", "FAIL", "unexpected ZeroDivisionError: by zero"),
        ("refuses", "FAIL", "no such device"),
        ("last", "OK", "fine"),
    ]


def test_one_that_says_much_is_read_to_its_end() -> None:
    """More than a pipe holds, while another one is waited for."""
    found = findings("later", "much")
    assert [f["check"] for f in found] == ["later"] * 2 + ["much"] * 2000
