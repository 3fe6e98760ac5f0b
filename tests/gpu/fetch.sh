#!/bin/sh
# Download what tests/gpu/run.sh needs on a machine without a network: wheels and a selection of real images.
# PYTHON names an interpreter with pip, SPECK_DATA the folder of real datasets.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
max_mb=25  # of each of the two folders

rm -rf wheels data
mkdir wheels
grep '^[A-Za-z]' wheels.txt | grep -v '# source' > wheels/.names
# The tags of manylinux are matched exactly, so each one in use is named.
"$python" -m pip download --quiet --no-deps --only-binary :all: --dest wheels --requirement wheels/.names \
  --python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64 \
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_5_x86_64 \
  --platform manylinux1_x86_64
grep '# source' wheels.txt | grep '^[A-Za-z]' > wheels/.names
"$python" -m pip wheel --quiet --no-deps --wheel-dir wheels --requirement wheels/.names
rm wheels/.names
"$python" select_images.py "${SPECK_DATA:-../../../shared/data}/aerial_cars" data/aerial_cars $max_mb

du --bytes --total wheels/*.whl
for folder in wheels data; do
  bytes=$(find $folder -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }')
  echo "tests/gpu/$folder: $(find $folder -type f | wc -l) files, $bytes bytes"
  if [ "$bytes" -gt $((max_mb * 1000000)) ]; then
    echo "tests/gpu/$folder holds more than $max_mb MB" >&2
    exit 1
  fi
done
