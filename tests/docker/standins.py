"""Stand-ins for the base images, where none can be pulled: made of what is installed on this machine.

`node:20-slim` is this machine's Node.js; `envoyproxy/envoy` is its Envoy; `rust` does not compile but takes the module that
`make wasm` has built. They have the shell and the few programs that the Dockerfiles and health checks call, and no more.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Iterable

CA = Path("/etc/ssl/certs/ca-certificates.crt")

# Called the way the Dockerfile calls cargo; --locked and the rest are its business.
CARGO = """#!/bin/sh
mkdir -p target/wasm32-wasip1/release && cp /built.wasm target/wasm32-wasip1/release/x402_envoy.wasm
"""


def build(env: dict[str, str], envoy: Path, wasm: Path) -> None:
    """Imports all three under the names that the Dockerfiles use, into the daemon that `docker` reaches with `env`."""
    _import(env, "node:20-slim", ["node", "sh", "env"], trees=[_npm()],
            changes=["ENV PATH=/usr/bin", f"ENV NODE_EXTRA_CA_CERTS={CA}"])
    _import(env, "envoyproxy/envoy:v1.40-latest", ["bash", "grep"], files={"/usr/local/bin/envoy": envoy.read_bytes()},
            libraries_of=[envoy], changes=['ENTRYPOINT ["/usr/local/bin/envoy"]', 'CMD ["-c", "/etc/envoy/envoy.yaml"]',
                                           "ENV PATH=/usr/bin"])
    _import(env, "rust:1.95-slim", ["sh", "cp", "mkdir", "install", "true"],
            files={"/usr/bin/cargo": CARGO.encode(), "/usr/bin/rustup": b"#!/bin/sh\n", "/built.wasm": wasm.read_bytes()},
            changes=["ENV PATH=/usr/bin"])


def _npm() -> Path:
    """The directory of npm, wherever Node.js was installed."""
    npm = shutil.which("npm")
    assert npm is not None, "npm is not installed"
    return Path(npm).resolve().parents[1]


def _import(env: dict[str, str], name: str, programs: Iterable[str], changes: list[str], files: dict[str, bytes] = {},
            libraries_of: Iterable[Path] = (), trees: Iterable[Path] = ()) -> None:
    found = {program: Path(shutil.which(program) or f"/usr/bin/{program}") for program in programs}
    with subprocess.Popen(["docker", "import", *(word for change in changes for word in ("-c", change)), "-", name],
                          env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        with tarfile.open(fileobj=child.stdin, mode="w|") as image:
            for directory in ("tmp", "usr/bin", "usr/lib", "usr/lib64", "etc"):
                _add(image, directory, mode=0o1777 if directory == "tmp" else 0o755, kind=tarfile.DIRTYPE)
            for link in ("bin", "lib", "lib64"):
                _add(image, link, target=f"usr/{link}", kind=tarfile.SYMTYPE)
            for path in sorted({library for program in [*found.values(), *libraries_of] for library in _libraries(program)}):
                _add(image, _merged(path), path.read_bytes())
            for program, path in found.items():
                _add(image, f"usr/bin/{program}", path.resolve().read_bytes())
            for path, content in files.items():
                _add(image, path.lstrip("/"), content)
            for tree in trees:
                image.add(tree, "usr/lib/node_modules/npm")
                _add(image, "usr/bin/npm", target="../lib/node_modules/npm/bin/npm-cli.js", kind=tarfile.SYMTYPE)
            if CA.exists():
                _add(image, str(CA).lstrip("/"), CA.read_bytes())
            _add(image, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    assert child.returncode == 0, f"{name} could not be imported"


def _add(image: tarfile.TarFile, name: str, content: bytes = b"", mode: int = 0o755, target: str = "",
         kind: bytes = tarfile.REGTYPE) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, target, len(content)
    image.addfile(entry, io.BytesIO(content))


def _libraries(program: Path) -> set[Path]:
    """What the loader maps for a program, the loader itself included."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return {Path(word) for line in listed.splitlines() for word in line.split() if word.startswith("/") and os.path.exists(word)}


def _merged(path: Path) -> str:
    """/lib/x and /usr/lib/x are one place in the image."""
    name = str(path).lstrip("/")
    return name if name.startswith("usr/") else f"usr/{name}"
