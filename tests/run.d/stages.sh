#!/usr/bin/env bash
# stages.sh NAME: one stage of tests/run, in a shell of its own. Its output goes to a log; a line for the person who
# waits goes to $STAGE_NOTES; "passed failed skipped" to $STAGE_COUNTS when a stage is more than one check.
set -euo pipefail

readonly GRPCURL_VERSION=v1.9.4
readonly CARGO_DENY_VERSION=0.20.2
readonly GRPCURL_PACKAGE=github.com/fullstorydev/grpcurl
readonly GHZ_VERSION=v0.121.0
readonly GHZ_PACKAGE=github.com/bojand/ghz
# Servers that models are fetched from.
readonly S3S_VERSION=0.14.1
readonly AZURITE_VERSION=3.35.0
readonly GCS_VERSION=v1.56.1
readonly GCS_PACKAGE=github.com/fsouza/fake-gcs-server

note() {
    printf '%s\n' "$*" | tee -a "$STAGE_NOTES"
}

stop() {
    note "$@"
    exit 1
}

# The first Python that is new enough for tests/requirements.txt.
find_python() {
    local name
    for name in python3.11 python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    else
        # No password can be asked for: a stage has no terminal.
        sudo -n true 2>/dev/null || stop "root, or sudo without a password, is needed to install: ${packages[*]}"
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

stage_packages() {
    local -a packages=()
    local pair python
    # command:package
    for pair in cc:gcc git:git shellcheck:shellcheck mkfs.ext4:e2fsprogs mount:mount setpriv:util-linux prlimit:util-linux \
        ip:iproute2 curl:curl strip:binutils busybox:busybox-static containerd:containerd runc:runc nft:nftables \
        conntrack:conntrack openssl:openssl docker-registry:docker-registry npm:npm mvn:maven; do
        command -v "${pair%%:*}" >/dev/null || packages+=("${pair#*:}")
    done
    [[ -e /usr/lib/cni/ptp ]] || packages+=(containernetworking-plugins)
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || packages+=(ca-certificates)
    # A compiler without the C library's headers links nothing.
    [[ -e /usr/include/stdlib.h ]] || packages+=(libc6-dev)
    python=$(find_python) || packages+=(python3)
    "${python:-false}" -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
    if ((${#packages[@]} == 0)); then
        return 0
    fi
    command -v apt-get >/dev/null || stop "this is no Debian; install by hand what stands for: ${packages[*]}"
    as_root apt-get update -q
    as_root apt-get install -q -y --no-install-recommends "${packages[@]}"
    note "installed ${packages[*]}"
}

stage_python() {
    local python venv=$EMBARK_TEST_CACHE/venv stamp
    python=$(find_python) || stop "Python 3.11 or newer is needed and was not found"
    stamp=$({ "$python" --version && cat tests/requirements.txt; } | sha256sum)
    if [[ ! -e $venv/stamp || $(<"$venv/stamp") != "$stamp" ]]; then
        rm -rf -- "$venv"
        "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install --no-deps --only-binary=:all: -r tests/requirements.txt
        printf '%s\n' "$stamp" >"$venv/stamp"
    fi
    "$venv/bin/python" -c 'import grpc, grpc_tools.protoc, numpy, onnx.checker, onnxruntime, PIL.Image, safetensors.numpy, tokenizers'
}

stage_models() {
    PYTHON=$EMBARK_TEST_PYTHON bash tests/models/build_minilm.sh "$EMBARK_TEST_MINILM"
    PYTHON=$EMBARK_TEST_PYTHON bash tests/models/fetch_minilm_int8.sh "$EMBARK_TEST_MINILM_INT8"
}

stage_grpcurl() {
    install_go_program "$EMBARK_TEST_GRPCURL" "$GRPCURL_PACKAGE" "$GRPCURL_VERSION"
    "$EMBARK_TEST_GRPCURL" -help >/dev/null
}

stage_ghz() {
    install_go_program "$EMBARK_TEST_GHZ" "$GHZ_PACKAGE" "$GHZ_VERSION"
    "$EMBARK_TEST_GHZ" --help >/dev/null
}

# install_go_program PROGRAM MODULE VERSION: its cmd folder of the program's name. Go checks what it downloads.
install_go_program() {
    local program=$1 module=$2 version=$3
    command -v go >/dev/null || stop "go is not on the PATH: install Go"
    go version -m "$program" 2>/dev/null | grep -qF "$module"$'\t'"$version" && return 0
    GOBIN=$(dirname -- "$program") CGO_ENABLED=0 go install "$module/cmd/${program##*/}@$version"
}

stage_cargo-deny() {
    local built=$EMBARK_TEST_CACHE/cargo-deny-build
    if [[ $("$EMBARK_TEST_CACHE/bin/cargo-deny" --version 2>/dev/null) == "cargo-deny $CARGO_DENY_VERSION" ]]; then
        return 0
    fi
    # Its own release profile (fat LTO, one codegen unit) takes minutes more to save seconds of a run.
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        cargo install --locked --root "$EMBARK_TEST_CACHE" --target-dir "$built" "cargo-deny@$CARGO_DENY_VERSION"
    rm -rf -- "$built"
}

# Servers of S3, Azure and Google Cloud Storage; the registry is a package of Debian.
stage_sources() {
    local folder=$EMBARK_TEST_SOURCES azurite
    mkdir -p "$folder/bin"
    if [[ $(cat "$folder/bin/s3s-fs.version" 2>/dev/null) != "$S3S_VERSION" || ! -x $folder/bin/s3s-fs ]]; then
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off cargo install --locked --root "$folder" \
            --target-dir "$folder/s3s-build" --features binary "s3s-fs@$S3S_VERSION"
        rm -rf -- "$folder/s3s-build"
        printf '%s\n' "$S3S_VERSION" >"$folder/bin/s3s-fs.version"
    fi
    azurite=$folder/azurite
    if ! grep -qF "\"version\": \"$AZURITE_VERSION\"" "$azurite/node_modules/azurite/package.json" 2>/dev/null; then
        rm -rf -- "$azurite"
        # Scripts of packages are not run: this one needs none.
        npm install --prefix "$azurite" --no-audit --no-fund --ignore-scripts "azurite@$AZURITE_VERSION"
    fi
    command -v go >/dev/null || stop "go is not on the PATH: install Go"
    if ! go version -m "$folder/bin/fake-gcs-server" 2>/dev/null | grep -qF "$GCS_PACKAGE"$'\t'"$GCS_VERSION"; then
        GOBIN=$folder/bin CGO_ENABLED=0 go install "$GCS_PACKAGE@$GCS_VERSION"
    fi
}

stage_kubernetes() {
    command -v go >/dev/null || stop "go is not on the PATH: install Go"
    bash tests/run.d/kubernetes.sh "$EMBARK_TEST_KUBERNETES"
}

stage_fmt() {
    cargo fmt --all --check
}

stage_scripts() {
    local file python
    local -a shell=() scripts=()
    python=$(find_python) || stop "Python 3.11 or newer is needed and was not found"
    while IFS= read -r -d '' file; do
        if [[ $file == *.py ]]; then scripts+=("$file"); else shell+=("$file"); fi
    done < <(find .ci tests examples sidecar/fuzz -type f \( -name '*.sh' -o -name '*.py' -o -path .ci/run \
        -o -path tests/run -o -path sidecar/fuzz/run -o -path sidecar/fuzz/instrument \) -print0)
    ((${#shell[@]} && ${#scripts[@]})) || stop "no scripts were found to check"
    for file in "${shell[@]}"; do bash -n "$file"; done
    shellcheck "${shell[@]}"
    "$python" -c 'import ast, sys
for name in sys.argv[1:]:
    ast.parse(open(name, encoding="utf-8").read(), name)' "${scripts[@]}"
    echo "checked ${#shell[@]} shell and ${#scripts[@]} Python scripts"
}

stage_clippy() {
    forget_other_clones
    # The tests of the node are named: they are no part of a plain `cargo test`.
    cargo clippy --locked --workspace --all-targets --test node --test node_chaos --test rbac --all-features -- -D warnings
}

stage_deny() {
    local deny=$EMBARK_TEST_CACHE/bin/cargo-deny
    [[ -x $deny ]] || stop "not run: cargo-deny could not be installed, see the stage cargo-deny"
    if timeout 120 "$deny" --all-features fetch db; then
        "$deny" --all-features --locked check --disable-fetch advisories bans licenses sources
        return
    fi
    note "advisories were not checked: their database could not be fetched; licences, bans and sources were"
    "$deny" --all-features --locked check bans licenses sources
    echo 1 0 1 >"$STAGE_COUNTS"
}

stage_doc() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
}

stage_test() {
    cargo_test
}

stage_node() {
    cargo_test --test node --test node_chaos
}

stage_rbac() {
    cargo_test --test rbac
}

cargo_test() {
    forget_other_clones
    local output=$EMBARK_TEST_CACHE/logs/cargo-test${2:+-$2}.log code=0
    # All of the workspace at once: with -p, features differ and most of the dependencies are built again.
    cargo test --locked --workspace --no-fail-fast "$@" 2>&1 | tee "$output" || code=$?
    count_tests "$output" "$code"
    return "$code"
}

# Adds up cargo's "test result:" lines. A test that is marked ignored was not run, so it has failed.
count_tests() {
    local output=$1 code=$2 passed=0 failed=0 ignored=0
    read -r passed failed ignored < <(
        sed -nE 's/^test result: [a-zA-Z]+\. ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored;.*/\1 \2 \3/p' "$output" \
            | awk '{ p += $1; f += $2; i += $3 } END { print p + 0, f + 0, i + 0 }'
    )
    note "$passed passed, $failed failed, $ignored ignored"
    if ((ignored)); then note "tests marked ignored were not run; a long one asks for EMBARK_TEST_LONG instead"; fi
    if ((passed + failed == 0)); then note "no test ran"; fi
    failed=$((failed + ignored))
    if ((failed == 0 && (code != 0 || passed == 0))); then failed=1; fi
    echo "$passed $failed 0" >"$STAGE_COUNTS"
}

stage_demo() {
    cargo demo -- --once
    cargo demo -- --once --example image-duplicates
}

# Each clone leaves its own build of our crates in the shared target folder. Dependencies are shared, these are not.
forget_other_clones() {
    [[ $CARGO_TARGET_DIR == "$EMBARK_TEST_CACHE/target" && -d $CARGO_TARGET_DIR/debug ]] || return 0
    local name
    while read -r name; do
        find "$CARGO_TARGET_DIR/debug" -mindepth 2 -maxdepth 2 -mtime +2 \
            \( -name "$name-????????????????*" -o -name "lib$name-????????????????*" \) -exec rm -rf -- {} +
    done < <(cargo metadata --no-deps --format-version 1 | "$(find_python)" -c 'import json, sys
targets = {t["name"] for p in json.load(sys.stdin)["packages"] for t in p["targets"]}
print("\n".join(sorted(name.replace("-", "[-_]") for name in targets)))')
}

"stage_$1"
