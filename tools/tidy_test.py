#!/usr/bin/env python3
"""tidy.py against a small tree with one mistake of each kind."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

TIDY = pathlib.Path(__file__).with_name("tidy.py")

MODULES = """
module(base    lib/base)
module(testing lib/testing  base)
module(net     lib/net      base      LIBS uv)
module(worker  services/worker  base net)
program(worker cmd/worker.c worker)
"""

GOOD = {
    "modules.cmake": MODULES,
    "lib/base/str.h": "#pragma once\n\n#include <stddef.h>\n\n// Text.\n\nsize_t str_len(void);\n",
    "lib/base/str.c": '#include "base/str.h"\n\nsize_t str_len(void)\n{\n    return 0;\n}\n',
    "lib/testing/test.h": "#pragma once\n\n// Tests.\n\nint test_run(void);\n",
    "lib/base/str_test.c": '#include "base/str.h"\n\n#include "testing/test.h"\n',
    "lib/net/loop.h": "#pragma once\n\n// A loop.\n\nint loop_run(void);\n",
    "lib/net/loop.c": '#include "net/loop.h"\n\n#include <uv.h>\n\n#include "base/str.h"\n',
    "services/worker/worker.c": '#include "net/loop.h"\n',
    "services/worker/worker.h": "#pragma once\n\n// The worker.\n\nint worker_run(void);\n",
    "cmd/worker.c": '#include "worker/worker.h"\n',
}


def run(changes, *arguments):
    """The lines that tidy prints for the good tree with some files changed."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {**GOOD, **changes}.items():
            path = pathlib.Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        done = subprocess.run([sys.executable, str(TIDY), folder, *arguments], check=False,
                              capture_output=True, text=True)
        return done.returncode, done.stdout.splitlines()


class Tidy(unittest.TestCase):
    def check_finds(self, name, text, wanted, *arguments):
        code, lines = run({name: text}, *arguments)
        self.assertEqual(code, 1)
        self.assertTrue(any(line.startswith(f"{name}:") and wanted in line for line in lines),
                        f"{wanted!r} is not in {lines}")

    def test_a_good_tree_passes(self):
        code, lines = run({})
        self.assertEqual((code, lines), (0, ["tidy: 4 modules hold to the rules"]))
        self.assertEqual(run({}, "--headers")[0], 0)

    def test_layers(self):
        self.check_finds("lib/base/str.c", '#include "net/loop.h"\n', "net is not a module")
        self.check_finds("lib/net/loop.c", '#include "testing/test.h"\n', "testing is not a module")
        self.check_finds("lib/net/loop.c", '#include "base/str_internal.h"\n', "private to base")
        self.check_finds("lib/net/loop.c", '#include "loop.h"\n', "write the module")
        self.check_finds("lib/base/str.c", "#include <uv.h>\n", "uv is not among the LIBS of base")
        self.check_finds("cmd/worker.c", "#include <uv.h>\n", "uv is not among")
        self.check_finds("modules.cmake", MODULES + "module(auth services/auth worker)\n",
                         "services meet only through api")
        self.check_finds("modules.cmake", MODULES + "module(auth services/auth)\n",
                         "services/auth is not there")

    def test_calls(self):
        self.check_finds("lib/net/loop.c", "void *x = malloc(3);\n", "use mem_alloc")
        self.check_finds("lib/net/loop.c", "x = strdup(y);\n", "strdup is banned")
        self.check_finds("lib/net/loop.c", 'log_info("x");\n', "a library never logs")
        code, _ = run({"lib/net/loop.c": '#include "net/loop.h"\n// free(x)\ny = "free(";\nz->free(1);\n'})
        self.assertEqual(code, 0)

    def test_form(self):
        self.check_finds("lib/net/loop.c", "x" * 101 + "\n", "longer than 100 columns")
        self.check_finds("lib/net/loop.c", "\n" * 1001, "longer than 1000 lines")
        self.check_finds("lib/net/loop.c", "// TODO: later\n", "TODO(#issue)")
        self.check_finds("lib/net/loop.h", "int x;\n", "starts with #pragma once")
        self.check_finds("lib/net/loop.h", "#pragma once\n\nint x;\n", "in a // comment")
        self.check_finds("cmd/worker.c", "\n" * 61, "at most 60 lines")

    def test_dead_files(self):
        self.check_finds("lib/net/old.h", GOOD["lib/net/loop.h"], "nobody includes it")
        self.check_finds("cmd/old.c", "\n", "no program()")
        self.check_finds("lib/net/notes.txt", "\n", "nothing builds")

    def test_headers_compile_alone(self):
        text = "#pragma once\n\n// Text.\n\nsize_t str_len(void);\n"
        self.check_finds("lib/base/str.h", text, "does not compile alone", "--headers")


if __name__ == "__main__":
    unittest.main()
