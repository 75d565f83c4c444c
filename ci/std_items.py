"""Compares ramie with std: two files of rustdoc's JSON, and a list of what is known to differ.

    std_items.py STD.json RAMIE.json LIST MINOR

Each item that std has stable in 1.MINOR, in one of MODULES, has to be in ramie under the same name: either the very same item, re-exported, or one of ramie's own, which
then has to have the same signature, fields, variants, methods, and implementations of traits. Names in
signatures are compared by where they are public in std, so that `net::Incoming` is not
`os::unix::net::Incoming`, and ramie's `File` is std's.

LIST has a line for each finding that is meant: "the finding -- the reason". A finding without a line
and a line without a finding both fail. Prints "N passed, N failed"; passed is each item that is as in
std, and each finding that is listed. The status is 77 if the JSON is of a format not known here.

Not compared: lifetimes other than 'static, the names of parameters, what is `must_use`, and what ramie
has in addition.
"""

import json
import re
import sys

FORMAT = 57
# Modules that are in ramie under the same name.
MODULES = """fs io net process sync sync::mpsc time os os::fd os::linux os::linux::fs
    os::linux::net os::linux::process os::unix os::unix::ffi os::unix::fs os::unix::io os::unix::net
    os::unix::process os::unix::thread thread os::unix::prelude""".split()
MACROS = ["print", "println", "eprint", "eprintln"]
# Traits without methods that the compiler implements; what else it implements so is internal.
AUTO = {"Send", "Sync", "Unpin", "UnwindSafe", "RefUnwindSafe"}
# Marks traits that std's users cannot name: what is for those who have them is for std's types.
PRIVATE = "std's private "
# Other systems' modules.
FOREIGN = re.compile(r"\bos::(windows|wasip?\d?|darwin)\b")


class Crate:
    """One crate's JSON, and under which name each of its items is known to std's users."""

    def __init__(self, path, minor):
        data = json.load(open(path))
        self.format = data["format_version"]
        self.index = data["index"]
        self.paths = data["paths"]
        self.root = self.index[str(data["root"])]
        self.minor = minor
        self.public = {}
        # What is stable where it is re-exported, but not where it is re-exported from.
        self.unstable = {
            item["inner"]["use"]["id"]
            for item in self.index.values()
            if "use" in item["inner"] and not self.stable(item)
        }

    def is_understood(self):
        """std's attributes, which JSON has as text only, say more than its format."""
        if self.root["name"] == "std" and not self.since(self.root, "Stability", False):
            return False
        return self.format == FORMAT

    def item(self, number):
        return self.index.get(str(number))

    def path(self, number):
        """Where an item is defined, as std::net::tcp::TcpStream."""
        entry = self.paths.get(str(number))
        return "::".join(entry["path"]) if entry else None

    def stable(self, item):
        """Whether the attributes say so; they say nothing outside std, and of parts of an item."""
        return self.since(item, "Stability")

    def since(self, item, attribute, unsaid=True):
        for text in attributes(item):
            if text.startswith(f"#[attr = {attribute} "):
                since = re.search(r"minor: (\d+)", text)
                return since is not None and int(since[1]) <= self.minor
        return unsaid

    def module(self, path):
        """The module's public items: name -> (the item's id, the item if it is this crate's)."""
        here = self.root
        for name in filter(None, path.split("::")):
            found = {self.name(i): i for i in map(self.item, self.children(here))}.get(name)
            if found is None:
                return None
            if "use" in found["inner"]:
                found = self.item(found["inner"]["use"]["id"])
            if found is None or not self.stable(found):
                return None
            here = found
        return self.contents(here)

    def contents(self, module):
        found = {}
        for item in map(self.item, self.children(module)):
            if item is None or item["visibility"] != "public" or not self.stable(item):
                continue
            use = item["inner"].get("use")
            if use is None:
                found[item["name"]] = (item["id"], item)
            elif use["is_glob"]:
                inner = self.item(use["id"])
                found.update(self.contents(inner) if inner else {})
            else:
                inner = self.item(use["id"])
                if use["id"] not in self.unstable if inner is None else self.stable(inner):
                    found[use["name"]] = (use["id"], inner)
        return found

    def children(self, module):
        return module["inner"]["module"]["items"]

    def name(self, item):
        return item["inner"]["use"]["name"] if "use" in item["inner"] else item["name"]

    # ---- Signatures as text ----

    def named(self, number, written):
        """The name of a type or trait: the one that std's users know, or else its last part."""
        path = self.path(number)
        return self.public.get(path) or (path or written).split("::")[-1]

    def arguments(self, args, names):
        args = (args or {}).get("angle_bracketed") or (args or {}).get("parenthesized")
        if args is None:
            return ""
        if "inputs" in args:
            inputs = ", ".join(self.type(i, names) for i in args["inputs"])
            output = args["output"]
            return f"({inputs})" + (f" -> {self.type(output, names)}" if output else "")
        found = []
        for arg in args["args"]:
            if "type" in arg:
                found.append(self.type(arg["type"], names))
            elif "const" in arg:
                found.append(names.get(arg["const"]["expr"], arg["const"]["expr"]))
            elif arg.get("lifetime") == "'static":
                found.append("'static")
        for one in args["constraints"]:
            kind = one["binding"]
            if "equality" in kind:
                term = kind["equality"]
                found.append(f"{one['name']} = {self.type(term.get('type'), names)}")
            else:
                found.append(f"{one['name']}: {self.bounds(kind['constraint'], names)}")
        return f"<{', '.join(found)}>" if found else ""

    def bounds(self, bounds, names):
        found = set()
        for bound in bounds:
            if "trait_bound" in bound:
                one = bound["trait_bound"]
                sign = {"maybe": "?", "maybe_const": ""}.get(one["modifier"], "")
                found.add(sign + self.trait(one["trait"], names))
            elif bound.get("outlives") == "'static":
                found.add("'static")
        return " + ".join(sorted(found))

    def trait(self, trait, names):
        path = self.path(trait["id"])
        if path is None or path.startswith("std::") and path not in self.public:
            return PRIVATE + trait["path"].split("::")[-1]
        return self.named(trait["id"], trait["path"]) + self.arguments(trait["args"], names)

    def type(self, type, names):
        """Without lifetimes, but for 'static: the compiler sees to the others."""
        if type is None:
            return "()"
        (kind, inner), = type.items() if isinstance(type, dict) else ((type, None),)
        again = lambda t: self.type(t, names)
        match kind:
            case "resolved_path":
                name = self.named(inner["id"], inner["path"]) + self.arguments(inner["args"], names)
                if name.startswith("Result<") and name.endswith(", io::Error>"):
                    return "io::" + name.removesuffix(", io::Error>") + ">"
                return name
            case "generic":
                return names.get(inner, inner)
            case "primitive":
                return "!" if inner == "never" else inner
            case "tuple":
                return f"({', '.join(map(again, inner))})"
            case "slice":
                return f"[{again(inner)}]"
            case "array":
                return f"[{again(inner['type'])}; {names.get(inner['len'], inner['len'])}]"
            case "borrowed_ref":
                life = "'static " if inner["lifetime"] == "'static" else ""
                return f"&{life}{'mut ' if inner['is_mutable'] else ''}{again(inner['type'])}"
            case "raw_pointer":
                return f"*{'mut' if inner['is_mutable'] else 'const'} {again(inner['type'])}"
            case "impl_trait":
                return f"impl {self.bounds(inner, names)}"
            case "dyn_trait":
                traits = sorted(self.trait(t["trait"], names) for t in inner["traits"])
                return f"dyn {' + '.join(traits)}"
            case "function_pointer":
                return "fn" + self.signature(inner["sig"], names)
            case "qualified_path":
                return f"{again(inner['self_type'])}::{inner['name']}"
        return json.dumps(type)

    def signature(self, sig, names):
        inputs = ", ".join(self.type(type, names) for _, type in sig["inputs"])
        return f"({inputs}) -> {self.type(sig['output'], names)}"

    def generics(self, generics, names):
        """The parameters by position (their names are not compared), with all that is asked of them."""
        asked, order = {}, []
        for param in generics["params"]:
            if "lifetime" in param["kind"]:
                continue
            kind = param["kind"].get("type")
            if kind and kind["is_synthetic"]:
                names[param["name"]] = f"impl {self.bounds(kind['bounds'], names)}"
                continue
            names[param["name"]] = f"T{len([n for n in names.values() if re.match('T[0-9]', n)])}"
        for param in generics["params"]:
            kind = param["kind"].get("type")
            if "lifetime" not in param["kind"] and not (kind and kind["is_synthetic"]):
                order.append(names[param["name"]])
            if kind and not kind["is_synthetic"]:
                asked.setdefault(names[param["name"]], []).extend(kind["bounds"])
        for clause in generics["where_predicates"]:
            if "bound_predicate" in clause:
                one = clause["bound_predicate"]
                asked.setdefault(self.type(one["type"], names), []).extend(one["bounds"])
        where = sorted(f"{t}: {self.bounds(b, names)}" for t, b in asked.items())
        where = [clause for clause in where if not clause.endswith(": ")]
        return (f"<{', '.join(order)}>" if order else "") + (
            f" where {', '.join(where)}" if where else ""
        )

    def function(self, item, names):
        one, names = item["inner"]["function"], dict(names)
        generics = self.generics(one["generics"], names)
        const = one["header"]["is_const"] and self.since(item, "RustcConstStability")
        words = ("const " if const else "") + (
            "unsafe " if one["header"]["is_unsafe"] else ""
        )
        return f"{words}fn{self.signature(one['sig'], names)} {generics}".strip()

    # ---- What an item of one's own consists of ----

    def parts(self, number):
        """Everything that can be compared of an item: name -> text."""
        item = self.item(number)
        (kind, inner), = item["inner"].items()
        names, found = {}, {}
        mine = self.named(number, item["name"])
        match kind:
            case "function":
                found[""] = self.function(item, names)
            case "struct" | "enum" | "trait":
                found[""] = self.generics(inner["generics"], names)
            case "constant":
                found[""] = "const " + self.type(inner["type"], names)
            case _:
                found[""] = kind
        if kind == "struct":
            fields = inner["kind"]["plain"]["fields"] if "plain" in inner["kind"] else []
            for field in map(self.item, fields):
                found[field["name"]] = self.type(field["inner"]["struct_field"], names)
        if kind == "enum":
            for variant in map(self.item, inner["variants"]):
                found[variant["name"]] = "variant"
        if kind == "trait":
            names["Self"] = "Self"
            for one in map(self.item, inner["items"]):
                if "function" in one["inner"] and self.stable(one):
                    text = self.function(one, names)
                    if not one["inner"]["function"]["has_body"]:
                        text += " (required)"
                    found[one["name"]] = text
                elif self.stable(one):
                    found[one["name"]] = next(iter(one["inner"]))
        for block in map(self.item, inner.get("impls", []) if kind != "trait" else []):
            if block and block["inner"]["impl"]["trait"] is None:
                block = block["inner"]["impl"]
                names = {}
                asked = self.generics(block["generics"], names)
                asked = " if" + asked[asked.find(" where"):] if " where" in asked else ""
                names["Self"] = self.type(block["for"], names)
                for one in map(self.item, block["items"]):
                    if one["visibility"] == "public" and self.stable(one):
                        if "function" in one["inner"]:
                            text = self.function(one, names) + asked
                            # Sized after all.
                            text = re.sub(r" where (\w+): Sized if where \1: \?Sized$", "", text)
                            found[one["name"]] = text.strip()
                        else:
                            found[one["name"]] = next(iter(one["inner"]))
        return mine, found

    def implementations(self):
        """All of the crate's implementations, as text."""
        found = set()
        for item in self.index.values():
            block = item["inner"].get("impl")
            if block is None or block["trait"] is None or block["blanket_impl"] is not None:
                continue
            path = self.path(block["trait"]["id"]) or ""
            if block["is_negative"] or not self.stable(item):
                continue
            if "#[doc(cfg(windows))]" in attributes(item):
                continue
            # Traits of std that are in none of the modules are unstable, or for other systems.
            if path.startswith("std::") and path not in self.public:
                continue
            name = path.split("::")[-1]
            if name == "Drop" or block["is_synthetic"] and name not in AUTO:
                continue
            names = {}
            generics = self.generics(block["generics"], names)
            where = generics[generics.find(" where"):] if " where" in generics else ""
            subject = self.type(block["for"], names)
            names["Self"] = subject
            types = [
                f"{one['name']} = {self.type(one['inner']['assoc_type']['type'], names)}"
                for one in map(self.item, block["items"])
                if "assoc_type" in one["inner"]
            ]
            types = f" with {', '.join(types)}" if types else ""
            found.add(f"impl {self.trait(block['trait'], names)} for {subject}{types}{where}")
        return found


def attributes(item):
    return [a["other"] for a in item["attrs"] if isinstance(a, dict) and "other" in a]


def clauses(where):
    """T: A + ?Sized, U: B  ->  what is asked of each, and who need not be sized"""
    asked, unsized = set(), set()
    for type, bounds in re.findall(r"(?:^|, )(\S+): ((?:[^,(<]|\([^)]*\)|<[^>]*>)*)", where):
        for bound in bounds.split(" + "):
            (unsized if bound == "?Sized" else asked).add((type, bound))
    return asked, unsized


def implied(text, have):
    """Whether ramie implements it, perhaps on fewer conditions."""
    what, _, where = text.partition(" where ")
    asked, unsized = clauses(where)
    for one, _, where in (one.partition(" where ") for one in have):
        mine, mine_unsized = clauses(where)
        if one == what and mine <= asked and mine_unsized >= unsized:
            return True
    return False


def compare(std, ramie):
    """Yields (the finding, whether it is a fault, what it is about)."""
    same, own = [], []
    for module in MODULES:
        here = ramie.module(module)
        if here is None:
            continue  # re-exported as a whole, or reported as missing where it should be
        for name, (number, item) in (std.module(module) or {}).items():
            public = f"{module}::{name}"
            if FOREIGN.search(public):
                continue
            if item and "module" in item["inner"]:
                same.append((public, None if name in here else "missing", ""))
                continue
            path = std.path(number)
            std.public.setdefault(path, public)
            found = here.get(name)
            if found is None:
                same.append((public, "missing", ""))
            elif ramie.path(found[0]) == path:
                ramie.public.setdefault(path, public)
                same.append((public, None, ""))
            elif found[1] is None:
                same.append((public, "differs", f"{path} in std, {ramie.path(found[0])} in ramie"))
            elif (number, found[0]) not in {pair[1:] for pair in own}:
                ramie.public.setdefault(ramie.path(found[0]), public)
                own.append((public, number, found[0]))
    # ramie's signatures may name what it does not re-export.
    for path, public in std.public.items():
        ramie.public.setdefault(path, public)
    yield from same
    macros = {i["name"] for i in ramie.index.values() if "macro" in i["inner"]}
    for name in MACROS:
        yield f"{name}!", None if name in macros else "missing", ""

    replaced = set()
    for public, theirs, ours in own:
        replaced.add(std.public[std.path(theirs)])
        _, wanted = std.parts(theirs)
        _, have = ramie.parts(ours)
        for part, text in wanted.items():
            name = f"{public}::{part}" if part else public
            if part not in have:
                yield name, "missing", text
            elif have[part] != text:
                yield name, "differs", f"\n    std:   {text}\n    ramie: {have[part]}"
            else:
                yield name, None, ""

    have = ramie.implementations()
    for text in sorted(std.implementations()):
        names = set(re.findall(r"[\w:]+", text.split(" where ")[0]))
        if names & replaced or PRIVATE in text:
            yield text, None if implied(text, have) else "missing", ""


def main():
    std_path, ramie_path, list_path, minor = sys.argv[1:]
    std, ramie = Crate(std_path, int(minor)), Crate(ramie_path, int(minor))
    if not std.is_understood() or not ramie.is_understood():
        return 77
    known = {}
    for line in open(list_path):
        line = line.strip()
        if line and not line.startswith("#"):
            finding, _, reason = line.rpartition(" -- ")
            known[finding] = reason
    passed = failed = 0
    for finding, fault, about in compare(std, ramie):
        finding = f"{fault} {finding}"
        if fault is None or known.pop(finding, ""):
            passed += 1
        else:
            failed += 1
            print(f"FAILED: {finding}", about)
    for finding in known:
        failed += 1
        print(f"FAILED: no longer so: {finding}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main())
