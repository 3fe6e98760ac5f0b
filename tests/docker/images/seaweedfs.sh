#!/bin/sh
# Entry point of the SeaweedFS image: `server` has the defaults of the registry's image before its own options.
set -eu
[ "$1" = server ] || exec weed "$@"
shift
exec weed server -dir=/data -master.volumePreallocate -master.volumeSizeLimitMB=1024 "$@"
