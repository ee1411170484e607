package claimstream.peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collection;
import java.util.Date;
import java.util.Map;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.errors.RetriableException;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.sink.SinkTask;

/** Rows into ClickHouse: one INSERT for all records of a put(), which the consumer's fetch sizes make large. */
public final class ClickHouseConnector extends PeerConnector {
    @Override
    public Class<? extends Task> taskClass() {
        return Writer.class;
    }

    /** The task. */
    public static final class Writer extends SinkTask {
        private static final String INSERT = "INSERT INTO events FORMAT JSONEachRow";

        private final JsonFactory json = new JsonFactory();
        private final HttpClient http = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        private HttpRequest.Builder request;

        @Override
        public void start(Map<String, String> settings) {
            String url = settings.get(URL) + "/?database=" + settings.get(DATABASE)
                    + "&query=" + URLEncoder.encode(INSERT, StandardCharsets.UTF_8);
            request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(60));
        }

        @Override
        public void put(Collection<SinkRecord> records) {
            if (records.isEmpty()) {
                return;
            }
            try {
                insert(rows(records));
            } catch (IOException e) {
                // The worker keeps these records and puts them again.
                throw new RetriableException(e);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new ConnectException(e);
            }
        }

        private byte[] rows(Collection<SinkRecord> records) throws IOException {
            ByteArrayOutputStream bytes = new ByteArrayOutputStream(records.size() * 512);
            try (JsonGenerator row = json.createGenerator(bytes)) {
                for (SinkRecord record : records) {
                    if (record.value() == null) {
                        continue;
                    }
                    row.writeStartObject();
                    Fields.each((Struct) record.value(), (name, value) -> write(row, name, value));
                    row.writeNumberField("topic_partition", record.kafkaPartition());
                    row.writeNumberField("topic_offset", record.kafkaOffset());
                    row.writeEndObject();
                }
            }
            return bytes.toByteArray();
        }

        private static void write(JsonGenerator row, String name, Object value) {
            try {
                row.writeFieldName(name);
                if (value instanceof Date date) {
                    row.writeNumber(date.getTime());
                } else if (value instanceof Long number) {
                    row.writeNumber(number);
                } else if (value instanceof BigDecimal number) {
                    row.writeNumber(number.toPlainString());
                } else if (value instanceof Boolean flag) {
                    row.writeBoolean(flag);
                } else {
                    row.writeString(value.toString());
                }
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }

        private void insert(byte[] rows) throws IOException, InterruptedException {
            HttpRequest post = request.POST(HttpRequest.BodyPublishers.ofByteArray(rows)).build();
            HttpResponse<String> response = http.send(post, HttpResponse.BodyHandlers.ofString());
            if (response.statusCode() != 200) {
                throw new IOException(response.statusCode() + " " + response.body());
            }
        }

        @Override
        public void stop() {}

        @Override
        public String version() {
            return "1";
        }
    }
}
