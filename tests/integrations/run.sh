#!/usr/bin/env bash
# Parquet, LangChain and LlamaIndex against the real server, and ruff and mypy over the Python packages, in a
# virtual environment under build/ with packages from PyPI. The tests themselves need no network.
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=build/integrations
wanted=tests/integrations/requirements.txt
python=$PWD/$environment/bin/python
export PYTHONDONTWRITEBYTECODE=1 MYPYPATH=$PWD/clientlibs/python
export VECTRON_BIN=${VECTRON_BIN:-$PWD/bin}

if ! cmp -s "$wanted" "$environment/installed.txt"; then
    /usr/bin/python3 -m venv "$environment"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$environment/installed.txt"
fi

packages=(
    "clientlibs/python vectron_client"
    "clientlibs/python/langchain-vectron langchain_vectron"
    "clientlibs/python/llama-index-vector-stores-vectron llama_index.vector_stores.vectron"
)
for line in "${packages[@]}"; do
    read -r folder package <<<"$line"
    (
        cd "$folder"
        "$python" -m ruff check --no-cache .
        "$python" -m mypy --cache-dir /dev/null -p "$package"
    )
done
"$python" -m pytest -q -p no:cacheprovider -W ignore -o asyncio_mode=auto \
    -o asyncio_default_fixture_loop_scope=function tests/integrations "$@"
