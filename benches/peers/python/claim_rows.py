"""What the Python peers share: records into rows, rows into ClickHouse, and the end of a consumer group."""

import http.client
import io
import json
import sys
import urllib.parse
import urllib.request
from os import environ

import fastavro
import orjson
from confluent_kafka.admin import AdminClient


class Decoder:
    """Confluent-framed Avro into rows of the table `events`. A schema is fetched once per id."""

    def __init__(self):
        self._schemas = {}

    def row(self, value: bytes, partition: int, offset: int) -> bytes:
        """The envelope, the fields of `data` beside it, and an amount of money as two columns: one line of JSON."""
        if value[0] != 0:
            raise ValueError("not Confluent-framed")
        schema_id = int.from_bytes(value[1:5], "big")
        schema = self._schemas.get(schema_id)
        if schema is None:
            schema = self._schemas[schema_id] = _fetch(schema_id)
        event = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema)
        data = event.pop("data")
        for name in ("claimed", "settled"):
            money = data.pop(name, None)
            if money is not None:
                data[name + "_amount"] = money["amount"]
                data[name + "_currency"] = money["currency"]
        # str is for decimals; orjson knows times and UUIDs.
        return orjson.dumps({**event, **data, "topic_partition": partition, "topic_offset": offset}, default=str)


def _fetch(schema_id: int):
    with urllib.request.urlopen(f"{environ['PEER_REGISTRY']}/schemas/ids/{schema_id}") as answer:
        return fastavro.parse_schema(json.loads(json.load(answer)["schema"]))


class ClickHouse:
    """One INSERT per call, on one connection that is kept."""

    def __init__(self):
        url = urllib.parse.urlsplit(environ["PEER_CLICKHOUSE"])
        parameters = {
            "database": environ["PEER_NAME"],
            "query": "INSERT INTO events FORMAT JSONEachRow",
            "date_time_input_format": "best_effort",
        }
        self._path = "/?" + urllib.parse.urlencode(parameters)
        self._connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)

    def insert(self, rows: list[bytes]) -> None:
        self._connection.request("POST", self._path, b"\n".join(rows))
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"ClickHouse: {answer.status} {text.decode()}")


def delete_group() -> None:
    admin = AdminClient({"bootstrap.servers": environ["PEER_KAFKA"]})
    for group, future in admin.delete_consumer_groups([environ["PEER_GROUP"]]).items():
        try:
            future.result()
        except Exception as error:
            print(f"group {group}: {error}", file=sys.stderr)


if __name__ == "__main__":
    delete_group()
