#!/usr/bin/env bash
# Makes the Python environment of one worker, ~/scaling/venv, from the pinned requirements beside this file. Does nothing
# where it is up to date. uv brings its own Python: Ubuntu 22.04 has 3.10, and its 3.11 is a release candidate, which is
# too old for packages that need 3.11.
set -euo pipefail
cd "$(dirname "$0")"
venv=~/scaling/venv
uv=~/scaling/uv/bin/uv
stamp=$(cat requirements.txt setup.sh | sha256sum)
[ "$(cat "$venv/ready" 2>/dev/null)" = "$stamp" ] && exit 0
rm -rf "$venv"
python3 -m pip install --quiet --disable-pip-version-check --upgrade --target ~/scaling/uv uv==0.13.9
"$uv" venv --quiet --python 3.12 "$venv"
"$uv" pip install --quiet --python "$venv" --no-deps --require-hashes -r requirements.txt
# JAX on v5e and later: "transparent hugepages significantly improve start and shutdown"
if sudo -n true 2>/dev/null; then
  echo always | sudo -n tee /sys/kernel/mm/transparent_hugepage/enabled > /dev/null || true
fi
echo "$stamp" > "$venv/ready"
