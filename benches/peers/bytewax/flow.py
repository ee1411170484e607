"""Bytewax: Kafka into ClickHouse, one row per record.

Bytewax doesn't commit a consumer group's offsets: it keeps them in a recovery store of its own. The sink commits them
here all the same, after each INSERT, so that its progress can be seen like any other consumer's.
"""

from os import environ

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from confluent_kafka import Consumer, TopicPartition

from claim_rows import ClickHouse, Decoder

TOPIC = environ["PEER_TOPIC"]
decoder = Decoder()


def decode(message):
    # A tombstone has no row, but its offset counts.
    row = None
    if message.value is not None:
        row = decoder.row(message.value, message.partition, message.offset)
    return message.partition, message.offset, row


class Writer(StatelessSinkPartition):
    def __init__(self):
        self._clickhouse = ClickHouse()
        self._consumer = Consumer({"bootstrap.servers": environ["PEER_KAFKA"], "group.id": environ["PEER_GROUP"]})

    def write_batch(self, items):
        rows = [row for _, _, row in items if row is not None]
        if rows:
            self._clickhouse.insert(rows)
        ends = {partition: offset + 1 for partition, offset, _ in items}
        self._consumer.commit(offsets=[TopicPartition(TOPIC, p, o) for p, o in ends.items()], asynchronous=False)

    def close(self):
        self._consumer.close()


class Sink(DynamicSink):
    def build(self, step_id, worker_index, worker_count):
        return Writer()


flow = Dataflow("events")
source = KafkaSource(
    [environ["PEER_KAFKA"]],
    [TOPIC],
    batch_size=10_000,
    # A full queue is looked at again after 10 ms instead of one second.
    add_config={"fetch.queue.backoff.ms": "10"},
)
messages = op.input("kafka", flow, source)
op.output("clickhouse", op.map("decode", messages, decode), Sink())
