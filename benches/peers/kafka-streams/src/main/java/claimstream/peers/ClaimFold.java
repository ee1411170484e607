package claimstream.peers;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/** A fold of claim events into a table of claims: {@code start}, {@code count} its claims, {@code clean} up. */
public final class ClaimFold {
    private static final String TABLE = "claims";
    private static final String GROUP = env("PEER_GROUP");
    private static final String CHANGELOG = GROUP + "-" + TABLE + "-changelog";
    private static final Duration CLOSE = Duration.ofSeconds(8);

    private ClaimFold() {}

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "start" -> start();
            case "count" -> System.out.println(count());
            case "clean" -> clean();
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    private static String env(String name) {
        String value = System.getenv(name);
        if (value == null) {
            throw new IllegalStateException(name + " is not set");
        }
        return value;
    }

    private static void start() throws InterruptedException {
        Properties config = new Properties();
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, GROUP);
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, env("PEER_KAFKA"));
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, env("PEER_MODE"));
        config.put(StreamsConfig.STATE_DIR_CONFIG, env("PEER_DIR") + "/state");
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 200);
        config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64 << 20);
        config.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5000);
        config.put(StreamsConfig.consumerPrefix(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG), 100);
        config.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        config.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");

        // The processor with a store is what aggregate() makes, without its repartition topic: a record's key is unique
        // per event, but its partition is chosen by the claim, so a claim's events are together already.
        StreamsBuilder builder = new StreamsBuilder();
        builder.addStateStore(Stores.keyValueStoreBuilder(
                        Stores.persistentKeyValueStore(TABLE), Serdes.String(), ClaimState.serde())
                .withCachingEnabled()
                .withLoggingEnabled(Map.of()));
        String registry = env("PEER_REGISTRY");
        builder.stream(env("PEER_TOPIC"), Consumed.with(Serdes.Bytes(), Serdes.ByteArray()))
                .process(() -> new Fold(registry), TABLE);

        KafkaStreams streams = new KafkaStreams(builder.build(), config);
        CountDownLatch failed = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(error -> {
            failed.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(CLOSE)));
        streams.start();
        failed.await();
        System.exit(1);
    }

    private static final class Fold extends ContextualProcessor<Bytes, byte[], Void, Void> {
        private final EventDecoder decoder;
        private KeyValueStore<String, ClaimState> claims;

        Fold(String registry) {
            decoder = new EventDecoder(registry);
        }

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            super.init(context);
            claims = context.getStateStore(TABLE);
        }

        @Override
        public void process(Record<Bytes, byte[]> record) {
            if (record.value() == null) {
                return;
            }
            GenericRecord event;
            try {
                event = decoder.decode(record.value());
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
            String key = event.get("tenant_id") + ":" + event.get("claim_id");
            ClaimState claim = claims.get(key);
            if (claim == null) {
                claim = new ClaimState();
            }
            claim.apply(event);
            claims.put(key, claim);
        }
    }

    /** The table's claims: the distinct keys of its changelog, which is written before offsets are committed. */
    private static int count() {
        Map<String, Object> config = Map.of(
                ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, env("PEER_KAFKA"),
                ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed",
                ConsumerConfig.ALLOW_AUTO_CREATE_TOPICS_CONFIG, false);
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config, bytes, bytes)) {
            List<TopicPartition> partitions = consumer.partitionsFor(CHANGELOG).stream()
                    .map(info -> new TopicPartition(CHANGELOG, info.partition()))
                    .toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            Set<Bytes> keys = new HashSet<>();
            while (partitions.stream().anyMatch(partition -> consumer.position(partition) < ends.get(partition))) {
                consumer.poll(Duration.ofMillis(100)).forEach(record -> keys.add(Bytes.wrap(record.key())));
            }
            return keys.size();
        }
    }

    private static void clean() throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", env("PEER_KAFKA")))) {
            if (admin.listTopics().names().get().contains(CHANGELOG)) {
                admin.deleteTopics(List.of(CHANGELOG)).all().get();
            }
            try {
                // Streams doesn't leave its group when it ends, so that a restart is cheap.
                admin.removeMembersFromConsumerGroup(GROUP, new RemoveMembersFromConsumerGroupOptions()).all().get();
                admin.deleteConsumerGroups(Collections.singleton(GROUP)).all().get();
            } catch (ExecutionException e) {
                if (!isWithoutGroup(e)) {
                    throw e;
                }
            }
        }
    }

    /** Asking for the members wraps the reason once more than deleting does. */
    private static boolean isWithoutGroup(Throwable error) {
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            if (cause instanceof GroupIdNotFoundException) {
                return true;
            }
        }
        return false;
    }
}
