package claimstream.peers;

import com.datastax.oss.driver.api.core.CqlSession;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.errors.GroupIdNotFoundException;

/** What the recipes need beside the worker: {@code count-cql}, {@code drop-cql}, {@code delete-group}. */
public final class Tool {
    private Tool() {}

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "count-cql" -> {
                try (CqlSession session = CqlViews.connect(System.getenv("PEER_CQL"))) {
                    System.out.println(CqlViews.count(session, System.getenv("PEER_NAME")));
                }
            }
            case "drop-cql" -> {
                try (CqlSession session = CqlViews.connect(System.getenv("PEER_CQL"))) {
                    CqlViews.drop(session, System.getenv("PEER_NAME"));
                }
            }
            case "delete-group" -> deleteGroup(System.getenv("PEER_KAFKA"), System.getenv("PEER_GROUP"));
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    private static void deleteGroup(String bootstrap, String group) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.deleteConsumerGroups(List.of(group)).all().get();
        } catch (ExecutionException e) {
            if (!(e.getCause() instanceof GroupIdNotFoundException)) {
                throw e;
            }
        }
    }
}
