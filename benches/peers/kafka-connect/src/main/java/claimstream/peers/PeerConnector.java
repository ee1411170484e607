package claimstream.peers;

import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.sink.SinkConnector;

/** What both connectors share: every task gets the connector's settings as they are. */
abstract class PeerConnector extends SinkConnector {
    static final String URL = "peer.url";
    static final String DATABASE = "peer.database";

    private Map<String, String> settings;

    @Override
    public void start(Map<String, String> properties) {
        settings = properties;
    }

    @Override
    public List<Map<String, String>> taskConfigs(int maxTasks) {
        return Collections.nCopies(maxTasks, settings);
    }

    @Override
    public void stop() {}

    @Override
    public ConfigDef config() {
        return new ConfigDef()
                .define(URL, ConfigDef.Type.STRING, ConfigDef.Importance.HIGH, "Where the database is")
                .define(DATABASE, ConfigDef.Type.STRING, ConfigDef.Importance.HIGH, "Database or keyspace");
    }

    @Override
    public String version() {
        return "1";
    }
}
