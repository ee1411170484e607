package claimstream.peers;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;

/** Decodes Confluent-framed Avro with the writer's schema, which is fetched once per id. Not for several threads. */
final class EventDecoder {
    private static final int FRAME_BYTES = 5;

    private final String registry;
    private final HttpClient http = HttpClient.newHttpClient();
    private final Map<Integer, GenericDatumReader<GenericRecord>> readers = new HashMap<>();
    private BinaryDecoder decoder;

    EventDecoder(String registry) {
        this.registry = registry;
    }

    GenericRecord decode(byte[] framed) throws IOException {
        if (framed.length < FRAME_BYTES || framed[0] != 0) {
            throw new IOException("not Confluent-framed");
        }
        int id = ByteBuffer.wrap(framed).getInt(1);
        GenericDatumReader<GenericRecord> reader = readers.get(id);
        if (reader == null) {
            reader = new GenericDatumReader<>(fetch(id));
            readers.put(id, reader);
        }
        decoder = DecoderFactory.get().binaryDecoder(framed, FRAME_BYTES, framed.length - FRAME_BYTES, decoder);
        return reader.read(null, decoder);
    }

    private Schema fetch(int id) throws IOException {
        HttpRequest request = HttpRequest.newBuilder(URI.create(registry + "/schemas/ids/" + id)).build();
        try {
            HttpResponse<String> response = http.send(request, HttpResponse.BodyHandlers.ofString());
            if (response.statusCode() != 200) {
                throw new IOException("schema " + id + ": " + response.statusCode() + " " + response.body());
            }
            return new Schema.Parser().parse(new ObjectMapper().readTree(response.body()).get("schema").asText());
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IOException(e);
        }
    }
}
