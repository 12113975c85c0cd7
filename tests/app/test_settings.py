"""Settings are read from the environment, and refused when they are not safe."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import make_url

from app.database import migrate, url_of
from app.errors import InsecureBinding
from app.processes import environment
from app.settings import LONGEST_SOCKET_PATH, Settings, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    Settings(host=host).require_safe_binding()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gpu-box.example"])
def test_any_other_address_needs_one(host: str) -> None:
    with pytest.raises(InsecureBinding, match="CALIBRANT_TOKEN"):
        Settings(host=host).require_safe_binding()
    with pytest.raises(InsecureBinding):
        Settings(host=host, token=SecretStr("")).require_safe_binding()
    Settings(host=host, token=SecretStr("s3cret")).require_safe_binding()


def test_a_token_is_never_shown() -> None:
    assert "s3cret" not in repr(Settings(token=SecretStr("s3cret")))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_database_url_gets_its_driver(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://u:p@db/c")
    assert url_of(Settings()) == make_url("postgresql+psycopg://u:p@db/c")


@pytest.mark.parametrize("url", ["postgres", "mysql://u:s3cret@db/c"])
def test_another_database_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(ValidationError, match="postgresql://user:password@host/name"):
        Settings()


def test_the_database_is_in_the_data_directory_whatever_it_is_called(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "we?ird#%41 dïr")
    migrate(settings)
    assert (settings.data_dir / "calibrant.sqlite3").is_file()
    assert [found.name for found in tmp_path.iterdir()] == [settings.data_dir.name]


def test_a_data_directory_set_to_nothing_is_the_usual_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("CALIBRANT_DATA_DIR", "")
    assert Settings().data_dir == tmp_path / "calibrant"


def test_the_brokers_name_has_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://user:s3cret@redis:6379/0")
    settings = Settings()
    assert settings.broker_url == "redis://user:s3cret@redis:6379/0"
    assert "s3cret" not in settings.broker_name


def test_the_embedded_brokers_socket_fits_however_long_the_data_directory_is(
    tmp_path: Path,
) -> None:
    settings = Settings(data_dir=tmp_path / ("d" * 120))
    socket = settings.broker_dir / "v.sock"
    assert len(str(socket).encode()) <= LONGEST_SOCKET_PATH
    other = Settings(data_dir=tmp_path / ("e" * 120))
    assert other.broker_dir != settings.broker_dir


def test_packs_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRANT_CORPUS_PACKS", "permissive, cc-by-sa")
    assert Settings().corpus_packs == ("permissive", "cc-by-sa")
    monkeypatch.setenv("CALIBRANT_CORPUS_PACKS", "permissive,secret")
    with pytest.raises(ValidationError, match="secret"):
        Settings()


def test_a_child_process_is_given_the_secrets_themselves(tmp_path: Path) -> None:
    secrets = {"token": SecretStr("one"), "hf_token": SecretStr("two")}
    given = environment(Settings(data_dir=tmp_path, **secrets))
    assert (given["CALIBRANT_TOKEN"], given["CALIBRANT_HF_TOKEN"]) == ("one", "two")
    assert "two" not in repr(Settings(**secrets))


@pytest.mark.parametrize("address", ["hooks.example/x", "ftp://hooks.example/x", "https://"])
def test_who_is_told_has_an_address_of_the_web(address: str) -> None:
    with pytest.raises(ValidationError, match="takes a POST"):
        Settings(notify_url=SecretStr(address))
    assert Settings(notify_url=SecretStr("")).notify_url is None


def test_a_child_process_works_here_whichever_server_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ``sources fetch`` would be refused with a server named, and nobody would be told."""
    monkeypatch.setenv("CALIBRANT_SERVER", "http://elsewhere:8000")
    assert "CALIBRANT_SERVER" not in environment(Settings(data_dir=tmp_path))
