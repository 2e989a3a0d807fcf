#!/usr/bin/env bash
# Install the Chromium in which the report is tested, on Debian: tools/install_chromium.sh
# Does nothing where it is there. Needs root.
set -euo pipefail
if [[ "${1:-}" == "--help" ]]; then sed -n '2,3s/^# //p' "$0"; exit 0; fi
if command -v chromium > /dev/null; then exit 0; fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver
