"""Programs under test: started on loopback, watched through their output, ended by their id."""
import os
import pathlib
import queue
import random
import signal
import socket
import subprocess
import threading
import time

from support import witness

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("VECTRON_BIN", ROOT / "bin"))
READY_SECONDS = 30


# Below the range from which the system takes ports for outgoing connections and for port 0, so that
# nobody gets one of these between the look and the program's start.
PORTS = range(12000, 32000)
given_ports = set()


def free_port():
    """A port that nobody listens on now; for programs that must know each other's before they run."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in given_ports:
            given_ports.add(port)
            return port


class Process:
    """One program. Its environment is empty but for PATH and what is given."""

    def __init__(self, binary, arguments=(), folder=None, environment=None):
        self.command = [str(BIN / binary), *map(str, arguments)]
        self.folder = folder
        self.environment = {"PATH": os.environ["PATH"], **(environment or {})}
        for name in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"):
            if name in os.environ:
                self.environment[name] = os.environ[name]
        self.lines = []
        self.errors = []
        self.popen = None

    def start(self):
        self.start_line = len(self.lines)  # those before are of an earlier run
        self.popen = subprocess.Popen(self.command, cwd=self.folder, env=self.environment,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.arrivals = queue.Queue()
        for stream, lines in ((self.popen.stdout, self.lines), (self.popen.stderr, self.errors)):
            threading.Thread(target=self._read, args=(stream, lines), daemon=True).start()
        return self

    def _read(self, stream, lines):
        for line in stream:
            witness.saw(line.encode())
            lines.append(line.rstrip("\n"))
            self.arrivals.put(None)

    @property
    def pid(self):
        return self.popen.pid

    def wait_line(self, start, seconds=READY_SECONDS):
        """The first line of stdout that starts so, once it is there."""
        deadline = time.monotonic() + seconds
        while True:
            for line in self.lines[self.start_line:]:
                if line.startswith(start):
                    return line
            code = self.popen.poll()
            assert code is None, f"{self.command} ended with {code}: {self.output()}"
            assert time.monotonic() < deadline, f"no line '{start}' from {self.command}: {self.output()}"
            try:
                self.arrivals.get(timeout=0.1)
            except queue.Empty:
                pass

    def ready(self):
        """The addresses of the ready line, by name: {"grpc": "127.0.0.1:4711"}."""
        words = self.wait_line(os.path.basename(self.command[0]) + " ready").split()[2:]
        return dict(word.split("=", 1) for word in words)

    def output(self):
        return "\n".join(self.lines[-20:] + self.errors[-40:])

    def kill(self):
        """SIGKILL, as a machine that loses its power would."""
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(10)

    def stop(self, seconds=40):
        """SIGTERM; the exit code."""
        if self.popen is None:
            return 0
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return self.popen.returncode

    def is_running(self):
        return self.popen.poll() is None

    def resident_bytes(self):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(binary, *arguments, environment=None, folder=None, text_in=None, seconds=60):
    """Run a program to its end; returns (exit code, stdout, stderr)."""
    done = subprocess.run([str(BIN / binary), *map(str, arguments)], capture_output=True, text=True,
                          input=text_in, cwd=folder, timeout=seconds,
                          env={"PATH": os.environ["PATH"], **(environment or {})}, check=False)
    witness.saw(done.stdout.encode() + done.stderr.encode())
    return done.returncode, done.stdout, done.stderr


def wait_until(condition, seconds=15, what="condition"):
    """Ask again and again until it holds; returns what it said."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds} s"
        time.sleep(0.02)
