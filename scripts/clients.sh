#!/usr/bin/env bash
# Clients that others wrote, through the gateway as tenants: docker-py by its own tests, testcontainers.
# What they are is pinned in clients.txt and clients-source.txt and fetched into .cache, once.

# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

pip_() { /usr/bin/python3 -m pip --quiet --disable-pip-version-check "$@"; }

fetch() {
  local wheels=$REPO/scripts/clients.txt source=$REPO/scripts/clients-source.txt
  # By the pins' hash, so that other versions get another folder.
  clients=$CACHE_DIR/clients-$(cat "$wheels" "$source" | sha256sum | cut -c1-12)
  [[ -d $clients ]] && return
  say "fetching the clients into .cache, once"
  /usr/bin/python3 -m pip --version >/dev/null 2>&1 || need_packages /nonexistent/pip=python3-pip
  rm -rf "$clients.new"
  mkdir -p "$clients.new"
  pip_ install --no-cache-dir --no-deps --require-hashes --root-user-action=ignore \
    --target "$clients.new/site" --requirement "$wheels"
  pip_ download --no-cache-dir --no-deps --require-hashes --no-binary :all: \
    --dest "$clients.new" --requirement "$source"
  mkdir "$clients.new/docker-py"
  tar --extract --gzip --no-same-owner --strip-components 1 --directory "$clients.new/docker-py" \
    --wildcards --file "$clients.new"/docker-*.tar.gz '*/tests' '*/pytest.ini'
  rm "$clients.new"/docker-*.tar.gz
  mv "$clients.new" "$clients"
}

need_root
need_engine_packages
need_build_packages
need_packages /usr/bin/python3=python3
cd "$REPO"
fetch
end_with end_engine
enter_engine
# They mostly wait: more of them at once than there are cores.
PLIMSOLL_CLIENTS=$clients cargo test --locked --package plimsoll --test clients -- \
  --ignored --test-threads 4 "$@"
