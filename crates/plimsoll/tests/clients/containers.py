"""testcontainers as its documentation shows it, with the reaper off."""

import urllib.request

import docker
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy

SERVE = "mkdir /w; echo hello >/w/index.html; echo ready; exec httpd -f -p 80 -h /w"

with Network() as network:
    web = (
        DockerContainer("plimsoll/example")
        .with_command(["sh", "-c", SERVE])
        .with_env("WORD", "plimsoll")
        .with_exposed_ports(80)
        .with_network(network)
        .with_network_aliases("web")
        .waiting_for(LogMessageWaitStrategy("ready"))
    )
    with web:
        HttpWaitStrategy(80).wait_until_ready(web)
        port = web.get_exposed_port(80)
        address = f"http://{web.get_container_host_ip()}:{port}/"
        assert urllib.request.urlopen(address).read() == b"hello\n", address
        assert web.get_logs() == (b"ready\n", b""), web.get_logs()
        said = web.exec(["sh", "-c", "echo $WORD; wget -q -O - http://web/"])
        assert said == (0, b"plimsoll\nhello\n"), said

client = docker.from_env()
assert client.containers.list(all=True) == []
left = {network.name for network in client.networks.list()}
assert left <= {"bridge", "host", "none"}, left
