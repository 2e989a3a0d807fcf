#!/usr/bin/env bash
# Install a minimal LaTeX for our tables, XeLaTeX, a CJK font and pdftotext on Debian: tools/install_latex.sh
# Does nothing if they are installed. Needs root.
set -euo pipefail
if [[ "${1:-}" == "--help" ]]; then sed -n '2,3s/^# //p' "$0"; exit 0; fi
if pdflatex --version && xelatex --version && pdftotext -v && fc-list :lang=zh | grep -q .; then exit 0; fi &> /dev/null
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends texlive-latex-recommended texlive-xetex \
    fonts-wqy-zenhei fontconfig poppler-utils
