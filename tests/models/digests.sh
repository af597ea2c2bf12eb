#!/usr/bin/env bash
# To be sourced: files are what their sha256 says, or nothing is done with them.

# is FILE SHA256
is() {
    [[ -f $1 ]] && printf '%s  %s\n' "$2" "$1" | sha256sum --check --status -
}

# must_be FILE SHA256
must_be() {
    is "$1" "$2" && return 0
    echo "$1 has sha256 $(sha256sum <"$1" | cut -d' ' -f1), it must be $2" >&2
    exit 1
}
