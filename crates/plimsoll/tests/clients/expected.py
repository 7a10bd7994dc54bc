"""Runs docker-py's own tests as a tenant of the gateway: a plugin of pytest's.

docker-py.txt beside it names the tests that must fail, each with its reason. They run all the same, and
one that passes fails the run, as does a name that no test has. A reason that begins with "flaky" lets a
test do either.
"""

import os
import pathlib
import re
import sys
import types

import pytest

# The tests' helpers import it, for engines over ssh alone.
sys.modules["paramiko"] = types.SimpleNamespace(Channel=type("Channel", (), {}))

import docker  # noqa: E402  it looks for paramiko

# Every test of networks ends by leaving a swarm that it never joined.
docker.APIClient.leave_swarm = lambda self, force=None: True

ENVIRONMENT = os.environ
TESTS = "tests/integration/"


def expected():
    """The name of a test, or of a file or class of tests, to the reason."""
    found = {}
    text = pathlib.Path(__file__).with_name("docker-py.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, reason = re.fullmatch(r"(\S+)  (\S.+)", line).groups()
            assert name not in found, f"{name} is listed twice"
            found[name] = reason
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    listed = expected()
    unused = set(listed)
    for item in items:
        test = item.nodeid.removeprefix(TESTS)
        for name, reason in listed.items():
            if f"{test}::".startswith(f"{name}::"):
                unused.discard(name)
                strict = not reason.startswith("flaky")
                item.add_marker(pytest.mark.xfail(strict=strict, reason=reason))
    # Of files that this run leaves out nothing can be said but whether they are there.
    files = {item.nodeid.removeprefix(TESTS).split("::")[0] for item in items}
    for name in unused:
        file = name.split("::")[0]
        assert file not in files and os.path.exists(TESTS + file), f"no test is called {name}"


@pytest.fixture(autouse=True)
def environment():
    """One test leaves a dictionary in place of the environment."""
    yield
    os.environ = ENVIRONMENT
