#!/usr/bin/env bash
# Writes api/ from the project's api/*.proto, with the versions that stand here.
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-.}
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
GOBIN=$tools go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.31.0
GOBIN=$tools go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.3.0
module=github.com/vectron/vectron/clientlibs/go
mapping=Mvectron.proto=$module/api/vectronv1,Mauth.proto=$module/api/authv1
PATH=$tools:$PATH protoc -I ../../api \
    --go_out="$out" --go_opt="$mapping,module=$module" \
    --go-grpc_out="$out" --go-grpc_opt="$mapping,module=$module" \
    ../../api/vectron.proto ../../api/auth.proto
