# For the recipes that write to ClickHouse: sourced by their `run`.

# Sends the statement on standard input, to be run in the peer's database or the one given.
clickhouse() {
    curl --silent --show-error --fail-with-body --data-binary @- "$PEER_CLICKHOUSE/?database=${1-$PEER_NAME}"
}

create_events() {
    clickhouse default <<<"CREATE DATABASE IF NOT EXISTS $PEER_NAME"
    clickhouse <"$(dirname "${BASH_SOURCE[0]}")/events.sql"
}

count_events() {
    clickhouse <<<'SELECT count() FROM events'
}

drop_events() {
    clickhouse default <<<"DROP DATABASE IF EXISTS $PEER_NAME SYNC"
}
