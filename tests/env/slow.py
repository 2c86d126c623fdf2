#!/usr/bin/env python3
"""Runs the slow tests of several test binaries at a time, because most of them wait more than they work.

What a binary writes is shown when it has ended.
"""
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

BUILD = "cargo test --locked --lib --bins --tests --no-run --message-format json-render-diagnostics"
# These take the longest, so they come first. With more than two at a time, two processors are busy
# throughout, and then tests that measure times have little to tell.
FIRST = ["kube", "proxy", "clients"]
AT_A_TIME = 2


def main():
    built = subprocess.run(BUILD.split(), check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in built.splitlines()]
    tests = {
        message["executable"]: message["target"]["name"]
        for message in messages
        if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]
    }
    ordered = sorted(tests, key=lambda binary: tests[binary] not in FIRST)
    failed = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for run in as_completed([pool.submit(slow_tests, binary) for binary in ordered]):
            binary, ended, seconds = run.result()
            print(f"==== {tests[binary]}: {seconds:.0f} s\n{ended.stdout}", end="", flush=True)
            if ended.returncode:
                failed.append(tests[binary])
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def slow_tests(binary):
    start = time.monotonic()
    ended = subprocess.run([binary, "--ignored"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    ended.stdout = ended.stdout.decode(errors="replace")
    return binary, ended, time.monotonic() - start


if __name__ == "__main__":
    sys.exit(main())
