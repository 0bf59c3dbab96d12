package davit;

import com.amazonaws.lambda.thirdparty.org.json.JSONObject;
import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;

/** The function that this process is to become, as the agent describes it. */
record Description(JSONObject json) {
    /** Asks the agent, and waits as long as it takes. Ends the process when there will be none. */
    static Description fetch(String address) {
        int colon = address.lastIndexOf(':');
        try (Socket socket = new Socket(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)))) {
            String request = "GET /davit/init HTTP/1.1\r\nHost: " + address + "\r\nConnection: close\r\n\r\n";
            socket.getOutputStream().write(request.getBytes(StandardCharsets.ISO_8859_1));
            InputStream in = new BufferedInputStream(socket.getInputStream());
            if (!line(in).contains(" 200 ")) {
                System.exit(1);
            }
            int length = 0;
            for (String header = line(in); !header.isEmpty(); header = line(in)) {
                String[] parts = header.split(":", 2);
                if (parts[0].equalsIgnoreCase("content-length")) {
                    length = Integer.parseInt(parts[1].trim());
                }
            }
            return parse(new String(in.readNBytes(length), StandardCharsets.UTF_8));
        } catch (IOException gone) {
            System.exit(0);
            throw new IllegalStateException(gone);
        }
    }

    static Description parse(String text) {
        return new Description(new JSONObject(text));
    }

    String handler() {
        return json.optString("handler");
    }

    /** The user's variables, and over them what AWS documents. */
    Map<String, String> environment() {
        Map<String, String> all = new HashMap<>();
        String[] arn = json.optString("arn").split(":");
        String region = arn.length > 3 && !arn[3].isEmpty() ? arn[3] : "us-east-1";
        for (String name : new String[] {"AWS_REGION", "AWS_DEFAULT_REGION"}) {
            all.put(name, region);
        }
        all.put("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR");
        all.put("TZ", ":UTC");
        JSONObject own = json.optJSONObject("env");
        if (own != null) {
            for (String name : own.keySet()) {
                all.put(name, own.getString(name));
            }
        }
        all.put("_HANDLER", handler());
        all.put("AWS_LAMBDA_FUNCTION_NAME", json.getString("function_name"));
        all.put("AWS_LAMBDA_FUNCTION_VERSION", String.valueOf(json.get("version")));
        all.put("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", String.valueOf(json.get("memory_mb")));
        all.put("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand");
        all.put("AWS_LAMBDA_LOG_GROUP_NAME", json.optString("log_group"));
        all.put("AWS_LAMBDA_LOG_STREAM_NAME", json.optString("log_stream"));
        all.put("LAMBDA_TASK_ROOT", "/var/task");
        all.put("LAMBDA_RUNTIME_DIR", "/var/runtime");
        if (json.optInt("concurrency", 1) > 1) {
            all.put("AWS_LAMBDA_MAX_CONCURRENCY", String.valueOf(json.getInt("concurrency")));
        }
        return all;
    }

    private static String line(InputStream in) throws IOException {
        StringBuilder text = new StringBuilder();
        for (int c = in.read(); c != '\n'; c = in.read()) {
            if (c < 0) {
                throw new IOException("closed");
            }
            if (c != '\r') {
                text.append((char) c);
            }
        }
        return text.toString();
    }
}
