"""Writes fastapi-users.csv: users made by fastapi-users itself, then its table as it is. The costs are low, so that
tests are quick."""
import asyncio, csv, sqlite3, sys

from fastapi_users import BaseUserManager, UUIDIDMixin, schemas
from fastapi_users.db import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from fastapi_users.password import PasswordHelper
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from pwdlib.hashers.bcrypt import BcryptHasher
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    pass


class User(SQLAlchemyBaseUserTableUUID, Base):
    pass


class Manager(UUIDIDMixin, BaseUserManager):
    pass


async def main(folder):
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/fastapi-users.db")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    argon2 = Argon2Hasher(time_cost=1, memory_cost=256, parallelism=2)
    bcrypt = BcryptHasher(rounds=4)
    async with async_sessionmaker(engine, expire_on_commit=False)() as session:
        database = SQLAlchemyUserDatabase(session, User)
        for hasher, person in [
            (argon2, dict(email="ann@fastapi.example", is_verified=True)),
            (bcrypt, dict(email="Bob@fastapi.example")),
            (argon2, dict(email="root@fastapi.example", is_superuser=True, is_verified=True)),
            (argon2, dict(email="gone@fastapi.example", is_active=False)),
        ]:
            manager = Manager(database, PasswordHelper(PasswordHash((hasher,))))
            await manager.create(schemas.BaseUserCreate(password="correct horse battery staple", **person))
    rows = sqlite3.connect(f"{folder}/fastapi-users.db").execute('SELECT * FROM "user"')
    with open(f"{folder}/fastapi-users.csv", "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(column[0] for column in rows.description)
        out.writerows(rows)


asyncio.run(main(sys.argv[1]))
