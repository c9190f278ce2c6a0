#!/usr/bin/env python3
"""Compiles the crate with each feature alone, without warnings, and runs its unit tests.

The crate is a dev-dependency of itself, so that `cargo test` finds every feature; with it each test has
all features, whatever is asked for. So this makes a manifest without it, under `target/ci/features`, that
points at the same sources, and fails if another feature than those asked for is resolved.

    .ci/feature_tests.py            every feature
    .ci/feature_tests.py health     these features
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "target/ci/features"
MANIFEST = FOLDER / "Cargo.toml"

# Compile time is most of the time: no debug information, and few cases of each property.
PROFILE = """
[lib]
path = "../../../src/lib.rs"

[workspace]

[profile.dev]
opt-level = 0
debug = false
"""


def manifest_text(text):
    """Returns the manifest with the library alone, and without the dev-dependency on itself."""
    sections = re.split(r"(?m)^(?=\[)", text)
    dropped = ("[[", "[package.metadata", "[profile")
    kept = "".join(section for section in sections if not section.startswith(dropped))
    kept, removed = re.subn(r"(?m)^lvs = \{.*\n", "", kept)
    assert removed == 1, "the dev-dependency on the crate itself is one line"
    kept = without_unused_dev_dependencies(kept)
    # The examples are there for tests that read their configurations.
    kept = kept.replace("[package]\n", "[package]\nautoexamples = false\n", 1)
    return kept + PROFILE


def without_unused_dev_dependencies(manifest):
    """Drops the dev-dependencies that no unit test names: most are for `tests`, benches and examples."""
    files = [path for path in (ROOT / "src").rglob("*.rs") if "bin" not in path.parts]
    sources = "\n".join(re.sub(r"(?m)^\s*//.*$", "", path.read_text()) for path in files)
    before, heading, rest = manifest.partition(".dev-dependencies]\n")
    end = rest.find("\n[")
    lines, after = rest[:end], rest[end:]

    def is_used(line):
        name = line.split(" ")[0].replace("-", "_")
        return re.search(rf"\b{name}::|\buse {name};", sources)

    return before + heading + "\n".join(filter(is_used, lines.split("\n"))) + after


def closure(features, name):
    """Returns a feature and those that it enables."""
    found, waiting = set(), [name]
    while waiting:
        feature = waiting.pop()
        if feature in features and feature not in found:
            found.add(feature)
            waiting += features[feature]
    return found


def resolved(arguments):
    """Returns the features of the crate that cargo resolves for its tests."""
    command = ["cargo", "tree", "--manifest-path", MANIFEST, "--offline", "-e", "normal,build,dev"]
    command += ["--depth", "0", "--prefix", "none", "-f", "{f}"]
    output = subprocess.run(command + arguments, check=True, capture_output=True, text=True).stdout
    return set(filter(None, output.strip().split(",")))


def main():
    text = (ROOT / "Cargo.toml").read_text()
    features = tomllib.loads(text)["features"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    examples = FOLDER / "examples"
    if not examples.exists():
        examples.symlink_to(ROOT / "examples")
    MANIFEST.write_text(manifest_text(text))
    (FOLDER / "Cargo.lock").write_text((ROOT / "Cargo.lock").read_text())
    subprocess.run(["cargo", "fetch", "--manifest-path", MANIFEST], check=True)
    environment = os.environ | {"PROPTEST_CASES": "16", "RUSTFLAGS": "-D warnings"}
    environment.setdefault("CARGO_TARGET_DIR", str(ROOT / "target/ci/features/target"))
    # These are others together, and `cargo test` has them; `cli` has no tests in the library.
    together = {"default", "full", "cli", "director"}
    chosen = sys.argv[1:] or [""] + sorted(set(features) - together)
    for feature in chosen:
        arguments = ["--no-default-features"] + (["--features", feature] if feature else [])
        found, expected = resolved(arguments), closure(features, feature)
        print(f"feature {feature or 'none'}: resolved {', '.join(sorted(found)) or 'none'}", flush=True)
        if found != expected:
            sys.exit(f"feature {feature}: expected {sorted(expected)}, resolved {sorted(found)}")
        # With `--tests` the library is compiled from the dependencies that its tests have, which are there then.
        for how in (["build", "--tests"], ["test", "--quiet"]):
            command = ["cargo", *how, "--manifest-path", MANIFEST, "--offline", "--lib", *arguments]
            subprocess.run(command, check=True, env=environment)


main()
