# SPDX-License-Identifier: GPL-2.0-or-later
"""A strict reader of Prometheus' text format: what it does not like, fails."""
import math
import re
import shutil
import subprocess

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|$)')
SAMPLE = re.compile(r"(%s)(?:\{(.*)\})? (\S+)$" % NAME)
UNITS = ("_bytes", "_seconds", "_total")


def unescape(text):
    return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], text)


def parse_labels(text):
    labels = {}
    while text:
        found = LABEL.match(text)
        assert found, "not a label: " + text
        assert found[1] not in labels, "label twice: " + text
        assert not found[1].startswith("__"), found[1]
        labels[found[1]] = unescape(found[2])
        text = text[found.end():]
        assert text or not found[3], "a comma at the end"
    return labels


def check_histogram(name, samples):
    """Buckets count upwards to the count, for each set of labels."""
    series = {}
    for sample, labels, value in samples:
        rest = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
        series.setdefault(rest, {}).setdefault(
            sample[len(name):], []).append((labels.get("le"), value))
    for parts in series.values():
        assert set(parts) == {"_bucket", "_sum", "_count"}, parts
        ends = [float(le.replace("+Inf", "inf")) for le, _ in parts["_bucket"]]
        counts = [count for _, count in parts["_bucket"]]
        assert ends == sorted(ends) and ends[-1] == math.inf, ends
        assert counts == sorted(counts), counts
        assert parts["_count"] == [(None, counts[-1])], parts


def check_name(name, kind):
    assert name.startswith("weir_") and re.fullmatch(NAME, name), name
    assert name.endswith("_total") == (kind == "counter"), name
    for unit in UNITS:
        rest = name[:-len("_total")] if name.endswith("_total") else name
        assert rest.count(unit) <= 1, name
        assert unit not in rest or rest.endswith(unit), name


def parse(text):
    """{family: (type, [(sample name, labels, value)])}."""
    assert text.endswith("\n")
    families, current, seen = {}, None, set()
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            current, text_of_help = line[7:].split(" ", 1)
            assert current not in families, "family twice: " + current
            assert text_of_help.strip() == text_of_help != "", line
            families[current] = (None, [])
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name == current and families[name] == (None, []), line
            assert kind in ("gauge", "counter", "histogram"), line
            check_name(name, kind)
            families[name] = (kind, [])
        else:
            found = SAMPLE.match(line)
            assert found, "not a sample: " + line
            labels = parse_labels(found[2] or "")
            value = float(found[3])
            kind, samples = families[current]
            suffix = found[1][len(current):]
            assert found[1].startswith(current), line
            assert suffix in (("_bucket", "_sum", "_count")
                              if kind == "histogram" else ("",)), line
            key = (found[1], tuple(sorted(labels.items())))
            assert key not in seen, "sample twice: " + line
            seen.add(key)
            samples.append((found[1], labels, value))
    for name, (kind, samples) in families.items():
        if kind == "histogram":
            check_histogram(name, samples)
    return families


def promtool(text):
    """What promtool says of it; None if there is no promtool."""
    program = shutil.which("promtool")
    if not program:
        return None
    result = subprocess.run([program, "check", "metrics"], input=text,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, timeout=60, check=False)
    return result.returncode, result.stdout
