package claimstream.peers;

import com.datastax.oss.driver.api.core.CqlSession;
import com.datastax.oss.driver.api.core.cql.BoundStatementBuilder;
import com.datastax.oss.driver.api.core.cql.PreparedStatement;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.Collection;
import java.util.Date;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.errors.RetriableException;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.sink.SinkTask;

/**
 * One row per event and view, by prepared inserts. Nothing is read and nothing folded: every insert is stamped with
 * the event's version and leaves unset what its event says nothing of, so that of each column the newest version stays.
 */
public final class CqlConnector extends PeerConnector {
    @Override
    public void start(Map<String, String> settings) {
        super.start(settings);
        // Here and not in the tasks: two of them making one table at once is an error in Cassandra.
        try (CqlSession session = CqlViews.connect(settings.get(URL))) {
            CqlViews.create(session, settings.get(DATABASE));
        }
    }

    @Override
    public Class<? extends Task> taskClass() {
        return Writer.class;
    }

    /** The task. */
    public static final class Writer extends SinkTask {
        private static final int IN_FLIGHT = 256;

        private final Semaphore free = new Semaphore(IN_FLIGHT);
        private final AtomicReference<Throwable> failure = new AtomicReference<>();
        private CqlSession session;
        private PreparedStatement byId;
        private PreparedStatement timeline;
        private PreparedStatement byStatus;

        @Override
        public void start(Map<String, String> settings) {
            String keyspace = settings.get(DATABASE);
            session = CqlViews.connect(settings.get(URL));
            byId = session.prepare("INSERT INTO " + keyspace + ".claim_by_id (tenant_id, claim_id, status, "
                    + "customer_id, claim_type, title, urgency, agent_id, agent_name, resolution, resolution_type, "
                    + "created_at, updated_at, version) VALUES (:tenant_id, :claim_id, :status, :customer_id, "
                    + ":claim_type, :title, :urgency, :agent_id, :agent_name, :resolution, :resolution_type, "
                    + ":created_at, :updated_at, :version) USING TIMESTAMP :stamp");
            timeline = session.prepare("INSERT INTO " + keyspace + ".claim_timeline (tenant_id, claim_id, version, "
                    + "topic_offset, event_id, event_type, occurred_at, actor) VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
            byStatus = session.prepare("INSERT INTO " + keyspace + ".claims_by_status (tenant_id, status, bucket, "
                    + "claim_id, version, status_since) VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?");
        }

        /** Sends the rows, and waits for room but not for the answers: flush() does. */
        @Override
        public void put(Collection<SinkRecord> records) {
            for (SinkRecord record : records) {
                if (record.value() instanceof Struct event) {
                    write(event, record.kafkaOffset());
                }
            }
        }

        private void write(Struct event, long offset) {
            String tenant = event.getString("tenant_id");
            String claim = event.getString("claim_id");
            String type = event.getString("event_type");
            long version = event.getInt64("version");
            Instant at = ((Date) event.get("occurred_at")).toInstant();
            String status = statusAfter(type);

            BoundStatementBuilder row = byId.boundStatementBuilder()
                    .setString("tenant_id", tenant)
                    .setString("claim_id", claim)
                    .setInstant("updated_at", at)
                    .setLong("version", version)
                    .setLong("stamp", version);
            if (status != null) {
                row.setString("status", status);
            }
            if (type.equals("ClaimCreated")) {
                row.setInstant("created_at", at);
            }
            Struct data = Fields.branch(event);
            for (String column : columnsOf(type)) {
                row.setString(column, data.getString(column));
            }
            send(row);

            send(timeline.boundStatementBuilder(tenant, claim, version, offset,
                    UUID.fromString(event.getString("event_id")), type, at, event.getString("user_id")));

            if (status != null) {
                ZonedDateTime day = at.atZone(ZoneOffset.UTC);
                int bucket = day.getYear() * 10_000 + day.getMonthValue() * 100 + day.getDayOfMonth();
                send(byStatus.boundStatementBuilder(tenant, status, bucket, claim, version, at, version));
            }
        }

        private void send(BoundStatementBuilder statement) {
            free.acquireUninterruptibly();
            session.executeAsync(statement.build()).whenComplete((rows, error) -> {
                if (error != null) {
                    failure.set(error);
                }
                free.release();
            });
        }

        /** Called before offsets are committed. When it fails, the worker goes back to the last committed ones. */
        @Override
        public void flush(Map<TopicPartition, OffsetAndMetadata> offsets) {
            free.acquireUninterruptibly(IN_FLIGHT);
            free.release(IN_FLIGHT);
            Throwable error = failure.getAndSet(null);
            if (error != null) {
                throw new RetriableException(error);
            }
        }

        private static String statusAfter(String type) {
            return switch (type) {
                case "ClaimCreated" -> "CREATED";
                case "ClaimAssigned" -> "ASSIGNED";
                case "ClaimProcessingStarted", "ClaimReopened" -> "PROCESSING";
                case "ClaimResolved" -> "RESOLVED";
                case "ClaimClosed" -> "CLOSED";
                case "ClaimErased" -> "ERASED";
                default -> null;
            };
        }

        /** The fields of {@code data} that have a column in claim_by_id. */
        private static String[] columnsOf(String type) {
            return switch (type) {
                case "ClaimCreated" -> new String[] {"customer_id", "claim_type", "title", "urgency"};
                case "ClaimAssigned", "ClaimReassigned" -> new String[] {"agent_id", "agent_name"};
                case "ClaimResolved" -> new String[] {"resolution", "resolution_type"};
                default -> new String[0];
            };
        }

        @Override
        public void stop() {
            if (session != null) {
                session.close();
            }
        }

        @Override
        public String version() {
            return "1";
        }
    }
}
