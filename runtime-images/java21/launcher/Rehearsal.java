package davit;

import com.amazonaws.services.lambda.runtime.serialization.PojoSerializer;
import com.amazonaws.services.lambda.runtime.serialization.factories.GsonFactory;
import com.amazonaws.services.lambda.runtime.serialization.factories.JacksonFactory;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** Does once what every function will do: classes that have been loaded and code that has run are quicker. */
final class Rehearsal {
    /** Loaded but not initialised: they read the environment when they are, and it is not the function's yet. */
    private static final String[] CLIENT = {
        "AWSLambda", "EventHandlerLoader", "LambdaEnvironment", "LambdaRequestHandler", "HandlerInfo", "CustomerClassLoader", "UserFault",
        "PojoSerializerLoader", "LambdaSerializerFactoryLoader", "api.LambdaContext", "logging.LambdaContextLogger",
        "logging.StdOutLogSink", "logging.TextLogFormatter", "runtimeapi.LambdaRuntimeApiClientImpl", "runtimeapi.NativeClient",
        "runtimeapi.JniHelper", "runtimeapi.dto.InvocationRequest",
    };

    static void run() {
        ClassLoader loader = Rehearsal.class.getClassLoader();
        for (String name : CLIENT) {
            try {
                Class.forName("com.amazonaws.services.lambda.runtime.api.client." + name, false, loader);
            } catch (ClassNotFoundException | LinkageError other) {
                // Another release of the client: it loads what it needs by itself.
            }
        }
        try {
            Description.parse("{\"function_name\":\"\",\"version\":1,\"memory_mb\":1}").environment();
            serialise(GsonFactory.getInstance().getSerializer(Map.class));
            serialise(JacksonFactory.getInstance().getSerializer(Map.class));
        } catch (RuntimeException | LinkageError other) {
            // What goes wrong here would go wrong with a real event, and is told then.
        }
    }

    @SuppressWarnings({"rawtypes", "unchecked"})
    private static void serialise(PojoSerializer serializer) {
        byte[] event = "{\"a\":[1,\"b\",{\"c\":null}]}".getBytes(StandardCharsets.UTF_8);
        Object value = serializer.fromJson(new ByteArrayInputStream(event));
        serializer.toJson(value, new ByteArrayOutputStream());
    }
}
