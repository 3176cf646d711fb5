#!/usr/bin/env python3
"""Write the tables of messages in docs/api.md from api/*.proto.

    tools/messages.py          rewrite the tables in place
    tools/messages.py --check  exit 1 when they are not what the messages are
"""
import pathlib
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs/api.md"
FILES = ["vectron.proto", "auth.proto", "placementdriver.proto", "reranker.proto"]
TYPES = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string",
         12: "bytes", 13: "uint32"}


def descriptors():
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["protoc", f"-I{ROOT / 'api'}", "--include_imports",
                        f"--descriptor_set_out={out.name}",
                        *(str(ROOT / "api" / name) for name in FILES)], check=True)
        found = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())
    return {file.name: file for file in found.file}


def type_of(field, message, package):
    if field.type in (11, 14):
        name = field.type_name.lstrip(".")
        entry = next((nested for nested in message.nested_type
                      if name.endswith(f".{message.name}.{nested.name}")), None)
        if entry is not None:
            key, value = (TYPES[part.type] for part in entry.field)
            return f"map<{key}, {value}>"
        return name.removeprefix(package + ".")
    return TYPES[field.type]


def table(file):
    lines = ["| message | fields |", "|---|---|"]
    for enum in file.enum_type:
        values = ", ".join(f"{value.number} = {value.name}" for value in enum.value)
        lines.append(f"| enum `{enum.name}` | {values} |")
    for message in file.message_type:
        fields = []
        for field in message.field:
            kind = type_of(field, message, file.package)
            star = "*" if field.label == 3 and not kind.startswith("map<") else ""
            fields.append(f"{field.number}: {field.name} {kind}{star}")
        lines.append(f"| `{message.name}` | {'; '.join(fields) or '(no fields)'} |")
    return "\n".join(lines)


def main():
    old = DOCUMENT.read_text(encoding="utf-8")
    new = old
    files = descriptors()
    for name in FILES:
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, rest = new.split(begin)
        new = head + begin + table(files[name]) + "\n" + end + rest.split(end, 1)[1]
    if "--check" in sys.argv:
        if new != old:
            sys.exit("docs/api.md is not what the messages are: run tools/messages.py")
    elif new != old:
        DOCUMENT.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
