"""Checks whole pages without a browser: structure, policy, nothing foreign, hostile text inert."""

import argparse
import base64
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
from html.parser import HTMLParser

VOID = {"meta", "br", "col", "input", "hr", "wbr"}
TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section", "div",
    "p", "h1", "h2", "h3", "a", "ul", "li", "dl", "dt", "dd", "span", "strong", "b", "bdi", "small",
    "abbr", "table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary", "figure",
    "figcaption", "form", "label", "select", "option", "input", "output", "pre", "code", "script",
    "svg", "desc", "g", "path", "text", "rect", "clipPath".lower(),
}
SECTIONS = ["verdict", "runs", "settings", "curves", "data", "reproduce", "method"]
ALLOWED_URL = re.compile(r"^#[\w-]+$")


class Page(HTMLParser):
    """Collects elements and insists on proper nesting."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.elements, self.texts, self.errors = [], [], [], []
        self.raw = {"script": [], "style": []}
        self.feed(text)
        self.close()
        if self.stack:
            self.errors.append(f"never closed: {self.stack}")

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if len(dict(attrs)) != len(attrs):
            self.errors.append(f"attribute twice on {tag}: {attrs}")
        if tag in self.raw:
            self.raw[tag].append([dict(attrs), ""])
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if not self.stack or self.stack[-1] != tag:
            self.errors.append(f"</{tag}> closes {self.stack[-1:]} at {self.getpos()}")
        else:
            self.stack.pop()

    def handle_data(self, data):
        if self.stack and self.stack[-1] in self.raw:
            self.raw[self.stack[-1]][-1][1] += data
        else:
            self.texts.append(data)

    def handle_comment(self, data):
        self.errors.append(f"comment: {data[:60]}")


def digest(text):
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def check_page(path, sections=SECTIONS):
    """Returns the faults of a page and the parsed page."""
    text = path.read_bytes().decode("utf-8")  # strict: the page is UTF-8
    page = Page(text)
    faults = list(page.errors)
    if not text.startswith("<!DOCTYPE html>\n<html lang=\"en\">"):
        faults.append("no doctype with language")
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    faults += [f"id twice: {i}" for i in set(ids) if ids.count(i) > 1]
    faults += [f"section missing: {s}" for s in sections if s not in ids]
    for tag, attrs in page.elements:
        if tag not in TAGS:
            faults.append(f"foreign element {tag}")
        for name, value in attrs.items():
            if name.startswith("on") or name in ("style", "srcset", "src", "srcdoc"):
                faults.append(f"{tag} has {name}={value!r}")
            refers = name in ("href", "action", "formaction", "xlink:href")
            if refers and not ALLOWED_URL.match(value or ""):
                faults.append(f"{tag} refers to {value!r}")
            if name == "clip-path" and not re.match(r"^url\(#[\w-]+\)$", value):
                faults.append(f"{tag} has {name}={value!r}")
            if name in ("aria-labelledby", "for"):
                faults += [f"{name} names no id: {i}" for i in value.split() if i not in ids]
            if name == "href" and value[1:] not in ids:
                faults.append(f"link to nothing: {value}")
    faults += check_policy(page)
    for svg in (a for t, a in page.elements if t == "svg" and a.get("role") == "img"):
        if "aria-labelledby" not in svg:
            faults.append(f"chart without title and description: {svg}")
    if "--paper" in page.raw["style"][0][1]:
        faults += check_contrast(page.raw["style"][0][1])
    else:
        faults.append("no colours in the style sheet")
    if re.search(r"url\(\s*['\"]?(?!#)", page.raw["style"][0][1]):
        faults.append("the style sheet refers to something")
    return faults, page


def check_policy(page):
    faults = []
    policies = [a["content"] for t, a in page.elements
                if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    if len(policies) != 1:
        return [f"{len(policies)} policies"]
    rules = dict(rule.strip().split(" ", 1) for rule in policies[0].split(";"))
    scripts = [text for attrs, text in page.raw["script"] if "type" not in attrs]
    data = [(attrs, text) for attrs, text in page.raw["script"] if "type" in attrs]
    styles = [text for _, text in page.raw["style"]]
    if rules.get("default-src") != "'none'":
        faults.append(f"default-src is {rules.get('default-src')}")
    if len(scripts) != 1 or rules.get("script-src") != digest(scripts[0]):
        faults.append("the script does not have the hash of the policy")
    if len(styles) != 1 or rules.get("style-src") != digest(styles[0]):
        faults.append("the style sheet does not have the hash of the policy")
    for attrs, text in data:
        if attrs["type"] != "application/json" or "<" in text:
            faults.append(f"data script {attrs}")
        if text:
            json.loads(text)
    if len(scripts[0]) > 16384:
        faults.append(f"the script has {len(scripts[0])} bytes")
    return faults


def attribute_text(page):
    return "\n".join(v or "" for _, attrs in page.elements for v in attrs.values())


def check_payloads(page, payloads):
    """Each payload must be found again as text, letter by letter."""
    shown = "\0".join(page.texts) + "\0" + attribute_text(page)
    return [f"payload lost: {p!r}" for p in payloads if p not in shown]


def luminance(colour):
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    a, b = sorted((luminance(a), luminance(b)), reverse=True)
    return (a + 0.05) / (b + 0.05)


def check_contrast(css):
    """WCAG AA in light, dark and print: 4.5 for text, 3 for what is drawn."""
    faults = []
    themes = re.findall(r":root \{(.*?)\}", css, re.S)
    assert len(themes) == 3, len(themes)
    for name, theme in zip(("light", "dark", "print"), themes):
        colour = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", theme))
        colour = {k: v if len(v) == 7 else "#" + "".join(c * 2 for c in v[1:])
                  for k, v in colour.items()}
        texts = [(t, g) for t in ("ink", "soft", "accent", "good", "warn", "bad")
                 for g in ("paper", "panel")]
        texts += [("good", "goodbg"), ("warn", "warnbg")]
        texts += [("paper", f"h{i}") for i in (0, 1)] + [("ink", f"h{i}") for i in range(2, 7)]
        drawn = [(f"c{i}", "paper") for i in list(range(8)) + ["x"]]
        for pairs, least in ((texts, 4.5), (drawn, 3)):
            for a, b in pairs:
                if contrast(colour[a], colour[b]) < least:
                    faults.append(f"{name}: {a} on {b} has {contrast(colour[a], colour[b]):.2f}")
    return faults


def render(program, what, folder):
    subprocess.run([program, what, str(folder)], check=True, stdout=subprocess.DEVNULL)


def self_test():
    """The checker must see what it looks for."""
    assert round(contrast("#000000", "#ffffff"), 3) == 21
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name, "bad.html")
        path.write_text("<!DOCTYPE html>\n<html lang=\"en\">"
                        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
                        "<style></style><p style=x onclick=y id=a>"
                        "<img src=http://x><b id=a></p><script>1</script></html>")
        found = "\n".join(check_page(path)[0])
        for word in ("onclick", "style=", "foreign element img", "id twice", "closes", "hash"):
            assert word in found, word


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--render", required=True, help="the program report_render")
    arguments = parser.parse_args()
    self_test()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        base = pathlib.Path(name)
        for what in ("demo", "stages", "hostile"):
            render(arguments.render, what, base / what)
        cases = [("demo/report.html", SECTIONS + ["sweep", "generations", "lineage",
                                                  "environment", "events"]),
                 ("demo/pair.html", SECTIONS + ["generations", "lineage"]),
                 ("demo/one.html", SECTIONS),
                 ("stages/report.html", SECTIONS + ["adapters", "results", "generations",
                                                    "lineage"]),
                 ("hostile/report.html", SECTIONS + ["sweep", "adapters", "results", "generations",
                                                     "lineage", "events"])]
        for file, sections in cases:
            faults, page = check_page(base / file, sections)
            if file.startswith("hostile"):
                payloads = json.loads((base / "hostile/payloads.json").read_text())
                assert len(payloads) >= 50
                faults += check_payloads(page, payloads)
            size = (base / file).stat().st_size
            if size > 1_000_000:
                faults.append(f"{size} bytes")
            print(f"{file}: {size} bytes, {len(page.elements)} elements, {len(faults)} faults")
            for fault in faults[:20]:
                print("  " + fault)
            failed += len(faults)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
