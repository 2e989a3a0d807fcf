#!/usr/bin/env bash
# Install the smallest LaTeX that compiles our tables, and pdftotext, on Debian: tools/install_latex.sh
# Does nothing where both are there. Needs root.
set -euo pipefail
if [[ "${1:-}" == "--help" ]]; then sed -n '2,3s/^# //p' "$0"; exit 0; fi
if command -v pdflatex > /dev/null && command -v pdftotext > /dev/null; then exit 0; fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends texlive-latex-recommended poppler-utils
