# Tenants find Docker behind Plimsoll. Whoever may open the engine's own socket, or has said where
# Docker is, keeps that.
if [ -z "${DOCKER_HOST:-}" ] && [ -z "${DOCKER_CONTEXT:-}" ] && [ "$(id -u)" -ne 0 ] &&
  [ ! -w /var/run/docker.sock ]; then
  export DOCKER_HOST=unix:///run/plimsoll/docker.sock
fi
