#!/bin/sh
# One model on the GPU and on the CPU of this machine, compared by loadbench: tests/gpu/run.sh OUT [OPTIONS]
#
# Needs Python 3.11 or newer with torch and transformers, which are taken as they are, and nothing from outside but what
# loadbench needs: it is installed into a virtual environment inside OUT, from the index, or from the folder WHEELS if
# that is set. OPTIONS go to `python -m tests.gpu`; without a GPU, the same commands run on the CPU twice:
#
#     tests/gpu/run.sh /tmp/out --shape tiny --device cpu --threads 1
set -eu
[ $# -gt 0 ] || { echo 'usage: tests/gpu/run.sh OUT [OPTIONS]' >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
"$python" -c 'import torch, transformers' || { echo 'install torch and transformers first' >&2; exit 2; }
# Beside the packages of that Python: torch is among them.
"$python" -m venv --system-site-packages "$out/venv"
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$out/packages.pth"
"$out/venv/bin/python" -c 'import shutil, sys, sysconfig; shutil.copy(sys.argv[1], sysconfig.get_path("purelib"))' \
    "$out/packages.pth"
"$out/venv/bin/python" -m pip install -q ${WHEELS:+--no-index --find-links "$WHEELS"} '.[gpu]'
exec "$out/venv/bin/python" -m tests.gpu "$out" "$@"
