"""paramiko, as the conformance test drives it."""
import os
import socket

import paramiko

env = os.environ
client = paramiko.SSHClient()
client.load_host_keys(env["GATE_KNOWN_HOSTS"])  # whoever is not in it is refused


def check(name, run):
    try:
        run()
        print(name, "ok")
    except Exception as e:
        print(name, "failed:", repr(e))


def certificate():
    key = paramiko.Ed25519Key.from_private_key_file(env["GATE_KEY"])
    key.load_certificate(env["GATE_KEY"] + "-cert.pub")
    client.connect(env["GATE_HOST"], int(env["GATE_PORT"]), env["GATE_USER"], pkey=key, allow_agent=False, look_for_keys=False, timeout=20)


def run(command):
    _, out, err = client.exec_command(command, timeout=20)
    return out.read(), err.read(), out.channel.recv_exit_status()


def execs():
    got = run("echo out; echo err >&2; exit 3")
    assert got == (b"out\n", b"err\n", 3), got


def refused():
    out, err, status = run("forbidden")
    assert out == b"" and b"tidegate: Not here" in err and status == 1, (out, err, status)


def shell():
    channel = client.invoke_shell()
    channel.settimeout(20)
    channel.send(b"echo from $((40+2)); exit 5\n")
    text = b""
    while piece := channel.recv(4096):
        text += piece
    status = channel.recv_exit_status()
    assert b"from 42" in text and status == 5, (text, status)


def sftp():
    sent = os.urandom(300_000)
    with client.open_sftp() as files:
        there = env["GATE_FOLDER"] + "/there"
        with files.open(there, "wb") as f:
            f.write(sent)
        with files.open(there, "rb") as f:
            assert f.read() == sent
        assert "there" in files.listdir(env["GATE_FOLDER"])


def forward():
    channel = client.get_transport().open_channel("direct-tcpip", ("localhost", int(env["GATE_ECHO"])), ("127.0.0.1", 1))
    channel.settimeout(20)
    channel.sendall(b"ping")
    channel.shutdown(socket.SHUT_WR)
    text = b""
    while piece := channel.recv(100):
        text += piece
    assert text == b"ping", text


print("version", paramiko.__version__)
for name, how in [("certificate", certificate), ("exec", execs), ("refused", refused), ("shell", shell), ("sftp", sftp), ("forward", forward)]:
    check(name, how)
client.close()
