# Kafka Connect, standalone, with one of the two sinks: sourced by the `run` of ../kafka-connect-*.

connect_built="$PEER_CACHE/kafka-connect"
connect_source=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")

connect_build() {
    mvn --batch-mode --quiet -f "$connect_source" -Dmaven.repo.local="$PEER_CACHE/maven" package
}

connect_tool() {
    java -cp "$connect_built/*:$connect_built/lib/*" claimstream.peers.Tool "$1"
}

# connect_start CONNECTOR URL [SETTING=VALUE…]: becomes the worker, with further settings of the connector.
connect_start() {
    # Apicurio's converter speaks the registry's own API, which stands beside the Confluent one.
    cat >"$PEER_DIR/worker.properties" <<PROPERTIES
bootstrap.servers=$PEER_KAFKA
listeners=http://127.0.0.1:0
plugin.discovery=only_scan
offset.storage.file.filename=$PEER_DIR/source-offsets
offset.flush.interval.ms=200
connector.client.config.override.policy=All
key.converter=org.apache.kafka.connect.converters.ByteArrayConverter
value.converter=io.apicurio.registry.utils.converter.AvroConverter
value.converter.apicurio.registry.url=${PEER_REGISTRY%/ccompat/*}/registry/v2
value.converter.apicurio.registry.as-confluent=true
value.converter.apicurio.registry.use-id=contentId
value.converter.apicurio.registry.headers.enabled=false
PROPERTIES
    printf '%s\n' >"$PEER_DIR/sink.properties" \
        "name=$PEER_NAME" \
        "connector.class=claimstream.peers.$1" \
        "peer.url=$2" \
        "peer.database=$PEER_NAME" \
        tasks.max=2 \
        "topics=$PEER_TOPIC" \
        "consumer.override.group.id=$PEER_GROUP" \
        consumer.override.auto.offset.reset=earliest \
        "${@:3}"
    # The heap is that of Kafka's own connect-standalone script.
    exec java -Xms256m -Xmx2g -cp "$connect_built/*:$connect_built/lib/*" \
        org.apache.kafka.connect.cli.ConnectStandalone "$PEER_DIR/worker.properties" "$PEER_DIR/sink.properties"
}
