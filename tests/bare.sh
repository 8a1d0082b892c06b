#!/usr/bin/env bash
# `make` and `make test` in a fresh clone of what is committed, as on a machine with python3, make, git and little else:
# no variable of the caller's, no browser, no database, no package manager, no copy of MNIST, an empty home.
#
#   tests/bare.sh [--user NAME] [--python PROGRAM] [--venv FOLDER] [--only-test]
#
# root runs both as root and as an ordinary user made for this, or only as --user; anybody else as himself.
# --python and --venv must be readable to all who run. --venv is an environment that has all of tests/requirements.txt,
# taken in place of a download. MNIST's mirrors are blocked where root can give the run an /etc/hosts of its own; where
# that is not so they may be asked, and it says so. Pip's own variables (PIP_...) are kept: a registry may need them.
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
user="" venv="" python=$(command -v python3) targets=("" test)
while [ $# -gt 0 ]; do
    case $1 in
        --user) user=$2; shift 2 ;;
        --python) python=$(realpath --no-symlinks "$2"); shift 2 ;;
        --venv) venv=$(realpath "$2"); shift 2 ;;
        --only-test) targets=(test); shift ;;
        *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2 ;;
    esac
done

work=$(mktemp -d)
chmod 711 "$work"
made=""
clean_up() {
    rm -rf "$work"
    [ -z "$made" ] || userdel --remove "$made" 2> /dev/null
}
trap clean_up EXIT

# The folder that is the whole PATH. Python is called, not linked: an environment remembers where its Python lies.
tools=$work/tools
mkdir "$tools"
printf '#!/bin/sh\nexec "%s" "$@"\n' "$python" > "$tools/python3"
chmod 755 "$tools" "$tools/python3"
for name in make git sh bash env uname id ls cat cp mv rm mkdir rmdir ln touch chmod chown head tail sed grep awk sort \
    uniq wc tr cut tee date sleep true false test expr expand dirname basename readlink realpath mktemp find xargs; do
    if found=$(type -P "$name"); then ln -s "$found" "$tools/$name"; fi
done

# In front of a command: MNIST's mirrors lead to this machine, where nobody answers.
{ cat /etc/hosts; echo "127.0.0.1 ossci-datasets.s3.amazonaws.com yann.lecun.com"; } > "$work/hosts"
chmod 644 "$work/hosts"
without_mirrors=(unshare --mount sh -c 'mount --bind "$0" /etc/hosts && exec "$@"' "$work/hosts")
if [ "$EUID" != 0 ] || ! "${without_mirrors[@]}" true 2> /dev/null; then
    echo "MNIST's mirrors are not blocked: that takes root, and unshare"
    without_mirrors=()
fi

failed=0
summary=()
try() { # as whom
    local who=$1 home=$work/home-$1 as=() kept=() target begin code last
    git clone --quiet "$repository" "$home/clone"
    if [ -n "$venv" ]; then
        ln -s "$venv" "$home/clone/.venv"
        touch -d 2000-01-01 "$home"/clone/{,app/,tests/}requirements.txt # so that its stamps stand
    fi
    if [ "$who" != "$(id -un)" ]; then
        chown -R "$who:" "$home"
        as=(runuser -u "$who" --)
    fi
    while IFS= read -r -d '' variable; do
        case $variable in PIP_*) kept+=("$variable") ;; esac
    done < <(env -0)
    for target in "${targets[@]}"; do
        begin=$SECONDS
        echo "== $who: make $target"
        code=0
        (
            cd "$home/clone"
            ${without_mirrors[@]+"${without_mirrors[@]}"} ${as[@]+"${as[@]}"} \
                env -i PATH="$tools" HOME="$home" ${kept[@]+"${kept[@]}"} make $target
        ) 2>&1 < /dev/null | tee "$work/said" || code=$?
        last=$(tail -n 1 "$work/said")
        summary+=("$who: make $target: exit code $code after $((SECONDS - begin)) seconds; its last line: $last")
        [ "$code" = 0 ] || failed=1
    done
}

if [ -n "$user" ]; then
    try "$user"
else
    try "$(id -un)"
    if [ "$EUID" = 0 ]; then
        made=learner-$$
        useradd --create-home "$made"
        try "$made"
    fi
fi
printf '%s\n' "== in short" "${summary[@]}"
exit "$failed"
