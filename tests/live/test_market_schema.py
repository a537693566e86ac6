"""The built-in market's answers fit the schemas that Alpaca publishes."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from openapi_schema_validator import OAS30Validator, OAS31Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests.built_in_market import KEYS, Conductor, script
from tests.requirements_for_tests import require
from trading.exchange import Exchange

FOLDER = Path(__file__).parents[3] / "shared" / "reference" / "openapi"
TRADING = "alpaca-java.trading.openapi.yaml"
DATA = "alpaca-java.data.openapi.yaml"
LEGS_OF_A_LEG = re.compile(r"legs/\d/legs$")
EXITS = {"take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "95"}}


@lru_cache
def _document(file: str) -> Mapping[str, Any]:
    path = FOLDER / file
    require(path.exists(), f"the published schemas are not on this machine: {file}")
    document: Mapping[str, Any] = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    return document


def problems(file: str, path: str, method: str, status: int, body: Any) -> list[str]:
    """What in an answer does not fit the schema of its path."""
    document = _document(file)
    schema = document["paths"][path][method]["responses"][str(status)]["content"]["application/json"]["schema"]
    found = [("/".join(map(str, error.absolute_path)), error.message) for error in _errors(document, schema, body)]
    # A leg's own legs are null by the schema's words, though not by its type.
    return [f"{place}: {message}" for place, message in found if not LEGS_OF_A_LEG.search(place)]


def _errors(document: Mapping[str, Any], schema: Any, body: Any) -> Iterator[Any]:
    registry: Any = Registry().with_resource("spec", DRAFT202012.create_resource(document))
    validator = OAS31Validator if str(document["openapi"]).startswith("3.1") else OAS30Validator
    return validator(_absolute(schema), registry=registry).iter_errors(body)  # type: ignore[no-any-return]


def _absolute(schema: Any) -> Any:
    """References inside the document are looked up in it, from wherever they stand."""
    if isinstance(schema, Mapping):
        return {key: f"spec{value}" if key == "$ref" else _absolute(value) for key, value in schema.items()}
    return [_absolute(item) for item in schema] if isinstance(schema, list) else schema


class Caller:
    def __init__(self, market: Conductor) -> None:
        self.market = market
        self.url = market.market.urls["trading_url"]

    async def check(
        self, file: str, method: str, path: str, schema_path: str = "", status: int = 200, **request: Any
    ) -> Any:
        """Calls, and compares the answer with the schema."""
        answer = await asyncio.to_thread(
            requests.request,
            method,
            f"{self.url}{path}",
            headers={"APCA-API-KEY-ID": KEYS[0], "APCA-API-SECRET-KEY": KEYS[1]},
            **request,
        )
        await self.market.settled()
        assert answer.status_code == status, answer.text
        body = answer.json()
        assert problems(file, schema_path or path.partition("?")[0], method, status, body) == []
        return body


def order(**fields: Any) -> dict[str, Any]:
    usual = {"symbol": "AAPL", "qty": "10", "side": "buy", "type": "market", "time_in_force": "day"}
    return {"json": {name: value for name, value in (usual | fields).items() if value is not None}}


async def test_the_trading_api() -> None:
    one, many = "/v2/orders/{order_id}", "/v2/orders"
    prices = "|".join(["100"] * 6)
    async with Conductor(script(prices), script(prices, "TSLA"), exchange=Exchange()) as conductor:
        caller = Caller(conductor)
        await conductor.minute()
        await caller.check(TRADING, "post", many, **order())
        resting = await caller.check(
            TRADING, "post", many, **order(type="limit", limit_price="90", time_in_force="gtc")
        )
        name = resting["client_order_id"]
        await caller.check(TRADING, "get", f"/v2/orders:by_client_order_id?client_order_id={name}")
        new = await caller.check(TRADING, "patch", f"{many}/{resting['id']}", one, json={"limit_price": "91"})
        await caller.check(TRADING, "get", f"{many}/{resting['id']}", one)
        assert new["replaces"] == resting["id"]
        await caller.check(TRADING, "delete", many, status=207)
        await caller.check(TRADING, "post", many, **order(symbol="TSLA", order_class="bracket", **EXITS))
        await caller.check(TRADING, "post", many, **order(qty=None, notional="150"))
        await conductor.minute()
        assert len(await caller.check(TRADING, "get", f"{many}?status=all&nested=true")) == 5
        await caller.check(TRADING, "get", "/v2/positions")
        await caller.check(TRADING, "get", "/v2/positions/AAPL", "/v2/positions/{symbol_or_asset_id}")
        await caller.check(TRADING, "get", "/v2/account")
        await caller.check(TRADING, "get", "/v2/account/configurations")
        await caller.check(TRADING, "patch", "/v2/account/configurations", json={"no_shorting": True})
        fills = await caller.check(
            TRADING, "get", "/v2/account/activities/FILL", "/v2/account/activities/{activity_type}"
        )
        assert len(fills) == 3
        await caller.check(TRADING, "get", "/v2/clock")
        await caller.check(TRADING, "get", "/v2/calendar")
        await caller.check(TRADING, "get", "/v2/assets")
        await caller.check(TRADING, "get", "/v2/assets/AAPL", "/v2/assets/{symbol_or_asset_id}")
        await caller.check(TRADING, "delete", "/v2/positions/AAPL?qty=3", "/v2/positions/{symbol_or_asset_id}")
        await caller.check(TRADING, "delete", "/v2/positions?cancel_orders=true", status=207)


async def test_the_data_api() -> None:
    async with Conductor(script("100|101|102"), script("50|51|52", "TSLA")) as conductor:
        caller = Caller(conductor)
        await conductor.minute(2)
        await caller.check(DATA, "get", "/v2/stocks/bars?symbols=AAPL,TSLA&timeframe=1Min&limit=2")
        for what in ("bars", "quotes", "trades"):
            answer = await caller.check(DATA, "get", f"/v2/stocks/{what}/latest?symbols=AAPL,TSLA")
            assert set(answer[what]) == {"AAPL", "TSLA"}
        await caller.check(DATA, "get", "/v2/stocks/snapshots?symbols=AAPL")


@pytest.mark.parametrize(("field", "wrong"), [("status", "resting"), ("side", "long"), ("id", 5)])
def test_the_comparison_sees_a_wrong_field(field: str, wrong: object) -> None:
    sound = {"notional": None, "type": "market", "time_in_force": "day", "status": "new", "side": "buy"}
    assert problems(TRADING, "/v2/orders", "post", 200, sound) == []
    assert problems(TRADING, "/v2/orders", "post", 200, sound | {field: wrong}) != []
