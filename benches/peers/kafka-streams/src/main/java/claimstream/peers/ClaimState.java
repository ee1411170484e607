package claimstream.peers;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** What is true of one claim: of each part, what the event with the highest version says. Empty text: never set. */
final class ClaimState {
    /** Records folded, copies included. */
    long events;
    /** The highest version seen, and when it happened (milliseconds). */
    long version;
    long updatedAt;
    String status = "UNKNOWN";
    long statusVersion;
    String agentId = "";
    String agentName = "";
    long agentVersion;
    String customerId = "";

    void apply(GenericRecord event) {
        long eventVersion = (Long) event.get("version");
        String type = event.get("event_type").toString();
        GenericRecord data = (GenericRecord) event.get("data");
        events++;
        if (eventVersion > version) {
            version = eventVersion;
            updatedAt = (Long) event.get("occurred_at");
        }
        String next = statusAfter(type);
        if (next != null && eventVersion > statusVersion) {
            status = next;
            statusVersion = eventVersion;
        }
        if ((type.equals("ClaimAssigned") || type.equals("ClaimReassigned")) && eventVersion > agentVersion) {
            agentId = data.get("agent_id").toString();
            agentName = data.get("agent_name").toString();
            agentVersion = eventVersion;
        }
        if (type.equals("ClaimCreated")) {
            customerId = data.get("customer_id").toString();
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

    static Serde<ClaimState> serde() {
        return Serdes.serdeFrom((topic, state) -> state == null ? null : state.write(),
                (topic, bytes) -> bytes == null ? null : read(bytes));
    }

    private byte[] write() {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream(128);
        try (DataOutputStream out = new DataOutputStream(bytes)) {
            out.writeLong(events);
            out.writeLong(version);
            out.writeLong(updatedAt);
            out.writeUTF(status);
            out.writeLong(statusVersion);
            out.writeUTF(agentId);
            out.writeUTF(agentName);
            out.writeLong(agentVersion);
            out.writeUTF(customerId);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return bytes.toByteArray();
    }

    private static ClaimState read(byte[] bytes) {
        ClaimState state = new ClaimState();
        try (DataInputStream in = new DataInputStream(new ByteArrayInputStream(bytes))) {
            state.events = in.readLong();
            state.version = in.readLong();
            state.updatedAt = in.readLong();
            state.status = in.readUTF();
            state.statusVersion = in.readLong();
            state.agentId = in.readUTF();
            state.agentName = in.readUTF();
            state.agentVersion = in.readLong();
            state.customerId = in.readUTF();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return state;
    }
}
