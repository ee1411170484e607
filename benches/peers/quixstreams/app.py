"""Quix Streams: Kafka into ClickHouse, one row per record."""

from os import environ

from quixstreams import Application
from quixstreams.sinks import BaseSink

from claim_rows import ClickHouse, Decoder


class Sink(BaseSink):
    """One INSERT per checkpoint for all partitions: the ready-made BatchingSink would make one for each."""

    def setup(self):
        self._decoder = Decoder()
        self._clickhouse = ClickHouse()
        self._rows = []

    def add(self, value, key, timestamp, headers, topic, partition, offset):
        if value is not None:
            self._rows.append(self._decoder.row(value, partition, offset))

    def flush(self):
        if self._rows:
            self._clickhouse.insert(self._rows)
            self._rows = []


app = Application(
    broker_address=environ["PEER_KAFKA"],
    consumer_group=environ["PEER_GROUP"],
    auto_offset_reset="earliest",
    # A checkpoint is an INSERT and then a commit. The shorter wait lets one happen on time when no record comes.
    commit_interval=0.25,
    consumer_poll_timeout=0.1,
    # A full queue is looked at again after 10 ms instead of one second.
    consumer_extra_config={"fetch.queue.backoff.ms": 10},
    auto_create_topics=False,
    state_dir=environ["PEER_DIR"] + "/state",
    loglevel="WARNING",
)
app.dataframe(app.topic(environ["PEER_TOPIC"], key_deserializer="bytes", value_deserializer="bytes")).sink(Sink())
app.run()
