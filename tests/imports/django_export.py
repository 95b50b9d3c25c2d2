"""Writes django.jsonl: users made by Django itself, then `dumpdata`. The costs are low, so that tests are quick."""
import sys

import django
from django.conf import settings
from django.contrib.auth import hashers

OF = "django.contrib.auth.hashers."
NAMES = ["PBKDF2", "PBKDF2SHA1", "Scrypt", "Argon2", "BCryptSHA256", "BCrypt"]
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    PASSWORD_HASHERS=[f"{OF}{name}PasswordHasher" for name in NAMES],
    USE_TZ=True,
)
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command

hashers.PBKDF2PasswordHasher.iterations = 1000
hashers.ScryptPasswordHasher.work_factor = 2**4
hashers.Argon2PasswordHasher.memory_cost = 512
hashers.BCryptSHA256PasswordHasher.rounds = 4
call_command("migrate", verbosity=0)
for kind in ["pbkdf2_sha256", "pbkdf2_sha1", "scrypt", "argon2", "bcrypt_sha256", "bcrypt"]:
    email = f"{kind}@django.example"
    user = User.objects.create_user(kind, email, first_name="Ann", is_superuser=kind == "scrypt")
    user.password = hashers.make_password("correct horse battery staple", hasher=kind)
    user.save()
User.objects.create_user("none@django.example", "none@django.example")
call_command("dumpdata", "auth.user", format="jsonl", output=f"{sys.argv[1]}/django.jsonl")
