#!/usr/bin/env bash
# Install tcmalloc on Debian, which training on CPUs uses if available: tools/install_tcmalloc.sh
# Does nothing if it is installed. Needs root.
set -euo pipefail
if [[ "${1:-}" == "--help" ]]; then sed -n '2,3s/^# //p' "$0"; exit 0; fi
if [[ "$(/sbin/ldconfig -p)" == *libtcmalloc_minimal.so* ]]; then exit 0; fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libtcmalloc-minimal4
