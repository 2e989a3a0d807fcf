#!/usr/bin/env bash
# Install Chromium on Debian, for the tests of the report: tools/install_chromium.sh
# Does nothing if it is installed. Needs root.
set -euo pipefail
if [[ "${1:-}" == "--help" ]]; then sed -n '2,3s/^# //p' "$0"; exit 0; fi
if command -v chromium > /dev/null; then exit 0; fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver
