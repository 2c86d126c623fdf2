#!/usr/bin/env python3
"""Makes a bill of materials exact: it names every crate that the binary is built from, and no other.

    sbom.py FILE TARGET

cargo-cyclonedx takes the features that tests want too for wanted, and with them crates that no release
has: they are taken out. The list to go by is cargo's own, of what is linked on the target. That one of
those is missing, or has no licence, is an error.
"""
import json
import re
import subprocess
import sys


def main(file, target):
    with open(file) as stream:
        bill = json.load(stream)
    bill = nowhere(bill)
    own = identity(bill["metadata"]["component"])
    linked = crates(target) - {own}
    bill["components"] = [part for part in bill["components"] if identity(part) in linked]
    kept = {part["bom-ref"] for part in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    bill["dependencies"] = [
        {**edge, "dependsOn": [ref for ref in edge.get("dependsOn", []) if ref in kept]}
        for edge in bill["dependencies"]
        if edge["ref"] in kept
    ]
    faults = [f"missing: {crate}" for crate in sorted(linked - set(map(identity, bill["components"])))]
    faults += [f"no licence: {identity(part)}" for part in bill["components"] if not part.get("licenses")]
    for fault in faults:
        print(f"{file}: {fault}", file=sys.stderr)
    with open(file, "w") as stream:
        json.dump(bill, stream, indent=2)
        stream.write("\n")
    print(f"{file}: {len(linked)} crates")
    return 1 if faults else 0


def nowhere(bill):
    """The same bill without the folder that it was made in."""
    own = bill["metadata"]["component"]
    name = "pkg:cargo/{name}@{version}".format(**own)
    text = json.dumps(bill).replace(json.dumps(own["purl"]), json.dumps(name))
    return json.loads(text.replace(json.dumps(own["bom-ref"]), json.dumps(name)))


def identity(part):
    return part["name"], part["version"]


def crates(target):
    """Name and version of all that is linked; macros, which run while building alone, among them."""
    tree = ["cargo", "tree", "--locked", "--edges", "normal", "--prefix", "none", "--target", target]
    text = subprocess.run(tree, check=True, capture_output=True, text=True).stdout
    # A line is `name v1.2.3 (proc-macro) (*)`.
    return set(re.findall(r"^(\S+) v(\S+)", text, re.MULTILINE))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
