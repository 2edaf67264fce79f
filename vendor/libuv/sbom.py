# SPDX-License-Identifier: MIT
"""The bill of materials of a wheel: libuv, compiled into it, which no metadata of Python's names.

CycloneDX in the folder that PEP 770 has for it, so that scanners which know of a hole in libuv
find the wheels with that libuv. Nothing in it depends on when and where it is written.
"""

import json
from pathlib import Path
from typing import Any

from vendor.libuv.fetch import PIN

NAME = "veloop.cdx.json"


def document(version: str) -> dict[str, Any]:
    """What is in a wheel of this version of veloop."""
    libuv = PIN["version"]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": "veloop",
                "name": "veloop",
                "version": version,
                "purl": f"pkg:pypi/veloop@{version}",
                "licenses": [{"license": {"id": "MIT"}}],
            }
        },
        "components": [
            {
                "type": "library",
                "bom-ref": "libuv",
                "name": "libuv",
                "version": libuv,
                "purl": f"pkg:github/libuv/libuv@v{libuv}",
                "cpe": f"cpe:2.3:a:libuv:libuv:{libuv}:*:*:*:*:*:*:*",
                "licenses": [{"license": {"id": "MIT"}}],
                # Of src/ and include/, as the build verified it: vendor/libuv/README.md says how.
                "properties": [{"name": "veloop:tree-sha256", "value": PIN["tree-sha256"]}],
            }
        ],
        "dependencies": [{"ref": "veloop", "dependsOn": ["libuv"]}, {"ref": "libuv"}],
    }


def write(dist_info: Path, version: str) -> None:
    """Write it where PEP 770 wants it in a folder of metadata."""
    folder = dist_info / "sboms"
    folder.mkdir(exist_ok=True)
    text = json.dumps(document(version), indent=2) + "\n"
    (folder / NAME).write_text(text, "utf-8", newline="\n")
