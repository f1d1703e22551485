"""Options of a sandbox: secrets, volumes, several containers, services, networks, users."""

import base64
import io
import json
import urllib.error
import urllib.request
import zipfile

import pytest
from conftest import IMAGE, OTHER_IMAGE, apply, eventually, kubectl
from cwsandbox import (
    Container,
    EgressRule,
    NetworkOptions,
    Sandbox,
    SandboxError,
    SandboxValidationError,
    ScratchVolumeOptions,
    Secret,
    SecurityContext,
    Service,
    VolumeMount,
)


@pytest.fixture(scope="module")
def store():
    data = {"HF_TOKEN": "hf-1", "K": "k-1", "login": json.dumps({"user": "me", "password": "p$ss"})}
    apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "my-store", "labels": {"sandbox-operator.dev/secret-store": "true"}},
            "data": {k: base64.b64encode(v.encode()).decode() for k, v in data.items()},
        }
    )
    apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "no-store"}, "stringData": {"x": "y"}})
    return "my-store"


def test_secrets_become_variables(defaults, store):
    secrets = [
        Secret(store=store, name="HF_TOKEN"),
        Secret(store=store, name="K", env_var="OPENAI_API_KEY"),
        Secret(store=store, name="login", field="password", env_var="PASSWORD"),
    ]
    with Sandbox.run(secrets=secrets, defaults=defaults) as sandbox:
        seen = sandbox.exec(["sh", "-c", 'echo "$HF_TOKEN $OPENAI_API_KEY $PASSWORD"']).result().stdout
        assert seen == "hf-1 k-1 p$ss\n"
        assert "p$ss" not in kubectl("get", "sbx", sandbox.sandbox_id, "-o", "yaml")


@pytest.mark.parametrize("name", ["no-such-store", "no-store"])
def test_only_a_labelled_secret_is_a_store(defaults, store, name):
    with pytest.raises(SandboxError) as caught:
        Sandbox.run(secrets=[Secret(store=name, name="x")], defaults=defaults).wait()
    assert caught.value.reason == "CWSANDBOX_SECRET_STORE_NOT_PROVISIONED"


@pytest.mark.parametrize(("name", "field"), [("nothing", ""), ("login", "nothing"), ("K", "nothing")])
def test_the_error_names_a_missing_secret(defaults, store, name, field):
    with pytest.raises(SandboxValidationError, match="nothing"):
        Sandbox.run(secrets=[Secret(store=store, name=name, field=field, env_var="X")], defaults=defaults)


def test_scratch_volumes(defaults):
    volumes = [
        ScratchVolumeOptions(name="disk", mount_path="/scratch", size="64Mi"),
        ScratchVolumeOptions(name="ram", mount_path="/ram", size="16Mi", medium="memory"),
    ]
    with Sandbox.run(volumes=volumes, defaults=defaults) as sandbox:
        assert sandbox.exec(["sh", "-c", "echo x > /scratch/x && echo y > /ram/y && stat -f -c %T /ram"]).result().stdout == "tmpfs\n"


def test_several_containers_share_network_and_volumes(defaults):
    serve = "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=8000, bind='127.0.0.1')"
    shared, small = [VolumeMount(volume="v", mount_path="/v")], {"cpu": "50m", "memory": "64Mi"}
    containers = [
        Container(name="main", image="python:3.11", command="sleep", args=["infinity"], primary=True, volume_mounts=shared, resources=small),
        Container(name="web", image="python:3.11", command="python", args=["-c", serve], working_dir="/v", volume_mounts=shared, resources=small),
    ]
    with Sandbox.run(containers=containers, volumes=[ScratchVolumeOptions(name="v")], defaults=defaults) as sandbox:
        sandbox.write_file("/v/page", b"shared").result()
        fetch = ["python", "-c", "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8000/page').read().decode())"]
        eventually(lambda: sandbox.exec(fetch).result().stdout == "shared\n")
        assert sandbox.exec(["hostname"], container="web").result().returncode == 0
        assert sandbox.read_file("page", container="web").result() == b"shared"


def test_redis_runs_beside_python_with_its_images_entrypoint(defaults):
    small = {"cpu": "50m", "memory": "64Mi"}
    containers = [
        Container(name="main", image=IMAGE, command="sleep", args=["infinity"], primary=True, resources=small),
        Container(name="cache", image=OTHER_IMAGE, resources=small),
    ]
    with Sandbox.run(containers=containers, defaults=defaults) as sandbox:
        eventually(lambda: sandbox.exec(["redis-cli", "ping"], container="cache").result().stdout == "PONG\n")
        say = "import socket; s = socket.create_connection(('127.0.0.1', 6379)); s.sendall(b'SET k from-python\\r\\n'); print(s.recv(64))"
        assert sandbox.exec(["python", "-c", say]).result().stdout == "b'+OK\\r\\n'\n"
        assert sandbox.exec(["redis-cli", "get", "k"], container="cache").result().stdout == "from-python\n"
        assert [(c.name, c.image) for c in sandbox.containers] == [("main", IMAGE), ("cache", OTHER_IMAGE)]


def wheel():
    """A minimal Python package."""
    info = "tiny-1.0.dist-info"
    files = {
        "tiny.py": "ANSWER = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def test_pip_installs_from_a_reachable_index(defaults):
    package = {"mount_path": "/index/simple/tiny/tiny-1.0-py3-none-any.whl", "file_content": wheel()}
    index = {"mounted_files": [package], "services": [Service(port=8080, visibility="private")], "working_dir": "/index"}
    with Sandbox.run("python", "-m", "http.server", "8080", defaults=defaults, **index) as server:
        ((_, _, url),) = server.wait().service_urls
        with Sandbox.run(network=NetworkOptions(egress=[EgressRule(tenant="same_user")]), defaults=defaults) as client:
            host = url.removeprefix("http://").split(":")[0]
            # Debian's pip refuses to install into the system's directories.
            install = ["pip", "install", "--index-url", f"{url}/simple", "--trusted-host", host, "--target", "/tmp/packages", "tiny"]
            eventually(lambda: client.exec(install, timeout_seconds=60).result().returncode == 0)
            assert client.exec(["python", "-c", "import tiny; print(tiny.ANSWER)"], cwd="/tmp/packages").result().stdout == "42\n"


def test_other_sandboxes_reach_a_private_service(defaults):
    with Sandbox.run("python", "-m", "http.server", "8080", services=[Service(port=8080, visibility="private")], defaults=defaults) as server:
        ((port, _, url),) = server.wait().service_urls
        assert port == 8080
        with Sandbox.run(network=NetworkOptions(egress=[EgressRule(tenant="same_user")]), defaults=defaults) as client:
            fetch = ["python", "-c", f"import urllib.request; print(urllib.request.urlopen('{url}', timeout=10).status)"]
            eventually(lambda: client.exec(fetch).result().stdout == "200\n")


def test_a_public_service_is_reachable_from_outside_until_its_sandbox_ends(defaults):
    ports = [Service(port=8080, visibility="public"), Service(port=8081, name="inner", visibility="private")]
    with Sandbox.run("python", "-m", "http.server", "8080", services=ports, defaults=defaults) as server:
        urls = {port: url for port, _, url in server.wait().service_urls}
        assert "svc" in urls[8081] and "svc" not in urls[8080]

        def fetch():
            try:
                return urllib.request.urlopen(urls[8080], timeout=10).status == 200
            except urllib.error.URLError:
                return False

        eventually(fetch)
        (listed,) = Sandbox.list(tags=server.tags).result()
        assert {port: url for port, _, url in listed.service_urls} == urls

    def services():
        return kubectl("get", "services", "-l", f"sandbox-operator.dev/sandbox={server.sandbox_id}", "-o", "name").split()

    eventually(lambda: len(services()) == 1)
    assert not services()[0].endswith("-public")


def test_commands_run_as_the_requested_user(defaults):
    context = SecurityContext(run_as_user=1234, run_as_group=1234, read_only_root_filesystem=True)
    with Sandbox.run(security_context=context, defaults=defaults) as sandbox:
        assert sandbox.exec(["sh", "-c", "id -u; id -g; touch /x 2>&1 | grep -c 'Read-only'"]).result().stdout == "1234\n1234\n1\n"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"security_context": {"privileged": True}}, "privileged"),
        ({"environment_variables": {"NOT A NAME": "x"}}, "environment_variables"),
        ({"max_lifetime_seconds": 2_592_001}, "max_lifetime_seconds"),
        ({"annotations": {"sandbox-operator.dev/x": "y"}}, "annotations"),
        ({"annotations": {"vault.hashicorp.com/agent-inject": "true"}}, r"must be a key that matches one of \*.*sandboxes.constraints.podAnnotationKeys"),
        ({"mounted_files": [{"mount_path": "../../etc/passwd", "file_content": b"x"}]}, "files"),
        ({"network": NetworkOptions(egress=[EgressRule(cidr="10.0.0.1/8")])}, r"egress\[0\].cidr.cidr: must have no bits .* write 10.0.0.0/8"),
        ({"network": NetworkOptions(egress=[EgressRule(cidr="169.254.169.254/32")])}, r"egress\[0\].cidr.cidr: must contain an address"),
        ({"environment_variables": {"A": "x" * 131_070}}, r'environment_variables\["A"\]: must have at most 131071 bytes'),
    ],
)
def test_an_error_names_the_wrong_field(tag, options, field):
    with pytest.raises(SandboxValidationError, match=field):
        Sandbox.run(tags=[tag], **options).wait()


def test_the_longest_argument_and_variable_arrive(tag):
    """A dollar counts once, although it is escaped as two in the Sandbox."""
    longest = "$" * 131_071
    script = 'printf %s "$1" | wc -c; printf %s "$V" | wc -c'
    sandbox = Sandbox.run("sh", "-c", script, "sh", longest, environment_variables={"V": longest[2:]}, tags=[tag])
    sandbox.wait_until_complete(timeout=120).result()
    assert "".join(sandbox.stream_logs()) == "131071\n131069\n"
    with pytest.raises(SandboxValidationError, match=r"args\[3\]: must have at most 131071 bytes"):
        Sandbox.run("sh", "-c", script, "sh", longest + "$", tags=[tag])


def test_snapshots_are_not_supported(defaults):
    sandbox = Sandbox.run(volumes=[ScratchVolumeOptions(name="v", mount_path="/v")], defaults=defaults).wait()
    with pytest.raises(SandboxError) as caught:
        sandbox.snapshot().result()
    assert caught.value.reason == "CWSANDBOX_FSS_NOT_SUPPORTED"
    sandbox.stop().result()
