#!/usr/bin/env python3
"""Write the tables of docs/configuration.md from what the programs say of themselves (--help).

    tools/configuration.py BIN          rewrite the tables in place
    tools/configuration.py BIN --check  exit 1 when they are not what the programs say
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs/configuration.md"
PROGRAMS = ["placementdriver", "worker", "apigateway", "authsvc", "reranker", "vectron dev"]
# Settings of every program stand in a table of their own.
COMMON = {"log-level", "log-format", "loops", "pool-threads", "pool-queue-max",
          "network-memory-max", "core-dumps", "config", "help", "version", "print-config"}


def settings(folder, program):
    """[(flag, environment, default, meaning)] as --help has them."""
    name, *words = program.split()
    text = subprocess.run([folder / name, *words, "--help"], check=True, capture_output=True,
                          text=True).stdout
    text = text.split("Flags:", 1)[1].split("\n\n")[0]
    found = []
    for entry in re.split(r"\n  (?=--)", text)[1:]:
        words = " ".join(entry.split())
        match = re.match(r"--([a-z0-9-]+)(\S*) ?(.*)", words)
        flag, meaning = match.group(1), match.group(3)
        environment = default = ""
        if match := re.search(r" \[([A-Z_0-9]+)\]$", meaning):
            environment, meaning = match.group(1), meaning[:match.start()]
        if match := re.search(r" \(default (.*)\)$", meaning):
            default, meaning = match.group(1), meaning[:match.start()]
        found.append((flag, environment, default, meaning))
    return found


def table(rows):
    lines = ["| flag | environment | default | meaning |", "|---|---|---|---|"]
    for flag, environment, default, meaning in rows:
        cells = [f"`--{flag}`", f"`{environment}`" if environment else "",
                 f"`{default}`" if default else "", meaning.replace("|", "\\|")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rewritten(folder, text):
    for program in [*PROGRAMS, "common"]:
        rows = settings(folder, "placementdriver" if program == "common" else program)
        rows = [row for row in rows if (row[0] in COMMON) == (program == "common")]
        begin, end = f"<!-- {program} -->\n", f"<!-- end of {program} -->"
        head, rest = text.split(begin)
        text = head + begin + table(rows) + "\n" + end + rest.split(end, 1)[1]
    return text


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    old = DOCUMENT.read_text(encoding="utf-8")
    new = rewritten(folder, old)
    if "--check" in sys.argv:
        if new != old:
            sys.exit("docs/configuration.md is not what the programs say: run tools/configuration.py")
    elif new != old:
        DOCUMENT.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
