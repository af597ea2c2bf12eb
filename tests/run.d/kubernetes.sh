#!/usr/bin/env bash
# kubernetes.sh FOLDER: builds what a cluster is made of from Go modules into FOLDER: the programs of Kubernetes, etcd,
# CoreDNS, metrics-server, cert-manager, Helm and helm-unittest. Versions stand in kubernetes.versions beside this file. A program is
# built when FOLDER does not have it in that version; Go's own cache makes a second folder quick.
# Cold on two cores it takes some 13 minutes, half of them kube-apiserver.
set -euo pipefail

# Each is a wrapper module of its own, so that its requirements are those of its own go.mod.
readonly PROGRAMS=(kubernetes etcd coredns metrics-server cert-manager helm helm-unittest)
readonly OF_KUBERNETES=(kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet)

build_kubernetes() {
    local staging=0.${KUBERNETES#1.} module program flags
    local -a packages=()
    go mod edit -require "k8s.io/kubernetes@v$KUBERNETES"
    # It requires its staging modules as v0.0.0, which exist nowhere: each is published under a version of its own.
    grep -oE "k8s\.io/[a-z0-9-]+ v0\.0\.0( |$)" "$(go_mod_of "k8s.io/kubernetes@v$KUBERNETES")" | sort -u | while read -r module _; do
        go mod edit -replace "$module=$module@v$staging"
    done
    for program in "${OF_KUBERNETES[@]}"; do packages+=("k8s.io/kubernetes/cmd/$program"); done
    import "${packages[@]}"
    flags="-X k8s.io/component-base/version.gitVersion=v$KUBERNETES -X k8s.io/component-base/version.gitMajor=1"
    flags+=" -X k8s.io/component-base/version.gitMinor=$(cut -d . -f 2 <<<"$KUBERNETES")"
    flags+=" -X k8s.io/client-go/pkg/version.gitVersion=v$KUBERNETES"
    for program in "${OF_KUBERNETES[@]}"; do
        compile "$program" "k8s.io/kubernetes/cmd/$program" "$flags"
    done
}

build_etcd() {
    cat >main.go <<'GO'
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
GO
    go get "go.etcd.io/etcd/server/v3@v$ETCD"
    go mod tidy
    compile etcd .
}

# Only the plugins that cluster DNS needs: all of them are twice the code.
build_coredns() {
    cat >main.go <<'GO'
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func init() { dnsserver.Directives = []string{"bind", "errors", "ready", "cache", "kubernetes"} }

func main() { coremain.Run() }
GO
    go get "github.com/coredns/coredns@v$COREDNS"
    go mod tidy
    compile coredns .
}

build_metrics-server() {
    from_module sigs.k8s.io/metrics-server "$METRICS_SERVER" cmd/metrics-server
}

# Of its controllers those that sign by an authority of the cluster's own, and its definitions beside the program. Its own
# program is a module that no proxy has.
build_cert-manager() {
    local module=github.com/cert-manager/cert-manager
    cp -- "$here/cert-manager.go" main.go
    go get "$module@v$CERT_MANAGER"
    go mod tidy
    mkdir -p -- "$out/cert-manager.crds"
    cp -- "$(go list -m -f '{{.Dir}}' "$module")"/deploy/crds/cert-manager.io_*.yaml "$out/cert-manager.crds"
    chmod -- u+w "$out"/cert-manager.crds/*
    compile cert-manager .
}

build_helm() {
    from_module helm.sh/helm/v4 "$HELM" cmd/helm
}

build_helm-unittest() {
    local module=github.com/helm-unittest/helm-unittest
    from_module "$module" "$HELM_UNITTEST" cmd/helm-unittest "-X $module/internal/build.version=$HELM_UNITTEST"
}

# from_module MODULE VERSION FOLDER [FLAGS]: a program that its module has ready. `go install` would refuse a go.mod with
# a replace directive, which means nothing outside of its own module: they are taken over.
from_module() {
    local module=$1 version=$2 package=$1/$3 flags=${4:-}
    go mod edit -require "$module@v$version"
    go mod edit -json "$(go_mod_of "$module@v$version")" | replaced | while read -r replace; do
        go mod edit -replace "$replace"
    done
    import "$package"
    compile "${package##*/}" "$package" "$flags"
}

# The replace directives of `go mod edit -json` on standard input, those to folders aside.
replaced() {
    python3 -c 'import json, sys
name = lambda part: part["Path"] + ("@" + part["Version"] if part.get("Version") else "")
for line in json.load(sys.stdin).get("Replace") or []:
    if line["New"].get("Version"):
        print(name(line["Old"]) + "=" + name(line["New"]))'
}

go_mod_of() {
    go mod download -json "$1" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p'
}

# Makes packages that are programs requirements of this module.
import() {
    local package
    {
        printf '//go:build tools\n\npackage tools\n\n'
        for package in "$@"; do printf 'import _ "%s"\n' "$package"; done
    } >tools.go
    go mod tidy
}

# compile NAME PACKAGE [FLAGS]
compile() {
    echo "building $1"
    go build -trimpath -ldflags "-s -w ${3:-}" -o "$out/$1.new" "$2"
    mv -- "$out/$1.new" "$out/$1"
}

version_of() {
    local name=${1^^}
    name=${name//-/_}
    echo "${!name} recipe $RECIPE"
}

is_built() {
    local program
    local -a files=("$1")
    [[ $1 != kubernetes ]] || files=("${OF_KUBERNETES[@]}")
    for program in "${files[@]}"; do
        [[ -x $out/$program ]] || return 1
    done
    [[ $(cat "$out/.$1.version" 2>/dev/null) == "$(version_of "$1")" ]]
}

main() {
    local here out work program
    (($# == 1)) || {
        echo "usage: kubernetes.sh FOLDER" >&2
        exit 2
    }
    here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
    # shellcheck source=/dev/null # nothing but NAME=VALUE
    source "$here/kubernetes.versions"
    out=$(mkdir -p -- "$1" && cd -- "$1" && pwd)
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf -- '$work'" EXIT
    export CGO_ENABLED=0 GOFLAGS=-mod=mod
    for program in "${PROGRAMS[@]}"; do
        if ! is_built "$program"; then
            mkdir "$work/$program"
            (
                cd -- "$work/$program"
                go mod init "build-$program"
                "build_$program"
            )
            version_of "$program" >"$out/.$program.version"
        fi
    done
}

main "$@"
