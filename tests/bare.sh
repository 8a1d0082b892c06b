#!/usr/bin/env bash
# Run `make` and `make test` in a fresh clone of the last commit, as on a machine with python3, make, git and little else:
# none of the caller's variables, no browser, no database, no package manager, no copy of MNIST, an empty home.
#
#   tests/bare.sh [--user NAME] [--python PROGRAM] [--venv FOLDER] [--only-test]
#
# As root, it runs everything twice: as root, and as an ordinary user that it creates. --user NAME runs as that user only.
# Anyone else runs it as themselves. All of these users must be able to read the --python program and the --venv folder.
# --venv is an environment with everything in tests/requirements.txt, and replaces the download.
# MNIST's mirrors are blocked if root can give the run its own /etc/hosts; otherwise the script says that they are not.
# Pip's variables (PIP_...) are kept, because a registry may need them.
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

# This folder is the whole PATH. Python gets a wrapper, not a link: an environment remembers where its Python is.
tools=$work/tools
mkdir "$tools"
printf '#!/bin/sh\nexec "%s" "$@"\n' "$python" > "$tools/python3"
chmod 755 "$tools" "$tools/python3"
for name in make git sh bash env uname id ls cat cp mv rm mkdir rmdir ln touch chmod chown head tail sed grep awk sort \
    uniq wc tr cut tee date sleep true false test expr expand dirname basename readlink realpath mktemp find xargs; do
    if found=$(type -P "$name"); then ln -s "$found" "$tools/$name"; fi
done

# As a prefix of a command: MNIST's mirrors resolve to this machine, where nothing answers.
{ cat /etc/hosts; echo "127.0.0.1 ossci-datasets.s3.amazonaws.com yann.lecun.com"; } > "$work/hosts"
chmod 644 "$work/hosts"
without_mirrors=(unshare --mount sh -c 'mount --bind "$0" /etc/hosts && exec "$@"' "$work/hosts")
if [ "$EUID" != 0 ] || ! "${without_mirrors[@]}" true 2> /dev/null; then
    echo "MNIST's mirrors are not blocked: blocking them needs root and unshare"
    without_mirrors=()
fi

failed=0
summary=()
try() { # $1: the user
    local who=$1 home=$work/home-$1 as=() kept=() target begin code last
    git clone --quiet "$repository" "$home/clone"
    if [ -n "$venv" ]; then
        ln -s "$venv" "$home/clone/.venv"
        touch -d 2000-01-01 "$home"/clone/{,app/,tests/}requirements.txt # older than the stamps: nothing is set up again
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
        summary+=("$who: make $target: exit code $code after $((SECONDS - begin)) seconds; last line: $last")
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
printf '%s\n' "== summary" "${summary[@]}"
exit "$failed"
