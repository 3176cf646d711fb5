#!/usr/bin/env bash
# Writes the messages' descriptors, which the client builds its message classes from: the same file
# serves every version of the protobuf package, which generated code does not.
set -euo pipefail
cd "$(dirname "$0")"
protoc -I ../../api --include_imports --descriptor_set_out="${1:-vectron_client/schema.binpb}" \
    ../../api/vectron.proto
