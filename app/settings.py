"""Settings, read once from the environment and refused when they are not safe."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.errors import InsecureBinding
from app.sources.starter_corpus import PACKS, Pack

ROOT = Path(__file__).resolve().parents[1]

DATABASES = ("postgres", "postgresql", "postgresql+psycopg", "sqlite")

# sun_path of a unix socket holds 108 bytes on Linux, its terminator included (unix(7)).
LONGEST_SOCKET_PATH = 100


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "calibrant"


def _or_default(value: Any) -> Any:
    """A variable that is set to nothing is not the directory one happens to be in."""
    return _default_data_dir() if value == "" else value


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


class Settings(BaseSettings):
    """What an installation can set; each field is the environment variable of its alias.

    ``data_dir`` holds everything Calibrant keeps. ``token`` is asked for on any address that is
    not loopback. ``upload_bytes`` is the most an uploaded file may have, ``unpacked_bytes`` what
    it may have after it is unpacked. ``hf_token`` is sent to the hub of data sets (``HF_ENDPOINT``
    names another hub). ``assets`` says where htmx comes from: its CDN with the vendored file as the
    fallback, or the vendored file alone. ``stall_seconds`` is the silence after which a running
    job is shown as stalled, ``lost_seconds`` the silence of its worker after which it is lost.
    ``notify_url`` is told when a job ends.
    """

    model_config = SettingsConfigDict(env_prefix="CALIBRANT_", extra="ignore")

    data_dir: Annotated[Path, BeforeValidator(_or_default)] = Field(
        default_factory=_default_data_dir
    )
    database_url: str | None = Field(
        default=None, validation_alias=AliasChoices("CALIBRANT_DATABASE_URL", "DATABASE_URL")
    )
    redis_url: str | None = Field(
        default=None, validation_alias=AliasChoices("CALIBRANT_REDIS_URL", "REDIS_URL")
    )
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    token: SecretStr | None = None
    assets: Literal["cdn", "local"] = "cdn"
    corpus_packs: Annotated[tuple[Pack, ...], NoDecode, BeforeValidator(_split_commas)] = PACKS
    threads: Annotated[int, Field(ge=1)] | None = None
    upload_bytes: Annotated[int, Field(ge=1)] = 512_000_000
    unpacked_bytes: Annotated[int, Field(ge=1)] = 4_000_000_000
    hf_token: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("CALIBRANT_HF_TOKEN", "HF_TOKEN")
    )
    stall_seconds: Annotated[float, Field(gt=0)] = 120.0
    lost_seconds: Annotated[float, Field(gt=0)] = 20.0
    notify_url: SecretStr | None = None

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str | None) -> str | None:
        scheme, separator, _ = (value or "").partition("://")
        if value and not (separator and scheme in DATABASES):
            raise ValueError("give one like postgresql://user:password@host/name")
        return value or None

    @field_validator("notify_url")
    @classmethod
    def _web_address(cls, value: SecretStr | None) -> SecretStr | None:
        address = urlsplit(value.get_secret_value()) if value else None
        if address and not (address.scheme in ("http", "https") and address.hostname):
            raise ValueError("give an address that takes a POST, like https://host/path")
        return value or None

    @property
    def broker_dir(self) -> Path:
        """Where the embedded broker keeps its socket and its append-only file."""
        inside = self.data_dir.resolve() / "broker"
        if len(str(inside / "v.sock").encode()) <= LONGEST_SOCKET_PATH:
            return inside
        digest = hashlib.sha256(str(inside).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"calibrant-{os.getuid()}-{digest}"

    @property
    def broker_url(self) -> str:
        """The broker as Celery addresses it."""
        if self.redis_url:
            return self.redis_url
        return f"redis+socket://{self.broker_dir / 'v.sock'}?virtual_host=0"

    @property
    def broker_name(self) -> str:
        """The broker as a sentence may name it: without credentials."""
        if not self.redis_url:
            return f"the embedded broker at {self.broker_dir / 'v.sock'}"
        return f"the broker at {self.redis_url.rpartition('@')[2].removeprefix('redis://')}"

    @property
    def sets_dir(self) -> Path:
        """Built calibration sets, one directory each, named by their id."""
        return self.data_dir.resolve() / "sets"

    @property
    def jobs_dir(self) -> Path:
        """Spec, events, log and artifacts of each job."""
        return self.data_dir.resolve() / "jobs"

    @property
    def checkpoints_dir(self) -> Path:
        """Exported checkpoints, one directory each."""
        return self.data_dir.resolve() / "checkpoints"

    @property
    def sources_dir(self) -> Path:
        """Fetched rows, one directory for each source, in it one for each revision."""
        return self.data_dir.resolve() / "sources"

    @property
    def index_dir(self) -> Path:
        """Token counts of the sources' rows, one file for each source and tokenizer."""
        return self.data_dir.resolve() / "index"

    def require_safe_binding(self) -> None:
        """Refuse a public address without a token.

        Raises InsecureBinding when ``host`` is not loopback and no token is set.
        """
        if is_loopback(self.host) or (self.token and self.token.get_secret_value()):
            return
        raise InsecureBinding(
            f"{self.host} can be reached from other machines: set CALIBRANT_TOKEN to a secret "
            "that people must give, or listen on 127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@lru_cache
def get_settings() -> Settings:
    """The process's settings, read from the environment once."""
    return Settings()
