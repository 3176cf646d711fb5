"""What the benches share: where things are kept, the peers' Python, our index under commands, and
what machine this is."""
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time

BENCH = pathlib.Path(__file__).resolve().parent
ROOT = BENCH.parent
KEPT = ROOT / "build/bench"
BATCH = 256  # points that one write brings


def venv(folder, requirements, without_dependencies=None):
    """A Python that has these packages; made once for every version of the list."""
    wanted = "".join((BENCH / name).read_text(encoding="ascii")
                     for name in (requirements, without_dependencies) if name)
    stamp = folder / "requirements"
    if not stamp.exists() or stamp.read_text(encoding="ascii") != wanted:
        print("installing the peers from PyPI", file=sys.stderr)
        subprocess.run(["/usr/bin/python3", "-m", "venv", folder], check=True)
        pip = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", BENCH / requirements], check=True)
        if without_dependencies:
            subprocess.run([*pip, "--no-deps", "-r", BENCH / without_dependencies], check=True)
        stamp.write_text(wanted, encoding="ascii")
    return str(folder / "bin/python")


def index_python():
    return venv(KEPT / "venv", "requirements.txt", "requirements-nodeps.txt")


class Driver:
    """Our index in a process of its own, on one processor; see lib/index/driver_bench.c."""

    def __init__(self, base, queries, distance, core):
        self.process = subprocess.Popen(
            [ROOT / "build/release/index_driver_bench", base, queries, distance],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}))
        self.about = json.loads(self.process.stdout.readline())

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"index_driver_bench ended at: {command}")
        return json.loads(answer)

    def search(self, knob, queries):
        """knob: the factor of the stop, or "ef N"; 0: the index chooses; "exact": all points."""
        if knob == "exact":
            return self.ask(f"search 0 0 {min(queries, 500)} exact")
        if str(knob).startswith("ef "):
            return self.ask(f"search {knob.split()[1]} 0 {queries}")
        return self.ask(f"search 0 {knob} {queries}")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def machine():
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii")
    fields = {key: re.search(rf"^{key}\s*: (.*)$", text, re.MULTILINE) for key in
              ("model name", "cpu family", "model", "cache size")}
    fields = {key: match.group(1) if match else "unknown" for key, match in fields.items()}
    widest = next((flag for flag in ("amx_int8", "avx512_vnni", "avx2") if flag in text), "scalar")
    return (f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']}, up to "
            f"{widest}), {os.cpu_count()} processors, cache {fields['cache size']}; Linux "
            f"{'.'.join(platform.release().split('.')[:2])}, "
            f"{time.strftime('%Y-%m-%d', time.gmtime())}")
