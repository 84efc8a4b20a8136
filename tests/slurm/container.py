# SPDX-License-Identifier: Apache-2.0
"""Apptainer and the image of jobs/setup/dekoder.def, for tests of what runs in it. A test script calls `inside()` first.

Apptainer is no package of the toolbox: it goes into a copy of the toolbox, an overlay in memory, that ends with the test. The image is
built as on a cluster, by a user without rights, and its base comes from a registry as the recipe says: one on this machine that has a
single image, Debian's packages as debootstrap unpacks them.

DEKODER_IMAGE=FILE.sif takes an image that is there, unpacked in FILE.d, and the Apptainer that is there."""
import gzip
import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from cluster import NAMESPACE

ROOT = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
IMAGE = "DEKODER_IMAGE"  # environment variable: the image's file
PACKAGES = ["apptainer", "debootstrap", "squashfs-tools", "squashfuse", "uidmap"]
BASE = "debian:trixie-slim"
SKIPPED = 77  # exit code


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def inside():
    """Returns where Apptainer is and IMAGE names the image, for which the script is started once more, or ends as skipped."""
    if IMAGE in os.environ:
        if shutil.which("apptainer") is None:
            skip(f"{IMAGE} is set, but there is no apptainer here")
        return
    if os.geteuid() != 0 or "DEKODER_TOOLBOX" not in os.environ:
        skip(f"Apptainer is installed into a copy of the toolbox, by root: jobs/toolbox; or {IMAGE}=FILE, where Apptainer is")
    scratch = tempfile.mkdtemp(prefix="dekoder-image-")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(subprocess.run(["setpriv", "--pdeathsig", "KILL", *NAMESPACE, sys.executable, __file__, "--copy", scratch, *sys.argv]).returncode)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        shutil.rmtree(scratch)


def in_a_copy_of_the_toolbox(scratch, command):
    """Becomes `command` there, once the image is built."""
    toolbox, layers = os.environ.pop("DEKODER_TOOLBOX"), f"{scratch}/layers"
    os.mkdir(layers)
    for words in (["mount", "-t", "tmpfs", "tmpfs", layers], ["mkdir", f"{layers}/upper", f"{layers}/work"],
                  ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={toolbox},upperdir={layers}/upper,workdir={layers}/work", toolbox]):
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode != 0:
            skip(f"no copy of the toolbox: {done.stderr.strip()}")
    os.execvp("bash", ["bash", f"{ROOT}/jobs/toolbox", "--change", sys.executable, __file__, "--build", scratch, *command])


def or_skip(what, *words):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        skip(f"{what}: {' '.join(done.stdout.strip().splitlines()[-1:]) or words[0]}")
    return done.stdout


class Registry(http.server.ThreadingHTTPServer):
    """Hands out one image of one layer, the packed folder, by the registry's HTTP interface; every name and tag is this image."""

    def __init__(self, layer):
        digest = lambda data: "sha256:" + hashlib.sha256(data).hexdigest()
        kind = lambda name: f"application/vnd.oci.image.{name}"
        describe = lambda name, data: {"mediaType": kind(name), "digest": digest(data), "size": len(data)}
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["bash"]},
                             "rootfs": {"type": "layers", "diff_ids": [digest(gzip.decompress(layer))]}}).encode()
        manifest = json.dumps({"schemaVersion": 2, "mediaType": kind("manifest.v1+json"), "config": describe("config.v1+json", config),
                               "layers": [describe("layer.v1.tar+gzip", layer)]}).encode()

        class Answer(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                data, media_type = {digest(config): (config, "application/octet-stream"), digest(layer): (layer, "application/octet-stream")
                                    }.get(self.path.rpartition("/")[2], (manifest, kind("manifest.v1+json")) if "/manifests/" in self.path
                                          else (b"{}", "application/json"))
                self.send_response(200)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Docker-Content-Digest", digest(data))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Answer)
        self.daemon_threads = True
        threading.Thread(target=self.serve_forever, daemon=True).start()


def build(scratch):
    """The image's file."""
    scratch = Path(scratch)
    scratch.chmod(0o755)
    apt = ["apt-get", "-qq", "-o", "APT::Update::Error-Mode=any"]
    or_skip("package lists", *apt, "update")
    or_skip(f"{', '.join(PACKAGES)}", *apt, "install", "-y", "--no-install-recommends", *PACKAGES)
    mirror = or_skip("a Debian mirror", "apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)", "Created-By: Packages").split()[0]
    or_skip("a base image", "debootstrap", "--variant=minbase", "trixie", scratch / "base", mirror)
    (scratch / "base/etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")  # no fsync for each file, as in Debian's own images
    or_skip("a base image", "tar", "-C", scratch / "base", "--exclude=./dev/*", "--exclude=*.deb", "-czf", scratch / "layer.tar.gz", ".")
    or_skip("a user", "useradd", "--create-home", "--home-dir", scratch / "home", "builder")
    user = ["setpriv", "--reuid", "builder", "--regid", "builder", "--init-groups", "env", "-C", f"{scratch}/checkout", f"HOME={scratch}/home"]
    for name in ("CMakeLists.txt", "cmake", "jobs", "postprocess", "src"):
        target = scratch / "checkout" / name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
    # Jobs of the tests' Slurm are root's, and root may lack some of its capabilities, where this machine is a container itself.
    or_skip("Apptainer's settings", "sed", "-i", "s/^root default capabilities = .*/root default capabilities = no/",
            "/etc/apptainer/apptainer.conf")
    or_skip("namespaces of a user", *user, "unshare", "--user", "--map-root-user", "true")

    registry = Registry((scratch / "layer.tar.gz").read_bytes())
    shutil.rmtree(scratch / "base")
    (scratch / "home").chmod(0o755)
    image, log, begin = scratch / "home/dekoder.sif", scratch / "log", time.monotonic()
    for words in (["--no-https", "--build-arg", f"from=localhost:{registry.server_port}/{BASE}", image, "jobs/setup/dekoder.def"],
                  ["--sandbox", image.with_suffix(".d"), image]):
        with log.open("wb") as out:
            done = subprocess.run([*user, "apptainer", "build", *words], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            end = log.read_text(errors="replace").splitlines(keepends=True)[-40:]
            sys.exit(f"apptainer build {words}: exit code {done.returncode}\n{''.join(end)}")
        print(f"{words[-2]}: {time.monotonic() - begin:.0f} s, {image.stat().st_size / 2**20:.0f} MiB", flush=True)
    return image


if __name__ == "__main__":
    mode, place, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    if mode == "--copy":
        in_a_copy_of_the_toolbox(place, command)
    os.environ[IMAGE] = str(build(place))
    sys.exit(subprocess.run([sys.executable, *command]).returncode)
