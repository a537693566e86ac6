"""Settings: defaults, bounds, where a value comes from, and the combinations that are refused."""

from decimal import Decimal
from pathlib import Path

import pytest

from algotrader.config import load
from risk.config import SETTINGS, Config, ConfigError, Kind, Setting, as_text, mask, parse, setting_of

NO_FILE = Path("/dev/null")
KEYS = {"ALGO_BROKER__API_KEY": "PK123", "ALGO_BROKER__SECRET_KEY": "s3cr3t"}


def config(**variables: str) -> Config:
    """The settings of an environment, written without the ALGO_ prefix."""
    return load({f"ALGO_{name}": text for name, text in variables.items()}, NO_FILE)


def refusal(**variables: str) -> str:
    """The one line with which an environment is refused."""
    with pytest.raises(ConfigError) as raised:
        config(**variables)
    line = str(raised.value)
    assert "\n" not in line
    return line


def just_outside(setting: Setting) -> list[str]:
    step = Decimal(1) if setting.kind is Kind.INTEGER else Decimal("0.000001")
    below = [] if setting.minimum is None else [setting.minimum - step]
    above = [] if setting.maximum is None else [setting.maximum + step]
    return [as_text(number) for number in below + above]


BOUNDED = [setting for setting in SETTINGS if setting.minimum is not None]


# --- defaults and bounds ----------------------------------------------------------------------------------------------


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    defaults = config()
    assert defaults["risk.max_daily_loss_pct"] == Decimal("0.03")
    assert defaults["risk.max_risk_per_trade_abs"] == Decimal(500)
    assert defaults["velez.sma_slow"] == 200
    assert defaults["velez.doji_threshold_pct"] == Decimal(10)
    assert defaults["watchlist"] == ("AAPL", "TSLA", "AMD", "NVDA", "META")
    assert defaults["strategies"] == ("velez",)
    assert defaults["broker.paper"] is True
    assert defaults["allow_live_trading"] is False
    assert defaults["backtest.max_volume_share"] is None
    assert {defaults.source(setting.key) for setting in SETTINGS} == {"default"}


def test_no_number_is_a_float() -> None:
    defaults = config()
    for setting in SETTINGS:
        assert not isinstance(defaults[setting.key], float), setting.key
        if setting.kind is Kind.DECIMAL and not setting.optional:
            assert isinstance(defaults[setting.key], Decimal), setting.key


@pytest.mark.parametrize("setting", BOUNDED, ids=lambda setting: setting.key)
def test_a_number_outside_its_bounds_is_refused_and_the_bounds_themselves_are_not(setting: Setting) -> None:
    for text in just_outside(setting):
        with pytest.raises(ConfigError) as raised:
            parse(setting.key, text)
        line = str(raised.value)
        assert setting.variable in line
        assert text in line
        assert str(setting.minimum) in line
    for bound in (setting.minimum, setting.maximum):
        if bound is not None:
            assert parse(setting.key, as_text(bound)) == bound


@pytest.mark.parametrize(
    ("variable", "text", "bound"),
    [
        ("RISK__MAX_RISK_PER_TRADE_PCT", "0.1", "from 0.001 to 0.05"),
        ("RISK__MAX_RISK_PER_TRADE_PCT", "0.0001", "from 0.001 to 0.05"),
        ("RISK__MAX_OPEN_POSITIONS", "2.5", "a whole number from 1 to 20"),
        ("RISK__MAX_OPEN_POSITIONS", "many", "a whole number from 1 to 20"),
        ("RISK__MAX_DAILY_LOSS_PCT", "NaN", "from 0.01 to 0.10"),
        ("RISK__MAX_DAILY_LOSS_PCT", "", "from 0.01 to 0.10"),
        ("RISK__ALLOW_MARGIN", "perhaps", "true or false"),
        ("VELEZ__CANDLE_INTERVAL_MINUTES", "3", "one of 1, 2, 5, 10"),
        ("BROKER__FEED", "otc", "one of iex, sip"),
        ("LOG_LEVEL", "TRACE", "one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("LOG_FORMAT", "xml", "one of console, json"),
        ("WATCHLIST", "", "one or more different symbols"),
        ("WATCHLIST", "aapl", "one or more different symbols"),
        ("WATCHLIST", "TOOLONG", "one or more different symbols"),
        ("WATCHLIST", "AAPL,TSLA,AAPL", "one or more different symbols"),
        ("WATCHLIST", "AAPL,,TSLA", "one or more different symbols"),
        ("STRATEGIES", "", "one or more different names"),
        ("BROKER__TRADING_URL", "localhost:9", "http://... or https://..."),
        ("BROKER__TRADING_STREAM_URL", "http://localhost:9", "ws://... or wss://..."),
        ("BROKER__DATA_URL", "https://", "http://... or https://..."),
        ("DATABASE_URL", "mysql://localhost/x", "sqlite://... or postgres://..."),
        ("REDIS_URL", "http://localhost", "redis://..."),
        ("WEB__PORT", "65536", "from 1 to 65535"),
        ("WEB__ALLOWED_HOSTS", "trader.example.com:8443", "host names without port"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_naming_variable_value_and_bound(
    variable: str, text: str, bound: str
) -> None:
    line = refusal(**{variable: text})
    assert line.startswith(f"ALGO_{variable}={text!r} ")
    assert bound in line


def test_good_values_of_every_kind_are_read() -> None:
    read = config(
        RISK__MAX_DAILY_LOSS_PCT="0.05",
        VELEZ__CANDLE_INTERVAL_MINUTES="5",
        WATCHLIST="BRK.B, F",
        RISK__ALLOW_MARGIN="yes",
        BACKTEST__MAX_VOLUME_SHARE="0.1",
        DATABASE_URL="postgres:///trading",
        WEB__ALLOWED_HOSTS="trader.example.com,10.0.0.5,[fd00::1]",
    )
    assert read["risk.max_daily_loss_pct"] == Decimal("0.05")
    assert read["velez.candle_interval_minutes"] == 5
    assert read["watchlist"] == ("BRK.B", "F")
    assert read["risk.allow_margin"] is True
    assert read["backtest.max_volume_share"] == Decimal("0.1")
    assert read["database_url"] == "postgres:///trading"
    assert read["web.allowed_hosts"] == ("trader.example.com", "10.0.0.5", "[fd00::1]")


def test_every_value_survives_as_text() -> None:
    defaults = config()
    for setting in SETTINGS:
        value = defaults[setting.key]
        assert parse(setting.key, as_text(value)) == value, setting.key
    assert as_text(parse("risk.max_risk_per_trade_abs", "1E+3")) == "1000"


# --- where a value comes from -----------------------------------------------------------------------------------------


def test_file_beats_default_environment_beats_file_and_override_beats_all(tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_text(
        "# limits\n"
        "ALGO_RISK__MAX_OPEN_POSITIONS=7\n"
        'export ALGO_RISK__CONSECUTIVE_LOSS_PAUSE="4"\n'
        "ALGO_LOG_LEVEL='DEBUG'\n"
        "SOMETHING_ELSE=1\n"
    )
    environment = {"ALGO_RISK__CONSECUTIVE_LOSS_PAUSE": "5", "ALGO_LOG_LEVEL": "ERROR", "PATH": "/bin"}
    effective = load(environment, file).with_overrides({"log_level": "WARNING"})
    found = {
        key: (effective[key], effective.source(key))
        for key in (
            "risk.flatten_minutes_before_close",
            "risk.max_open_positions",
            "risk.consecutive_loss_pause",
            "log_level",
        )
    }
    assert found == {
        "risk.flatten_minutes_before_close": (5, "default"),
        "risk.max_open_positions": (7, "envfile"),
        "risk.consecutive_loss_pause": (5, "env"),
        "log_level": ("WARNING", "override"),
    }


def test_the_environment_can_name_another_file(tmp_path: Path) -> None:
    file = tmp_path / "other.env"
    file.write_text("ALGO_WATCHLIST=SPY\n")
    assert load({"ALGO_ENV_FILE": str(file)})["watchlist"] == ("SPY",)
    with pytest.raises(ConfigError, match=r"cannot read the settings file .*missing\.env"):
        load({"ALGO_ENV_FILE": str(tmp_path / "missing.env")})


@pytest.mark.parametrize(
    "line",
    ["ALGO_RISK__MAX_OPEN_POSITIONS = 3", " ALGO_RISK__MAX_OPEN_POSITIONS=3", "ALGO_BROKER__SECRET_KEY : s3cr3t"],
)
def test_a_line_of_the_file_that_would_be_overlooked_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "settings.env"
    file.write_text(f"\n{line}\n")
    with pytest.raises(ConfigError, match=r"settings\.env line 2 is not written as NAME=value") as raised:
        load({}, file)
    assert "s3cr3t" not in str(raised.value)


def test_a_misspelt_variable_is_refused_with_the_name_that_was_meant(tmp_path: Path) -> None:
    line = refusal(RISK__MAX_DALY_LOSS_PCT="0.02")
    assert line == "ALGO_RISK__MAX_DALY_LOSS_PCT is not a setting; did you mean ALGO_RISK__MAX_DAILY_LOSS_PCT?"
    assert "did you mean ALGO_WATCHLIST?" in refusal(WACHLIST="SPY")
    assert "is not a setting" in refusal(VELEZ__COLOUR="blue")
    file = tmp_path / "settings.env"
    file.write_text("ALGO_WHATEVER=1\n")
    with pytest.raises(ConfigError, match="ALGO_WHATEVER is not a setting"):
        load({}, file)


def test_variables_that_others_put_into_the_environment_are_left_alone() -> None:
    assert config(TRADER_SERVICE_HOST="10.0.0.1", TEST_REQUIRE_ALL="1")["web.port"] == 8000


def test_an_override_is_held_to_the_same_bounds_and_an_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ALGO_RISK__MAX_DAILY_LOSS_PCT='0\.5'.*from 0\.01 to 0\.10"):
        config().with_overrides({"risk.max_daily_loss_pct": "0.5"})
    with pytest.raises(ConfigError, match=r"'risk\.max_daily_loss' is not a setting; did you mean risk\.max_daily"):
        config().with_overrides({"risk.max_daily_loss": "0.02"})
    with pytest.raises(ConfigError, match="'colour' is not a setting"):
        config()["colour"]


def test_equal_settings_have_equal_fingerprints_and_secrets_are_no_part_of_them() -> None:
    assert config().fingerprint() == config(SECRET_KEY="x" * 50).fingerprint()
    assert config().fingerprint() != config(VELEZ__SMA_FAST="21").fingerprint()


def test_keys_and_variables_follow_one_rule() -> None:
    assert setting_of("risk.max_daily_loss_pct").variable == "ALGO_RISK__MAX_DAILY_LOSS_PCT"
    assert setting_of("watchlist").variable == "ALGO_WATCHLIST"
    assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)


def test_only_what_the_next_evaluation_can_apply_is_changed_without_a_restart() -> None:
    assert {setting.key for setting in SETTINGS if not setting.restart} == {
        "watchlist",
        "risk.max_risk_per_trade_pct",
        "risk.max_risk_per_trade_abs",
        "risk.max_position_pct",
        "risk.max_daily_loss_pct",
        "risk.max_open_positions",
        "risk.consecutive_loss_pause",
        "risk.flatten_minutes_before_close",
        "velez.enabled",
        "opening_range.enabled",
        "log_level",
    }


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_and_passwords_are_never_shown() -> None:
    with_secrets = load(
        {**KEYS, "ALGO_DATABASE_URL": "postgres://me:pa%2Fss@db/x", "ALGO_REDIS_URL": "redis://:hush@h:1"}, NO_FILE
    )
    shown = " ".join(mask(setting, with_secrets[setting.key]) for setting in SETTINGS) + repr(with_secrets)
    for secret in ("PK123", "s3cr3t", "pa%2Fss", "hush"):
        assert secret not in shown
    assert "@db/x" in shown
    assert mask(setting_of("broker.api_key"), "") == ""


def test_a_refused_address_does_not_show_its_password() -> None:
    assert "hush" not in refusal(DATABASE_URL="mysql://me:hush@db/x")
    assert "hush" not in refusal(DATABASE_URL="postgres://me:hu/hush@db/x")
    assert "hush" not in refusal(BROKER__TRADING_URL="https://me:hush@api.alpaca.markets")


# --- combinations -----------------------------------------------------------------------------------------------------


def test_the_provider_follows_from_the_keys() -> None:
    assert config()["broker.provider"] == "simulator"
    assert load(KEYS, NO_FILE)["broker.provider"] == "alpaca"
    assert load({**KEYS, "ALGO_BROKER__PROVIDER": "simulator"}, NO_FILE)["broker.provider"] == "simulator"
    assert config().with_overrides({"broker.provider": ""})["broker.provider"] == "simulator"


def test_one_key_without_the_other_is_refused() -> None:
    assert refusal(BROKER__API_KEY="PK123").startswith("ALGO_BROKER__SECRET_KEY is empty")
    line = refusal(BROKER__SECRET_KEY="s3cr3t")
    assert line.startswith("ALGO_BROKER__API_KEY is empty")
    assert "s3cr3t" not in line


def test_alpaca_without_keys_is_refused() -> None:
    assert "ALGO_BROKER__API_KEY and ALGO_BROKER__SECRET_KEY" in refusal(BROKER__PROVIDER="alpaca")


def test_real_money_needs_the_second_switch() -> None:
    assert "ALGO_ALLOW_LIVE_TRADING=true" in refusal(BROKER__PAPER="false")
    assert config(BROKER__PAPER="false", ALLOW_LIVE_TRADING="true")["broker.paper"] is False


ALPACA = {
    "BROKER__PROVIDER": "alpaca",
    "BROKER__API_KEY": "PK123",
    "BROKER__SECRET_KEY": "s3cr3t",
}
LOOPBACK = {
    "BROKER__TRADING_URL": "http://127.0.0.1:9100",
    "BROKER__TRADING_STREAM_URL": "ws://localhost:9100/stream",
    "BROKER__DATA_URL": "http://[::1]:9100",
    "BROKER__DATA_STREAM_URL": "ws://127.0.0.2:9100",
}
PAPER = {
    "BROKER__TRADING_URL": "https://paper-api.alpaca.markets",
    "BROKER__TRADING_STREAM_URL": "wss://paper-api.alpaca.markets/stream",
    "BROKER__DATA_URL": "https://data.alpaca.markets",
    "BROKER__DATA_STREAM_URL": "wss://stream.data.alpaca.markets",
}


@pytest.mark.parametrize("addresses", [{}, LOOPBACK, PAPER, {"BROKER__DATA_URL": "https://data.alpaca.markets"}])
def test_addresses_on_loopback_or_all_of_alpacas_paper_are_accepted(addresses: dict[str, str]) -> None:
    assert config(**ALPACA, **addresses)["broker.provider"] == "alpaca"


@pytest.mark.parametrize(
    "url",
    [
        "https://api.alpaca.markets",
        "https://proxy.example.com",
        "https://127.0.0.1@proxy.example.com",
        "https://127.0.0.1.example.com",
        "https://paper-api.alpaca.markets.example.com",
    ],
)
def test_any_other_host_counts_as_live_and_needs_the_second_switch(url: str) -> None:
    line = refusal(**ALPACA, BROKER__TRADING_URL=url)
    assert line.startswith("ALGO_BROKER__TRADING_URL=")
    assert "ALGO_ALLOW_LIVE_TRADING=true" in line


@pytest.mark.parametrize("stranger", LOOPBACK)
def test_one_address_of_another_kind_is_refused(stranger: str) -> None:
    assert "must be of one kind" in refusal(**ALPACA, **{**LOOPBACK, stranger: PAPER[stranger]})
    assert "must be of one kind" in refusal(**ALPACA, **{stranger: LOOPBACK[stranger]})


def test_the_second_switch_does_not_allow_a_mixture_of_live_and_paper() -> None:
    mixed = {"BROKER__TRADING_STREAM_URL": "wss://api.alpaca.markets/stream", "ALLOW_LIVE_TRADING": "true"}
    assert "must be of one kind" in refusal(**ALPACA, **mixed)
    proxied = {key: url.replace("127.0.0.1", "proxy.example.com") for key, url in LOOPBACK.items()}
    proxied |= {key: f"wss://{key[0].lower()}.example.com" for key in proxied if "STREAM" in key}
    proxied["BROKER__DATA_URL"] = "https://proxy.example.com"
    assert config(**ALPACA, **proxied, ALLOW_LIVE_TRADING="true")["broker.paper"] is True


def test_a_dashboard_beyond_loopback_needs_a_secret_key_of_its_own() -> None:
    line = refusal(WEB__HOST="0.0.0.0")
    assert line.startswith("ALGO_WEB__HOST='0.0.0.0'")
    assert "ALGO_SECRET_KEY" in line
    assert config(WEB__HOST="0.0.0.0", SECRET_KEY="k" * 50)["web.host"] == "0.0.0.0"
    assert config(WEB__HOST="0.0.0.0", DEBUG="true")["debug"] is True
    assert config(WEB__HOST="localhost")["web.host"] == "localhost"
    assert config(WEB__HOST="::1")["web.host"] == "::1"


def test_a_task_is_not_given_to_a_second_worker_before_the_first_has_been_stopped() -> None:
    assert "ALGO_WORKER__RETRY_SECONDS=600 must be above" in refusal(
        WORKER__TIMEOUT_SECONDS="600", WORKER__RETRY_SECONDS="600"
    )


# --- the documented example -------------------------------------------------------------------------------------------


def test_the_example_file_documents_every_setting_with_its_default_and_bounds(tmp_path: Path) -> None:
    example = (Path(__file__).parents[2] / ".env.example").read_text()
    for setting in SETTINGS:
        assert f"#{setting.variable}={setting.default}\n" in example, setting.variable
        *_, comment = example.partition(f"#{setting.variable}=")[0].split("\n\n")
        words = " ".join(comment.replace("\n# ", " ").split())
        assert setting.help in words
        assert ("Settings page." in words) == setting.ui, setting.variable
        if setting.bounds != "any text":
            assert setting.bounds in words, setting.variable
    copy = tmp_path / ".env"
    copy.write_text(example.replace("\n#ALGO_", "\nALGO_"))
    uncommented = load({}, copy)
    assert {uncommented.source(setting.key) for setting in SETTINGS} == {"envfile"}
    assert uncommented.values == config().values
