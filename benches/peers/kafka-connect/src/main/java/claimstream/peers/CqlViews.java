package claimstream.peers;

import com.datastax.oss.driver.api.core.CqlSession;
import com.datastax.oss.driver.api.core.config.DefaultDriverOption;
import com.datastax.oss.driver.api.core.config.DriverConfigLoader;
import com.datastax.oss.driver.api.core.cql.SimpleStatement;
import java.net.InetSocketAddress;
import java.time.Duration;

/** The CQL tables. The timeline has a row per record: its offset tells copies of an event apart. */
final class CqlViews {
    private CqlViews() {}

    static CqlSession connect(String hostAndPort) {
        int colon = hostAndPort.lastIndexOf(':');
        return CqlSession.builder()
                .addContactPoint(new InetSocketAddress(
                        hostAndPort.substring(0, colon), Integer.parseInt(hostAndPort.substring(colon + 1))))
                .withLocalDatacenter("datacenter1")
                .withConfigLoader(DriverConfigLoader.programmaticBuilder()
                        .withDuration(DefaultDriverOption.REQUEST_TIMEOUT, Duration.ofSeconds(30))
                        .build())
                .build();
    }

    static void create(CqlSession session, String keyspace) {
        session.execute("CREATE KEYSPACE IF NOT EXISTS " + keyspace
                + " WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}");
        String options = " WITH compaction = {'class': 'LeveledCompactionStrategy'}";
        session.execute("CREATE TABLE IF NOT EXISTS " + keyspace + ".claim_by_id ("
                + "tenant_id text, claim_id text, status text, customer_id text, claim_type text, title text, "
                + "urgency text, agent_id text, agent_name text, resolution text, resolution_type text, "
                + "created_at timestamp, updated_at timestamp, version bigint, "
                + "PRIMARY KEY ((tenant_id, claim_id)))" + options);
        session.execute("CREATE TABLE IF NOT EXISTS " + keyspace + ".claim_timeline ("
                + "tenant_id text, claim_id text, version bigint, topic_offset bigint, "
                + "event_id uuid, event_type text, occurred_at timestamp, actor text, "
                + "PRIMARY KEY ((tenant_id, claim_id), version, topic_offset))" + options);
        session.execute("CREATE TABLE IF NOT EXISTS " + keyspace + ".claims_by_status ("
                + "tenant_id text, status text, bucket int, claim_id text, version bigint, status_since timestamp, "
                + "PRIMARY KEY ((tenant_id, status, bucket), claim_id))" + options);
    }

    /** Rows of the timeline, read page by page: one count() of a large table would run into the server's timeout. */
    static long count(CqlSession session, String keyspace) {
        SimpleStatement select = SimpleStatement.newInstance("SELECT version FROM " + keyspace + ".claim_timeline");
        long rows = 0;
        for (var ignored : session.execute(select.setPageSize(5000))) {
            rows++;
        }
        return rows;
    }

    static void drop(CqlSession session, String keyspace) {
        session.execute("DROP KEYSPACE IF EXISTS " + keyspace);
    }
}
