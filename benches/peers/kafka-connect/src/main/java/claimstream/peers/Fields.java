package claimstream.peers;

import java.util.function.BiConsumer;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Struct;

/** The fields of an event as one flat list: the envelope's, and those of the branch of {@code data} that is there. */
final class Fields {
    private Fields() {}

    /** Passes on every field that is not null. Money becomes {@code <field>_amount} and {@code <field>_currency}. */
    static void each(Struct event, BiConsumer<String, Object> consumer) {
        each(event, "", consumer);
        Struct data = branch(event);
        if (data != null) {
            each(data, "", consumer);
        }
    }

    private static void each(Struct struct, String prefix, BiConsumer<String, Object> consumer) {
        for (Field field : struct.schema().fields()) {
            Object value = struct.get(field);
            if (value instanceof Struct nested) {
                if (!field.name().equals("data")) {
                    each(nested, field.name() + "_", consumer);
                }
            } else if (value != null) {
                consumer.accept(prefix + field.name(), value);
            }
        }
    }

    /** The converter makes a union a struct with one field per branch, all null but one. */
    static Struct branch(Struct event) {
        Struct union = event.getStruct("data");
        for (Field field : union.schema().fields()) {
            if (union.get(field) instanceof Struct branch) {
                return branch;
            }
        }
        return null;
    }
}
