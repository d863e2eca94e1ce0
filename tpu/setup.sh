#!/usr/bin/env bash
# Makes the Python environment of one worker, ~/scaling/venv, from the pins beside this file. Does nothing where it is up
# to date. With the folder of a bucket as its argument, filled by `tpu.launch bundle`, everything comes from there.
# The Python is one of python-build-standalone: Ubuntu 22.04 has 3.10, and its 3.11 is a release candidate, which is too
# old for packages that need 3.11.
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=3.12.16+20261110 # the build that the uv of tools.txt downloads
PYTHON_SHA256=6a9e62dad033790aef722dbd370e0ce76ce17b73627ba3ae679f537049350b39
MINUTES=20 # for the bundle to come from the bucket

# JAX on v5e and later: "transparent hugepages significantly improve start and shutdown". A reboot turns them off again.
if sudo -n true 2>/dev/null; then
  echo always | sudo -n tee /sys/kernel/mm/transparent_hugepage/enabled > /dev/null || true
fi

bundle=${1:-}
venv=~/scaling/venv
uv=~/scaling/uv/bin/uv
python=${PYTHON%+*}
from=()
stamp=$(cat requirements.txt tools.txt setup.sh | sha256sum)
[ "$(cat "$venv/ready" 2>/dev/null)" = "$stamp" ] && exit 0
rm -rf "$venv"

unpack() { # the bundle, into ~/scaling/bundle, and Python, into ~/scaling/python
  local here=~/scaling/bundle said archive code
  rm -rf "$here" ~/scaling/python && mkdir -p "$here"
  said=$(timeout "${MINUTES}m" gcloud storage cp "$bundle/*" "$here/" --quiet 2>&1) || {
    code=$?
    said=$(tail -n 1 <<< "$said")
    [ "$code" -ne 124 ] || said="no end within $MINUTES minutes"
    echo "$bundle: could not be fetched: ${said:-gcloud ended with code $code}" >&2
    return 1
  }
  [ -s "$here/manifest" ] || {
    echo "$bundle: has no manifest; complete it with \`bundle\`" >&2
    return 1
  }
  archive="$here/cpython-$PYTHON-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"
  { awk '{print $1 "  " $3}' "$here/manifest" && echo "$PYTHON_SHA256  $archive"; } > "$here/sums"
  said=$(cd "$here" && sha256sum --check --quiet sums 2> /dev/null) || {
    echo "$bundle: ${said%%:*}: is not the file that was bundled; delete the folder and make it again with \`bundle\`" >&2
    return 1
  }
  tar -xzf "$archive" -C ~/scaling
  python=~/scaling/python/bin/python3
  from=(--no-index --find-links "$here")
}

[ -z "$bundle" ] || unpack
python3 -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --require-hashes "${from[@]}" \
  --target ~/scaling/uv --requirement tools.txt
"$uv" venv --quiet --python "$python" "$venv"
"$uv" pip install --quiet --python "$venv" --no-deps --require-hashes --build-constraints tools.txt "${from[@]}" \
  --requirement requirements.txt
rm -rf ~/scaling/bundle
echo "$stamp" > "$venv/ready"
