#!/usr/bin/env bash
# make_converted.sh OUT [CACHE]: makes OUT/sklearn, OUT/xgboost and OUT/tensorflow, each a model.onnx and what its library
# and onnxruntime make of some tensors. tests/fixtures/converted holds what it made once; the tests of a long run make it
# again. The libraries are installed into CACHE (default: OUT/.environments), 2.5 GB, if they are not there.
# Needs PYTHON, an interpreter of 3.11 or newer (default: python3).
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
out=${1:?the folder to write to is missing}
cache=${2:-$out/.environments}
python=${PYTHON:-python3}

# environment NAME: a virtual environment with requirements-NAME.txt.
environment() {
    local folder=$cache/$1 requirements=$here/requirements-$1.txt stamp
    stamp=$({ "$python" --version && cat "$requirements"; } | sha256sum)
    if [[ $(cat "$folder/stamp" 2>/dev/null) != "$stamp" ]]; then
        rm -rf -- "$folder"
        "$python" -m venv "$folder"
        "$folder/bin/python" -m pip install --disable-pip-version-check --no-deps -r "$requirements"
        printf '%s\n' "$stamp" >"$folder/stamp"
    fi
}

mkdir -p "$out" "$cache"
export PYTHONDONTWRITEBYTECODE=1
environment sklearn
"$cache/sklearn/bin/python" "$here/make_sklearn.py" "$out/sklearn"
"$cache/sklearn/bin/python" "$here/make_xgboost.py" "$out/xgboost"
environment tensorflow
"$cache/tensorflow/bin/python" "$here/make_tensorflow.py" "$out/tensorflow"
